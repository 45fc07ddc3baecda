"""Partial dependence: mean prediction by the value of one column, and the curves of single rows (ICE).

Each point of a curve sets the column to one value in all rows and leaves the other columns as they are
(Friedman, "Greedy function approximation", 2001; Goldstein et al., "Peeking inside the black box", 2015).
Values are taken from rows of the table, so every kind of cell can be set.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parallelmlp_search.explain.columns import MISSING, ColumnValues, position_text
from parallelmlp_search.explain.explanation import empty_table
from parallelmlp_search.explain.settings import ExplainSettings
from parallelmlp_search.explain.tables import ExplainedTable

Doubles = NDArray[np.float64]
Numbers = NDArray[np.intp]

DEPENDENCE_SECONDS = 1.5
"""Predicted seconds on one core of all curves."""

MIN_ROWS, MAX_ROWS = 30, 200
"""Limits of the rows whose curves are computed."""

N_POINTS = 20
"""Points of the curve of a number, at quantiles from 1 to 99 %."""

MAX_CATEGORIES = 15
"""Most categories on a curve, the frequent ones."""

MIN_MISSING_SHARE = 0.01
"""Share of missing values from which they are a point of the curve."""

LOW, HIGH = 0.1, 0.9
"""Quantiles of the curves of single rows."""


class Point(NamedTuple):
    """Point of a curve: its value as a text and as a number, a row that has it, and the share of rows."""

    value: str
    position: float
    row: int
    share: float


def partial_dependence(
    table: ExplainedTable, names: Sequence[str], outputs: Sequence[str], settings: ExplainSettings
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the mean curves and the curves of single rows.

    Parameters
    ----------
    table, names
        Rows, and the columns to vary.
    outputs
        Name of each prediction; an empty name leaves a prediction out.
    settings
        Seed.

    Returns
    -------
    (DataFrame, DataFrame)
        Mean curves with the columns ``column``, ``output``, ``value``, ``position`` (NaN for categories and
        missing values), ``share`` of the rows with the value or, for numbers, up to it, ``prediction``
        (mean), ``low`` and ``high`` (10 and 90 % of the rows). Single curves with ``column``, ``output``,
        ``row``, ``value``, ``position`` and ``prediction``.
    """
    generator = np.random.default_rng([settings.seed, 2])
    curves = {name: points for name in names if len(points := curve_points(table.values[name])) > 1}
    n_points = sum(map(len, curves.values()))
    affordable = int(DEPENDENCE_SECONDS / max(1e-12, n_points * table.model_seconds))
    count = min(table.n_rows, max(MIN_ROWS, min(MAX_ROWS, affordable)))
    rows = np.sort(generator.choice(table.n_rows, count, replace=False))
    means, singles = [], []
    for name, points in curves.items():
        taken = np.repeat([point.row for point in points], count)
        composed = table.compose(np.tile(rows, len(points)), {name: taken})
        predictions = table.predict(composed).reshape(-1, len(points), count)
        for output, values in zip(outputs, predictions, strict=True):
            if output:
                means.append(_mean_curve(name, output, points, values))
                singles.append(_single_curves(name, output, points, table.rows.row_numbers[rows], values))
    if not means:
        return empty_table("dependence"), empty_table("ice")
    return pd.concat(means, ignore_index=True), pd.concat(singles, ignore_index=True)


def curve_points(values: ColumnValues) -> list[Point]:
    """Return the points of the curve of a column; none for texts, lists and objects."""
    if values.scale == "none":
        return []
    found = _ordered_points(values) if values.is_ordered else _category_points(values)
    missing = np.flatnonzero(values.missing)
    if len(missing) and len(missing) >= MIN_MISSING_SHARE * len(values):
        found.append(Point(MISSING, np.nan, int(missing[0]), len(missing) / len(values)))
    return found


def _ordered_points(values: ColumnValues) -> list[Point]:
    """Points at all values if they are few, otherwise at quantiles."""
    present = np.flatnonzero(~values.missing)
    if not len(present):
        return []
    order = present[np.argsort(values.positions[present], kind="stable")]
    ordered = values.positions[order]
    distinct, first = np.unique(ordered, return_index=True)
    if len(distinct) > N_POINTS:
        places = np.linspace(0.01, 0.99, N_POINTS) * (len(order) - 1)
        _, first = np.unique(ordered[np.round(places).astype(np.intp)], return_index=True)
        first = np.round(places).astype(np.intp)[first]
    below = np.searchsorted(ordered, ordered[first], side="right") / len(values)
    return [
        Point(position_text(ordered[place], values.scale), float(ordered[place]), int(order[place]), share)
        for place, share in zip(first.tolist(), below.tolist(), strict=True)
    ]


def _category_points(values: ColumnValues) -> list[Point]:
    """Points at the most frequent categories, in their order of frequency."""
    counts = np.bincount(values.codes[values.codes >= 0], minlength=len(values.labels))
    frequent = np.argsort(-counts, kind="stable")[:MAX_CATEGORIES]
    return [
        Point(values.labels[code], np.nan, int(np.argmax(values.codes == code)), counts[code] / len(values))
        for code in frequent.tolist()
        if counts[code]
    ]


def _mean_curve(name: str, output: str, points: Sequence[Point], values: Doubles) -> pd.DataFrame:
    low, high = np.quantile(values, [LOW, HIGH], axis=1)
    return pd.DataFrame(
        {
            "column": name,
            "output": output,
            "value": [point.value for point in points],
            "position": [point.position for point in points],
            "share": [point.share for point in points],
            "prediction": values.mean(axis=1),
            "low": low,
            "high": high,
        }
    )


def _single_curves(
    name: str, output: str, points: Sequence[Point], numbers: Numbers, values: Doubles
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "column": name,
            "output": output,
            "row": np.repeat(numbers, len(points)),
            "value": [point.value for point in points] * len(numbers),
            "position": [point.position for point in points] * len(numbers),
            "prediction": values.T.ravel(),
        }
    )
