"""Findings about the target: near-copies among the columns, rare classes, counts read as classes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from parallelmlp_search.data.cells.recognition import ReadTable
from parallelmlp_search.data.coercion import as_keys, as_numbers, as_seconds
from parallelmlp_search.data.columns import CATEGORY_KINDS
from parallelmlp_search.data.profile.columns import format_number
from parallelmlp_search.data.profile.findings import Finding, listed, percent
from parallelmlp_search.data.profile.rows import origins

Floats = npt.NDArray[np.float64]

MIN_LEAK = 0.98
"""Minimum score on other rows, R2 of ranks or balanced accuracy, of a near-copy of the target."""

MAX_PROBED_ROWS, MIN_PROBED_ROWS = 4000, 60
"""Maximum number of random rows on which columns predict the target alone, and the minimum."""

N_BINS = 64

MIN_CLASS_ROWS = 10
"""Rows below which a class is rare: folds and validation rows need some each."""

MIN_COUNT_CLASSES = 4
"""Minimum number of whole numbers that can be counts or grades."""

MIN_COUNT_RATIO = 3.0
"""Minimum ratio of the largest to the smallest class of counts or grades; digits are balanced."""


def leakage(read: ReadTable, target: npt.NDArray[np.generic], task: str) -> list[Finding]:
    """Return columns that predict the target almost without error on their own.

    Parameters
    ----------
    read
        The table.
    target
        Target of shape (rows,) or (rows, outputs).
    task
        One of `TASKS`.

    Returns
    -------
    list of Finding
    """
    rows = np.arange(len(target))
    if len(rows) > MAX_PROBED_ROWS:
        rows = np.sort(np.random.default_rng(0).choice(rows, MAX_PROBED_ROWS, replace=False))
    if len(rows) < MIN_PROBED_ROWS or target.ndim > 1:
        return []
    train = np.random.default_rng(1).random(len(rows)) < 0.5
    labels = _ranks(target[rows]) if task == "regression" else pd.factorize(target[rows])[0]
    n_classes = 0 if task == "regression" else int(labels.max()) + 1
    scores: dict[str, float] = {}
    made_by = origins(read)
    frame = read.frame.iloc[rows]
    for column in read.schema:
        if column.kind in ("identifier", "constant"):
            continue
        bins = _bins(frame[column.name], column.kind, train)
        if bins is None or bins.max() + 1 < n_classes:
            continue
        score = _score(bins, labels, train, n_classes)
        origin = made_by.get(column.name, column.name)
        scores[origin] = max(score, scores.get(origin, 0.0))
    found = sorted((name for name in scores if scores[name] >= MIN_LEAK), key=lambda name: -scores[name])
    if not found:
        return []
    measure = "R2 of ranks" if task == "regression" else "balanced accuracy"
    what = (
        f"column {listed(found)} alone predicts"
        if len(found) == 1
        else f"each of the columns {listed(found)} predicts"
    )
    least = min(scores[name] for name in found)
    text = (
        f"{what} the target ({measure} at least {least:.2f}): leave out what is known "
        f" only after the target, for example with --columns ignore={found[0]}"
    )
    return [Finding("leakage", text, tuple(found))]


def _ranks(values: npt.NDArray[np.generic]) -> Floats:
    ranks: Floats = pd.Series(values).rank().to_numpy(dtype=np.float64) / len(values)
    return ranks


def _bins(cells: pd.Series, kind: str, train: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp] | None:
    """Bin of each row; missing values have bin 0. None for categories with few rows each."""
    if kind in CATEGORY_KINDS:
        codes, keys = as_keys(cells)
        return codes + 1 if len(keys) <= len(codes) / 8 else None
    values = as_seconds(cells).astype(np.float64) if kind == "datetime" else as_numbers(cells)
    missing = np.isnan(values) if kind != "datetime" else np.isnat(as_seconds(cells))
    known = values[train & ~missing]
    if not len(known):
        return None
    distinct = np.unique(known)
    inner = np.linspace(0.0, 1.0, N_BINS + 1)[1:-1]
    edges = 0.5 * (distinct[1:] + distinct[:-1]) if len(distinct) <= N_BINS else np.quantile(known, inner)
    return np.where(missing, 0, 1 + np.searchsorted(edges, values, side="right"))


def _score(
    bins: npt.NDArray[np.intp], labels: npt.NDArray[np.generic], train: npt.NDArray[np.bool_], n_classes: int
) -> float:
    """Score, on the other rows, of predicting each bin's mean or most frequent class of the training rows."""
    n_bins = int(bins.max()) + 1
    seen, held = bins[train], bins[~train]
    if not n_classes:
        values = np.asarray(labels, dtype=np.float64)
        counts = np.bincount(seen, minlength=n_bins)
        sums = np.bincount(seen, weights=values[train], minlength=n_bins)
        means = np.where(counts > 0, sums / np.maximum(counts, 1), values[train].mean())
        errors = values[~train] - means[held]
        return float(1.0 - np.square(errors).mean() / max(1e-12, values[~train].var()))
    classes = np.asarray(labels, dtype=np.intp)
    table = np.bincount(seen * n_classes + classes[train], minlength=n_bins * n_classes).reshape(
        n_bins, n_classes
    )
    hits = table.argmax(axis=1)[held] == classes[~train]
    hits &= table.sum(axis=1)[held] > 0
    sizes = np.bincount(classes[~train], minlength=n_classes)
    right = np.bincount(classes[~train], weights=hits, minlength=n_classes)
    present = sizes > 0
    return float((right[present] / sizes[present]).mean())


