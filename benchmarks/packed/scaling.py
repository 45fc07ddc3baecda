"""Time and memory from 100 to 100,000 members; shards are created, trained and read one after the other."""

from __future__ import annotations

import multiprocessing
import resource
import time
from multiprocessing.connection import Connection
from typing import Any

import torch

from benchmarks.packed.cases import HEADLINE, paper
from benchmarks.packed.ours import cut, shard_data
from parallelmlp_search.engine import BatchStream, Population, TrainingSettings, train
from parallelmlp_search.kernels.numba.dispatch import uses_compiled
from parallelmlp_search.kernels.numba.library import loops
from parallelmlp_search.packing import DataShape
from parallelmlp_search.packing.pack import read_member

__all__ = ["SIZES", "scale"]

SIZES = (100, 1_000, 10_000, 100_000)
STEPS = 20


def _megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _train(connection: Connection, members: int) -> None:
    """Train ``members`` of the paper's kinds on one thread and keep all weights."""
    torch.set_num_threads(1)
    case = HEADLINE
    kinds = [c.replace(batch_size=case.batch, learning_rate=1e-3) for c in paper(1)]
    # 617 and 1,000 are coprime, so any part of the list holds all widths and activations
    configs = [kinds[m * 617 % len(kinds)].replace(seed=m) for m in range(members)]
    data = shard_data(case)
    stream = BatchStream(case.rows, case.batch, 0)
    if uses_compiled(torch.float32, "cpu"):
        loops()
    before = _megabytes()
    creating = training = 0.0
    weights = []
    for shard in cut(case, configs):
        started = time.perf_counter()
        population = Population.create([configs[m] for m in shard], DataShape(case.inputs, case.outputs))
        created = time.perf_counter()
        train(
            population,
            data.rows,
            TrainingSettings(
                stream=stream, loss=data.loss, until_epoch=STEPS * case.batch / case.rows, total_epochs=1e6
            ),
        )
        training += time.perf_counter() - created
        creating += created - started
        weights.append(
            torch.cat([read_member(population.parameters, population.layout, m) for m in range(len(shard))])
        )
    kept = sum(part.numel() for part in weights) * 4 / 2**20
    connection.send(
        {
            "members": members,
            "steps": STEPS,
            "training_seconds": training,
            "creating_seconds": creating,
            "microseconds_a_member_step": 1e6 * training / (members * STEPS),
            "peak_megabytes": _megabytes() - before,
            "weights_megabytes": kept,
        }
    )


def scale() -> list[dict[str, Any]]:
    """Measure each number of members in a new process; memory excludes the libraries."""
    context = multiprocessing.get_context("spawn")
    rows = []
    for members in SIZES:
        here, there = context.Pipe()
        process = context.Process(target=_train, args=(there, members), daemon=True)
        process.start()
        rows.append(here.recv())
        process.join()
        print(rows[-1], flush=True)
    return rows
