"""Worker processes for long searches.

Threads share the interpreter lock. On a table of 40,000 rows with few members per shard, two threads are 1.2
times as fast as one, two processes 1.9 times. A process takes one or two seconds and some hundred megabytes
to start. So processes are used for searches of half a minute and more. They read the rows from files.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import joblib
from joblib.parallel import get_active_backend

from parallelmlp_search._worker import end_with
from parallelmlp_search.distribute.shard_data import ShardData

IDLE_SECONDS = 30
"""Seconds after which an idle worker ends."""


def may_start_processes() -> bool:
    """Return True if no joblib backend is configured and this process can have children."""
    backend, configured = get_active_backend()
    alone = configured is None and not backend.nesting_level
    return alone and not multiprocessing.current_process().daemon


@contextlib.contextmanager
def worker_processes(n_workers: int) -> Iterator[Callable[[ShardData], ShardData]]:
    """Run shards in processes; yield a function that stores their rows in files that the processes read."""
    with tempfile.TemporaryDirectory(prefix="pmlp-", ignore_cleanup_errors=True) as folder:
        config = joblib.parallel_config(
            "loky",
            n_jobs=n_workers,
            idle_worker_timeout=IDLE_SECONDS,
            initializer=end_with,
            initargs=(os.getpid(), folder),
        )
        with config:
            yield lambda data: data.store(Path(folder))