def target_findings(target: npt.NDArray[np.generic], task: str, name: str) -> list[Finding]:
    """Return findings about the values of the target.

    Parameters
    ----------
    target
        Target of shape (rows,) or (rows, outputs).
    task
        One of `TASKS`.
    name
        Name of the target in messages.

    Returns
    -------
    list of Finding
    """
    if task == "multilabel":
        counts = np.minimum(target.sum(axis=0), (1 - target).sum(axis=0))
        n_rare = int((counts < MIN_CLASS_ROWS).sum())
        text = (
            f"{n_rare} of {len(counts)} labels {'has' if n_rare == 1 else 'have'} fewer than "
            f"{MIN_CLASS_ROWS} rows with or without, too few to learn and to score: leave out rare labels"
        )
        return [Finding("rare classes", text, (name,))] if n_rare else []
    if task == "regression" or target.ndim > 1:
        return []
    classes, counts = np.unique(target, return_counts=True)
    found = []
    rare = [str(label) for label, count in zip(classes, counts, strict=True) if count < MIN_CLASS_ROWS]
    if rare:
        noun = "class" if len(rare) == 1 else f"{len(rare)} classes"
        verb = "has" if len(rare) == 1 else "have"
        text = (
            f"{noun} {listed(rare)} of the target {verb} fewer than {MIN_CLASS_ROWS} rows, too few to learn "
            "and to score: merge rare classes or leave them out"
        )
        found.append(Finding("rare classes", text, (name,)))
    if classes.dtype.kind in "iuf" and _are_counts(classes.astype(np.float64), counts):
        low, high = int(classes[0]), int(classes[-1])
        text = (
            f"the target {name!r} has the whole numbers {low} to {high}, read as {len(classes)} classes; if "
            "it counts or grades something, predict it as a number with --task regression"
        )
        found.append(Finding("counts", text, (name,)))
    return found


def _are_counts(classes: Floats, counts: npt.NDArray[np.intp]) -> bool:
    """True for consecutive whole numbers whose frequencies rise to one peak and fall again."""
    if len(classes) < MIN_COUNT_CLASSES or not (np.diff(classes) == 1).mean() >= 0.7:
        return False
    steps = np.sign(np.diff(counts))
    steps = steps[steps != 0]
    turns = int((np.diff(steps) > 0).sum())  # from falling to rising
    return counts.max() >= MIN_COUNT_RATIO * counts.min() and turns <= max(0, len(classes) // 8)


def describe_target(target: npt.NDArray[np.generic], task: str) -> str:
    """Return the classes with their shares, or the range of the numbers, in words."""
    if task == "regression":
        if target.ndim > 1:
            return f"{target.shape[1]} numbers per row"
        values = np.asarray(target, dtype=np.float64)
        low, middle, high = (format_number(value) for value in np.quantile(values, [0.0, 0.5, 1.0]))
        return f"{low} … {high}, median {middle}"
    if task == "multilabel":
        shares = ", ".join(
            percent(float(share)) for share in np.asarray(target, dtype=float).mean(axis=0)[:4]
        )
        more = ", …" if target.shape[1] > 4 else ""
        return f"{target.shape[1]} labels, which {shares}{more} of the rows have"
    classes, counts = np.unique(target, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    shown = ", ".join(f"{classes[place]} {percent(counts[place] / counts.sum())}" for place in order[:4])
    rest = f", and {len(classes) - 4} more" if len(classes) > 4 else ""
    return f"{len(classes)} classes: {shown}{rest}"
