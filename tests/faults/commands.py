"""Commands of ``pmlp`` in processes of their own, with faults, as fast as forking allows.

A process that is forked has imported everything already, so that a tiny search takes a fraction of a second
instead of two seconds. A part of the commands is started from the shell's point of view instead.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from typer.testing import CliRunner

from parallelmlp_search.cli import main
from parallelmlp_search.cli.app import app
from parallelmlp_search.cli.interrupts import INTERRUPTED, SIGNALS, handle_interrupts
from parallelmlp_search.search.run import journal, workers
from tests.faults.injection import injector
from tests.faults.small import SEARCH, small_table

ROOT = Path(__file__).parents[2]
TIMEOUT = 120.0
"""Seconds after which a command counts as hanging. A tiny search takes less than a second."""


HIDDEN = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)
"""Warnings that Python does not show either."""

_started: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True)
class Done:
    """End of a command.

    Attributes
    ----------
    code
        Exit code, or minus the signal that killed it.
    seconds, peak
        Duration, and largest resident memory in bytes (for forked commands with that of the parent).
    report
        Dots for the operations on files of the run, and ``fired`` if the fault happened.
    """

    code: int
    output: str
    message: str
    seconds: float
    peak: int
    report: str

    @property
    def fired(self) -> bool:
        return "fired" in self.report

    @property
    def n_operations(self) -> int:
        return self.report.count(".")

    def problem(self) -> str | None:
        """Sentence on what is wrong with this end, or None: a result, one sentence, or a signal."""
        if self.seconds >= TIMEOUT:
            return "hang"
        if "Traceback" in self.message or "Error:" in self.message:
            return "traceback"
        if "Warning: " in self.message:
            return "warning for programmers"
        if self.code in (0, -signal.SIGKILL):
            return None
        if self.code not in (1, 2, 130):
            return f"exit code {self.code}"
        lines = [line for line in self.message.splitlines() if line.startswith(("error: ", "interrupted"))]
        return None if len(lines) == 1 else f"{len(lines)} sentences"


def prepare() -> None:
    """Run a search in this process, so that everything is imported before the first fork."""
    with tempfile.TemporaryDirectory() as folder:
        table, run = Path(folder, "table.csv"), Path(folder, "run")
        small_table().to_csv(table, index=False)
        for arguments in (["search", table, *SEARCH, "--output", run], ["evaluate", run, table]):
            result = CliRunner().invoke(app, [str(argument) for argument in arguments])
            assert result.exit_code == 0, result.output


def run(
    arguments: Sequence[object],
    fault: Mapping[str, Any],
    *,
    text: str | None = None,
    kill_after: tuple[float, str] | None = None,
    rival_after: float | None = None,
    kills_worker_after: float | None = None,
    is_forked: bool = True,
) -> Done:
    """Run a command to its end.

    Parameters
    ----------
    arguments, text
        Arguments of ``pmlp``, and its standard input.
    fault
        Fault inside the process, see :class:`injector.Fault`.
    kill_after
        Seconds until a signal from outside, and its name; or None.
    rival_after
        Seconds until the same command is started beside; or None. Its end must not be wrong either.
    kills_worker_after
        Seconds from the start of the first worker process until one is killed; or None. The report of the
        fault tells if there was one.
    is_forked
        False to start a new interpreter.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "input").write_text(text or "")
        (folder / "output").touch()
        (folder / "message").touch()
        specification = {**fault, "report": str(folder / "report")}
        start = _fork if is_forked else _start
        began = time.monotonic()
        process = start([str(argument) for argument in arguments], specification, folder)
        rival = None
        if rival_after is not None:
            time.sleep(rival_after)
            rival = run(arguments, {"kind": "none", "folder": "/nowhere", "at": 0}, text=text)
        killer = None
        if kills_worker_after is not None:
            arguments_of_killer = (process, kills_worker_after, folder / "report")
            killer = threading.Thread(target=_kill_worker, args=arguments_of_killer)
            killer.start()
        code, peak = _wait(process, began, kill_after)
        seconds = time.monotonic() - began
        if killer is not None:
            killer.join()
        report = folder / "report"
        message = (folder / "message").read_text(errors="replace")
        if rival is not None and (problem := rival.problem()):
            message += f"Traceback of a second command: {problem}: {rival.message}"
        return Done(
            code,
            (folder / "output").read_text(errors="replace"),
            message,
            seconds,
            peak,
            report.read_text() if report.exists() else "",
        )


