"""Recognition of the kind of each column of a table."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from parallelmlp_search._checks import check_choice, refuse
from parallelmlp_search.data.coercion import (
    as_codes,
    as_numbers,
    as_seconds,
    category_key,
    is_fast_numeric,
)
from parallelmlp_search.data.frames import as_frame
from parallelmlp_search.data.order import MIN_LEVELS, dtype_order, find_order
from parallelmlp_search.exceptions import DataError, near_miss

ColumnKind = Literal["numeric", "boolean", "categorical", "ordinal", "datetime", "identifier", "constant"]
COLUMN_KINDS: tuple[ColumnKind, ...] = get_args(ColumnKind)
CATEGORY_KINDS: tuple[ColumnKind, ...] = ("boolean", "categorical", "ordinal")
"""Kinds of the columns that are encoded as categories."""

MIN_PARSED_SHARE = 0.95
"""Minimum share of numbers (or dates) among the non-missing values of a numeric (or date) text column."""
MIN_DISTINCT_SHARE = 0.95
"""Minimum share of distinct values of a text identifier."""
MIN_IDENTIFIER_ROWS, MIN_TEXT_IDENTIFIER_ROWS = 100, 30
"""Minimum number of rows for an integer and a text column to be recognised as identifiers."""
MAX_IDENTIFIER_STEP = 2.0
"""Maximum mean step of a monotonic identifier, so that a random half of a numbered table is recognised."""

NEARLY_DISTINCT = "nearly all values distinct"
"""Reason of a text identifier."""

_IDENTIFIER_NAME = re.compile(
    r"(^|[\W_])(id|idx|index|uuid|guid|rownames?|row_?number|unnamed: \d+)$", re.IGNORECASE
)
_IDENTIFIER_CAMEL = re.compile(r"[a-z0-9](Id|ID|Uuid|UUID)$")
_CHUNK_VALUES = 1 << 22


@dataclass(frozen=True, slots=True)
class Column:
    """Name and kind of a column, and the reason for the kind."""

    name: str
    kind: ColumnKind
    reason: str


@dataclass(frozen=True, slots=True)
class TableSchema:
    """Columns of a table in their order."""

    columns: tuple[Column, ...]

    def __len__(self) -> int:
        return len(self.columns)

    def __iter__(self) -> Iterator[Column]:
        return iter(self.columns)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all columns."""
        return tuple(column.name for column in self.columns)

    @property
    def kinds(self) -> dict[str, ColumnKind]:
        """Kind by name. As `overrides` for another table, they make recognition unnecessary there."""
        return {column.name: column.kind for column in self.columns}

    def of_kind(self, *kinds: ColumnKind) -> tuple[str, ...]:
        """Names of the columns of these kinds, in the order of the table."""
        return tuple(column.name for column in self.columns if column.kind in kinds)

    def to_dict(self) -> dict[str, Any]:
        """Return a form that JSON can hold."""
        return {"columns": [[column.name, column.kind, column.reason] for column in self.columns]}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> TableSchema:
        """Inverse of `to_dict`."""
        names = [name for name, _, _ in state["columns"]]
        if len(set(names)) < len(names) or not all(isinstance(name, str) for name in names):
            refuse("the names of columns", "distinct texts", names)
        return cls(
            tuple(
                Column(name, cast(ColumnKind, check_choice("kind", kind, COLUMN_KINDS)), reason)
                for name, kind, reason in state["columns"]
            )
        )


def recognise_columns(frame: Any, *, overrides: Mapping[str, str] | None = None) -> TableSchema:
    """Recognise the kind of each column of a table.

    - *constant*: the same value in all rows, or only missing values.
    - *boolean*: a boolean dtype, or objects that are all booleans.
    - *numeric*: a numeric or duration dtype, or text with at least 95 % numbers.
    - *datetime*: a date dtype, or text with at least 95 % ISO 8601 dates.
    - *identifier*: a number or name of the row, which says nothing about new rows. Text of at least 30 rows
      with 95 % distinct values; or at least 100 integers, all distinct and none missing, that increase or
      decrease in steps of about one or whose column is named like an identifier. Floats never are.
    - *ordinal*: categories with an order: that of the dtype, or that of words of a scale, ranges of numbers
      or grades, see :func:`~parallelmlp_search.data.order.find_order`.
    - *categorical*: all other columns.

    Parameters
    ----------
    frame
        Any table that `as_frame` accepts.
    overrides
        Kind by column name. These columns are not looked at.

    Returns
    -------
    TableSchema
        Kinds of all columns.
    """
    frame = as_frame(frame)
    kinds = _checked_overrides(overrides, list(frame.columns))
    fast = [str(name) for name, dtype in frame.dtypes.items() if is_fast_numeric(dtype) and name not in kinds]
    found = _recognise_numbers(frame, fast)
    for name in frame.columns:
        if name in kinds:
            found[name] = Column(name, kinds[name], "set by the user")
        elif name not in found:
            found[name] = _recognise(frame[name], name)
    return TableSchema(tuple(found[name] for name in frame.columns))


def numeric_matrix(frame: pd.DataFrame, names: list[str]) -> npt.NDArray[np.float64]:
    """Convert columns to float64 of shape (rows, columns). Values that are no numbers become NaN."""
    part = frame if names == list(frame.columns) else frame[names]
    if all(is_fast_numeric(dtype) for dtype in set(part.dtypes)):
        return part.to_numpy(dtype=np.float64)
    matrix = np.empty((len(frame), len(names)), order="F")
    for position, name in enumerate(names):
        matrix[:, position] = as_numbers(part[name])
    return matrix


