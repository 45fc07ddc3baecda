"""Limits of time and memory, measured on whole processes.

``python -m benchmarks.limits`` runs ``pmlp search`` in new processes: with time limits of 5 to 60 s on five
tables, beside a busy process, and with memory limits for four kinds of work. It writes
``benchmarks/results/limits.json``. ``--part time``, ``busy`` or ``memory`` runs one part, and ``--short`` a
sixth of it. Time limits need a machine that is otherwise idle.
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.publishing import ROOT, describe_machine
from parallelmlp_search._memory import resident_bytes

RESULTS = ROOT / "benchmarks" / "results" / "limits.json"
DATASETS = ROOT / "datasets"

TABLES = {"spambase": "type", "adult": "income", "letter": "lettr", "diamonds": "price", "credit_g": "class"}
"""Tables of the time limits, with their targets."""

SECONDS = (5.0, 10.0, 15.0, 30.0, 60.0)
REPEATS, BUSY_REPEATS = 4, 6
BUSY_SECONDS = 20.0
POLL_SECONDS = 0.1

MEMORY_LIMITS = ("1GB", "1.4GB", "2GB")
"""Memory limits beside the minimum."""

MEMORY_WORK: dict[str, list[str]] = {
    "small classification": [str(DATASETS / "credit_g.csv.gz"), "--target", "class"],
    "large classification": [str(DATASETS / "adult.csv.gz"), "--target", "income"],
    "regression": [str(DATASETS / "diamonds.csv.gz"), "--target", "price"],
    "deep": [str(DATASETS / "spambase.csv.gz"), "--target", "type", "--space", "deep"],
    "wide": ["wide.csv", "--target", "target"],
}

BASE_WORK = ["--trials", "60", "--max-epochs", "3", "--seed", "0"]


def is_kept(limit: float, seconds: float, *, busy: bool = False) -> bool:
    """Return True if a run kept to the rule of time limits.

    On a quiet machine it ends at most 2 % or 1 s late, and from 10 s up it uses at least 93 % of the time.
    Beside a busy process it ends at most 10 % late.

    Parameters
    ----------
    limit, seconds
        Time limit, and elapsed time of the process.
    busy
        True beside a busy process.

    Returns
    -------
    bool
    """
    if busy:
        return seconds <= 1.1 * limit
    return seconds <= limit + max(1.0, 0.02 * limit) and (limit < 10.0 or seconds >= 0.93 * limit)


def run_once(arguments: Sequence[str], folder: Path) -> dict[str, Any]:
    """Run ``pmlp search`` in a new process and return its seconds, peak and exit code."""
    output = folder / "run"
    command = [sys.executable, "-m", "parallelmlp_search", "search", *arguments, "--quiet"]
    started = time.monotonic()
    process = subprocess.Popen(
        [*command, "--output", str(output)],
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
    row = {
        "seconds": round(seconds, 2),
        "peak_bytes": max(usage.ru_maxrss * 1024, *peaks),
        "code": process.returncode,
    }
    info = output / "run.json"
    if info.is_file():
        row["memory"] = json.loads(info.read_text(encoding="utf-8")).get("memory")
    return row if process.returncode == 0 else row | {"error": text.strip()[-300:]}


def _watch_memory(process: subprocess.Popen[str], peaks: list[int]) -> None:
    """Record the peak of a process with its workers; the system keeps only that of each process."""
    while process.returncode is None:
        peaks[0] = max(peaks[0], resident_bytes(process.pid) or 0)
        time.sleep(POLL_SECONDS)


def time_rows(limits: Sequence[float], repeats: int, *, busy: bool = False) -> Iterator[dict[str, Any]]:
    """Yield a row for each run with a time limit."""
    for repeat in range(repeats):
        for limit in limits:
            for name, target in TABLES.items():
                load = os.getloadavg()[0]
                arguments = [str(DATASETS / f"{name}.csv.gz"), "--target", target, "--seed", str(repeat)]
                with tempfile.TemporaryDirectory() as folder:
                    row = run_once([*arguments, "--time-limit", str(limit)], Path(folder))
                kept = row["code"] == 0 and is_kept(limit, row["seconds"], busy=busy)
                yield {"table": name, "limit": limit, "load_before": round(load, 2), "kept": kept} | row


def _spin() -> None:
    while True:
        pass


@contextmanager
def busy_process() -> Iterator[None]:
    """Keep one core busy."""
    process = multiprocessing.get_context("spawn").Process(target=_spin, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.terminate()
        process.join()


def _write_wide_table(folder: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({f"c{n}": rng.integers(0, 30, 6000).astype(str) for n in range(40)})
    frame = frame.map("v{}".format)
    frame["target"] = (rng.random(6000) < 0.4 + 0.2 * (frame["c0"] < "v15")).astype(int)
    frame.to_csv(folder / "wide.csv", index=False)


def memory_rows(limits: Sequence[str], work: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield a row for each kind of work and memory limit, the minimum first."""
    for name in work:
        with tempfile.TemporaryDirectory() as parent:
            folder = Path(parent)
            _write_wide_table(folder)
            arguments = [*MEMORY_WORK[name], *BASE_WORK]
            for limit in (_minimum(arguments, folder), *limits):
                shutil.rmtree(folder / "run", ignore_errors=True)
                row = run_once([*arguments, "--memory-limit", limit], folder)
                yield {"work": name, "limit": limit} | row | _memory_figures(row)


def _minimum(arguments: Sequence[str], folder: Path) -> str:
    """Smallest limit that a search accepts, found by following its messages."""
    limit = "300M"
    for _ in range(6):
        probe = run_once([*arguments, "--memory-limit", limit, "--trials", "2"], folder)
        shutil.rmtree(folder / "run", ignore_errors=True)
        found = re.search(r"at least ([0-9.]+[MG])", probe.get("error", ""))
        if found is None:
            break
        limit = found[1]
    return limit


def _memory_figures(row: dict[str, Any]) -> dict[str, Any]:
    memory = row.get("memory")
    if not memory:
        return {"kept": False}
    peak = row["peak_bytes"]
    return {"kept": peak <= memory["limit"], "estimate_error": round(memory["estimate"] / peak - 1.0, 3)}


def main() -> None:
    """Run the parts that are asked for and write their rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=("time", "busy", "memory"), action="append")
    parser.add_argument("--short", action="store_true", help="a sixth of each part")
    options = parser.parse_args()
    parts = options.part or ["time", "busy", "memory"]
    found: dict[str, Any] = {}
    if RESULTS.is_file():
        found = json.loads(RESULTS.read_text(encoding="utf-8"))
    for part in parts:
        rows = []
        with busy_process() if part == "busy" else tempfile.TemporaryDirectory():
            for row in _rows(part, short=options.short):
                print(json.dumps(row), flush=True)
                rows.append(row)
        found[part] = {"machine": describe_machine(), "rows": rows}
        RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(f"{part}: {sum(row['kept'] for row in rows)} of {len(rows)} runs kept their limit")


def _rows(part: str, *, short: bool) -> Iterator[dict[str, Any]]:
    if part == "memory":
        work = list(MEMORY_WORK)[:1] if short else list(MEMORY_WORK)
        return memory_rows(MEMORY_LIMITS[:1] if short else MEMORY_LIMITS, work)
    if part == "busy":
        return time_rows([BUSY_SECONDS], 1 if short else BUSY_REPEATS, busy=True)
    return time_rows(SECONDS[1:4] if short else SECONDS, 1 if short else REPEATS)


if __name__ == "__main__":
    main()
