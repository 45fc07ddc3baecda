"""Columns of labels, each of which a row has or has not: 0 and 1, booleans, or texts such as yes and no."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from parallelmlp_search.data.coercion import as_codes, as_numbers, shown
from parallelmlp_search.exceptions import DataError

_TEXTS = {"yes": 1, "no": 0, "true": 1, "false": 0, "y": 1, "n": 0, "t": 1, "f": 0, "1": 1, "0": 0}

MIN_STRATUM_ROWS = 10
"""Rows of a combination of labels that makes a stratum of its own."""


def wrong_label(column: pd.Series) -> Any:
    """Return a value of a column that is no label, or None; missing values are ignored."""
    _, values = as_codes(column.dropna())
    return next((value for value in values if _number(value) is None), None)


def as_labels(column: pd.Series, name: str) -> npt.NDArray[np.int64]:
    """Return the labels of a column as 0 and 1 of shape (rows,).

    Parameters
    ----------
    column
        0 and 1, booleans, or texts: yes and no, true and false, or their initials.
    name
        Name of the label in messages.

    Raises
    ------
    DataError
        If a value is missing or another one.
    """
    codes, values = as_codes(column)
    if (codes < 0).any():
        raise DataError(
            f"label {name!r} must have a value in every row, but {int((codes < 0).sum())} miss it"
        )
    numbers = [_number(value) for value in values]
    if None in numbers:
        other = shown(values[numbers.index(None)])
        raise DataError(f"label {name!r} must hold 0 and 1, booleans, or yes and no, but has {other}")
    return np.array([*numbers, 0], dtype=np.int64)[codes]


def label_strata(labels: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return a stratum of each row, for splits that are balanced in all labels.

    Frequent combinations of labels are strata. Other rows are in that of their rarest label, as in the
    iterative stratification of Sechidis, Tsoumakas and Vlahavas ("On the stratification of multi-label
    data", ECML 2011), which distributes rare labels first.

    Parameters
    ----------
    labels
        0 and 1, of shape (rows, labels).

    Returns
    -------
    array of shape (rows,)
    """
    _, combination, sizes = np.unique(labels, axis=0, return_inverse=True, return_counts=True)
    combination = combination.reshape(-1)
    counts = labels.sum(axis=0)
    # the column after the labels is for rows without any
    order = np.where(labels > 0, counts, len(labels) + 1)
    rarest = np.where(labels.any(axis=1), order.argmin(axis=1), labels.shape[1])
    strata = np.where(sizes[combination] >= MIN_STRATUM_ROWS, len(counts) + 1 + combination, rarest)
    small = np.bincount(strata)[strata] < 2
    if small.any():  # one row cannot be on both sides
        strata = np.where(small, np.bincount(strata).argmax(), strata)
    found: npt.NDArray[np.int64] = np.unique(strata, return_inverse=True)[1].reshape(-1).astype(np.int64)
    return found


def _number(value: Any) -> int | None:
    """0 or 1 of a value, or None."""
    if isinstance(value, str):
        return _TEXTS.get(value.strip().lower())
    number = float(as_numbers(pd.Series([value], dtype=object))[0])
    return int(number) if number in (0.0, 1.0) else None
