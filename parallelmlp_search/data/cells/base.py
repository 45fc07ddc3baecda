"""Parts that the readers of cells share."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from parallelmlp_search.data.cells.units import is_missing
from parallelmlp_search.data.coercion import Floats, as_codes
from parallelmlp_search.exceptions import DataWarning

MIN_READ_SHARE = 0.95
"""Minimum share of readable cells, among those that are not missing, of a column that gets a reader."""

MIN_ALIKE_SHARE = 0.5
"""Minimum share of readable cells from which a column that gets no reader is reported."""

SAMPLE = 500
"""Distinct values that are tried before all values of a column are."""


_CONTAINERS = (list, tuple, set, frozenset, dict, np.ndarray)


class CellReader(Protocol):
    """Reader of the cells of one column, fitted to the training rows.

    Attributes
    ----------
    form
        Name of the class in files.
    """

    form: ClassVar[str]

    @property
    def kind(self) -> str:
        """Kind of the column."""

    @property
    def treatment(self) -> str:
        """Short description of the columns that `read` returns."""

    def read(self, column: pd.Series) -> dict[str, Any]:
        """Return plain columns by the suffixes of their names; the column itself has the suffix ``""``."""

    def unreadable(self, column: pd.Series) -> npt.NDArray[np.bool_]:
        """Return the rows, of shape (rows,), whose cells are neither missing nor readable."""

    def to_dict(self) -> dict[str, Any]:
        """Return a form that JSON can hold."""

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`."""


@dataclass(frozen=True)
class Cells:
    """Distinct values of a column of texts or objects, without missing ones.

    Attributes
    ----------
    values
        Distinct values; texts without surrounding blanks.
    counts
        Number of rows of each, of shape (values,).
    n_rows
        Number of rows of the column.
    """

    values: list[Any]
    counts: npt.NDArray[np.int64]
    n_rows: int

    @classmethod
    def of(cls, column: pd.Series) -> Cells:
        """Collect the values of a column. Lists and mappings are kept row by row."""
        if any(isinstance(value, _CONTAINERS) for value in column.iloc[:SAMPLE]):
            found = [value for value in column if not is_missing_cell(value)]
            return cls(found, np.ones(len(found), dtype=np.int64), len(column))
        codes, values = as_codes(column)
        counts = np.bincount(codes[codes >= 0], minlength=len(values))
        kept = [place for place, value in enumerate(values) if counts[place] and not is_missing_cell(value)]
        found = [values[place].strip() if isinstance(values[place], str) else values[place] for place in kept]
        return cls(found, counts[kept].astype(np.int64), len(column))

    @property
    def n_present(self) -> int:
        """Number of rows that are not missing."""
        return int(self.counts.sum())

    @property
    def texts(self) -> list[str]:
        """Values as texts."""
        return [value if isinstance(value, str) else str(value) for value in self.values]

    def sample(self) -> Cells:
        """Return at most `SAMPLE` of the values, evenly spaced."""
        if len(self.values) <= SAMPLE:
            return self
        places = np.linspace(0, len(self.values) - 1, SAMPLE).astype(np.intp)
        return Cells([self.values[place] for place in places], self.counts[places], self.n_rows)

    def share(self, readable: npt.NDArray[np.bool_]) -> float:
        """Return the share of rows whose values are readable, of shape (values,)."""
        return float(self.counts[readable].sum() / max(1, self.n_present))


@dataclass(frozen=True)
class Candidate:
    """Reader that fits some share of the cells of a column.

    Attributes
    ----------
    reader
        The reader.
    share
        Share of readable cells among those that are not missing.
    reason
        Evidence in words.
    decimal
        Decimal sign that the cells prove, or None.
    is_ambiguous
        True if the cells could be read in another way as well.
    """

    reader: CellReader
    share: float
    reason: str
    decimal: str | None = None
    is_ambiguous: bool = False


def convert(column: pd.Series, parse: Callable[[Any], float]) -> Floats:
    """Convert each distinct value of a column to a float64 of shape (rows,); missing ones become NaN."""
    codes, values = as_codes(column)
    found = np.array([*(parse(value) for value in values), np.nan], dtype=np.float64)
    numbers: Floats = found[codes]
    return numbers


def unreadable_rows(column: pd.Series, read: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return the rows that are neither missing nor read, of shape (rows,)."""
    suspects: npt.NDArray[np.bool_] = ~read & ~np.asarray(pd.isna(column))
    if suspects.any():
        rows = np.flatnonzero(suspects)
        values = column.iloc[rows]
        suspects[rows] = [not is_missing_cell(value) for value in values]
    return suspects


def warn_unreadable(name: str, kind: str, column: pd.Series, unreadable: npt.NDArray[np.bool_]) -> None:
    """Warn of a column whose kind has changed since training.

    Parameters
    ----------
    name, kind
        Name of the column, and its kind in training.
    column
        Its cells, of shape (rows,).
    unreadable
        Rows that are neither missing nor readable, of shape (rows,).
    """
    n_unreadable = int(unreadable.sum())
    if not n_unreadable:
        return
    n_present = int((~np.asarray([is_missing_cell(cell) for cell in column])).sum())
    share = n_unreadable / n_present
    if share <= 1.0 - MIN_READ_SHARE:
        return
    first = shortened(str(column.iloc[int(np.argmax(unreadable))]))
    warnings.warn(
        f"column {name!r} was {kind} in training, but {_percent(share)} of its cells here, such as "
        f"{first!r}, cannot be read as such; they count as missing",
        DataWarning,
        stacklevel=3,
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share < 0.995 or share == 1.0 else "nearly 100 %"


def plain_number(value: Any) -> float:
    """Return a number that is no text as a float; NaN for anything else."""
    try:
        return np.nan if isinstance(value, (str, bytes)) else float(value)
    except (TypeError, ValueError, OverflowError):
        return np.nan


def example(values: Sequence[Any], readable: npt.NDArray[np.bool_]) -> str:
    """Return the first readable value, shortened and quoted."""
    places = np.flatnonzero(readable)
    return repr(shortened(str(values[int(places[0])]))) if len(places) else "none"


def shortened(text: str, length: int = 24) -> str:
    """Return a text on one line, cut to a length."""
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 1].rstrip()}…"


def is_missing_cell(cell: Any) -> bool:
    """True for a missing value or a spelling of one."""
    if isinstance(cell, str):
        return is_missing(cell)
    return cell is None or (pd.api.types.is_scalar(cell) and bool(pd.isna(cell)))
