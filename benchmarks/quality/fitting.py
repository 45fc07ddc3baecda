"""Fits: each in a child process with a hard limit, each kept in a file of its own as soon as it ends."""

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

__all__ = ["Job", "Workshop", "jobs_of"]

ROOT = Path(__file__).parents[2]

UNTIMED_LIMIT = 7200.0
"""Seconds after which a tool that knows no limit is stopped."""


@dataclass(frozen=True)
class Job:
    """One fit: a set, a seed, a tool, and the seconds it is told, or None."""

    set: str
    seed: int
    tool: Tool
    seconds: float | None

    @property
    def key(self) -> str:
        """Name of its file."""
        budget = "untimed" if self.seconds is None else f"{self.seconds:g}s"
        tool = re.sub(r"[^a-z0-9]+", "-", self.tool.name.lower())
        return f"{self.set}.{self.seed}.{tool}.{budget}"

    @property
    def limit(self) -> float:
        """Seconds after which the process is ended; generous, since overruns show in the figures."""
        return UNTIMED_LIMIT if self.seconds is None else 2.0 * self.seconds + 60.0


def jobs_of(
    sets: Sequence[str], seeds: Sequence[int], tools: Sequence[Tool], budgets: Sequence[float]
) -> list[Job]:
    """All fits, in an order that gives whole comparisons early: seed by seed, set by set."""
    return [
        Job(name, seed, tool, seconds)
        for seed in seeds
        for name in sets
        for tool in tools
        for seconds in (budgets if tool.timed else (None,))
    ]


class Workshop:
    """Where fits are made and kept.

    Parameters
    ----------
    folder
        One JSON file a finished fit.
    threads
        Threads, and cores, of every fit.
    peers_python
        Interpreter that the other tools are installed in.
    exclusive
        A file that is locked during each fit, so that others on the machine who lock it too wait; or None.
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
        """A sentence on why a tool cannot take part, or None."""
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
        """The row of a fit that was made before, or None."""
        path = self.folder / f"{job.key}.json"
        row: dict[str, Any] | None = json.loads(path.read_text()) if path.is_file() else None
        return row

    def row(self, job: Job) -> dict[str, Any]:
        """The row of a fit: read if it was made before, else made and kept."""
        before = self.known(job)
        if before is not None:
            return before
        row = self._make(job)
        path = self.folder / f"{job.key}.json"
        path.with_suffix(".part").write_text(json.dumps(row) + "\n")
        path.with_suffix(".part").replace(path)
        return row

    def _make(self, job: Job) -> dict[str, Any]:
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
                failure = self._run(job, folder)
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

    def _run(self, job: Job, folder: Path) -> str | None:
        """Run the child; a sentence if it failed."""
        threads = {f"{library}_NUM_THREADS": str(self.threads) for library in ("OMP", "MKL", "OPENBLAS")}
        # the child works in its own folder, so that whatever a tool leaves behind goes with it
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
                # whatever it has started, and itself if it is too slow or we are interrupted
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        if status == 0:
            return None
        lines = (folder / "errors.txt").read_text(errors="replace").strip().splitlines()
        return f"status {status}: {lines[-1][:300] if lines else 'no message'}"


@contextlib.contextmanager
def _locked(path: Path | None) -> Iterator[None]:
    """Hold a file's lock, so that programs that ask for it too wait."""
    if path is None:
        yield
        return
    import fcntl  # not on Windows

    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
