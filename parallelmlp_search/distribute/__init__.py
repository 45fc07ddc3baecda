"""Shards over workers: tasks, data, training, threads and processes, clusters, memory."""

from parallelmlp_search.distribute.backends import active_cluster, connected
from parallelmlp_search.distribute.executor import run_shards, worker_count
from parallelmlp_search.distribute.memory import keep_no_free_memory, return_free_memory
from parallelmlp_search.distribute.processes import may_start_processes, worker_processes
from parallelmlp_search.distribute.shard_cuts import cut_work
from parallelmlp_search.distribute.shard_data import ShardData, TrainingMemory
from parallelmlp_search.distribute.shard_memory import working_bytes
from parallelmlp_search.distribute.shards import (
    FULL_STATE,
    MemberOutcome,
    ShardOutcome,
    ShardTask,
    one_thread,
    shard_tasks,
)
from parallelmlp_search.distribute.snapshots import Snapshots, network_residuals, predict_network

__all__ = [
    "FULL_STATE",
    "MemberOutcome",
    "ShardData",
    "ShardOutcome",
    "ShardTask",
    "Snapshots",
    "TrainingMemory",
    "active_cluster",
    "connected",
    "cut_work",
    "keep_no_free_memory",
    "may_start_processes",
    "network_residuals",
    "one_thread",
    "predict_network",
    "return_free_memory",
    "run_shards",
    "shard_tasks",
    "worker_count",
    "worker_processes",
    "working_bytes",
]