def _wait(process: int, began: float, kill_after: tuple[float, str] | None) -> tuple[int, int]:
    """Wait for a process with an eye on the clock; exit code and peak memory in bytes."""
    while True:
        ended, status, usage = os.wait4(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status), 1024 * usage.ru_maxrss
        seconds = time.monotonic() - began
        if kill_after is not None and seconds >= kill_after[0]:
            os.kill(process, getattr(signal, kill_after[1]))
            kill_after = None
        if seconds > TIMEOUT:
            os.kill(process, signal.SIGUSR1)  # it prints where it hangs
            time.sleep(1)
            os.kill(process, signal.SIGKILL)
        time.sleep(0.002)


def _workers(process: int) -> list[int]:
    """Worker processes of a command; any of its threads can have started them."""
    found = []
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            pids = children.read_text().split()
            found += [pid for pid in pids if b"popen_loky_posix" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return [int(pid) for pid in found]


def _kill_worker(process: int, seconds: float, report: Path) -> None:
    """Kill a worker process some seconds after the first one has started, unless the command ends before."""
    while Path(f"/proc/{process}/task").is_dir() and not _workers(process):
        time.sleep(0.005)
    time.sleep(seconds)
    if workers := _workers(process):
        with contextlib.suppress(ProcessLookupError):
            os.kill(workers[-1], signal.SIGKILL)
            with open(report, "a") as file:
                file.write("fired ")


def _start(arguments: list[str], specification: Mapping[str, Any], folder: Path) -> int:
    path = os.pathsep.join([str(Path(injector.__file__).parent), str(ROOT)])
    environment = os.environ | {"PYTHONPATH": path, "PMLP_FAULT": json.dumps(specification)}
    with (
        open(folder / "input") as given,
        open(folder / "output", "w") as output,
        open(folder / "message", "w") as message,
    ):
        program = subprocess.Popen(
            [sys.executable, "-m", "parallelmlp_search", *arguments],
            stdin=given,
            stdout=output,
            stderr=message,
            env=environment,
            cwd=folder,
        )
    _started.append(program)  # it must not be waited for by its destructor
    return program.pid


def _fork(arguments: list[str], specification: Mapping[str, Any], folder: Path) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    # a signal must not unwind the stack of the parent in the new process
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    process = os.fork()
    if not process:
        _command(arguments, specification, folder)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    return process


def _command(arguments: list[str], specification: Mapping[str, Any], folder: Path) -> NoReturn:
    """Be the program in a process that was forked."""
    code = 1
    try:
        handle_interrupts()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for target, name in enumerate(("input", "output", "message")):
            os.dup2(os.open(folder / name, os.O_WRONLY if target else os.O_RDONLY), target)
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, mode) for number, mode in enumerate("rww"))
        os.chdir(folder)
        sys.argv = ["pmlp", *arguments]
        gc.callbacks.clear()  # an interrupt inside that of Hypothesis would be lost
        warnings.resetwarnings()
        for category in HIDDEN:
            warnings.simplefilter("ignore", category)
        journal.MIN_KEPT_SECONDS = 0.0
        if specification.get("processes"):
            workers.MIN_PROCESS_SECONDS = 0.0
        injector.install(dict(specification))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except KeyboardInterrupt:  # before the program began
        code = INTERRUPTED
        print("interrupted", file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        # whatever happens, the stack of the parent must not go on here
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
