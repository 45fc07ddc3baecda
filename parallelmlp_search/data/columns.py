"""What each column of a table is: number, boolean, category, date, identifier, or nothing at all."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from parallelmlp_search.data.coercion import (
    as_codes,
    as_numbers,
    as_seconds,
    category_key,
    is_fast_numeric,
)
from parallelmlp_search.data.frames import as_frame
from parallelmlp_search.exceptions import DataError, InvalidParameterError, near_miss

__all__ = ["COLUMN_KINDS", "Column", "ColumnKind", "TableSchema", "numeric_matrix", "recognise_columns"]

ColumnKind = Literal["numeric", "boolean", "categorical", "datetime", "identifier", "constant"]
COLUMN_KINDS: tuple[ColumnKind, ...] = get_args(ColumnKind)

PARSED_SHARE = 0.95
"""Share of the present values that must read as numbers (or dates) for a text column to count as such."""
DISTINCT_SHARE = 0.95
"""Share of distinct values from which a text column is an identifier."""
IDENTIFIER_ROWS = 100
"""Rows below which an integer column is never an identifier."""
TEXT_IDENTIFIER_ROWS = 30
"""Rows below which a text column is never an identifier."""
IDENTIFIER_STEP = 2.0
"""Largest mean step of a monotonic integer identifier: half of a numbered table is still recognised."""

_IDENTIFIER_NAME = re.compile(
    r"(^|[\W_])(id|idx|index|uuid|guid|rownames?|row_?number|unnamed: \d+)$", re.IGNORECASE
)
_IDENTIFIER_CAMEL = re.compile(r"[a-z0-9](Id|ID|Uuid|UUID)$")
_CHUNK_VALUES = 1 << 22


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its name, what it is, and why in a few words."""

    name: str
    kind: ColumnKind
    reason: str


@dataclass(frozen=True, slots=True)
class TableSchema:
    """The columns of a table in their order."""

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
        """Kind by name; as `overrides` of another table it makes that one be read in the same way."""
        return {column.name: column.kind for column in self.columns}

    def of_kind(self, *kinds: ColumnKind) -> tuple[str, ...]:
        """Names of the columns of these kinds, in the order of the table."""
        return tuple(column.name for column in self.columns if column.kind in kinds)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {"columns": [[column.name, column.kind, column.reason] for column in self.columns]}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> TableSchema:
        """Inverse of `to_dict`."""
        return cls(tuple(Column(name, kind, reason) for name, kind, reason in state["columns"]))


def recognise_columns(frame: Any, *, overrides: Mapping[str, str] | None = None) -> TableSchema:
    """Find out what each column of a table is.

    - *constant*: one value in every row, or no value at all.
    - *boolean*: a boolean dtype, or objects that are all booleans.
    - *numeric*: a numeric or duration dtype, or text of which 95 % of the present values are numbers.
    - *datetime*: a date dtype, or text of which 95 % of the present values look like ISO 8601.
    - *identifier*: a number or name of the row, which tells nothing about new rows. Text with 30 rows or more
      of which 95 % are distinct; integers without gaps in 100 rows or more that are all distinct and either
      run up or down in steps of about one or are named like an identifier. Floats never are.
    - *categorical*: the rest.

    Parameters
    ----------
    frame
        Anything that `as_frame` takes.
    overrides
        Kind by column name; it wins over what is found.

    Raises
    ------
    DataError
        If `overrides` names a column that the table does not have.
    InvalidParameterError
        If `overrides` names a kind that there is not.
    """
    frame = as_frame(frame)
    chosen = _checked_overrides(overrides, list(frame.columns))
    fast = [
        name
        for name, dtype in frame.dtypes.items()
        if is_fast_numeric(dtype) and cast("str", name) not in chosen
    ]
    found = _recognise_numbers(frame, cast("list[str]", fast))
    for name in frame.columns:
        if name in chosen:
            found[name] = Column(name, chosen[name], "as asked for")
        elif name not in found:
            found[name] = _recognise(frame[name], name)
    return TableSchema(tuple(found[name] for name in frame.columns))


def numeric_matrix(frame: pd.DataFrame, names: list[str]) -> npt.NDArray[np.float64]:
    """Columns `names` of a frame as float64 of shape (rows, columns); what is no number becomes NaN."""
    part = frame if names == list(frame.columns) else frame[names]
    if all(is_fast_numeric(dtype) for dtype in set(part.dtypes)):
        return part.to_numpy(dtype=np.float64)
    matrix = np.empty((len(frame), len(names)), order="F")
    for position, name in enumerate(names):
        matrix[:, position] = as_numbers(part[name])
    return matrix


