"""Conversion of a column of any dtype to numbers, dates or category keys.

Recognition, fitting and prediction share these conversions, so a column may have another dtype in prediction
than in training. Texts are parsed once per distinct value, not once per row.
"""

from __future__ import annotations

import contextlib
import numbers
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from parallelmlp_search.exceptions import one_line

Codes = npt.NDArray[np.intp]
Floats = npt.NDArray[np.float64]

_ISO_TIME = r"\d{1,2}(:?\d{2}(:?\d{2}([.,]\d+)?)?)?\s*(Z|UTC|[+-]\d{2}(:?\d{2})?)?"
_ISO_DATE = re.compile(rf"\d{{4}}[-/]\d{{1,2}}([-/]\d{{1,2}}([T ]{_ISO_TIME})?)?")
_COMPACT_DATE = re.compile(r"(1[5-9]|2[0-4])\d{2}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])")
_MAX_EXACT_INTEGER = 2.0**53
_PLAIN_TYPES = frozenset({int, float, bool, type(None)})


def is_fast_numeric(dtype: Any) -> bool:
    """True if a column of this dtype is a plain NumPy array of real numbers."""
    return isinstance(dtype, np.dtype) and dtype.kind in "iuf"


def as_codes(column: pd.Series) -> tuple[Codes, list[Any]]:
    """Factorize a column.

    Returns
    -------
    (codes, values)
        Index of each row's value, of shape (rows,), -1 for a missing one; and the distinct values in order of
        appearance. For a categorical column they are its categories, some of which no row may have.
    """
    if isinstance(column.dtype, pd.CategoricalDtype):
        return column.cat.codes.to_numpy().astype(np.intp), list(column.cat.categories)
    if isinstance(column.dtype, pd.SparseDtype):
        column = _dense(column)
    if column.dtype == object and pd.api.types.infer_dtype(column, skipna=True) != "string":
        return _object_codes(column)
    codes, values = pd.factorize(column)
    return codes.astype(np.intp, copy=False), list(values)


def _dense(column: pd.Series) -> pd.Series:
    return pd.Series(column.array.to_dense(), index=column.index)


def _object_codes(column: pd.Series) -> tuple[Codes, list[Any]]:
    """Factorize a column of objects, keeping ``1`` and ``True`` apart and accepting unhashable values."""
    values = column.to_numpy(dtype=object)
    missing = np.asarray(pd.isna(column))
    codes = np.full(len(values), -1, dtype=np.intp)
    index: dict[tuple[type, Any], int] = {}
    distinct: list[Any] = []
    for row in np.flatnonzero(~missing):
        value = values[row]
        key = (type(value), value)
        try:
            position = index.get(key)
        except TypeError:  # lists, dictionaries, arrays: compared as texts
            value = str(value)
            key = (str, value)
            position = index.get(key)
        if position is None:
            position = index[key] = len(distinct)
            distinct.append(value)
        codes[row] = position
    return codes, distinct


def as_numbers(column: pd.Series) -> Floats:
    """Convert a column to float64 of shape (rows,). Values that are no numbers become NaN."""
    dtype = column.dtype
    if isinstance(dtype, np.dtype):
        if dtype.kind in "iufb":
            return column.to_numpy(dtype=np.float64)
        if dtype.kind == "m":
            seconds: Floats = column.dt.total_seconds().to_numpy(dtype=np.float64)
            return seconds
        if dtype.kind == "M":
            return np.full(len(column), np.nan)
    elif isinstance(dtype, pd.SparseDtype):
        return as_numbers(_dense(column))
    elif isinstance(dtype, (pd.DatetimeTZDtype, pd.PeriodDtype, pd.IntervalDtype)):
        return np.full(len(column), np.nan)
    elif pd.api.types.is_numeric_dtype(dtype):  # nullable and Arrow numbers and booleans
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    codes, values = as_codes(column)
    return _take(codes, np.array([number_of(value) for value in values], dtype=np.float64))


def number_of(value: Any) -> float:
    """Convert a value to a float. One that is no number becomes NaN."""
    if isinstance(value, str):
        value = value.strip()
        if "_" in value:  # Python reads 1_000 as a number, but here it is a code
            return np.nan
    elif isinstance(value, (pd.Timedelta, np.timedelta64)):
        return float(pd.Timedelta(value).total_seconds())
    try:
        return float(value)
    except (TypeError, ValueError):
        return np.nan
    except OverflowError:  # an integer beyond 1.8e308
        return float("inf") if value > 0 else float("-inf")


