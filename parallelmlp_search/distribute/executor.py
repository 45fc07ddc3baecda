"""Shards over workers, through joblib: threads of this process, or whatever ``joblib.parallel_config`` says.

Workers only decide how many shards run at once. Which members share a shard and in which order they train is
settled before, so results do not depend on the number of workers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import joblib
import torch
from joblib.parallel import get_active_backend

from parallelmlp_search.distribute.shards import ShardOutcome, ShardTask, train_shard
from parallelmlp_search.exceptions import InvalidParameterError

__all__ = ["run_shards", "worker_count"]


def worker_count(n_jobs: int | None) -> int:
    """Number of workers: ``n_jobs`` as joblib reads it; None means all cores, or the active configuration's.

    Raises
    ------
    InvalidParameterError
        If ``n_jobs`` is 0.
    """
    if n_jobs is None:
        backend, configured = get_active_backend()
        if backend.nesting_level:
            return 1
        return int(joblib.effective_n_jobs(configured)) if configured is not None else int(joblib.cpu_count())
    if n_jobs == 0:
        raise InvalidParameterError("n_jobs must not be 0: give a number of workers, or -1 for all cores")
    return int(joblib.effective_n_jobs(n_jobs))


def run_shards(tasks: Iterable[ShardTask], *, n_workers: int) -> Iterator[ShardOutcome]:
    """Outcomes of shards as they finish.

    Tasks are drawn one by one as workers become free, so that an iterable may stop early when time is up.
    """
    parallel = joblib.Parallel(
        n_jobs=n_workers,
        prefer="threads",
        return_as="generator_unordered",
        pre_dispatch=n_workers,
        batch_size=1,
    )
    n_threads = torch.get_num_threads()
    try:
        yield from parallel(joblib.delayed(train_shard)(task) for task in tasks)
    finally:
        # torch keeps one number for threads that start later: the last worker has left its own there
        torch.set_num_threads(n_threads)
