"""Attributions: each prediction as a sum of one contribution per column of the table.

The contributions are Shapley values with interventions (Lundberg and Lee, "A unified approach to interpreting
model predictions", 2017). A column without its own value takes that of a background row. The Shapley value is
the mean change of the prediction when a column gets its own value, over all orders in which columns get them.
Orders are sampled in pairs of opposite order (Mitchell et al., "Sampling permutations for Shapley value
estimation", 2022): the values are then exact for models without interactions of three or more columns. The
changes along an order add up to the difference between the prediction and that of the background row, so
base value and contributions add up to the prediction whatever the number of samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parallelmlp_search.explain.explanation import empty_table
from parallelmlp_search.explain.scoring import unit_of
from parallelmlp_search.explain.settings import ExplainSettings
from parallelmlp_search.explain.tables import ExplainedTable

Doubles = NDArray[np.float64]
Numbers = NDArray[np.intp]

ATTRIBUTION_SECONDS = 2.5
"""Predicted seconds on one core of all attributions."""

MIN_BACKGROUND, MAX_BACKGROUND = 4, 64
MIN_ATTRIBUTED, MAX_ATTRIBUTED = 10, 100
MAX_COMPOSED_ROWS = 1 << 16
"""Most rows that are composed at once."""


@dataclass(frozen=True, eq=False)
class Attributions:
    """Contributions of all columns to some predictions.

    Attributes
    ----------
    rows
        Numbers of the rows ``(m,)``.
    values, standard_error
        Contributions ``(C, m, d)``, and their standard errors over the samples of background rows and orders.
    base
        Mean prediction of the background rows ``(C,)``.
    predictions
        Predictions ``(C, m)``, the sums of base and contributions.
    """

    rows: Numbers
    values: Doubles
    standard_error: Doubles
    base: Doubles
    predictions: Doubles


def shapley_values(
    table: ExplainedTable, rows: Numbers, n_background: int, generator: np.random.Generator
) -> Attributions:
    """Return the contributions of all used columns to the predictions of some rows.

    Parameters
    ----------
    table, rows
        Table and the numbers of its rows ``(m,)``.
    n_background
        Background rows; each has one pair of orders.
    generator
        Selects background rows and orders.

    Returns
    -------
    Attributions
    """
    pool, n_columns, n_rows = table.background, len(table.names), len(rows)
    background = np.resize(generator.permutation(pool), n_background)  # a small pool is repeated
    ends = table.predict(table.compose(rows, {}))
    starts = table.predict(table.compose(background, {}))
    total = np.zeros((len(ends), n_rows, n_columns))
    squares, unit = np.zeros_like(total), max(unit_of(ends), unit_of(starts))
    together = max(1, MAX_COMPOSED_ROWS // max(1, 2 * (n_columns - 1) * n_rows))
    for first in range(0, n_background, together):
        chosen = background[first : first + together]
        orders = np.stack([generator.permutation(n_columns) for _ in chosen])
        orders = np.stack([orders, orders[:, ::-1]], axis=1)  # (B, 2, d)
        between = _predictions_along(table, rows, chosen, orders)  # (C, B, 2, d - 1, m)
        for number in range(len(chosen)):
            pair = np.zeros_like(total)
            for order, path in zip(orders[number], between[:, number].swapaxes(0, 1), strict=True):
                start = np.broadcast_to(starts[:, first + number, None, None], (len(ends), 1, n_rows))
                steps = np.concatenate([start, path, ends[:, None]], axis=1)
                pair[:, :, order] += 0.5 * np.diff(steps, axis=1).swapaxes(1, 2)
            total += pair
            squares += (pair / unit) ** 2
    mean = total / n_background
    variance = np.maximum(squares / n_background - (mean / unit) ** 2, 0.0) / max(1, n_background - 1)
    return Attributions(rows, mean, unit * np.sqrt(variance), starts.mean(axis=1), ends)


def _predictions_along(table: ExplainedTable, rows: Numbers, background: Numbers, orders: Numbers) -> Doubles:
    """Predictions ``(C, B, 2, d - 1, m)`` after each column but the last has got its own value.

    ``orders`` are ``(B, 2, d)`` numbers of columns.
    """
    n_background, n_orders, n_columns = orders.shape
    shape = (n_background, n_orders, n_columns - 1, len(rows))
    n_outputs = table.model.folds[0].head.n_predictions
    if n_columns == 1:
        return np.empty((n_outputs, *shape))
    own = np.broadcast_to(rows, shape).ravel()
    other = np.broadcast_to(background[:, None, None, None], shape).ravel()
    place = np.argsort(orders, axis=2)  # step at which each column gets its value
    steps = np.arange(n_columns - 1)[:, None]
    replaced = {}
    for number, name in enumerate(table.names):
        has_own = np.broadcast_to(steps >= place[:, :, number, None, None], shape).ravel()
        replaced[name] = np.where(has_own, own, other)
    return table.predict(table.compose(own, replaced)).reshape(n_outputs, *shape)


def attributed_rows(
    table: ExplainedTable, worst: Numbers, settings: ExplainSettings, generator: np.random.Generator
) -> tuple[Numbers, int]:
    """Select the rows to attribute: worst ones and random ones.

    Parameters
    ----------
    table
        Rows to explain.
    worst
        Numbers of rows with large losses, the largest first.
    settings, generator
        Number of rows and background rows, or None for as many as there is time for; selects random rows.

    Returns
    -------
    (array of numbers of rows, number of background rows)
    """
    path = 2 * max(1, len(table.names) - 1) * table.model_seconds
    affordable = int(ATTRIBUTION_SECONDS / path)
    count, n_background = settings.n_attributed, settings.n_background
    if count is None:
        count = max(MIN_ATTRIBUTED, min(MAX_ATTRIBUTED, affordable // (n_background or 2 * MIN_BACKGROUND)))
    count = min(count, table.n_rows)
    if n_background is None:
        n_background = max(MIN_BACKGROUND, min(MAX_BACKGROUND, affordable // max(1, count)))
    first = worst[: count // 2]
    others = np.setdiff1d(np.arange(table.n_rows), first)
    random = np.sort(generator.choice(others, count - len(first), replace=False))
    return np.concatenate([first, random]), n_background


def attribution_table(table: ExplainedTable, found: Attributions, outputs: Sequence[str]) -> pd.DataFrame:
    """Return one row per row of the table, output and column.

    Parameters
    ----------
    table, found
        Table and contributions.
    outputs
        Name of each prediction; an empty name leaves a prediction out.

    Returns
    -------
    DataFrame
        Columns ``row``, ``output``, ``base``, ``prediction``, ``column``, ``value`` (the cell as a text),
        ``attribution`` and ``standard_error``.
    """
    numbers, names = table.rows.row_numbers[found.rows], table.names
    texts = [table.values[name].text(row) for row in found.rows.tolist() for name in names]
    parts = []
    for output, base, predictions, values, errors in zip(
        outputs, found.base, found.predictions, found.values, found.standard_error, strict=True
    ):
        if output:
            part = {
                "row": np.repeat(numbers, len(names)),
                "output": output,
                "base": base,
                "prediction": np.repeat(predictions, len(names)),
                "column": names * len(numbers),
                "value": texts,
                "attribution": values.ravel(),
                "standard_error": errors.ravel(),
            }
            parts.append(pd.DataFrame(part))
    return pd.concat(parts, ignore_index=True) if parts else empty_table("attributions")
