"""Threads or processes: where the shards of a search run. Results do not depend on it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from parallelmlp_search.distribute import ShardData, may_start_processes, worker_processes

__all__ = ["Workers"]

WORTH_PROCESSES_SECONDS = 20.0
"""Training that takes less is not worth the start of processes."""


BUSY_LOAD, BUSY_FACTOR = 1.5, 10.0
"""On a machine with more than so many programs at work for each core, processes start slowly: with seven
programs on two cores they had trained four steps in the time in which threads trained six hundred. So there
must be this many times as much work."""


def _is_busy() -> bool:
    """Whether others already keep all cores at work; False where the system does not tell."""
    try:
        return os.getloadavg()[0] > BUSY_LOAD * (os.cpu_count() or 1)
    except (AttributeError, OSError):
        return False


class Workers:
    """Starts as threads, and becomes processes once enough work is expected.

    Parameters
    ----------
    stack
        What ends with the search.
    n_workers
        Workers, of which a single one needs no process.
    on_gpu, memory_limit
        A GPU or a memory limit speaks for threads.
    """

    def __init__(
        self,
        stack: contextlib.ExitStack,
        n_workers: int,
        *,
        on_gpu: bool = False,
        memory_limit: int | None = None,
    ) -> None:
        self._stack = stack
        self._n_workers = n_workers
        self._allowed = n_workers > 1 and not on_gpu and memory_limit is None
        self._share: Callable[[ShardData], ShardData] | None = None

    def expect(self, seconds: float) -> None:
        """Start processes if so many seconds of work are worth it and nobody has chosen a backend."""
        least = WORTH_PROCESSES_SECONDS * (BUSY_FACTOR if _is_busy() else 1.0)
        worth = self._allowed and seconds >= least
        if worth and self._share is None and may_start_processes():
            self._share = self._stack.enter_context(worker_processes(self._n_workers))

    def share(self, data: ShardData) -> ShardData:
        """Data of shards, put where processes find it, if there are any."""
        return data if self._share is None or data.stored is not None else self._share(data)
