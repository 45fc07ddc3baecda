"""Shards over workers."""

from parallelmlp_search.distribute.executor import run_shards, worker_count
from parallelmlp_search.distribute.memory import return_free_memory
from parallelmlp_search.distribute.processes import may_start_processes, worker_processes
from parallelmlp_search.distribute.shard_data import ShardData
from parallelmlp_search.distribute.shards import (
    MemberOutcome,
    ShardOutcome,
    ShardTask,
    cut_work,
    one_thread,
)
from parallelmlp_search.distribute.snapshots import Snapshots

__all__ = [
    "MemberOutcome",
    "ShardData",
    "ShardOutcome",
    "ShardTask",
    "Snapshots",
    "cut_work",
    "may_start_processes",
    "one_thread",
    "return_free_memory",
    "run_shards",
    "worker_count",
    "worker_processes",
]
