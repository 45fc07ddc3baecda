"""Start of a worker process.

The module imports nothing heavy: a worker watches its parent before it imports torch, which takes seconds.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time

WATCH_SECONDS = 0.5
"""Seconds between two checks of a worker that its parent is alive."""


def end_with(parent: int, folder: str) -> None:
    """Initialize a worker: once its parent has ended, killed or not, it ends and removes the files.

    Ctrl-C reaches the workers too, but only their parent handles it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_SECONDS)
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
