"""Gain of averaging the networks of all folds: expected, and measured on held-out rows.

``python -m benchmarks.averaging`` searches each of the twelve bundled tables for 30 seconds. It compares the
error of the ensemble of one fold's networks, in the mean of the folds, with that of the average over all
folds. Out-of-fold predictions show the former, and the search estimates the gain
(:mod:`parallelmlp_search.selection.fold_averaging`). It writes ``benchmarks/results/averaging.json`` and the
table in ``docs/quality.md``. Results on file are kept; ``--repeat`` runs all of them again.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.publishing import ROOT, describe_machine, fill, marks
from benchmarks.quality.errors import METRICS, error_of, error_of_score
from benchmarks.quality.sets import BUNDLED, Table, load, split
from parallelmlp_search.exceptions import BudgetWarning
from parallelmlp_search.inference import TrainedModel
from parallelmlp_search.search import Problem, SearchSettings
from parallelmlp_search.search import run as search

RESULTS = ROOT / "benchmarks" / "results" / "averaging.json"
DOCUMENT = ROOT / "docs" / "quality.md"
SECONDS = 30.0


def held_back(model: TrainedModel, table: Table, rows: np.ndarray[Any, np.dtype[np.intp]]) -> float:
    """Return the error of a model on some rows."""
    values = model.predictions(table.rows(rows))
    return error_of(table.task, table.target[rows], values[0] if table.task == "regression" else values.T)


def run(name: str, seed: int, seconds: float = SECONDS) -> dict[str, Any]:
    """Search a table and score the model fold by fold.

    Parameters
    ----------
    name
        Table.
    seed
        Seed of the split and of the search.
    seconds
        Time limit of the search.

    Returns
    -------
    dict
        Row of the results file.
    """
    table = load(name)
    train, test = split(table, seed)
    settings = SearchSettings(time_limit=seconds, metric=METRICS[table.task], seed=seed, device="cpu")
    problem = Problem(frame=table.rows(train), target=table.target[train], task=table.task)  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BudgetWarning)
        result = search(problem, settings)
    if result.honest is None:
        raise SystemExit(f"{name} is too small for an honest score")
    model = result.model
    alone = [held_back(replace(model, folds=[fold]), table, test) for fold in model.folds]
    honest = error_of_score(table.task, result.honest.score)
    return {
        "set": name, "seed": seed, "folds": len(model.folds), "ensemble": len(model.weights),
        "fold": float(np.mean(alone)), "error": held_back(model, table, test), "honest": honest,
        "expected": -abs(result.honest.averaging), "machine": describe_machine(),
    }  # fmt: skip


def gains(rows: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[float]]:
    """Return the expected and the measured gain of each search, relative to the error of one fold."""
    expected = [row["expected"] / (row["honest"] - row["expected"]) for row in rows]
    return expected, [row["error"] / row["fold"] - 1.0 for row in rows]


def table_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as a Markdown table, with their mean."""
    lines = [
        "| set, seed | folds | networks | one fold | all folds | gain | expected |",
        "|---|---|---|---|---|---|---|",
    ]
    for row, expected, measured in zip(rows, *gains(rows), strict=True):
        lines.append(
            f"| {row['set']}, {row['seed']} | {row['folds']} | {row['ensemble']} | {row['fold']:.4g} "
            f"| {row['error']:.4g} | {measured:+.1%} | {expected:+.1%} |"
        )
    expected, measured = (float(np.mean(values)) for values in gains(rows))
    return "\n".join([*lines, f"| mean | | | | | {measured:+.1%} | {expected:+.1%} |"])


def main() -> None:
    """Run the missing searches and publish all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", action="store_true", help="run again what is on file")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    arguments = parser.parse_args()
    known = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() and not arguments.repeat else []
    rows: list[dict[str, Any]] = known
    for seed in arguments.seeds:
        for name in BUNDLED:
            if any(row["set"] == name and row["seed"] == seed for row in rows):
                continue
            rows.append(run(name, seed))
            print(table_of(rows[-1:]).splitlines()[2], flush=True)
            text = ",\n".join("  " + json.dumps(row) for row in rows)
            RESULTS.write_text(f'{{"rows": [\n{text}\n]}}\n', encoding="utf-8")
    fill(DOCUMENT, marks("averaging"), table_of(rows))


if __name__ == "__main__":
    main()
