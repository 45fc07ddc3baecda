"""Columns of cells that have types of their own, as in workbooks and SQLite."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from parallelmlp_search.data.delimited import MISSING_MARKERS

CELL_BYTES = 48
"""Memory of a cell as a Python object, without the characters of a text."""

_NUMBERS, _DATES = {int, float}, {datetime.date, datetime.datetime}
_MISSING = frozenset(MISSING_MARKERS)


def column_of(cells: Sequence[Any]) -> pd.Series:
    """Return a column of cells as a text file would give it, except that dates and durations keep their type.

    Cells of several types become texts. The texts in ``MISSING_MARKERS`` are missing values.

    >>> column_of([3, "NA", 2.5]).tolist()
    [3.0, nan, 2.5]
    >>> column_of([3.0, "about 2"]).tolist()
    ['3.0', 'about 2']
    """
    values = [None if isinstance(cell, str) and cell in _MISSING else cell for cell in cells]
    kinds = {type(value) for value in values} - {type(None)}
    if kinds <= _NUMBERS:
        if kinds == {int} and None not in values:
            return pd.Series(values)
        return pd.Series([np.nan if value is None else value for value in values], dtype=np.float64)
    if kinds <= _DATES:
        return pd.Series(np.array(values, dtype="datetime64[us]"))
    if kinds == {datetime.timedelta}:
        return pd.Series(np.array(values, dtype="timedelta64[us]"))
    if kinds == {bool}:
        return pd.Series(values)
    return pd.Series([None if value is None else _text(value) for value in values])


def _text(value: Any) -> str:
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)
