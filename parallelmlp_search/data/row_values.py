"""Weights, groups and times of rows, checked."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from parallelmlp_search.data.coercion import as_numbers, as_seconds, shown
from parallelmlp_search.exceptions import DataError, InvalidParameterError


def row_values(values: Any, n_rows: int, label: str) -> pd.Series:
    """Return values of rows, one per row and none missing.

    Parameters
    ----------
    values
        Array, list, or series of pandas or polars, of shape (n_rows,).
    n_rows
        Number of rows.
    label
        Name of the values in messages.

    Returns
    -------
    pandas.Series of shape (n_rows,)

    Raises
    ------
    InvalidParameterError
        If the shape is different.
    DataError
        If a value is missing.
    """
    if hasattr(values, "to_pandas"):
        values = values.to_pandas()
    if not isinstance(values, pd.Series):
        values = np.asarray(values)
    if values.shape != (n_rows,):
        raise InvalidParameterError(f"{label} must have the shape ({n_rows},), but has {values.shape}")
    column = values if isinstance(values, pd.Series) else pd.Series(values)
    refuse_rows(column.isna().to_numpy(), column, f"{label} must have a value in every row")
    return column


def row_weights(values: Any, n_rows: int, label: str) -> npt.NDArray[np.float64]:
    """Return weights of rows.

    Parameters
    ----------
    values, n_rows, label
        As in :func:`row_values`.

    Returns
    -------
    array of shape (n_rows,)

    Raises
    ------
    InvalidParameterError
        If the shape is different, or all weights are zero.
    DataError
        If a weight is missing, negative or not finite.
    """
    column = row_values(values, n_rows, label)
    weights = as_numbers(column)
    refuse_rows(~(np.isfinite(weights) & (weights >= 0)), column, f"{label} must hold numbers >= 0")
    if not weights.any():
        raise InvalidParameterError(f"{label} must be > 0 in at least one row, but all weights are zero")
    return weights


def group_codes(column: pd.Series) -> npt.NDArray[np.int64]:
    """Number the groups of rows in order of appearance."""
    return pd.factorize(column)[0].astype(np.int64)


def row_times(column: pd.Series, label: str) -> npt.NDArray[Any]:
    """Return the times of rows as numbers, or else as dates.

    Raises
    ------
    DataError
        If a row has neither a number nor a date.
    """
    numbers = as_numbers(column)
    if not np.isnan(numbers).any():
        return numbers
    dates = as_seconds(column)
    refuse_rows(np.isnat(dates), column, f"{label} must hold a number or a date in every row")
    return dates


def refuse_rows(wrong: npt.NDArray[np.bool_], column: pd.Series, rule: str) -> None:
    """Raise an error that names the first row that breaks a rule, if there is one.

    Parameters
    ----------
    wrong
        Rows that break the rule, of shape (n_rows,).
    column
        Values of the rows; the index names them.
    rule
        Start of the message.

    Raises
    ------
    DataError
        If a row breaks the rule.
    """
    if not wrong.any():
        return
    row = int(np.argmax(wrong))
    found = column.iloc[row]
    text = "nothing" if pd.isna(found) else shown(found)
    raise DataError(f"{rule}, but row {column.index[row]} has {text}")
