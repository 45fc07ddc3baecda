"""Interrupts that wait until the current write is finished."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self


class Interrupts:
    """Context that defers Ctrl-C to the points where it is allowed.

    An interrupt in the middle of a write leaves it half done: a running trial whose number is unknown, a lock
    that is never released. So the first interrupt waits for the next allowed point; a second one does not
    wait. SIGTERM is deferred too if it has a Python handler. Outside of the main thread, which alone receives
    signals, the context does nothing.
    """

    def __init__(self) -> None:
        self._handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self._pending: int | None = None
        self._is_allowed = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                handler = signal.getsignal(number)
                if callable(handler):
                    self._handlers[number] = handler
                    signal.signal(number, self._receive)
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if kind is None:
            self.check()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._is_allowed or self._pending is not None:
            self._pending = None
            self._handlers[number](number, frame)
        else:
            self._pending = number

    def check(self) -> None:
        """Handle a pending interrupt."""
        if self._pending is not None:
            number, self._pending = self._pending, None
            self._handlers[number](number, None)

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Allow interrupts inside the context, which must not write."""
        self._is_allowed = True
        try:
            self.check()
            yield
        finally:
            self._is_allowed = False
