"""Limits of time and memory, measured on whole processes.

``python -m benchmarks.limits`` runs ``pmlp search`` in new processes on one core: with time limits of 5 to
60 s on five tables, beside a busy process on the same core, and with memory limits for five kinds of searches
and a promotion. Each row is written to ``benchmarks/results/limits.json`` as it is measured. A second call
continues where the first was stopped. It also measures rows anew that are of other versions of the package,
or that were measured while other programs ran.

``--part time``, ``busy`` or ``memory`` measures one part, ``--runs N`` at most N rows.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from benchmarks.publishing import ROOT, describe_machine, fill, git_output, marks
from parallelmlp_search._files import write_json
from parallelmlp_search._memory import resident_bytes

RESULTS = ROOT / "benchmarks" / "results" / "limits.json"
PAGE = ROOT / "docs" / "reliability.md"
DATASETS = ROOT / "datasets"
PARTS = ("time", "busy", "memory")

TABLES = {"spambase": "type", "adult": "income", "letter": "lettr", "diamonds": "price", "credit_g": "class"}
"""Tables of the time limits, with their targets."""

SECONDS = (5.0, 10.0, 15.0, 30.0, 60.0)
REPEATS = 4
BUSY_SECONDS = (20.0, 30.0)
BUSY_REPEATS = 3
POLL_SECONDS = 0.1

ALONE_CORES = 0.1
"""Mean number of cores that other programs may keep busy on a machine that counts as idle."""

MEMORY_LIMITS = ("minimum", "1GB", "1.4GB", "2GB")

MEMORY_WORK: dict[str, list[str]] = {
    "small classification": [str(DATASETS / "credit_g.csv.gz"), "--target", "class"],
    "large classification": [str(DATASETS / "adult.csv.gz"), "--target", "income"],
    "regression": [str(DATASETS / "diamonds.csv.gz"), "--target", "price"],
    "deep": [str(DATASETS / "spambase.csv.gz"), "--target", "type", "--space", "deep"],
    "wide": ["wide.csv", "--target", "target"],
    "promotion": [str(DATASETS / "satimage.csv.gz"), "--target", "classes", "--space", "deep"],
}

BASE_WORK = ["--trials", "60", "--max-epochs", "3", "--seed", "0"]


def is_kept(limit: float, seconds: float, *, busy: bool = False, minimum: float | None = None) -> bool:
    """Return True if a run kept to the rule of time limits.

    On a quiet machine it ends at most 2 % or 1 s late, and from 10 s up it uses at least 93 % of the time.
    Beside a busy process it ends at most 10 % late. Below the minimum, it takes the minimum.

    Parameters
    ----------
    limit, seconds
        Time limit, and elapsed time of the process.
    busy
        True beside a busy process.
    minimum
        Minimum that the run named, or None if the limit was not below it.

    Returns
    -------
    bool
    """
    most = max(limit, minimum or 0.0)
    if busy:
        return seconds <= 1.1 * most
    used = limit < 10.0 or minimum is not None or seconds >= 0.93 * limit
    return used and seconds <= most + max(1.0, 0.02 * most)


class Case(NamedTuple):
    """Row to be measured: its identity, and the function that measures it."""

    identity: dict[str, Any]
    measure: Callable[[], dict[str, Any]]


# ---------------------------------------------------------------------- one process


def run_once(arguments: Sequence[str], folder: Path, command: str = "search") -> dict[str, Any]:
    """Run ``pmlp`` in a new process and return its seconds, peak, exit code and last message.

    Parameters
    ----------
    arguments, command
        Arguments of the command.
    folder
        Working directory.

    Returns
    -------
    dict
    """
    words = [sys.executable, "-m", "parallelmlp_search", command, *arguments, "--quiet"]
    before, started = _busy_seconds(), time.monotonic()
    process = subprocess.Popen(
        words,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert process.stderr is not None
    errors, peaks = process.stderr, [0]
    watcher = threading.Thread(target=_watch_memory, args=(process, peaks), daemon=True)
    watcher.start()
    text = errors.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    watcher.join()
    own = usage.ru_utime + usage.ru_stime
    row = {
        "seconds": round(seconds, 2),
        "own_seconds": round(own, 2),
        "other_cores": round(max(0.0, _busy_seconds() - before - own) / seconds, 2),
        "peak_bytes": max(usage.ru_maxrss * 1024, *peaks),
        "code": process.returncode,
    }
    named = re.search(r"below the minimum of ([0-9.]+) s", text)
    if named is not None:
        row["minimum"] = float(named[1])
    return row if process.returncode == 0 else row | {"error": text.strip()[-300:]}


def _watch_memory(process: subprocess.Popen[str], peaks: list[int]) -> None:
    """Record the peak of a process with its workers; the system keeps only that of each process.

    A child shares all memory with its parent until it begins its own program, a few milliseconds after its
    start, so the lower of two looks counts.
    """
    while process.returncode is None:
        first = resident_bytes(process.pid) or 0
        time.sleep(POLL_SECONDS / 5)
        peaks[0] = max(peaks[0], min(first, resident_bytes(process.pid) or 0))
        time.sleep(POLL_SECONDS)


def _busy_seconds() -> float:
    """Seconds that all cores together were busy since the start of the machine; 0 if unknown."""
    try:
        words = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    except OSError:
        return 0.0
    user, nice, system, _, _, interrupts, soft = map(int, words[:7])
    return (user + nice + system + interrupts + soft) / os.sysconf("SC_CLK_TCK")


# ---------------------------------------------------------------------- time


def time_cases(part: str) -> Iterator[Case]:
    """Yield the rows with time limits; all limits and tables, then the same with the next seed."""
    busy = part == "busy"
    for seed in range(BUSY_REPEATS if busy else REPEATS):
        for limit in BUSY_SECONDS if busy else SECONDS:
            for name, target in TABLES.items():
                arguments = [str(DATASETS / f"{name}.csv.gz"), "--target", target, "--seed", str(seed)]
                arguments += ["--time-limit", f"{limit:g}", "--jobs", "1", "--output", "run"]

                def measure(arguments: Sequence[str] = arguments, limit: float = limit) -> dict[str, Any]:
                    with tempfile.TemporaryDirectory() as folder, busy_process() if busy else nullcontext():
                        row = run_once(arguments, Path(folder))
                    kept = is_kept(limit, row["seconds"], busy=busy, minimum=row.get("minimum"))
                    others = row["other_cores"] - (1.0 - row["own_seconds"] / row["seconds"] if busy else 0.0)
                    return row | {"kept": kept and row["code"] == 0, "alone": others < ALONE_CORES}

                yield Case({"part": part, "table": name, "limit": limit, "seed": seed}, measure)


def _spin() -> None:
    while True:
        pass


@contextmanager
def busy_process() -> Iterator[None]:
    """Keep the core of this process busy."""
    process = multiprocessing.get_context("spawn").Process(target=_spin, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.terminate()
        process.join()


# ---------------------------------------------------------------------- memory


def memory_cases() -> Iterator[Case]:
    """Yield the rows with memory limits: each kind of work with each limit, the minimum first."""
    for name, work in MEMORY_WORK.items():
        for limit in MEMORY_LIMITS:

            def measure(name: str = name, work: Sequence[str] = work, limit: str = limit) -> dict[str, Any]:
                with tempfile.TemporaryDirectory() as parent:
                    return _memory_row(name, [*work, *BASE_WORK], limit, Path(parent))

            yield Case({"part": "memory", "work": name, "limit": limit}, measure)


def _memory_row(name: str, arguments: Sequence[str], limit: str, folder: Path) -> dict[str, Any]:
    if name == "wide":
        _write_wide_table(folder)
    size = _minimum(arguments, folder) if limit == "minimum" else limit
    row = run_once([*arguments, "--memory-limit", size, "--output", "run"], folder)
    if _named_minimum(row) is not None:
        return row | {"limit_used": size, "kept": row["code"] == 2, "refused": True}
    memory = json.loads((folder / "run" / "run.json").read_text(encoding="utf-8")).get("memory", {})
    if name == "promotion":
        row = run_once(["run", "--slices", "2", "--epochs", "2"], folder, "promote")
    return row | {"limit_used": size} | _memory_figures(row["peak_bytes"], memory, name) | {"memory": memory}


def _write_wide_table(folder: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({f"c{n}": rng.integers(0, 30, 6000).astype(str) for n in range(40)})
    frame = frame.map("v{}".format)
    frame["target"] = (rng.random(6000) < 0.4 + 0.2 * (frame["c0"] < "v15")).astype(int)
    frame.to_csv(folder / "wide.csv", index=False)


def _minimum(arguments: Sequence[str], folder: Path) -> str:
    """Smallest limit that a search accepts, found by following its messages."""
    limit = "300M"
    for _ in range(6):
        probe = run_once([*arguments, "--memory-limit", limit, "--trials", "2", "--output", "run"], folder)
        shutil.rmtree(folder / "run", ignore_errors=True)
        found = _named_minimum(probe)
        if found is None:
            break
        limit = found
    return limit


def _named_minimum(row: Mapping[str, Any]) -> str | None:
    """Minimum that a search named when it refused its limit."""
    found = re.search(r"at least ([0-9.]+[MG])", row.get("error", ""))
    return None if found is None else found[1]


def _memory_figures(peak: int, memory: Mapping[str, int], name: str = "") -> dict[str, Any]:
    """Whether the peak kept to the limit, and the error of the predicted peak of a search."""
    if not memory:
        return {"kept": False}
    figures: dict[str, Any] = {"kept": peak <= memory["limit"]}
    if name != "promotion":
        figures["estimate_error"] = round(memory["estimate"] / peak - 1.0, 3)
        figures["kept"] = figures["kept"] and abs(figures["estimate_error"]) <= 0.2
    return figures


# ---------------------------------------------------------------------- rows


def _version() -> str:
    """Commit of the checkout; with a plus if files of the package differ from it."""
    changed = git_output("status", "--porcelain", "parallelmlp_search")
    return (git_output("rev-parse", "--short", "HEAD") or "unknown") + ("+" if changed else "")


def _same_package(commit: str) -> bool:
    """Return True if the package of a commit is that of the checkout."""
    trees = {git_output("rev-parse", f"{name}:parallelmlp_search") for name in (commit, "HEAD")}
    return len(trees) == 1 and "" not in trees and not commit.endswith("+")


def _read_rows() -> list[dict[str, Any]]:
    if not RESULTS.is_file():
        return []
    rows: list[dict[str, Any]] = json.loads(RESULTS.read_text(encoding="utf-8"))["rows"]
    return rows


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in ("part", "table", "work", "limit", "seed"))


def measure_rows(cases: Sequence[Case], most: int | None) -> None:
    """Measure the rows that are missing, and write each into the file of results.

    Parameters
    ----------
    cases
        Rows to measure.
    most
        Largest number of rows to measure now; None for all.
    """
    rows = {_key(row): row for row in _read_rows()}
    current = {commit for commit in {row["commit"] for row in rows.values()} if _same_package(commit)}
    version, machine = _version(), describe_machine()
    del machine["commit"]
    found = [rows.get(_key(case.identity), {}) for case in cases]
    is_current = [row.get("commit") in current for row in found]
    missing = [case for case, known in zip(cases, is_current, strict=True) if not known]
    for case, row, known in zip(cases, found, is_current, strict=True):
        missing += [case] if known and not row.get("alone", True) else []  # once the others are measured
    for case in missing[:most]:
        stamp = {"date": f"{datetime.now(UTC):%Y-%m-%d %H:%M}", "commit": version, "machine": machine}
        row = case.identity | case.measure() | stamp
        rows[_key(row)] = row
        print(
            json.dumps(case.identity | {name: row.get(name) for name in ("seconds", "kept", "alone")}),
            flush=True,
        )
        write_json(RESULTS, {"rows": list(rows.values())})
    left = max(0, len(missing) - (len(missing) if most is None else most))
    if left:
        print(f"{left} rows are left: run the same command again")


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a table with a row for each time limit, and one for each kind of work and memory limit.

    Parameters
    ----------
    rows
        Rows of the file of results.

    Returns
    -------
    str
        Tables in Markdown.
    """
    timed = [row for row in rows if row["part"] != "memory"]
    limited = [row for row in rows if row["part"] == "memory"]
    return "\n\n".join([*_time_table(timed), *_memory_table(limited)])