def _checked_overrides(overrides: Mapping[str, str] | None, names: list[str]) -> dict[str, ColumnKind]:
    chosen: dict[str, ColumnKind] = {}
    for name, kind in (overrides or {}).items():
        if name not in names:
            raise DataError(f"no column {name!r} whose kind could be set{near_miss(str(name), names)}")
        if kind not in COLUMN_KINDS:
            raise InvalidParameterError(
                f"the kind of column {name!r} must be one of {', '.join(COLUMN_KINDS)}, "
                f"but got {kind!r}{near_miss(str(kind), COLUMN_KINDS)}"
            )
        chosen[name] = kind
    return chosen


def _recognise_numbers(frame: pd.DataFrame, names: list[str]) -> dict[str, Column]:
    """Columns with a plain numeric dtype, many at a time."""
    found: dict[str, Column] = {}
    rows = len(frame)
    width = max(1, _CHUNK_VALUES // max(1, rows))
    for start in range(0, len(names), width):
        chunk = names[start : start + width]
        values = numeric_matrix(frame, chunk)
        gaps = np.isnan(values).sum(axis=0)
        low = np.fmin.reduce(values, axis=0, initial=np.inf)
        high = np.fmax.reduce(values, axis=0, initial=-np.inf)
        with np.errstate(over="ignore", invalid="ignore"):
            spread = high - low  # at least rows - 1 where all values are distinct integers
        for position, name in enumerate(chunk):
            if gaps[position] == rows:
                found[name] = Column(name, "constant", "no value at all")
            elif gaps[position] == 0 and low[position] == high[position]:
                found[name] = Column(name, "constant", "one value in every row")
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
    """Why a column of whole numbers is an identifier; None where it is not."""
    if len(values) < IDENTIFIER_ROWS or np.isnan(values).any():
        return None
    steps = np.diff(values)
    if ((steps > 0).all() or (steps < 0).all()) and abs(float(steps.mean())) <= IDENTIFIER_STEP:
        return "numbers the rows"
    if (_IDENTIFIER_NAME.search(name) or _IDENTIFIER_CAMEL.search(name)) and len(np.unique(values)) == len(
        values
    ):
        return "named like an identifier, and no value repeats"
    return None


def _recognise(column: pd.Series, name: str) -> Column:
    """One column of any other dtype."""
    codes, values = as_codes(column)
    counts = np.bincount(codes[codes >= 0], minlength=len(values))
    present = int(counts.sum())
    distinct = int((counts > 0).sum())
    # blank texts count as gaps; any() ends at the first value that is none
    if not any(category_key(value) for value, count in zip(values, counts, strict=True) if count):
        return Column(name, "constant", "no value at all")
    if distinct == 1 and present == len(column):
        return Column(name, "constant", "one value in every row")
    dtype = column.dtype
    if pd.api.types.is_bool_dtype(dtype) and not isinstance(dtype, pd.CategoricalDtype):
        return Column(name, "boolean", "true or false")
    if isinstance(dtype, pd.PeriodDtype) or pd.api.types.is_datetime64_any_dtype(dtype):
        return Column(name, "datetime", "dates")
    if pd.api.types.is_timedelta64_dtype(dtype):
        return Column(name, "numeric", "durations in seconds")
    if pd.api.types.is_numeric_dtype(dtype):  # nullable, Arrow or sparse numbers
        reason = (
            _integer_identifier(as_numbers(column), name) if pd.api.types.is_integer_dtype(dtype) else None
        )
        return Column(name, "identifier", reason) if reason else Column(name, "numeric", "numbers")
    if not isinstance(dtype, pd.CategoricalDtype):
        if all(isinstance(value, (bool, np.bool_)) for value in values):
            return Column(name, "boolean", "true or false")
        listed = pd.Series(values, dtype=object)
        numbers = as_numbers(listed)
        if counts[~np.isnan(numbers)].sum() >= PARSED_SHARE * present:
            whole = present == len(column) and bool(np.all(numbers == np.floor(numbers)))
            reason = _integer_identifier(numbers[codes], name) if whole else None
            return (
                Column(name, "identifier", reason) if reason else Column(name, "numeric", "numbers as text")
            )
        if counts[~np.isnat(as_seconds(listed))].sum() >= PARSED_SHARE * present:
            return Column(name, "datetime", "dates as text")
    texts = any(isinstance(value, str) for value in values) or not all(np.isscalar(value) for value in values)
    if texts and present >= TEXT_IDENTIFIER_ROWS:
        keys = len({category_key(value) for value, count in zip(values, counts, strict=True) if count})
        if keys >= DISTINCT_SHARE * present:
            return Column(name, "identifier", "nearly every value is distinct")
    return Column(name, "categorical", f"{distinct} categories")
