"""Honest scores of many short searches, compared with the true scores of their models.

``python -m benchmarks.honesty`` runs searches of 200 to 20,000 rows with every metric: on samples of the
bundled tables, whose other rows give the true score, and on synthetic tables, of which any number of new rows
can be drawn. It writes ``benchmarks/results/honesty.json`` and prints bias and coverage. Searches on
file are kept, so that a second call continues; ``--searches N`` stops when N of them are on file.

The difference between the two scores has two terms: that of the networks of one fold, and that of the gain of
averaging all folds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from benchmarks.publishing import ROOT, describe_machine
from benchmarks.quality.sets import BUNDLED, load
from parallelmlp_search._files import write_json
from parallelmlp_search.inference import TrainedModel
from parallelmlp_search.search import Problem, SearchResult, SearchSettings
from parallelmlp_search.search import run as search
from parallelmlp_search.selection import Metric, get_metric

RESULTS = ROOT / "benchmarks" / "results" / "honesty.json"

SIZES = (200, 1_000, 5_000, 20_000)
N_TRIALS, MAX_EPOCHS = 24, 9
MAX_TEST_ROWS = 30_000
MIN_TEST_SHARE = 0.5
"""Fewest rows that give the true score, relative to those of the search."""

METRICS = {
    "binary": ("roc_auc", "accuracy", "log_loss", "balanced_accuracy", "f1", "mcc", "brier"),
    "multiclass": ("log_loss", "accuracy", "f1_macro", "roc_auc", "balanced_accuracy", "mcc", "brier"),
    "regression": ("rmse", "mae", "r2", "pinball:0.9"),
}
"""Metrics of each task. The default of the task is measured most often."""

Rows = NDArray[np.intp]


class Sample(NamedTuple):
    """Rows of a search, and new rows from the same source."""

    task: str
    frame: pd.DataFrame
    target: NDArray[Any]
    new_frame: pd.DataFrame
    new_target: NDArray[Any]


# ---------------------------------------------------------------------- sources


def _linear(rng: np.random.Generator, n: int) -> tuple[pd.DataFrame, NDArray[Any]]:
    X = rng.normal(size=(n, 8))
    logits = 1.5 * X[:, 0] - X[:, 1] + 0.5 * X[:, 2]
    return _frame(X), (rng.random(n) < 1.0 / (1.0 + np.exp(-logits))).astype(int)


def _rare(rng: np.random.Generator, n: int) -> tuple[pd.DataFrame, NDArray[Any]]:
    X = rng.normal(size=(n, 6))
    logits = -3.2 + 1.5 * X[:, 0] * (X[:, 1] > 0) + np.abs(X[:, 2])
    return _frame(X), (rng.random(n) < 1.0 / (1.0 + np.exp(-logits))).astype(int)


def _easy(rng: np.random.Generator, n: int) -> tuple[pd.DataFrame, NDArray[Any]]:
    X = rng.normal(size=(n, 4))
    return _frame(X), (X[:, 0] + 0.1 * rng.normal(size=n) > 0).astype(int)


def _blobs(rng: np.random.Generator, n: int) -> tuple[pd.DataFrame, NDArray[Any]]:
    centers = np.random.default_rng(0).normal(size=(6, 5))
    target = rng.integers(0, 6, n)
    return _frame(centers[target] + 0.8 * rng.normal(size=(n, 5))), target


def _friedman(rng: np.random.Generator, n: int) -> tuple[pd.DataFrame, NDArray[Any]]:
    X = rng.random((n, 8))
    mean = 10 * np.sin(np.pi * X[:, 0] * X[:, 1]) + 20 * (X[:, 2] - 0.5) ** 2 + 10 * X[:, 3] + 5 * X[:, 4]
    return _frame(X), mean + rng.normal(size=n)


def _heavy_tails(rng: np.random.Generator, n: int) -> tuple[pd.DataFrame, NDArray[Any]]:
    X = rng.normal(size=(n, 5))
    return _frame(X), X[:, 0] + np.maximum(X[:, 1], 0.0) + 0.5 * rng.standard_t(4, n)


SYNTHETIC: Mapping[
    str, tuple[str, Callable[[np.random.Generator, int], tuple[pd.DataFrame, NDArray[Any]]]]
] = {
    "linear": ("binary", _linear),
    "rare": ("binary", _rare),
    "easy": ("binary", _easy),
    "blobs": ("multiclass", _blobs),
    "friedman": ("regression", _friedman),
    "heavy_tails": ("regression", _heavy_tails),
}
"""Synthetic tables, with their tasks."""


def _frame(X: NDArray[np.float64]) -> pd.DataFrame:
    return pd.DataFrame(X, columns=[f"x{number}" for number in range(X.shape[1])])


def draw(source: str, n_rows: int, seed: int) -> Sample | None:
    """Return rows for a search, and new ones; None if the source has too few rows for both.

    Parameters
    ----------
    source
        Name of a bundled or a synthetic table.
    n_rows
        Rows of the search.
    seed
        Seed of the rows.

    Returns
    -------
    Sample or None
    """
    rng = np.random.default_rng([seed, n_rows])
    if source in SYNTHETIC:
        task, generate = SYNTHETIC[source]
        return Sample(task, *generate(rng, n_rows), *generate(rng, MAX_TEST_ROWS))
    table = load(source)
    if len(table.target) < (1.0 + MIN_TEST_SHARE) * n_rows:
        return None
    order = rng.permutation(len(table.target))
    own, new = order[:n_rows], order[n_rows : n_rows + MAX_TEST_ROWS]
    if table.task != "regression":
        counts = np.bincount(table.target[own], minlength=int(table.target.max()) + 1)
        if counts.min() < 8:  # some fold would lack a class
            return None
    return Sample(table.task, table.rows(own), table.target[own], table.rows(new), table.target[new])


# ---------------------------------------------------------------------- one search


def measure(case: Mapping[str, Any]) -> dict[str, Any] | None:
    """Search one sample and compare its honest score with the score on new rows.

    Parameters
    ----------
    case
        ``source``, ``rows``, ``metric`` and ``seed``.

    Returns
    -------
    dict or None
        Row of the results, in errors (lower is better); None if the source has too few rows.
    """
    sample = draw(case["source"], case["rows"], case["seed"])
    if sample is None:
        return None
    settings = SearchSettings(
        n_trials=N_TRIALS, max_epochs=MAX_EPOCHS, metric=case["metric"], seed=case["seed"], device="cpu",
        baselines=False,
    )  # fmt: skip
    problem = Problem.from_table(sample.frame, sample.target, task=sample.task)
    started = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = search(problem, settings)
    if result.honest is None or not math.isfinite(result.honest.score):
        return None
    seconds = time.monotonic() - started
    metric = get_metric(case["metric"], sample.task, n_classes=len(result.model.classes or ()) or None)
    ends = sorted(float(metric.to_error(end)) for end in (result.honest.low, result.honest.high))
    honest = result.honest
    return {
        "honest": float(metric.to_error(honest.score)), "low": ends[0], "high": ends[1],
        "standard_error": honest.standard_error, "naive": float(metric.to_error(honest.naive)),
        "averaging": float(metric.to_error(honest.score) - metric.to_error(honest.score - honest.averaging)),
        **_true_errors(result, sample, metric), **_fold_errors(result, sample, metric),
        "new_rows": len(sample.new_target), "folds": len(result.model.folds),
        "members": len(result.model.trials), "seconds": round(seconds, 2),
    }  # fmt: skip


def _error(predictions: NDArray[np.float64], target: NDArray[Any], metric: Metric) -> float:
    """Error of predictions (C, N)."""
    values = torch.from_numpy(np.ascontiguousarray(predictions))[None]
    return float(metric.error(values, torch.from_numpy(np.ascontiguousarray(target)))[0])


def _weighted(model: TrainedModel, predictions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Apply the decision weights of a model to probabilities (C, N)."""
    weights = model.decision_weights
    return predictions if weights is None else predictions * np.array(weights)[:, None]


