"""Faults inside a process: signals, errors of the system, short writes, lost files, jumps of the clock.

A fault happens at an operation: an open for writing, a rename, a removal, a new folder or a flush inside the
folder of a run. Audit hooks of Python see these operations, and an error that a hook raises is an error of
the operation. Nothing of this is inside the package.
"""

from __future__ import annotations

import errno
import faulthandler
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT")
ERRORS = ("ENOSPC", "EIO", "EROFS", "EACCES", "EDQUOT")
MEGABYTE = 1 << 20


class Fault:
    """One fault, and the number of operations so far.

    Parameters
    ----------
    specification
        ``folder`` of the run; ``kind``, see :attr:`actions`; ``at``, number of the operation; ``lasting`` for
        an error of all later operations too; ``name`` of a signal or error; ``size`` of a limit or a jump;
        ``report``, a file for the number of operations and the word "fired".
    """

    def __init__(self, specification: dict[str, Any]) -> None:
        self.specification = specification
        self.folder = str(specification["folder"])
        self.kind: str = specification["kind"]
        self.count = 0
        self.is_active = True
        self.offset = 0.0
        self.is_torn = False
        self.report = os.open(specification["report"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.actions: dict[str, Callable[[str], None]] = {
            "none": lambda _: None,
            "signal": self._signal,
            "two signals": self._two_signals,
            "error": self._error,
            "short write": self._tear_next,
            "torn file": self._tear_next,
            "file limit": self._limit_files,
            "memory limit": self._limit_memory,
            "delete folder": self._delete_folder,
            "delete file": self._delete_file,
            "clock": self._jump,
        }

    def operation(self, path: object) -> None:
        """Count an operation on a path, and let the fault happen if it is due."""
        if not self.is_active or not str(path).startswith(self.folder):
            return
        number, self.count = self.count, self.count + 1
        os.write(self.report, b".")
        due = self.specification.get("at", 0)
        if number == due or (number > due and self.specification.get("lasting")):
            os.write(self.report, b"fired ")
            self.is_active = False  # operations of the fault are not counted
            try:
                self.actions[self.kind](str(path))
            finally:
                self.is_active = True

    def _signal(self, _: str) -> None:
        os.kill(os.getpid(), getattr(signal, self.specification["name"]))

    def _two_signals(self, path: str) -> None:
        self._signal(path)
        self._signal(path)

    def _error(self, path: str) -> None:
        code = getattr(errno, self.specification["name"])
        raise OSError(code, os.strerror(code), path)

    def _tear_next(self, _: str) -> None:
        self.is_torn = True

    def torn(self, write: Callable[..., Any], place: int) -> Callable[..., Any]:
        """Return a function that writes a file, or half of it if that is due."""

        def half(*arguments: Any, **options: Any) -> Any:
            result = write(*arguments, **options)
            path = str(arguments[place])
            if self.is_torn and path.startswith(self.folder):
                self.is_torn = False
                os.truncate(path, os.path.getsize(path) // 2)
                if self.kind == "torn file":
                    os.kill(os.getpid(), signal.SIGKILL)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
            return result

        return half

    def _limit_files(self, _: str) -> None:
        # the system cuts the write that crosses the limit and fails the next one
        # output of the command stays below 4 kB, files of a run have up to 30 kB
        size = 4096 + int(self.specification["size"] * 30_000)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def _limit_memory(self, _: str) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        size = pages * resource.getpagesize() + int(self.specification["size"] * 64 * MEGABYTE)
        resource.setrlimit(resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))

    def _delete_folder(self, _: str) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _delete_file(self, _: str) -> None:
        files = [path for path in sorted(Path(self.folder).rglob("*")) if path.is_file()]
        if files:
            files[int(self.specification["size"] * len(files))].unlink()

    def _jump(self, _: str) -> None:
        self.offset = (self.specification["size"] - 0.5) * 1e6


def install(specification: dict[str, Any]) -> None:
    """Install a fault in this process, which also prints its stacks on SIGUSR1."""
    faulthandler.register(signal.SIGUSR1)
    fault = Fault(specification)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], (str, bytes, os.PathLike)):
            if arguments[2] & WRITING:
                fault.operation(os.fsdecode(arguments[0]))
        elif event in ("os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"):
            fault.operation(arguments[0])
        elif event == "os.rename":
            fault.operation(arguments[1])

    sys.addaudithook(hook)
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        fault.operation(os.readlink(f"/proc/self/fd/{descriptor}"))
        sync(descriptor)

    os.fsync = fsync  # type: ignore[assignment]
    for name in ("time", "monotonic"):
        # a monotonic clock can stand still during a suspension, but does not go back
        now = getattr(time, name)
        jump = (lambda: fault.offset) if name == "time" else (lambda: max(0.0, fault.offset))
        setattr(time, name, lambda now=now, jump=jump: now() + jump())
    if fault.kind in ("short write", "torn file"):
        import pandas as pd
        import safetensors.numpy
        import safetensors.torch

        for name in ("to_parquet", "to_feather", "to_csv"):
            setattr(pd.DataFrame, name, fault.torn(getattr(pd.DataFrame, name), 1))
        for module in (safetensors.torch, safetensors.numpy):
            module.save_file = fault.torn(module.save_file, 1)  # type: ignore[attr-defined]
        Path.write_text = fault.torn(Path.write_text, 0)  # type: ignore[method-assign]
