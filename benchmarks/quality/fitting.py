"""Fits: each in a child process with a hard time limit, kept in its own file when it ends."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.errors import error_of
from benchmarks.quality.sets import load, split
from benchmarks.quality.tools import Tool

__all__ = ["FitRunner", "Job", "jobs_of"]

ROOT = Path(__file__).parents[2]

UNTIMED_LIMIT = 7200.0
"""Seconds after which a tool without a time limit is stopped."""


@dataclass(frozen=True)
class Job:
    """One fit: a table, a seed, a tool, and its time limit in seconds, or None."""

    set: str
    seed: int
    tool: Tool
    seconds: float | None

    @property
    def key(self) -> str:
        """Name of the file of the fit."""
        budget = "untimed" if self.seconds is None else f"{self.seconds:g}s"
        tool = re.sub(r"[^a-z0-9]+", "-", self.tool.name.lower())
        return f"{self.set}.{self.seed}.{tool}.{budget}"

    @property
    def limit(self) -> float:
        """Seconds after which the process is ended; generous, because overruns show in the figures."""
        return UNTIMED_LIMIT if self.seconds is None else 2.0 * self.seconds + 60.0


def jobs_of(
    sets: Sequence[str], seeds: Sequence[int], tools: Sequence[Tool], budgets: Sequence[float]
) -> list[Job]:
    """Return all fits, seed by seed and table by table, so that comparisons are complete early.

    Parameters
    ----------
    sets
        Names of tables.
    seeds
        Seeds of splits and fits.
    tools
        Tools to compare.
    budgets
        Time limits in seconds, for tools that accept one.

    Returns
    -------
    list of Job
    """
    return [
        Job(name, seed, tool, seconds)
        for seed in seeds
        for name in sets
        for tool in tools
        for seconds in (budgets if tool.timed else (None,))
    ]


class FitRunner:
    """Runs fits and keeps their rows.

    Parameters
    ----------
    folder
        Holds one JSON file per finished fit.
    threads
        Threads and cores of every fit.
    peers_python
        Interpreter with the other tools; this one by default.
    exclusive
        File that is locked during each fit, for other programs to wait on; or None.
    """

    def __init__(
        self,
        folder: Path,
        *,
        threads: int = 2,
        peers_python: str | None = None,
        exclusive: Path | None = None,
    ) -> None:
        self.folder = folder
        self.threads = threads
        self.peers_python = peers_python or sys.executable
        self.exclusive = exclusive
        folder.mkdir(parents=True, exist_ok=True)

    def missing(self, tool: Tool) -> str | None:
        """Return a message if a tool is not installed, else None."""
        interpreter = self._interpreter(tool)
        look = (
            f"import importlib.util as u, sys; sys.exit(u.find_spec({tool.package.split('.')[0]!r}) is None)"
        )
        if subprocess.run([interpreter, "-c", look], cwd=ROOT, check=False).returncode == 0:
            return None
        return f"{tool.name} is left out: {interpreter} has no package {tool.package}"

    def _interpreter(self, tool: Tool) -> str:
        return sys.executable if tool.is_ours else self.peers_python

    def known(self, job: Job) -> dict[str, Any] | None:
        """Return the row of a finished fit, or None."""
        path = self.folder / f"{job.key}.json"
        row: dict[str, Any] | None = json.loads(path.read_text()) if path.is_file() else None
        return row

    def row(self, job: Job) -> dict[str, Any]:
        """Return the row of a fit; run and keep it if there is none on file."""
        before = self.known(job)
        if before is not None:
            return before
        row = self._run(job)
        path = self.folder / f"{job.key}.json"
        path.with_suffix(".part").write_text(json.dumps(row) + "\n")
        path.with_suffix(".part").replace(path)
        return row

    def _run(self, job: Job) -> dict[str, Any]:
        table = load(job.set)
        train, test = split(table, job.seed)
        row: dict[str, Any] = {
            "set": job.set,
            "seed": job.seed,
            "tool": job.tool.name,
            "budget": job.seconds,
            "task": table.task,
            "train_rows": len(train),
            "test_rows": len(test),
            "threads": self.threads,
            "alone": self.exclusive is not None,
        }
        with tempfile.TemporaryDirectory(prefix="quality-") as name:
            folder = Path(name)
            np.save(folder / "train.npy", train)
            np.save(folder / "test.npy", test)
            description = {
                "set": job.set,
                "seed": job.seed,
                "fit": job.tool.fit,
                "package": job.tool.package,
                "settings": dict(job.tool.settings),
                "seconds": job.seconds,
                "threads": self.threads,
            }
            (folder / "job.json").write_text(json.dumps(description))
            with _locked(self.exclusive):
                failure = self._run_child(job, folder)
            if failure is not None:
                return row | {"failure": failure}
            predictions = np.load(folder / "predictions.npy")
            outcome = json.loads((folder / "outcome.json").read_text())
        try:
            error = error_of(table.task, table.target[test], predictions)
        except ValueError as reason:
            return row | {"failure": str(reason)}
        row |= {"error": error} | outcome
        return row

    def _run_child(self, job: Job, folder: Path) -> str | None:
        """Run the child process and return a message if it failed."""
        threads = {f"{library}_NUM_THREADS": str(self.threads) for library in ("OMP", "MKL", "OPENBLAS")}
        # the child works in the folder of the fit, so files that a tool leaves are removed with it
        environment = os.environ | threads | {"PYTHONPATH": str(ROOT)}
        command = [self._interpreter(job.tool), "-m", "benchmarks.quality.child", str(folder)]
        with (folder / "errors.txt").open("w") as errors:
            child = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )
            try:
                status = child.wait(timeout=job.limit)
            except subprocess.TimeoutExpired:
                return f"not finished after {job.limit:.0f} s"
            finally:
                # ends its children, and itself after the limit or an interrupt
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        if status == 0:
            return None
        lines = (folder / "errors.txt").read_text(errors="replace").strip().splitlines()
        return f"status {status}: {lines[-1][:300] if lines else 'no message'}"


@contextlib.contextmanager
def _locked(path: Path | None) -> Iterator[None]:
    """Lock a file, so that other programs can wait on it."""
    if path is None:
        yield
        return
    import fcntl  # not on Windows

    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