def _coded(model: TrainedModel, target: NDArray[Any]) -> NDArray[Any]:
    return target if model.classes is None else np.searchsorted(np.asarray(model.classes), target)


def _true_errors(result: SearchResult, sample: Sample, metric: Metric) -> dict[str, float]:
    """Errors on new rows, of the model and of the networks of one fold in the mean."""
    model = result.model
    target = _coded(model, sample.new_target)
    folds = [model.of_fold(number).predictions(sample.new_frame) for number in range(len(model.folds))]
    predictions = model.predictions(sample.new_frame)
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(20):  # of the true error, by the finite number of new rows
        rows = rng.integers(0, len(target), len(target))
        errors.append(_error(_weighted(model, predictions[:, rows]), target[rows], metric))
    return {
        "true": _error(_weighted(model, predictions), target, metric),
        "true_error": float(np.std(errors, ddof=1)),
        "true_fold": float(np.mean([_error(_weighted(model, one), target, metric) for one in folds])),
    }


def _fold_errors(result: SearchResult, sample: Sample, metric: Metric) -> dict[str, float]:
    """Out-of-fold error of the ensemble, of all rows together and in the mean of the folds."""
    model, folds = result.model, result.oof_folds
    target = _coded(model, sample.target)
    parts, errors = [], []
    for number in range(len(model.folds)):
        rows = np.flatnonzero(folds == number)
        if not len(rows):
            continue
        predictions = _weighted(model, model.of_fold(number).predictions(sample.frame.iloc[rows]))
        parts.append((predictions, target[rows]))
        try:
            errors.append((len(rows), _error(predictions, target[rows], metric)))
        except ValueError:  # one class only
            continue
    pooled = np.concatenate([one for one, _ in parts], axis=1), np.concatenate([one for _, one in parts])
    counts, own = zip(*errors, strict=True) if errors else ((1,), (math.nan,))
    return {"pooled": _error(*pooled, metric), "by_fold": float(np.average(own, weights=counts))}


