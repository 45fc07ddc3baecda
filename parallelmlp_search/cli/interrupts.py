"""Ctrl-C and SIGTERM in commands. Imports nothing heavy, since it is active before everything else."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

INTERRUPTED = 130
"""Exit code after an interrupt."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def interrupt(_number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt; during an import, end the program with a message instead.

    Compiled modules replace an interrupt of their import by other errors, and nothing is being written then.
    """
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            os.write(2, b"interrupted\n")
            os._exit(INTERRUPTED)
        frame = frame.f_back
    raise KeyboardInterrupt


def handle_interrupts() -> None:
    """Handle Ctrl-C and SIGTERM alike, so that a run that a batch system stops can be resumed too."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, interrupt)


def ignore_interrupts() -> None:
    """Ignore Ctrl-C and SIGTERM while the program ends."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
