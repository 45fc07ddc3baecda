"""Ctrl-C that waits until what is being written on a study is written."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

__all__ = ["Interrupts"]


class Interrupts:
    """Holds interrupts back, but for where they are allowed.

    An interrupt in the middle of a storage's work leaves it half done: a trial that runs although nobody
    knows its number, a lock that is never released. So the first one waits for the next moment at which it is
    allowed; a second one does not. SIGTERM is treated alike where somebody has made an interrupt of it. Does
    nothing outside the main thread, which no interrupt reaches.
    """

    def __init__(self) -> None:
        self._before: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self._waiting: int | None = None
        self._open = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                handler = signal.getsignal(number)
                if callable(handler):
                    self._before[number] = handler
                    signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if error is None:
            self.check()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._open or self._waiting is not None:
            self._waiting = None
            self._before[number](number, frame)
        else:
            self._waiting = number

    def check(self) -> None:
        """Let an interrupt that has been waiting through."""
        if self._waiting is not None:
            number, self._waiting = self._waiting, None
            self._before[number](number, None)

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Where nothing is written, and which may take long."""
        self._open = True
        try:
            self.check()
            yield
        finally:
            self._open = False
