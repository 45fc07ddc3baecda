"""Worker processes for long searches.

Threads take turns in the interpreter. Where operations last some microseconds only, two of them do little
more than one: 1.2 times as much on a table of 40,000 rows with few members a shard, where two processes
do 1.9 times as much. But a process takes a second or two and some hundred megabytes to start, and must be
told the rows. So they are for searches of half a minute and more, and read the rows from files.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import joblib
from joblib.parallel import get_active_backend

from parallelmlp_search.distribute.shard_data import ShardData

__all__ = ["may_start_processes", "worker_processes"]

IDLE_SECONDS = 30
"""Workers that have had nothing to do for so long end themselves."""

WATCH_SECONDS = 1.0
"""How often a worker looks whether its parent is still there."""


def may_start_processes() -> bool:
    """Whether nobody has chosen a backend yet, and this process may have children."""
    backend, configured = get_active_backend()
    alone = configured is None and not backend.nesting_level
    return alone and not multiprocessing.current_process().daemon


def _end_with(parent: int, folder: str) -> None:
    """Runs in a new worker: once its parent is gone, killed or not, the worker and the files go too."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_SECONDS)
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def worker_processes(n_workers: int) -> Iterator[Callable[[ShardData], ShardData]]:
    """Let shards run in processes of their own.

    Yields
    ------
    callable
        Puts the rows of shards where the processes find them; without it, rows travel with each task.
    """
    with tempfile.TemporaryDirectory(prefix="pmlp-", ignore_cleanup_errors=True) as folder:
        config = joblib.parallel_config(
            "loky",
            n_jobs=n_workers,
            idle_worker_timeout=IDLE_SECONDS,
            initializer=_end_with,
            initargs=(os.getpid(), folder),
        )
        with config:
            yield lambda data: data.store(Path(folder))
