"""Facts about each column of a table: kind, distinct and missing values, range or examples, use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from parallelmlp_search.data.cells.base import is_missing_cell, shortened
from parallelmlp_search.data.cells.numbers import NumberCells
from parallelmlp_search.data.cells.recognition import ReadTable
from parallelmlp_search.data.cells.table import ColumnReading
from parallelmlp_search.data.coercion import as_codes, as_keys, as_numbers, as_seconds, is_fast_numeric
from parallelmlp_search.data.columns import CATEGORY_KINDS
from parallelmlp_search.data.profile.findings import percent

MAX_COUNTED_ROWS = 200_000
"""Rows, evenly spaced, in which distinct values are counted."""

MAX_ONE_HOT, MAX_CATEGORIES = 10, 64
"""Categories that all get a column of their own, and most frequent ones that get one if there are more."""

LEFT_OUT = ("identifier", "constant")
"""Kinds of columns that the networks do not see."""

N_EXAMPLES = 3
_EXAMPLE_LENGTH = 32


@dataclass(frozen=True)
class ColumnProfile:
    """Facts about one column.

    Attributes
    ----------
    name, kind
        Name and kind of the column.
    distinct
        Number of distinct values, missing ones not counted.
    missing
        Number of rows without a value, unreadable cells included.
    values
        Range of numbers and dates, most frequent categories, or an example.
    treatment
        Use of the column as input of the networks.
    reason
        Evidence for the kind.
    """

    name: str
    kind: str
    distinct: int
    missing: int
    values: str
    treatment: str
    reason: str

    @property
    def is_used(self) -> bool:
        """True if the networks see the column."""
        return self.kind not in LEFT_OUT


def profile_columns(frame: pd.DataFrame, read: ReadTable) -> tuple[ColumnProfile, ...]:
    """Return the facts about the columns of a table.

    Parameters
    ----------
    frame
        Original table.
    read
        The same table, read.
    """
    step = max(1, -(-len(frame) // MAX_COUNTED_ROWS))
    return tuple(_profile(column, frame[column.name], read.frame, step) for column in read.reader.columns)


def _profile(reading: ColumnReading, cells: pd.Series, plain: pd.DataFrame, step: int) -> ColumnProfile:
    if reading.reader is not None and [name for _, name in reading.outputs][:1] == [reading.name]:
        cells = plain[reading.name]  # money, dates and durations as they were read
    elif reading.reader is not None:
        return _of_other_cells(reading, cells, step)
    kind = "numeric" if reading.kind == "identifier" and is_fast_numeric(cells.dtype) else reading.kind
    if kind == "datetime":
        times = as_seconds(cells)
        return _of_range(reading, times, np.isnat(times), step)
    if kind in ("numeric", "currency", "percent", "quantity", "duration"):
        numbers = as_numbers(cells)
        return _of_range(reading, numbers, np.isnan(numbers), step)
    return _of_categories(reading, cells)


def _of_range(
    reading: ColumnReading, values: npt.NDArray[Any], missing: npt.NDArray[np.bool_], step: int
) -> ColumnProfile:
    known = values[~missing]
    distinct = len(pd.unique(known[::step]))
    low, high = (known.min(), known.max()) if len(known) else (None, None)
    write, unit = _writer(reading, values.dtype.kind)
    shown = "" if low is None else write(low) if low == high else f"{write(low)} … {write(high)}"
    shown += unit if shown else ""
    return ColumnProfile(
        reading.name,
        reading.kind,
        distinct,
        int(missing.sum()),
        shown,
        treatment_of(reading, distinct),
        reading.reason,
    )


def _writer(reading: ColumnReading, dtype_kind: str) -> tuple[Callable[[Any], str], str]:
    """Format of the values of a column, and their unit."""
    if dtype_kind == "M":
        return _day, ""
    if reading.kind == "percent":
        return (lambda value: format_number(100 * value)), " %"
    if reading.kind == "duration":
        return format_seconds, ""
    unit = reading.reader.unit if isinstance(reading.reader, NumberCells) else ""
    return format_number, f" {unit}" if unit else ""


def _of_categories(reading: ColumnReading, cells: pd.Series) -> ColumnProfile:
    codes, keys = as_keys(cells)
    counts = np.bincount(codes[codes >= 0], minlength=len(keys))
    distinct = int((counts > 0).sum())
    first = np.argsort(-counts, kind="stable")[:N_EXAMPLES]
    total = max(1, int(counts.sum()))
    names = [shortened(keys[place], _EXAMPLE_LENGTH) for place in first.tolist() if counts[place]]
    if reading.kind in CATEGORY_KINDS and len(names) < distinct + 1:
        shares = [percent(counts[place] / total) for place in first.tolist()]
        names = [f"{name} {share}" for name, share in zip(names, shares, strict=False)]
    shown = ", ".join(names) + (
        ", …" if distinct > len(names) and reading.kind in ("categorical", "ordinal") else ""
    )
    return ColumnProfile(
        reading.name,
        reading.kind,
        distinct,
        int((codes < 0).sum()),
        shown,
        treatment_of(reading, distinct),
        reading.reason,
    )


def _of_other_cells(reading: ColumnReading, cells: pd.Series, step: int) -> ColumnProfile:
    """Profile of texts, lists and objects."""
    missing = int(sum(is_missing_cell(cell) for cell in cells))
    distinct = len(as_codes(cells.iloc[::step])[1])
    first = next((str(cell) for cell in cells if not is_missing_cell(cell)), "")
    return ColumnProfile(
        reading.name,
        reading.kind,
        distinct,
        missing,
        shortened(first, 60),
        treatment_of(reading, distinct),
        reading.reason,
    )


def treatment_of(reading: ColumnReading, distinct: int) -> str:
    """Return in words how the networks see a column with some number of distinct values."""
    if reading.reader is not None:
        return reading.reader.treatment
    if reading.kind in LEFT_OUT:
        return "left out"
    if reading.kind == "datetime":
        return "parts of the date"
    if reading.kind == "numeric":
        return "number"
    if reading.kind == "boolean" or distinct <= 2:
        return "yes or no"
    also = " and their rank" if reading.kind == "ordinal" else ""
    if distinct <= MAX_CATEGORIES:
        return f"{distinct} categories{also}"
    return f"{MAX_CATEGORIES} most frequent categories{also}"


def format_number(value: Any) -> str:
    """Format a number for people: ``1,234``, ``0.25``, ``1.2e+09``.

    >>> format_number(48842.0), format_number(0.123456), format_number(1234.5), format_number(3e12)
    ('48,842', '0.1235', '1,234.5', '3e+12')
    """
    number = float(value)
    if not np.isfinite(number) or (number != 0 and not 1e-4 <= abs(number) < 1e10):
        return f"{number:.4g}"
    if number == int(number):
        return f"{int(number):,}"
    digits = 4 if abs(number) < 10 else 3 if abs(number) < 100 else 1
    return f"{number:,.{digits}f}".rstrip("0").rstrip(".")


def format_seconds(value: Any) -> str:
    """Format a duration for people.

    >>> format_seconds(90.0), format_seconds(5400.0), format_seconds(864000.0)
    ('1.5 min', '1.5 h', '10 days')
    """
    seconds = float(value)
    for name, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if abs(seconds) >= size:
            return f"{format_number(round(seconds / size, 1))} {name}"
    return f"{format_number(seconds)} s"


def _day(value: Any) -> str:
    text = str(value).replace("T", " ")
    return text.removesuffix(" 00:00:00").removeprefix("1970-01-01 ")
