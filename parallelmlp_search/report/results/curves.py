"""Curves of the quality of probabilities: calibration, ROC, precision and recall."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from parallelmlp_search.report.results.evaluated import EvaluatedRows

N_BINS = 12
"""Bins of a calibration curve, with the same number of rows each."""

MAX_POINTS = 300
"""Most points of a curve, which is thinned to them."""

Doubles = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Calibration:
    """Mean probability and frequency in bins of equal size, with 95 % intervals of Wilson.

    Attributes
    ----------
    probability, frequency, low, high
        Values of each bin ``(bins,)``.
    count
        Rows of each bin.
    error
        Expected calibration error: mean absolute difference, weighted by the rows.
    """

    probability: Doubles
    frequency: Doubles
    low: Doubles
    high: Doubles
    count: Doubles
    error: float


@dataclass(frozen=True, eq=False)
class Curve:
    """Curve of a class against all others, with the area below it.

    Attributes
    ----------
    label
        Name of the class.
    x, y
        Points.
    area
        Area under the curve, or average precision.
    share
        Share of the rows that are of the class.
    """

    label: str
    x: Doubles
    y: Doubles
    area: float
    share: float


def calibration_of(rows: EvaluatedRows) -> Calibration:
    """Return the calibration of the second of two classes, or of the most probable one of several."""
    if len(rows.labels) == 2:
        probability, event = rows.predictions[1], rows.target == 1
    else:
        chosen = rows.predictions.argmax(axis=0)
        probability, event = rows.predictions.max(axis=0), chosen == rows.target
    order = np.argsort(probability, kind="stable")
    starts = np.unique(np.linspace(0, len(order), min(N_BINS, len(order)), endpoint=False).astype(int))
    weight = rows.weight[order]
    count = np.add.reduceat(weight, starts)
    mean = np.add.reduceat(weight * probability[order], starts) / count
    frequency = np.add.reduceat(weight * event[order], starts) / count
    low, high = wilson_interval(frequency, np.add.reduceat(np.ones_like(weight), starts))
    error = float(np.average(np.abs(mean - frequency), weights=count))
    return Calibration(mean, frequency, low, high, count, error)


def wilson_interval(share: Doubles, count: Doubles) -> tuple[Doubles, Doubles]:
    """Return the 95 % interval of shares of some counts (Wilson, 1927)."""
    z = 1.959964
    centre = share + z * z / (2 * count)
    spread = z * np.sqrt(share * (1 - share) / count + z * z / (4 * count**2))
    scale = 1 + z * z / count
    return (centre - spread) / scale, (centre + spread) / scale


def roc_curves(rows: EvaluatedRows, classes: list[int]) -> list[Curve]:
    """Return the ROC curve of some classes, each against all others."""
    from sklearn.metrics import auc, roc_curve

    found = []
    for number in classes:
        event = rows.target == number
        low, high, _ = roc_curve(event, rows.predictions[number], sample_weight=rows.weight)
        share = float(np.average(event, weights=rows.weight))
        found.append(Curve(rows.labels[number], *thinned(low, high), float(auc(low, high)), share))
    return found


def precision_recall_curves(rows: EvaluatedRows, classes: list[int]) -> list[Curve]:
    """Return precision against recall of some classes, each against all others."""
    from sklearn.metrics import average_precision_score, precision_recall_curve

    found = []
    for number in classes:
        event, probability = rows.target == number, rows.predictions[number]
        precision, recall, _ = precision_recall_curve(event, probability, sample_weight=rows.weight)
        area = float(average_precision_score(event, probability, sample_weight=rows.weight))
        share = float(np.average(event, weights=rows.weight))
        found.append(Curve(rows.labels[number], *thinned(recall[::-1], precision[::-1]), area, share))
    return found


def shown_classes(rows: EvaluatedRows, most: int) -> list[int]:
    """Return the classes whose curves are drawn: the second of two, or the most frequent ones of several."""
    if len(rows.labels) == 2:
        return [1] if len(np.unique(rows.target)) == 2 else []
    counts = np.bincount(rows.target.astype(np.intp), minlength=len(rows.labels))
    order = np.argsort(-counts, kind="stable")[:most]
    return [int(number) for number in order if 0 < counts[number] < len(rows)]


def thinned(x: Doubles, y: Doubles) -> tuple[Doubles, Doubles]:
    """Return at most :data:`MAX_POINTS` points of a curve, evenly spaced along it."""
    if len(x) <= MAX_POINTS:
        return x, y
    length = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    places = np.searchsorted(length, np.linspace(0.0, length[-1], MAX_POINTS))
    kept = np.unique(np.clip(places, 0, len(x) - 1))
    return x[kept], y[kept]


def confusion_counts(rows: EvaluatedRows) -> Doubles:
    """Return the weight of the rows of each true class (first axis) that are predicted as each class."""
    assert rows.predicted is not None
    n_classes = len(rows.labels)
    found = np.zeros((n_classes, n_classes))
    np.add.at(found, (rows.target.astype(np.intp), rows.predicted), rows.weight)
    return found