def _checked_overrides(overrides: Mapping[str, str] | None, names: list[str]) -> dict[str, ColumnKind]:
    kinds: dict[str, ColumnKind] = {}
    for name, kind in (overrides or {}).items():
        if name not in names:
            raise DataError(
                f"the kind of column {name!r} cannot be set: there is no such column"
                f"{near_miss(str(name), names)}"
            )
        kinds[name] = cast(ColumnKind, check_choice(f"the kind of column {name!r}", kind, COLUMN_KINDS))
    return kinds


def _recognise_numbers(frame: pd.DataFrame, names: list[str]) -> dict[str, Column]:
    """Recognise columns of a plain numeric dtype, many at a time."""
    found: dict[str, Column] = {}
    rows = len(frame)
    width = max(1, _CHUNK_VALUES // max(1, rows))
    for start in range(0, len(names), width):
        chunk = names[start : start + width]
        values = numeric_matrix(frame, chunk)
        n_missing = np.isnan(values).sum(axis=0)
        low = np.fmin.reduce(values, axis=0, initial=np.inf)
        high = np.fmax.reduce(values, axis=0, initial=-np.inf)
        with np.errstate(over="ignore", invalid="ignore"):
            spread = high - low  # at least rows - 1 where all values are distinct integers
        for position, name in enumerate(chunk):
            if n_missing[position] == rows:
                found[name] = Column(name, "constant", "all values missing")
            elif n_missing[position] == 0 and low[position] == high[position]:
                found[name] = Column(name, "constant", "same value in all rows")
            elif (
                frame.dtypes[name].kind in "iu"
                and spread[position] >= rows - 1
                and (reason := _integer_identifier(values[:, position], name))
            ):
                found[name] = Column(name, "identifier", reason)
            else:
                found[name] = Column(name, "numeric", "numbers")
    return found


def _integer_identifier(values: npt.NDArray[np.float64], name: str) -> str | None:
    """Return the reason why a column of whole numbers is an identifier, or None if it is not."""
    if len(values) < MIN_IDENTIFIER_ROWS or not np.isfinite(values).all():
        return None
    steps = np.diff(values)
    if ((steps > 0).all() or (steps < 0).all()) and abs(float(steps.mean())) <= MAX_IDENTIFIER_STEP:
        return "row number"
    is_named = _IDENTIFIER_NAME.search(name) or _IDENTIFIER_CAMEL.search(name)
    if is_named and len(np.unique(values)) == len(values):
        return "named like an identifier, values distinct"
    return None


def _recognise(column: pd.Series, name: str) -> Column:
    """Recognise a column of any other dtype."""
    codes, values = as_codes(column)
    counts = np.bincount(codes[codes >= 0], minlength=len(values))
    present = int(counts.sum())
    distinct = int((counts > 0).sum())
    # blank texts count as missing
    if not any(category_key(value) for value, count in zip(values, counts, strict=True) if count):
        return Column(name, "constant", "all values missing")
    if distinct == 1 and present == len(column):
        return Column(name, "constant", "same value in all rows")
    dtype = column.dtype
    if pd.api.types.is_bool_dtype(dtype) and not isinstance(dtype, pd.CategoricalDtype):
        return Column(name, "boolean", "true or false")
    if isinstance(dtype, pd.PeriodDtype) or pd.api.types.is_datetime64_any_dtype(dtype):
        return Column(name, "datetime", "dates")
    if pd.api.types.is_timedelta64_dtype(dtype):
        return Column(name, "numeric", "durations in seconds")
    if pd.api.types.is_numeric_dtype(dtype):  # nullable, Arrow or sparse numbers
        reason = None
        if pd.api.types.is_integer_dtype(dtype):
            reason = _integer_identifier(as_numbers(column), name)
        return Column(name, "identifier", reason) if reason else Column(name, "numeric", "numbers")
    if not isinstance(dtype, pd.CategoricalDtype):
        if all(isinstance(value, (bool, np.bool_)) for value in values):
            return Column(name, "boolean", "true or false")
        listed = pd.Series(values, dtype=object)
        numbers = as_numbers(listed)
        if counts[~np.isnan(numbers)].sum() >= MIN_PARSED_SHARE * present:
            whole = present == len(column) and bool(np.all(numbers == np.floor(numbers)))
            reason = _integer_identifier(numbers[codes], name) if whole else None
            if reason:
                return Column(name, "identifier", reason)
            return Column(name, "numeric", "numbers as text")
        if counts[~np.isnat(as_seconds(listed))].sum() >= MIN_PARSED_SHARE * present:
            return Column(name, "datetime", "dates as text")
    keys = {category_key(value) for value, count in zip(values, counts, strict=True) if count}
    texts = any(isinstance(value, str) for value in values) or not all(np.isscalar(value) for value in values)
    if texts and present >= MIN_TEXT_IDENTIFIER_ROWS and len(keys) >= MIN_DISTINCT_SHARE * present:
        return Column(name, "identifier", NEARLY_DISTINCT)
    if len(keys) >= MIN_LEVELS and (order := dtype_order(dtype) or find_order(sorted(keys - {""}), name)):
        return Column(name, "ordinal", order.describe(keys))
    return Column(name, "categorical", f"{distinct} categories")
