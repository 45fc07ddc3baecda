"""From a table to an honest score: what a search reports, and what rows say that it never saw.

``python -m benchmarks.end_to_end`` runs ``pmlp`` as a user would, in processes of their own, on three
quarters of bundled data sets, evaluates on the quarter that was held back, and writes
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
    """One search."""

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
    """Memory of a process and all below it, pages that several share counted once (Linux)."""
    total = 0.0
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        total += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) / 1024
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += sum(tree_megabytes(int(child)) for child in (task / "children").read_text().split())
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        pass  # it has just ended
    return total


def run_case(case: Case, folder: Path, seed: int) -> dict[str, Any]:
    """Search on three quarters of the rows and evaluate on the rest."""
    frame = read_table(ROOT / "datasets" / f"{case.data}.csv.gz")
    _, target = split_target(frame, case.target)
    split = holdout(np.asarray(target), fraction=0.25, task=infer_task(target), seed=1000 + seed)
    train, test = folder / "train.parquet", folder / "test.parquet"
    frame.iloc[split.train].reset_index(drop=True).to_parquet(train)
    frame.iloc[split.test].reset_index(drop=True).to_parquet(test)
    output = folder / "run"
    command = [sys.executable, "-m", "parallelmlp_search", "search", str(train), "--target", case.target]
    command += [
        "--metric",
        case.metric,
        "--seed",
        str(seed),
        "--output",
        str(output),
        "--quiet",
        *case.options,
    ]
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, tree_megabytes(process.pid))
        time.sleep(0.25)
    seconds = time.monotonic() - started
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {process.returncode}")
    evaluate = [sys.executable, "-m", "parallelmlp_search", "evaluate", str(output), str(test), "--json"]
    held_back = json.loads(subprocess.run(evaluate, check=True, capture_output=True, text=True).stdout)
    summary = json.loads((output / "result.json").read_text())
    honest = summary["honest"]
    score = held_back["scores"][case.metric]
    n_test = len(split.test)
    # the held-back quarter has a standard error of its own, about that of the honest score scaled by its rows
    n_oof = json.loads((output / "run.json").read_text())["splits"]["reporting"]
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
        "cut": summary["cut"],
        "metrics": held_back["scores"],
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table, as it stands in the README."""
    lines = [
        "| search | metric | held back | honest score | seconds | networks | peak memory |",
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
    """Run the cases and write the figures."""
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
