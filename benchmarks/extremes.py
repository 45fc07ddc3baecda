"""Extreme synthetic tables: few rows, many columns, a rare class, many classes, a million rows.

``python -m benchmarks.extremes`` searches each of them with ``pmlp`` under a time limit, each in a new
process, and compares the score on held-out rows with that of a linear model, which a sensible model must
beat. It writes ``benchmarks/results/extremes.json`` and the table in ``docs/quality.md``. ``--only NAME``
runs one.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score, root_mean_squared_error
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.end_to_end import evaluate, search
from benchmarks.publishing import ROOT, describe_machine, fill, marks

RESULTS = ROOT / "benchmarks" / "results" / "extremes.json"
DOCUMENT = ROOT / "docs" / "quality.md"

Made = tuple[NDArray[np.float32], NDArray[Any]]
"""Inputs ``(rows, columns)`` and target ``(rows,)`` of a synthetic table."""


@dataclass(frozen=True)
class Case:
    """A synthetic table, its time limit in seconds, and its metric."""

    make: Callable[[np.random.Generator], Made]
    seconds: float
    metric: str


def _scores(rng: np.random.Generator, inputs: NDArray[np.float32], n_outputs: int) -> NDArray[np.float32]:
    """Return outputs of a random network with one hidden layer, scaled to unit variance."""
    hidden = np.tanh(inputs @ rng.normal(0.0, 1.0 / math.sqrt(inputs.shape[1]), (inputs.shape[1], 32)) * 2.0)
    scores = hidden @ rng.normal(0.0, 1.0, (32, n_outputs))
    return np.asarray(scores / scores.std(axis=0), dtype=np.float32)


def _numbers(rng: np.random.Generator, rows: int, columns: int) -> NDArray[np.float32]:
    return rng.standard_normal((rows, columns), dtype=np.float32)


def tiny(rng: np.random.Generator) -> Made:
    """Make 150 rows of three overlapping classes."""
    inputs = _numbers(rng, 150, 4)
    scores = _scores(rng, inputs, 3) + 0.2 * _numbers(rng, 150, 3)
    return inputs, scores.argmax(axis=1)


def wide(rng: np.random.Generator) -> Made:
    """Make 1,000 columns, ten of which matter."""
    inputs = _numbers(rng, 3000, 1000)
    scores = _scores(rng, inputs[:, :10], 1)[:, 0] + 0.5 * rng.standard_normal(3000)
    return inputs, (scores > 0).astype(np.int64)


def rare(rng: np.random.Generator) -> Made:
    """Make a table where one row in a hundred belongs to the positive class."""
    inputs = _numbers(rng, 40_000, 12)
    scores = _scores(rng, inputs, 1)[:, 0] + 0.3 * rng.standard_normal(40_000)
    return inputs, (scores > np.quantile(scores, 0.99)).astype(np.int64)


def many_classes(rng: np.random.Generator) -> Made:
    """Make fifty classes."""
    inputs = _numbers(rng, 20_000, 16)
    scores = _scores(rng, inputs, 50) + 0.3 * _numbers(rng, 20_000, 50)
    return inputs, scores.argmax(axis=1)


def million(rng: np.random.Generator) -> Made:
    """Make a million rows of ten numbers."""
    inputs = _numbers(rng, 1_000_000, 10)
    return inputs, _scores(rng, inputs, 1)[:, 0] + 0.3 * rng.standard_normal(1_000_000)


CASES: Mapping[str, Case] = {
    "150 rows": Case(tiny, 10.0, "log_loss"),
    "1,000 columns": Case(wide, 30.0, "roc_auc"),
    "1 % of one class": Case(rare, 30.0, "roc_auc"),
    "50 classes": Case(many_classes, 60.0, "log_loss"),
    "a million rows": Case(million, 120.0, "rmse"),
}


def linear(case: Case, train: Made, test: Made) -> float:
    """Fit a linear model and return its score on the held-out rows.

    Parameters
    ----------
    case
        Names the metric.
    train, test
        Inputs and target of both parts.

    Returns
    -------
    float
        Score by the metric.
    """
    if case.metric == "rmse":
        model: Any = LinearRegression().fit(*train)
        return float(root_mean_squared_error(test[1], model.predict(test[0])))
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300)).fit(*train)
    probabilities = model.predict_proba(test[0])
    if case.metric == "roc_auc":
        return float(roc_auc_score(test[1], probabilities[:, 1]))
    return float(log_loss(test[1], probabilities, labels=np.arange(probabilities.shape[1])))


def run(name: str, folder: Path) -> dict[str, Any]:
    """Search three quarters of a table and score the last one; return the row of the results file."""
    case = CASES[name]
    inputs, target = case.make(np.random.default_rng(0))
    stratify = None if case.metric == "rmse" else target
    rows = np.arange(len(target))
    train, test = train_test_split(rows, test_size=0.25, random_state=0, stratify=stratify)
    for file, part in (("train", train), ("test", test)):
        frame = pd.DataFrame(inputs[part], columns=[f"x{n}" for n in range(inputs.shape[1])])
        frame.assign(y=target[part]).to_parquet(folder / f"{file}.parquet")
    output = folder / "run"
    task = {"log_loss": "multiclass", "roc_auc": "binary", "rmse": "regression"}[case.metric]
    options = ["--target", "y", "--task", task, "--metric", case.metric]
    options += ["--time-limit", f"{case.seconds:g}", "--seed", "0"]
    seconds, peak = search(folder / "train.parquet", output, options)
    scores, summary = evaluate(output, folder / "test.parquet")
    return {
        "case": name, "rows": len(train), "columns": inputs.shape[1], "metric": case.metric,
        "limit": case.seconds, "seconds": seconds, "peak_megabytes": peak,
        "held_back": scores[case.metric], "honest": summary["honest"]["score"],
        "honest_standard_error": summary["honest"]["standard_error"],
        "linear": linear(case, (inputs[train], target[train]), (inputs[test], target[test])),
        "trials": summary["n_trials"], "folds": summary["n_folds"], "ensemble": len(summary["ensemble"]),
        "cut": summary["left_out"], "machine": describe_machine(),
    }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    head = "| table | rows that train | metric | held out | linear model | honest score | seconds | memory |"
    lines = [
        f"| {row['case']} | {row['rows']:,} x {row['columns']:,} | {row['metric']} "
        f"| {row['held_back']:.3f} | {row['linear']:.3f} "
        f"| {row['honest']:.3f} ± {row['honest_standard_error']:.3f} "
        f"| {row['seconds']:.1f} of {row['limit']:.0f} | {row['peak_megabytes']:,.0f} MB |"
        for row in rows
    ]
    return "\n".join([head, "|---|---|---|---|---|---|---|---|", *lines])


def main() -> None:
    """Run the cases, write the figures and update the document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=list(CASES), action="append")
    chosen = parser.parse_args().only or list(CASES)
    known = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    rows = {row["case"]: row for row in known}
    for name in chosen:
        with tempfile.TemporaryDirectory() as folder:
            rows[name] = run(name, Path(folder))
        print(json.dumps(rows[name]), flush=True)
        ordered = [rows[case] for case in CASES if case in rows]
        RESULTS.write_text(json.dumps({"rows": ordered}, indent=1) + "\n", encoding="utf-8")
    fill(DOCUMENT, marks("extremes"), table([rows[case] for case in CASES if case in rows]))


if __name__ == "__main__":
    main()
