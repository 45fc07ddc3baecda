"""Whole searches: honest score, score on held-out rows, time and memory.

``python -m benchmarks.end_to_end`` runs ``pmlp`` as a user would, each time in a new process, on three
quarters of a bundled table, and evaluates the run on the held-out quarter. It writes
``benchmarks/results/end_to_end.json`` and the table in the README. ``--only NAME`` runs one of the rows.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.publishing import ROOT, describe_machine, fill, marks
from parallelmlp_search.data import holdout, infer_task, read_table, split_target

RESULTS = ROOT / "benchmarks" / "results" / "end_to_end.json"
README = ROOT / "README.md"
MARKS = marks("end_to_end")


@dataclass(frozen=True)
class Case:
    """One search with the command line."""

    name: str
    data: str
    target: str
    metric: str
    options: tuple[str, ...]


CASES = (
    Case("adult, 60 s", "adult", "income", "roc_auc", ("--time-limit", "60")),
    Case("letter, 120 s", "letter", "lettr", "accuracy", ("--time-limit", "120")),
    Case("diamonds, 120 s", "diamonds", "price", "rmse", ("--time-limit", "120")),
    Case(
        "spambase, 1,000 trials, 27 epochs",
        "spambase",
        "type",
        "roc_auc",
        ("--trials", "1000", "--max-epochs", "27"),
    ),
    Case(
        "adult, 2,000 trials, 3 epochs",
        "adult",
        "income",
        "roc_auc",
        ("--trials", "2000", "--max-epochs", "3"),
    ),
)


def tree_megabytes(pid: int) -> float:
    """Return the memory of a process and its descendants in MiB; shared pages count once (Linux)."""
    total = 0.0
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        total += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) / 1024
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += sum(tree_megabytes(int(child)) for child in (task / "children").read_text().split())
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        pass  # the process has just ended
    return total


def search(data: Path, output: Path, options: Sequence[str]) -> tuple[float, float]:
    """Run ``pmlp search`` in a new process.

    Parameters
    ----------
    data
        Table.
    output
        Run directory to make.
    options
        Further options.

    Returns
    -------
    tuple
        Seconds, and the highest memory in MiB.

    Raises
    ------
    SystemExit
        If the search fails.
    """
    command = [sys.executable, "-m", "parallelmlp_search", "search", str(data), "--output", str(output)]
    command += ["--quiet", *options]
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, tree_megabytes(process.pid))
        time.sleep(0.25)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {process.returncode}")
    return time.monotonic() - started, peak


def evaluate(run: Path, data: Path) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the scores of a run on a table, and the summary of the run."""
    command = [sys.executable, "-m", "parallelmlp_search", "evaluate", str(run), str(data), "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)["scores"], json.loads((run / "result.json").read_text())


def run_case(case: Case, folder: Path, seed: int) -> dict[str, Any]:
    """Search three quarters of the rows and evaluate the run on the rest.

    Parameters
    ----------
    case
        The search.
    folder
        Empty folder for tables and run.
    seed
        Seed of the split and of the search.

    Returns
    -------
    dict
        Row of the results file.
    """
    frame = read_table(ROOT / "datasets" / f"{case.data}.csv.gz")
    _, target = split_target(frame, case.target)
    split = holdout(np.asarray(target), fraction=0.25, task=infer_task(target), seed=1000 + seed)
    train, test = folder / "train.parquet", folder / "test.parquet"
    frame.iloc[split.train].reset_index(drop=True).to_parquet(train)
    frame.iloc[split.test].reset_index(drop=True).to_parquet(test)
    output = folder / "run"
    options = ["--target", case.target, "--metric", case.metric, "--seed", str(seed), *case.options]
    seconds, peak = search(train, output, options)
    scores, summary = evaluate(output, test)
    honest = summary["honest"]
    score = scores[case.metric]
    n_test = len(split.test)
    # the held-out score has a standard error too, about that of the honest score scaled by its rows
    n_oof = json.loads((output / "run.json").read_text())["splits"]["out_of_fold"]
    error = honest["standard_error"] * math.sqrt(1.0 + n_oof / n_test)
    return {
        "case": case.name,
        "options": " ".join(case.options),
        "metric": case.metric,
        "held_back": score,
        "held_back_rows": n_test,
        "honest": honest["score"],
        "honest_standard_error": honest["standard_error"],
        "naive": honest["naive"],
        "difference_in_standard_errors": (honest["score"] - score) / error,
        "seconds": seconds,
        "peak_megabytes": peak,
        "trials": summary["n_trials"],
        "max_epochs": summary["max_epochs"],
        "folds": summary["n_folds"],
        "ensemble": len(summary["ensemble"]),
        "member_steps": summary["member_steps"],
        "cut": summary["left_out"],
        "metrics": scores,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as the Markdown table of the README."""
    lines = [
        "| search | metric | held out | honest score | seconds | networks | peak memory |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        digits = 0 if abs(row["held_back"]) > 10 else 4
        lines.append(
            f"| {row['case']} | {row['metric']} | {row['held_back']:.{digits}f} "
            f"| {row['honest']:.{digits}f} ± {row['honest_standard_error']:.{digits}f} "
            f"| {row['seconds']:.0f} | {row['trials']:,} "
            f"| {row['peak_megabytes']:,.0f} MB |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run the cases, write the figures and update the README."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=[case.name for case in CASES], action="append")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    known = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    rows = {row["case"]: row for row in known}
    for case in CASES:
        if arguments.only and case.name not in arguments.only:
            continue
        with tempfile.TemporaryDirectory() as folder:
            rows[case.name] = run_case(case, Path(folder), arguments.seed)
        print(json.dumps(rows[case.name]), flush=True)
        so_far = [rows[c.name] for c in CASES if c.name in rows]
        RESULTS.write_text(json.dumps({"machine": describe_machine(), "rows": so_far}, indent=1) + "\n")
    ordered = [rows[case.name] for case in CASES if case.name in rows]
    fill(README, MARKS, table(ordered))
    print(table(ordered))


if __name__ == "__main__":
    main()
