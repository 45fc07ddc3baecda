"""``PackedSearchCV`` against ``GridSearchCV`` on the same candidates and folds.

``python -m benchmarks.search_cv`` runs three searches in turns: :class:`~parallelmlp_search.PackedSearchCV`;
``GridSearchCV`` over :class:`~parallelmlp_search.SingleMLPClassifier`, which trains each of these networks
alone; and ``GridSearchCV`` over scikit-learn's ``MLPClassifier`` of the same widths, learning rates, batches
and epochs. It writes ``benchmarks/results/search_cv.json``. ``--only NAME`` runs one of the cases.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from benchmarks.publishing import ROOT, describe_machine
from parallelmlp_search import PackedSearchCV, SingleMLPClassifier
from parallelmlp_search.data import read_table

RESULTS = ROOT / "benchmarks" / "results" / "search_cv.json"

SPACE = {
    "widths": [(16,), (24,), (32,), (48,), (64,), (16, 16), (32, 32), (48, 48)],
    "learning_rate": [0.001, 0.003, 0.01, 0.03],
    "dropout": [0.0],
    "activation": ["relu", "tanh"],
    "weight_decay": [1e-4],
}


@dataclass(frozen=True)
class Case:
    """One grid search."""

    name: str
    data: str
    target: str
    epochs: int
    n_folds: int
    n_jobs: int


CASES = (
    Case("credit_g, one worker", "credit_g", "class", 9, 5, 1),
    Case("credit_g, two workers", "credit_g", "class", 9, 5, 2),
    Case("spambase, one worker", "spambase", "type", 3, 3, 1),
    Case("spambase, two workers", "spambase", "type", 3, 3, 2),
)


def sides(case: Case) -> dict[str, Any]:
    """Return the searches that are compared, by name."""
    network = SingleMLPClassifier(max_epochs=case.epochs, random_state=0)
    options: dict[str, Any] = {"cv": case.n_folds, "scoring": "neg_log_loss", "refit": False}
    options["n_jobs"] = case.n_jobs
    encode = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), make_column_selector(dtype_exclude="number")),
        remainder=StandardScaler(),
        sparse_threshold=0.0,
    )
    theirs = MLPClassifier(batch_size=128, max_iter=case.epochs, alpha=1e-4, random_state=0)
    grid = {
        "mlp__hidden_layer_sizes": SPACE["widths"],
        "mlp__learning_rate_init": SPACE["learning_rate"],
        "mlp__activation": SPACE["activation"],
    }
    return {
        "packed": PackedSearchCV(network, SPACE, sampler="grid", **options),
        "one_by_one": GridSearchCV(network, SPACE, **options),
        "scikit_learn": GridSearchCV(Pipeline([("encode", encode), ("mlp", theirs)]), grid, **options),
    }


def run_case(case: Case, repeats: int) -> dict[str, Any]:
    """Time all searches of a case in turns and return the row of the results file."""
    table = read_table(ROOT / "datasets" / f"{case.data}.csv.gz")
    X, y = table.drop(columns=case.target), table[case.target].astype(str)
    seconds: dict[str, list[float]] = {}
    scores: dict[str, Any] = {}
    for _ in range(repeats):
        for name, search in sides(case).items():
            fresh = clone(search)
            started = time.perf_counter()
            with warnings.catch_warnings():
                # so few epochs are not meant to converge
                warnings.simplefilter("ignore", ConvergenceWarning)
                fresh.fit(X, y)
            seconds.setdefault(name, []).append(time.perf_counter() - started)
            scores[name] = fresh.cv_results_["mean_test_score"]
    n_candidates = len(scores["packed"])
    median = {name: float(np.median(values)) for name, values in seconds.items()}
    return {
        "case": case.name,
        "rows": len(X),
        "epochs": case.epochs,
        "candidates": n_candidates,
        "folds": case.n_folds,
        "n_jobs": case.n_jobs,
        "seconds": {
            name: {"median": median[name], "min": min(values), "max": max(values), "repeats": repeats}
            for name, values in seconds.items()
        },
        "networks_a_minute": {
            name: 60.0 * n_candidates * case.n_folds / value for name, value in median.items()
        },
        "ratio_one_by_one": median["one_by_one"] / median["packed"],
        "ratio_scikit_learn": median["scikit_learn"] / median["packed"],
        "largest_difference_of_scores": float(np.abs(scores["packed"] - scores["one_by_one"]).max()),
        "best_score": {name: float(np.max(values)) for name, values in scores.items()},
    }


def main() -> None:
    """Run the cases and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=[case.name for case in CASES], action="append")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    known = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    rows = {row["case"]: row for row in known}
    for case in CASES:
        if arguments.only and case.name not in arguments.only:
            continue
        row = rows[case.name] = run_case(case, arguments.repeats)
        row["machine"] = describe_machine()
        print(
            f"{case.name}: {row['candidates']} candidates x {row['folds']} folds, "
            f"packed {row['seconds']['packed']['median']:.1f} s, "
            f"one by one {row['ratio_one_by_one']:.1f} times, "
            f"scikit-learn's networks {row['ratio_scikit_learn']:.1f} times as long",
            flush=True,
        )
        ordered = [rows[one.name] for one in CASES if one.name in rows]
        RESULTS.write_text(json.dumps({"rows": ordered}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
