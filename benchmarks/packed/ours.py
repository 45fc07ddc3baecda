"""Our contender: a population cut into shards as a search cuts it, trained by workers of one thread."""

from __future__ import annotations

import multiprocessing
import os
import resource
import time
from multiprocessing.connection import Connection
from typing import Any

import torch

from benchmarks.packed.cases import Case
from parallelmlp_search.distribute import ShardData, cut_work
from parallelmlp_search.engine import BatchStream, Head, Population, TrainingRows, TrainingSettings, train
from parallelmlp_search.engine.host_training import window_steps
from parallelmlp_search.packing import DataShape
from parallelmlp_search.selection import get_metric
from parallelmlp_search.space import MLPConfig

__all__ = ["Packed", "Shards", "cut", "steps_a_call"]


def shard_data(case: Case) -> ShardData:
    """Return the data of a case as a search passes it to its shards."""
    inputs, target = case.data()
    binary = case.outputs == 1
    head = Head("binary" if binary else "multiclass", max(2, case.outputs))
    return ShardData(
        rows=TrainingRows(inputs, target),
        validation_inputs=inputs[:64],
        validation_target=target[:64],
        validation_weight=None,
        prediction_inputs=None,
        head=head,
        loss=head.default_loss,
        metric=get_metric("log_loss", head.task),
        seed=0,
    )


def cut(case: Case, configs: list[MLPConfig]) -> list[tuple[int, ...]]:
    """Return the members of each shard, as a search cuts them."""
    return cut_work(configs, shard_data(case))


def steps_a_call(case: Case, configs: list[MLPConfig]) -> float:
    """Return the mean number of steps of a member before its weights leave the caches (a window)."""
    shards = [[case.architecture(configs[member]) for member in shard] for shard in cut(case, configs)]
    # harmonic mean, because the traffic per step is what adds up
    calls = sum(len(shard) / window_steps(shard, min(case.batch, case.rows)) for shard in shards)
    return len(configs) / calls


class Shards:
    """Shards of one worker, kept between samples.

    Parameters
    ----------
    case
        Table and batches.
    configs
        Whole population.
    shards
        Members of each shard of this worker.
    """

    def __init__(self, case: Case, configs: list[MLPConfig], shards: list[tuple[int, ...]]) -> None:
        data = shard_data(case)
        self._rows, self._loss = data.rows, data.loss
        self._stream = BatchStream(case.rows, case.batch, 0)
        self._populations = [
            Population.create([configs[member] for member in shard], DataShape(case.inputs, case.outputs))
            for shard in shards
        ]

    def step(self, count: int) -> None:
        """Train every shard for some steps, one shard after the other."""
        for population in self._populations:
            until = (population.step + count) * self._stream.batch_size / self._stream.n_rows
            train(
                population,
                self._rows,
                TrainingSettings(stream=self._stream, loss=self._loss, until_epoch=until, total_epochs=1e6),
            )


def _work(
    connection: Connection,
    name: str,
    configs: list[MLPConfig],
    shards: list[tuple[int, ...]],
    compiled: bool,
) -> None:
    from benchmarks.packed.cases import find

    os.environ["PMLP_COMPILED"] = "1" if compiled else "0"
    torch.set_num_threads(1)
    own = Shards(find(name), configs, shards)
    connection.send("ready")
    while (count := connection.recv()) is not None:
        own.step(count)
        connection.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


class Packed:
    """Population in worker processes.

    Parameters
    ----------
    case
        Population and table.
    workers
        Processes. Shards are assigned by their FLOP before the clock starts.
    compiled
        Use the compiled loops if numba is installed.
    """

    def __init__(self, case: Case, workers: int, *, compiled: bool = True) -> None:
        configs = case.configs()
        self.name = f"packed_{workers}" if compiled else f"plain_{workers}"
        self._members = len(configs)
        shards = cut(case, configs)
        assigned: list[list[tuple[int, ...]]] = [[] for _ in range(workers)]
        loads = [0.0] * workers
        costs = {
            shard: case.product_flops([configs[m] for m in shard]) * len(shard) + 2e5 * len(shard)
            for shard in shards
        }
        for shard in sorted(shards, key=lambda shard: -costs[shard]):
            lightest = loads.index(min(loads))
            assigned[lightest].append(shard)
            loads[lightest] += costs[shard]
        context = multiprocessing.get_context("spawn")
        self._connections: list[Any] = []
        self._processes = []
        for own_shards in assigned:
            here, there = context.Pipe()
            process = context.Process(
                target=_work, args=(there, case.name, configs, own_shards, compiled), daemon=True
            )
            process.start()
            self._connections.append(here)
            self._processes.append(process)
        for connection in self._connections:
            connection.recv()
        self.megabytes = 0.0
        self._steps = 2
        self.sample()  # warm-up
        for _ in range(2):  # the start of a call makes few steps look slow
            self._steps = max(8, min(400, int(1.0 / (self.sample() * self._members))))

    def sample(self) -> float:
        """Return the seconds per member-step with all workers at once."""
        started = time.perf_counter()
        for connection in self._connections:
            connection.send(self._steps)
        peaks = [connection.recv() for connection in self._connections]
        seconds = time.perf_counter() - started
        self.megabytes = sum(peaks)
        return seconds / (self._members * self._steps)

    def close(self) -> None:
        """End the workers."""
        for connection, process in zip(self._connections, self._processes, strict=True):
            connection.send(None)
            process.join()
