"""Workers of a search: threads or processes. Results do not depend on the choice."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import replace

import torch

from parallelmlp_search.distribute import ShardData, may_start_processes, worker_processes
from parallelmlp_search.kernels.numba.dispatch import uses_compiled

MIN_PROCESS_SECONDS = 20.0
"""Training time that is worth starting processes."""

PROCESS_BYTES = 600_000_000
"""Memory of a process: 500 MB for the program with all libraries, and a shard."""

BUSY_LOAD, BUSY_FACTOR = 1.5, 10.0
"""With a higher load per core, the training time must be this many times longer. With seven busy programs on
two cores, new processes had trained 4 steps when threads had trained 600."""

FEW_WORKERS, COMPILED_FACTOR = 2, 10.0
"""The same for so few workers with the compiled loops, which do not hold the interpreter's lock. Two threads
wait for each other during 1 to 2 % of their time on credit_g and letter; two processes take 2 s to start."""


def _is_busy() -> bool:
    """Return True if other programs keep all cores busy, False if the load is unknown."""
    try:
        return os.getloadavg()[0] > BUSY_LOAD * (os.cpu_count() or 1)
    except (AttributeError, OSError):
        return False


class Workers:
    """Threads that are replaced by processes once enough work is expected.

    Parameters
    ----------
    stack
        Ends the processes.
    n_workers
        Number of workers.
    on_gpu, memory_limit
        Threads are used on a GPU, and where a limit in bytes leaves too little memory for processes.
    path
        Training path of workers, also on other machines; None for the rule of the environment.
    """

    def __init__(
        self,
        stack: contextlib.ExitStack,
        n_workers: int,
        *,
        on_gpu: bool = False,
        memory_limit: int | None = None,
        path: str | None = None,
    ) -> None:
        self._stack = stack
        self._n_workers = n_workers
        self._allowed = n_workers > 1 and not on_gpu
        self._memory_limit = memory_limit
        self._path = path
        self._share: Callable[[ShardData], ShardData] | None = None

    def expect(self, seconds: float, n_bytes: int = 0) -> None:
        """Start processes if so much training is worth them and no joblib backend is configured.

        ``n_bytes`` is the memory that the search needs with threads.
        """
        factor = BUSY_FACTOR if _is_busy() else 1.0
        if self._n_workers <= FEW_WORKERS and uses_compiled(torch.float32, "cpu"):
            factor = max(factor, COMPILED_FACTOR)
        worth = self._allowed and seconds >= factor * MIN_PROCESS_SECONDS and self._has_room(n_bytes)
        if worth and self._share is None and may_start_processes():
            self._share = self._stack.enter_context(worker_processes(self._n_workers))

    def _has_room(self, n_bytes: int) -> bool:
        """Return True if a memory limit allows processes beside so much memory."""
        limit = self._memory_limit
        return limit is None or n_bytes + self._n_workers * PROCESS_BYTES <= limit

    def share(self, data: ShardData) -> ShardData:
        """Data with the training path, which processes, if there are any, read from a file."""
        data = data if data.path == self._path else replace(data, path=self._path)
        return data if self._share is None or data.stored is not None else self._share(data)