def numbers_of(cells: Sequence[Any]) -> Floats:
    """Convert cells to float64 of shape (rows,), each as `number_of` does, but numbers and None at once."""
    if isinstance(cells, np.ndarray) and cells.dtype.kind in "iuf":
        return cells.astype(np.float64)
    if _PLAIN_TYPES.issuperset(map(type, cells)):
        with contextlib.suppress(OverflowError):  # an integer beyond 1.8e308
            return np.array(cells, dtype=np.float64)
    return np.array([number_of(cell) for cell in cells], dtype=np.float64)


def as_seconds(column: pd.Series) -> npt.NDArray[np.datetime64]:
    """Convert a column to ``datetime64[s]`` in UTC of shape (rows,). Values that are no dates become NaT.

    Times without a zone are in UTC. Texts must be in ISO 8601; whole numbers like ``20240131``.
    """
    dtype = column.dtype
    if isinstance(dtype, pd.DatetimeTZDtype):
        column = column.dt.tz_convert("UTC").dt.tz_localize(None)
        dtype = column.dtype
    if isinstance(dtype, pd.PeriodDtype):
        column = column.dt.to_timestamp()
        dtype = column.dtype
    if pd.api.types.is_datetime64_any_dtype(dtype):
        return column.to_numpy(dtype="datetime64[s]")
    codes, values = as_codes(column)
    if not values:
        return np.full(len(column), np.datetime64("NaT"), dtype="datetime64[s]")
    texts = [_date_text(value) for value in values]
    parsed = pd.to_datetime(pd.Series(texts, dtype=object), format="ISO8601", errors="coerce", utc=True)
    return _take(codes, parsed.dt.tz_localize(None).to_numpy(dtype="datetime64[s]"))


def _date_text(value: Any) -> str | None:
    if hasattr(value, "isoformat"):
        return str(value.isoformat()) if hasattr(value, "year") else None
    key = category_key(value)
    if _ISO_DATE.fullmatch(key):
        return key.replace("/", "-").replace("UTC", "Z").replace(",", ".")
    return key if _COMPACT_DATE.fullmatch(key) else None


def as_keys(column: pd.Series) -> tuple[Codes, list[str]]:
    """Factorize a column by category keys. Blank texts count as missing.

    Returns
    -------
    (codes, keys)
        Index of each row's key, of shape (rows,), -1 for a missing one; and the distinct keys.
    """
    codes, values = as_codes(column)
    index: dict[str, int] = {}
    merged = np.array(
        [index.setdefault(key, len(index)) if key else -1 for key in map(category_key, values)], dtype=np.intp
    )
    keys = list(index)
    if len(keys) == len(values):
        return codes, keys
    return np.where(codes < 0, -1, merged[codes]) if len(values) else codes, keys


def key_of(value: Any) -> str:
    """Text that identifies a category, see `category_key`; empty for a missing value."""
    if isinstance(value, str):
        return value.strip()
    return "" if pd.isna(value) is True else category_key(value)


def keys_of(cells: Sequence[Any]) -> tuple[Codes, list[str]]:
    """Return the codes and keys of cells, as `as_keys` does of a column; without calls of pandas.

    Returns
    -------
    (codes, keys)
        Index of the key of each cell, of shape (rows,), -1 for a missing one; and the distinct keys.
    """
    index: dict[str, int] = {}
    texts = map(key_of, cells)
    codes = [index.setdefault(text, len(index)) if text else -1 for text in texts]
    return np.array(codes, dtype=np.intp), list(index)


def category_key(value: Any) -> str:
    """Text that identifies a category: ``7``, ``7.0`` and ``"7"`` are the same, ``True`` is ``"True"``."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value))
    if isinstance(value, numbers.Integral):
        return str(int(value))
    if isinstance(value, numbers.Real):
        number = float(value)
        return str(int(number)) if number.is_integer() and abs(number) <= _MAX_EXACT_INTEGER else repr(number)
    if isinstance(value, np.datetime64):
        value = pd.Timestamp(value)
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace").strip()
    return str(value).strip()


def plain_value(value: Any) -> Any:
    """Return a NumPy scalar as a Python value, and any other value as it is."""
    return value.item() if isinstance(value, np.generic) else value


def shown(value: Any) -> str:
    """Return a value for a message: a NumPy scalar as a Python value, shortened."""
    try:
        return one_line(repr(plain_value(value)))
    except ValueError:  # Python writes no integer of thousands of digits
        return "an integer of thousands of digits"


def _take(codes: Codes, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Look up the values of rows by their codes; code -1 gives NaN or NaT."""
    missing = np.datetime64("NaT", "s") if values.dtype.kind == "M" else np.nan
    looked_up: npt.NDArray[Any] = np.append(values, np.array([missing], dtype=values.dtype))[codes]
    return looked_up