def _time_table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not rows:
        return
    titles = ("limit", "runs", "kept", "time used", "below the minimum", "machine idle")
    lines = [_line(titles), _line(["---"] * len(titles))]
    for part, limit in dict.fromkeys((row["part"], row["limit"]) for row in rows):
        own = [row for row in rows if (row["part"], row["limit"]) == (part, limit)]
        used = [row["seconds"] / limit for row in own if "minimum" not in row]
        text = f"{min(used):.1%} to {max(used):.1%}" if used else ""
        kept, alone = sum(row["kept"] for row in own), sum(row["alone"] for row in own)
        name = f"{limit:g} s" + (", beside a busy process" if part == "busy" else "")
        lines.append(_line((name, len(own), kept, text, len(own) - len(used), alone)))
    yield "\n".join(lines)


def _memory_table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not rows:
        return
    titles = ("work", "memory limit", "peak", "error of the prediction")
    lines = [_line(titles), _line(["---"] * len(titles))]
    for row in rows:
        error = f"{row['estimate_error']:+.0%}" if "estimate_error" in row else ""
        peak = "refused" if row.get("refused") else f"{row['peak_bytes'] / 1e6:.0f} MB"
        lines.append(_line((row["work"], row["limit_used"], peak, error)))
    yield "\n".join(lines)


def _line(cells: Sequence[object]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def main() -> None:
    """Measure the parts that are asked for, print a summary and write it into the page on reliability."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=PARTS, action="append", help="default: all")
    parser.add_argument(
        "--runs", type=int, metavar="N", help="rows to measure now; default: all that are missing"
    )
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):  # this process, and all that it starts, on one core
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    cases: list[Case] = []
    for part in options.part or PARTS:
        cases += memory_cases() if part == "memory" else time_cases(part)
    measure_rows(cases, options.runs)
    table = summary(_read_rows())
    fill(PAGE, marks("limits"), table)
    print(table)


if __name__ == "__main__":
    main()