# ---------------------------------------------------------------------- all searches


def cases() -> Iterator[dict[str, Any]]:
    """Yield the searches: every source, size and metric; then the default metrics with further seeds."""
    tasks = {name: task for name, (task, _) in SYNTHETIC.items()}
    tasks |= {name: load(name).task for name in BUNDLED}
    for seed in itertools.count():
        for position in range(len(METRICS["binary"])):
            for rows, (name, task) in itertools.product(SIZES, tasks.items()):
                if position < len(METRICS[task]):
                    yield {"source": name, "rows": rows, "metric": METRICS[task][position], "seed": seed}


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("source", "rows", "metric", "seed"))


def bias_table(rows: Sequence[Mapping[str, Any]], group: str) -> str:
    """Return a Markdown table of bias and coverage for each value of a column.

    Parameters
    ----------
    rows
        Rows of the file.
    group
        ``rows``, ``metric`` or ``source``.

    Returns
    -------
    str
        Bias of honest and naive score relative to the true error, each with its standard error over the
        searches, and the share of intervals that hold the true error.
    """
    lines = [
        f"| {group} | searches | honest | naive | one fold | averaging | coverage |",
        "|---|---|---|---|---|---|---|",
    ]
    for value in [*dict.fromkeys(row[group] for row in rows), "all"]:
        own = [row for row in rows if value in ("all", row[group])]
        terms = [[term(row) / row["true"] for row in own] for term in TERMS]
        cells = [f"{np.mean(term):+.1%} ± {np.std(term) / math.sqrt(len(own)):.1%}" for term in terms]
        lines.append(f"| {value} | {len(own)} | {' | '.join(cells)} | {coverage(own):.1%} |")
    return "\n".join(lines)


TERMS: tuple[Callable[[Mapping[str, Any]], float], ...] = (
    lambda row: row["honest"] - row["true"],
    lambda row: row["naive"] - row["true"],
    lambda row: row["honest"] - row["averaging"] - row["true_fold"],
    lambda row: row["averaging"] - (row["true"] - row["true_fold"]),
)


def coverage(rows: Sequence[Mapping[str, Any]]) -> float:
    """Return the share of intervals that hold the true error.

    The true error is known with ``true_error``, so the interval is widened by it, as the difference of both
    varies: each half becomes the root of the sum of squares.
    """
    inside = []
    for row in rows:
        margin = 1.96 * row["true_error"]
        low = row["honest"] - math.hypot(row["honest"] - row["low"], margin)
        high = row["honest"] + math.hypot(row["high"] - row["honest"], margin)
        inside.append(low <= row["true"] <= high)
    return float(np.mean(inside))


def main() -> None:
    """Run the missing searches and print the tables of all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--searches", type=int, default=600, metavar="N", help="searches on file in the end")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    known = {_key(row) for row in rows}
    for case in cases():
        if len(rows) >= options.searches:
            break
        if _key(case) in known:
            continue
        figures = measure(case)
        if figures is None:
            continue
        rows.append(case | figures | {"machine": describe_machine()})
        write_json(RESULTS, {"rows": rows})
        print(json.dumps(case | {name: figures[name] for name in ("honest", "true", "seconds")}), flush=True)
    text = "\n\n".join(bias_table(rows, group) for group in ("rows", "metric", "source"))
    print(text)


if __name__ == "__main__":
    main()
