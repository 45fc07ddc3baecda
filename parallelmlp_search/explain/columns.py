"""Values of the columns of a table, as numbers or categories, for axes, intervals and correlations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parallelmlp_search.data.coercion import as_keys, as_numbers, as_seconds, plain_value

MISSING = "missing"

Numbers = NDArray[np.intp]
Scale = Literal["numeric", "datetime", "categorical", "none"]


@dataclass(frozen=True, eq=False)
class ColumnValues:
    """Values of one column of a table.

    Attributes
    ----------
    name
        Name of the column.
    scale
        ``numeric``, ``datetime``, ``categorical``, or ``none`` for texts, lists and objects, whose values
        have no order and are seldom equal.
    cells
        Cells ``(n,)`` of the column as they were given.
    positions
        Numbers, or seconds since 1970, ``(n,)``, NaN for missing values; empty for other scales.
    codes, labels
        Number of the category of each row ``(n,)``, -1 for a missing value, and the categories; empty for
        other scales.
    """

    name: str
    scale: Scale
    cells: pd.Series
    positions: NDArray[np.float64]
    codes: Numbers
    labels: list[str]

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def is_ordered(self) -> bool:
        """True for numbers and dates."""
        return self.scale in ("numeric", "datetime")

    @property
    def missing(self) -> NDArray[np.bool_]:
        """Rows ``(n,)`` without a value."""
        if self.is_ordered:
            return np.isnan(self.positions)
        if self.scale == "categorical":
            return self.codes < 0
        return np.asarray(pd.isna(self.cells), dtype=bool)

    def text(self, row: int) -> str:
        """Return the cell of a row as a text."""
        return cell_text(self.cells.iloc[row])


def column_values(name: str, cells: pd.Series, plain: pd.Series | None, kind: str | None) -> ColumnValues:
    """Return the values of a column.

    Parameters
    ----------
    name, cells
        Name and cells of the column.
    plain
        The plain column that is made of it; None if there are several.
    kind
        Kind of the plain column.

    Returns
    -------
    ColumnValues
    """
    labels: list[str] = []
    positions, codes = np.empty(0), np.empty(0, dtype=np.intp)
    scale: Scale = "none"
    if plain is not None and kind == "numeric":
        scale, positions = "numeric", as_numbers(plain)
    elif plain is not None and kind == "datetime":
        scale, positions = "datetime", _seconds(plain)
    elif plain is not None:
        scale = "categorical"
        codes, labels = as_keys(plain)
    return ColumnValues(name, scale, cells, np.where(np.isinf(positions), np.nan, positions), codes, labels)


def _seconds(column: pd.Series) -> NDArray[np.float64]:
    times = as_seconds(column)
    seconds = times.astype("datetime64[s]").astype(np.float64)
    found: NDArray[np.float64] = np.where(np.isnat(times), np.nan, seconds)
    return found


def cell_text(cell: Any) -> str:
    """Return a cell as a text: whole numbers without decimals, dates without a time of midnight.

    >>> cell_text(39.0), cell_text(0.1 + 0.2), cell_text(None), cell_text("a b")
    ('39', '0.3', 'missing', 'a b')
    """
    if pd.api.types.is_scalar(cell) and pd.isna(cell):
        return MISSING
    value = plain_value(cell)
    if isinstance(value, float):
        return number_text(value)
    return str(value).removesuffix(" 00:00:00")


def number_text(number: float) -> str:
    """Return a number with at most six significant digits, and all digits of a whole one.

    >>> number_text(1234567.0), number_text(1234.5678), number_text(1e-7)
    ('1234567', '1234.57', '1e-07')
    """
    is_short = abs(number) < 1e15
    return f"{number:.0f}" if is_short and number == int(number) else f"{number:.6g}"


def position_text(position: float, scale: Scale) -> str:
    """Return a position on the axis of a column as a text.

    >>> position_text(86400.0, "datetime"), position_text(2.5, "numeric")
    ('1970-01-02', '2.5')
    """
    if scale == "datetime":
        return str(np.datetime64(int(position), "s")).replace("T", " ").removesuffix(" 00:00:00")
    return number_text(position)
