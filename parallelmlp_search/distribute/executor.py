"""Shards over workers: threads of this process, or the backend of ``joblib.parallel_config``.

Workers only decide how many shards run at once. Shards are built before, so results do not depend on the
number of workers.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import BrokenExecutor
from dataclasses import replace

import joblib
import torch
from joblib.parallel import get_active_backend

from parallelmlp_search._memory import is_out_of_memory, resident_bytes
from parallelmlp_search.distribute.backends import active_cluster
from parallelmlp_search.distribute.memory import return_free_memory
from parallelmlp_search.distribute.shards import ShardOutcome, ShardTask, StopSignal, train_shard
from parallelmlp_search.exceptions import DistributedError, InvalidParameterError, PMLPWarning

POLL_SECONDS = 1.0
"""Seconds between two checks of a thread that waits for memory."""

STOP_SECONDS = 10.0
"""Seconds that an interrupted run waits for its threads to leave their shards."""

MAX_WORKERS = 10_000

MAX_LOSSES = 3
"""Losses of worker processes, without a finished shard in between, after which a run ends."""


def worker_count(n_jobs: int | None) -> int:
    """Number of workers: ``n_jobs`` as joblib reads it; None for the active configuration or all cores.

    On a cluster, None and negative numbers stand for all workers.

    Raises
    ------
    InvalidParameterError
        If ``n_jobs`` is 0 or too large.
    """
    if (n_jobs is None or n_jobs < 0) and (cluster := active_cluster()) is not None:
        return cluster.n_workers
    if n_jobs is None:
        backend, configured = get_active_backend()
        if backend.nesting_level:
            return 1
        return int(joblib.effective_n_jobs(configured)) if configured is not None else int(joblib.cpu_count())
    if n_jobs == 0:
        raise InvalidParameterError("n_jobs must not be 0: give a number of workers, or -1 for all cores")
    if abs(n_jobs) > MAX_WORKERS:
        raise InvalidParameterError(f"n_jobs must be at most {MAX_WORKERS}, but got {n_jobs}")
    return int(joblib.effective_n_jobs(n_jobs))


def run_shards(tasks: Iterable[ShardTask], *, n_workers: int) -> Iterator[ShardOutcome]:
    """Train shards and yield their outcomes as they finish.

    Tasks are taken as workers become free, so that an iterable can end at a deadline. If the iteration ends
    early, for example by an interrupt, the shards of all threads end within a step. With a memory limit, a
    thread waits while its shard would exceed it, unless no other trains. Shards of a worker process that is
    killed are trained again.

    Raises
    ------
    DistributedError
        If workers are killed again and again.
    """
    if (cluster := active_cluster()) is not None:
        yield from cluster.run(tasks, n_workers=n_workers)
        return
    unfinished = _Unfinished(tasks)
    losses = 0
    while True:
        try:
            with contextlib.closing(_run_shards(unfinished, n_workers)) as outcomes:
                for outcome in outcomes:
                    unfinished.remove(outcome.key)
                    losses = 0
                    yield outcome
            return
        except BrokenExecutor:
            losses += 1
            if losses > MAX_LOSSES:
                raise DistributedError(
                    f"worker processes were killed {losses} times in a row, perhaps for lack of memory: "
                    "use fewer of them, or free memory, and resume"
                ) from None
            warnings.warn(
                "a worker process was killed; its shards are trained again", PMLPWarning, stacklevel=2
            )


class _Unfinished:
    """Iterator over tasks that remembers those that were taken and have no outcome yet.

    A second iteration starts with these.
    """

    def __init__(self, tasks: Iterable[ShardTask]) -> None:
        self._new = iter(tasks)
        self._taken: dict[str, ShardTask] = {}

    def __iter__(self) -> Iterator[ShardTask]:
        yield from list(self._taken.values())
        for task in self._new:
            self._taken[task.key] = task
            yield task

    def remove(self, key: str) -> None:
        """Forget a task that has an outcome."""
        self._taken.pop(key, None)


def _run_shards(tasks: Iterable[ShardTask], n_workers: int) -> Generator[ShardOutcome, None, None]:
    options = {"prefer": "threads", "return_as": "generator_unordered", "batch_size": 1}
    parallel = joblib.Parallel(n_jobs=n_workers, pre_dispatch=n_workers, **options)
    n_threads = torch.get_num_threads()
    stop = StopSignal()
    running = _Running(stop)
    try:
        outcomes = parallel(joblib.delayed(running)(replace(task, stop=stop)) for task in tasks)
    except AttributeError as error:
        # where no thread can be started, Python's pool fails while it ends the others
        if (cause := error.__context__) is not None and is_out_of_memory(cause):
            raise cause from None
        raise
    try:
        for outcome in outcomes:  # noqa: UP028 - not `yield from`, which would end joblib's generator first
            yield outcome
    except BaseException:
        # a thread that is still inside torch when the interpreter ends would crash it
        stop.set()
        running.wait(STOP_SECONDS)
        with warnings.catch_warnings():
            # joblib warns of unused work, which an interrupt implies
            warnings.simplefilter("ignore")
            outcomes.close()
        raise
    finally:
        # threads that start later inherit the number that a worker set last
        torch.set_num_threads(n_threads)


class _Running:
    """Trains shards in threads of this process, as many at once as the memory allows, and counts them."""

    def __init__(self, stop: StopSignal) -> None:
        self._condition = threading.Condition()
        self._count = 0
        self._stop = stop
        self._reserved = self._free = 0

    def __call__(self, task: ShardTask) -> ShardOutcome:
        memory = task.data.memory
        needed = 0 if memory is None else task.predicted_bytes
        with self._condition:
            while memory is not None and not self._fits(needed, memory.process) and not self._stop.is_set():
                self._condition.wait(POLL_SECONDS)
            self._count += 1
            self._reserved += needed
        try:
            return train_shard(task)
        finally:
            if memory is not None:
                return_free_memory()
            with self._condition:
                self._count -= 1
                self._reserved -= needed
                self._condition.notify_all()

    def _fits(self, needed: int, limit: int) -> bool:
        """Return True if a shard fits beside those in training; one that trains alone always does."""
        if self._count == 0:
            self._free = limit - (resident_bytes() or 0)
            return True
        return self._reserved + needed <= self._free

    def wait(self, seconds: float) -> None:
        """Wait until no thread trains, or until ``seconds`` have passed."""
        with self._condition:
            self._condition.wait_for(lambda: self._count == 0, timeout=seconds)

    def __reduce__(self) -> tuple[type[_InWorkerProcess], tuple[()]]:
        return _InWorkerProcess, ()


class _InWorkerProcess:
    """Trains shards in a worker process, which returns free memory to the system after each."""

    def __call__(self, task: ShardTask) -> ShardOutcome:
        try:
            return train_shard(task)
        finally:
            return_free_memory()
