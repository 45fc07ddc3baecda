"""Search for failures: generated tables and searches with faults, until the time is over.

``python -m tests.faults.soak --minutes 10`` prints each failure, minimised, with the command that repeats it,
keeps it in ``regressions.json``, and ends with one line of counts. The exit code is 1 if there was a failure.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before the first import of torch

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, Phase, given, seed, settings

from parallelmlp_search._files import is_leftover
from tests.faults import commands
from tests.faults.cases import (
    COMMANDS,
    SEARCHES,
    Case,
    command_cases,
    fault_cases,
    keep_regression,
    regressions,
    wide_table,
    worker_cases,
)
from tests.faults.commands import Done
from tests.faults.states import outcome
from tests.faults.tables import search_options, table_cases, write_table

COUNTS = (
    "tables", "faults", "resumes", "lost trials", "differing leaderboards", "overruns", "peak over limit",
    "tracebacks", "other",
)  # fmt: skip

SHRINK_SECONDS = 60.0
"""Time for minimising one failure."""

BATCH = 20
"""Examples from one seed of Hypothesis."""

STARTED_SHARE = 0.04
"""Share of the commands that are started as new programs instead of being forked."""

OUTSIDE = ("moment", "rival", "worker")
"""Faults from outside of the process."""

WORKER_SECONDS = 3.0
"""Seconds from the start of a worker process to the end of its search."""

TIME_LIMIT, MEMORY_LIMIT = 5.0, 700
"""Limits, in seconds and megabytes, of the searches that check them."""


class Failure(AssertionError):
    """A promise that does not hold; ``kind`` is one of :data:`COUNTS`."""

    def __init__(self, kind: str, words: str) -> None:
        super().__init__(f"{kind}: {words}")
        self.kind = kind


class Soak:
    """Runs cases and counts what happens.

    Parameters
    ----------
    folder
        Folder for tables and runs.
    keeps
        True to keep failures as regressions.
    """

    def __init__(self, folder: Path, *, keeps: bool = True) -> None:
        self.folder = folder
        self.keeps = keeps
        self.counts = Counter(dict.fromkeys(COUNTS, 0))
        self.n_commands = self.n_models = 0
        self.table = folder / "wide.csv"
        wide_table().to_csv(self.table, index=False)
        self._expected: dict[str, tuple[Done, dict[str, Any]]] = {}

    def command(self, arguments: list[object], fault: dict[str, Any] | None = None, **options: Any) -> Done:
        """Run a command; it must end with a result, one sentence or the signal that it was sent."""
        self.n_commands += 1
        is_forked = self.n_commands % round(1 / STARTED_SHARE) != 0
        fault = fault or {"kind": "none", "folder": "/nowhere", "at": 0}
        done = commands.run(arguments, fault, is_forked=is_forked, **options)
        if problem := done.problem():
            kind = "tracebacks" if problem == "traceback" else "other"
            raise Failure(kind, f"{problem} of {arguments[0]} after {fault}: {done.message[-6000:]}")
        return done

    # ------------------------------------------------------------------ searches with faults

    def expected(self, name: str) -> tuple[Done, dict[str, Any]]:
        """End and files of a search without faults."""
        if name not in self._expected:
            run = self.folder / f"expected {name}"
            fault = {"kind": "none", "folder": str(run), "at": 0}
            done = commands.run(self.search(name, run), fault, text=self._text(name))
            if done.code:
                raise Failure("other", f"the search {name!r} fails without faults: {done.message}")
            self._expected[name] = done, outcome(run)
        return self._expected[name]

    def search(self, name: str, run: Path) -> list[object]:
        table = "-" if name == "standard input" else self.table
        return ["search", table, *SEARCHES[name], "--output", run]

    def _text(self, name: str) -> str | None:
        return self.table.read_text() if name == "standard input" else None

    def check_faults(self, case: Case) -> None:
        """Search with faults, resume until there are none left, and compare the files."""
        name = case["search"]
        _, files = self.expected(name)
        with self._run_folder() as run:
            for fault in case["faults"]:
                self._attempt(name, run, fault)
                if fault["kind"] == "delete file":
                    return  # what is missing may be needed: one sentence is all that is promised
            self._finish(name, run)
            found = outcome(run)
            if is_out_of_memory(run):
                return  # these trials would not fail again
            self._compare(found, files, case)

    @contextmanager
    def _run_folder(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir=self.folder, ignore_cleanup_errors=True) as name:
            yield Path(name) / "run"

    def _attempt(self, name: str, run: Path, fault: dict[str, Any]) -> None:
        done, _ = self.expected(name)
        arguments = self._next(name, run)
        ended = self._with_fault(arguments, fault, done, run, text=self._text(name))
        if fault["kind"] == "worker" and ended.code:
            raise Failure("other", f"{arguments[0]} without a worker ends with: {ended.message[-1500:]}")

    def _with_fault(
        self, arguments: list[object], fault: dict[str, Any], done: Done, folder: Path, **options: Any
    ) -> Done:
        """Run a command that ends as ``done`` without its fault in a folder."""
        kind, at = fault["kind"], fault["at"]
        injected = {**fault, "folder": str(folder), "at": int(at * done.n_operations)}
        if kind in OUTSIDE:
            injected = {"kind": "none", "folder": str(folder), "at": -1, "processes": kind == "worker"}
        if kind == "moment":
            options["kill_after"] = (at * done.seconds, fault["name"])
        if kind == "rival":
            options["rival_after"] = at * done.seconds
        if kind == "worker":
            options["kills_worker_after"] = at * WORKER_SECONDS
        ended = self.command(arguments, injected, **options)
        self.counts["faults"] += ended.fired or kind in ("moment", "rival")
        return ended

    def _next(self, name: str, run: Path) -> list[object]:
        """Command with which a user would go on."""
        has_begun = (run / "run.json").is_file() and "settings" in json.loads((run / "run.json").read_text())
        return ["resume", run] if has_begun else self.search(name, run)

    def _finish(self, name: str, run: Path) -> None:
        arguments = self._next(name, run)
        done = self.command(arguments, text=self._text(name))
        if done.code:
            raise Failure("lost trials", f"{arguments[0]} fails without a fault: {done.message[-1500:]}")
        self.counts["resumes"] += arguments[0] == "resume"

    def _compare(self, found: dict[str, Any], files: dict[str, Any], case: Case) -> None:
        if found == files:
            return
        differing = sorted(name for name in {*found, *files} if found.get(name) != files.get(name))
        trials = [eval(each["trials.parquet"], {"nan": np.nan})["trial"] for each in (found, files)]
        missing = set(trials[1]) - set(trials[0])
        kind = "lost trials" if missing else "differing leaderboards"
        raise Failure(kind, f"{differing} differ after {case}")

    # ------------------------------------------------------------------ commands with faults

    def check_command(self, case: Case) -> None:
        """Run a command on a finished run with faults, then without, and compare what it leaves behind."""
        name = case["command"]
        done, files = self._expected_command(name)
        with self._run_folder() as run:
            shutil.copytree(self._finished(), run)
            folder = run.parent
            for fault in case["faults"]:
                self._with_fault(self._words(name, run), fault, done, folder)
                if fault["kind"].startswith("delete"):
                    return
            ended = self.command(self._words(name, run))
            if ended.code:
                raise Failure("other", f"{name} fails without a fault: {ended.message[-1500:]}")
            if name == "study":
                return  # a study holds times, and a second copy is refused or complete
            found = _left(folder)
            if found != files:
                differing = sorted(one for one in {*found, *files} if found.get(one) != files.get(one))
                raise Failure("other", f"{differing} differ after {case}")

    def _finished(self) -> Path:
        self.expected("classes")
        return self.folder / "expected classes"

    def _words(self, name: str, run: Path) -> list[object]:
        places = {"RUN": str(run), "TABLE": str(self.table), "FOLDER": str(run.parent)}
        words: list[object] = []
        for word in COMMANDS[name]:
            for place, value in places.items():
                word = word.replace(place, value)
            words.append(word)
        return words

    def _expected_command(self, name: str) -> tuple[Done, dict[str, Any]]:
        """End of a command without faults, and the files that it leaves behind."""
        key = f"command {name}"
        if key not in self._expected:
            with self._run_folder() as run:
                shutil.copytree(self._finished(), run)
                fault = {"kind": "none", "folder": str(run.parent), "at": -1}
                done = commands.run(self._words(name, run), fault)
                if done.code:
                    raise Failure("other", f"{name} fails without faults: {done.message}")
                self._expected[key] = done, _left(run.parent)
        return self._expected[key]

    # ------------------------------------------------------------------ tables

    def check_table(self, case: Case) -> None:
        """Search a generated table, then predict and score it."""
        self.counts["tables"] += 1
        with self._run_folder() as run:
            path = write_table(case, run.parent)
            budget = ["--trials", 2, "--max-epochs", 2, "--space", "small", "--jobs", 1, "--no-baselines"]
            options = [*budget, *search_options(case), "--output", run, "--quiet"]
            if self.command(["search", path, "--target", "target", *options]).code:
                return
            self.n_models += 1
            predictions = run.parent / "predictions.csv"
            if self.command(["predict", run, path, "--output", predictions]).code == 0:
                self._check_predictions(predictions, case)
            self.command(["evaluate", run, path])  # without known targets, one sentence
            for name in case["commands"]:
                done = self.command(self._further(name, case, run, path))
                if done.code and name in ("leaderboard", "show", "resume", "json"):
                    raise Failure("other", f"{name} of a finished run: {done.message}")

    def _further(self, name: str, case: Case, run: Path, path: Path) -> list[object]:
        """A command on the finished run of a generated table."""
        if name == "other table":
            other = write_table(case, run.parent / "other", turn=1)
            return ["predict", run, other, "--output", run.parent / "other.csv"]
        known: dict[str, list[object]] = {
            "show": ["show", run, 0],
            "json": ["resume", run, "--json"],
            "inspect": ["inspect", path, "--target", "target"],
            "study": ["study", run, "--storage", f"journal:{run.parent}/journal"],
            "dry run": ["promote", run, "--dry-run", "--gflops", 10],
        }
        return known.get(name, [name, run])

    def _check_predictions(self, path: Path, case: Case) -> None:
        frame = pd.read_csv(path, keep_default_na=False)
        if len(frame) != case["rows"]:
            raise Failure("other", f"{len(frame)} predictions of {case['rows']} rows of {case}")
        if any(str(value) in ("nan", "inf", "-inf", "") for value in frame.iloc[:, 0]):
            raise Failure("other", f"predictions that are no values of {case}")

    # ------------------------------------------------------------------ limits

    def check_limits(self) -> None:
        """Search with a limit of time and one of memory, as new programs."""
        fault = {"kind": "none", "folder": "/nowhere", "at": 0}
        base = ["search", self.table, "--target", "sold", "--jobs", "1", "--quiet", "--output"]
        with self._run_folder() as run:
            done = commands.run([*base, run, "--time-limit", TIME_LIMIT], fault, is_forked=False)
            if done.code or done.seconds > 1.1 * TIME_LIMIT + 1.0:
                self._report(Failure("overruns", f"{done.seconds:.1f} s with a limit of {TIME_LIMIT:g} s"))
        with self._run_folder() as run:
            limited = [*base, run, "--trials", 30, "--memory-limit", f"{MEMORY_LIMIT}MB"]
            done = commands.run(limited, fault, is_forked=False)
            if done.code or done.peak > 1e6 * MEMORY_LIMIT:
                self._report(Failure("peak over limit", f"{done.peak / 1e6:.0f} MB of {MEMORY_LIMIT} MB"))

    # ------------------------------------------------------------------ exploration

    def explore(
        self,
        kind: str,
        strategy: Any,
        check: Callable[[Case], None],
        number: int,
        is_over: Callable[[], bool],
        batch: int = BATCH,
    ) -> None:
        """Check a batch of drawn cases; a failure is minimised, reported and kept."""
        failures: dict[str, Failure] = {}
        first = [float("inf")]

        @seed(number)
        @settings(
            max_examples=batch,
            deadline=None,
            database=None,
            derandomize=False,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
        )
        @given(strategy)
        def attempt(case: Case) -> None:
            key = json.dumps(case)
            if key in failures:
                raise failures[key]
            if is_over() or time.monotonic() > first[0] + SHRINK_SECONDS:
                return
            try:
                check(case)
            except Failure as failure:
                failures[key] = failure
                first[0] = min(first[0], time.monotonic())
                raise

        try:
            attempt()
        except Failure as failure:
            (case,) = [json.loads(key) for key, known in failures.items() if known is failure]
            self._report(failure)
            print(json.dumps({kind: case}), flush=True)
            if self.keeps:
                keep_regression(kind, case)

    def repeat(self) -> None:
        """Check all cases that failed once."""
        checks = {"faults": self.check_faults, "commands": self.check_command, "tables": self.check_table}
        for kind, cases in regressions().items():
            for case in cases:
                try:
                    checks[kind](case)
                except Failure as failure:
                    self._report(failure)
                    print(json.dumps({kind: case}), flush=True)

    def _report(self, failure: Failure) -> None:
        self.counts[failure.kind] += 1
        print(f"FAILURE {failure}", flush=True)

    def line(self) -> str:
        return ", ".join(f"{name} {self.counts[name]}" for name in COUNTS)

    @property
    def has_failed(self) -> bool:
        return any(self.counts[name] for name in COUNTS[3:])


def _left(folder: Path) -> dict[str, Any]:
    """What a command leaves behind in a folder and its run, without the times of promotions and reports.

    Hidden files of killed writers do not count; resuming deletes those inside of runs.
    """
    timed = ("run/promotion/", "run/promoted/promotion.json")
    found = {
        name: content
        for name, content in outcome(folder).items()
        if not name.startswith(timed) and not is_leftover(Path(name))
    }
    if page := found.get("report.html"):
        found["report.html"] = page.rstrip().endswith(b"</html>")
    return found


def is_out_of_memory(run: Path) -> bool:
    """True if a trial failed for lack of memory."""
    failures = pd.read_parquet(run / "trials.parquet")["failure"].dropna()
    return bool(failures.str.contains("memory").any())


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="duration; a started case is finished")
    parser.add_argument("--faults", type=int, help="stop drawing faults after this many")
    parser.add_argument("--tables", type=int, help="stop drawing tables after this many")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="seed of the first batch")
    parser.add_argument("--no-limits", action="store_true", help="leave out searches with limits")
    parser.add_argument("--no-keeping", action="store_true", help="do not keep failures as regressions")
    chosen = parser.parse_args()
    until = time.monotonic() + 60 * chosen.minutes
    commands.prepare()
    folder = Path(tempfile.mkdtemp(prefix="pmlp-soak-"))
    try:
        soak = Soak(folder, keeps=not chosen.no_keeping)
        print(f"seed {chosen.seed}", flush=True)

        def is_over(kind: str) -> bool:
            most = getattr(chosen, kind)
            return time.monotonic() >= until or (most is not None and soak.counts[kind] >= most)

        soak.repeat()
        number = chosen.seed
        if not chosen.no_limits:
            soak.check_limits()
        while not (is_over("faults") and is_over("tables")):
            for kind, over, strategy, check, batch in (
                ("faults", "faults", fault_cases, soak.check_faults, BATCH),
                ("commands", "faults", command_cases, soak.check_command, BATCH if number % 3 == 0 else 0),
                ("faults", "faults", worker_cases, soak.check_faults, 3 if number % 3 == 1 else 0),
                ("tables", "tables", table_cases, soak.check_table, BATCH),
            ):
                if batch and not is_over(over):
                    soak.explore(kind, strategy, check, number, partial(is_over, over), batch)
            number += 1
            print(
                f"batch {number - chosen.seed}: {soak.line()} ({soak.n_models} models)",
                file=sys.stderr,
                flush=True,
            )
        print(soak.line())
        return int(soak.has_failed)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
