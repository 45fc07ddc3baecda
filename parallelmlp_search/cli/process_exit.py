"""Fast exit of the program, without the teardown of the interpreter."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
from typing import NoReturn

from parallelmlp_search.cli.interrupts import ignore_interrupts


class ProcessExit:
    """Ends the program with an exit code as soon as its exit functions have run.

    The teardown of an interpreter with all packages loaded takes a second, which would count towards a time
    limit. Exit functions that are registered later than this object run before the end, so it must be created
    before the heavy imports. After a traceback, the program ends as usual.
    """

    def __init__(self) -> None:
        self._code: int | None = None
        atexit.register(self._end)

    def leave(self, code: int) -> NoReturn:
        """End the program; after a failure, do so at once if threads still run.

        A thread cannot be stopped inside a matrix product, and the teardown would crash the interpreter.
        """
        ignore_interrupts()
        self._code = code
        if code and threading.active_count() > 1:
            self._end()
        sys.exit(code)

    def _end(self) -> None:
        if self._code is not None:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
            os._exit(self._code)
