"""Conversion of tables (pandas, polars, Arrow, NumPy, SciPy sparse, lists) to a pandas frame."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from parallelmlp_search.exceptions import DataError, DataWarning


def as_frame(X: Any) -> pd.DataFrame:
    """Convert a table to a pandas frame with unique text names, without a copy if pandas allows it.

    Parameters
    ----------
    X
        pandas frame, series or array; object with ``to_pandas`` (polars, Arrow); lazy polars frame; NumPy
        array of shape (rows,) or (rows, columns), or structured; SciPy sparse matrix (made dense); mapping of
        columns; list of rows. Columns without names are called ``x0``, ``x1``, ...

    Returns
    -------
    pandas.DataFrame of shape (rows, columns)
        It has the index of `X`, if there is one. It may share memory with `X`, so do not write into it.

    Raises
    ------
    DataError
        If `X` has more than two axes or complex numbers, or is no table.
    """
    if not isinstance(X, (pd.DataFrame, pd.Series)) and hasattr(X, "collect") and hasattr(X, "lazy"):
        X = X.collect()
    if not isinstance(X, (pd.DataFrame, pd.Series)) and hasattr(X, "to_pandas"):
        X = X.to_pandas()
    if isinstance(X, (pd.Index, pd.api.extensions.ExtensionArray)):
        X = pd.Series(X)
    if isinstance(X, pd.Series):
        X = X.to_frame("x0" if X.name is None else X.name)
    if isinstance(X, Mapping) and not is_sparse(X):
        X = pd.DataFrame(dict(X))
    if isinstance(X, pd.DataFrame):
        return _named_frame(X)
    if is_sparse(X):
        X = X.toarray()
    elif isinstance(X, Sequence) and not isinstance(X, (str, bytes)):
        # objects keep numbers and texts of a list apart
        try:
            X = np.array(X) if _only_numbers(X) else np.array(X, dtype=object)
        except ValueError:
            raise DataError("X must have rows of one length, but they differ") from None
    elif not isinstance(X, np.ndarray) and hasattr(X, "__array__"):
        X = np.asarray(X)
    if not isinstance(X, np.ndarray):
        raise DataError(f"X must be a table, but got {type(X).__name__}")
    if X.dtype.names is not None:
        return _named_frame(pd.DataFrame(X))
    if X.ndim not in (1, 2):
        raise DataError(f"X must have two axes, rows and columns, but has {X.ndim}")
    if X.dtype.kind == "c":
        raise DataError("X must hold real numbers, but holds complex ones")
    if X.ndim == 1:
        X = X[:, None]
    names = pd.Index(array_names(X.shape[1]))
    if X.dtype.kind == "f" and X.dtype.itemsize not in (4, 8):
        X = X.astype(np.float64)  # pandas does not support half and extended precision everywhere
    frame = pd.DataFrame(X, columns=names, copy=False)
    return frame.infer_objects() if X.dtype == object else frame


def is_sparse(X: Any) -> bool:
    """True for a matrix of scipy.sparse, which need not be imported for that."""
    sparse = sys.modules.get("scipy.sparse")
    return sparse is not None and bool(sparse.issparse(X))


def has_names(X: Any) -> bool:
    """True if the columns of `X` have names, so that they are found by name."""
    columns = getattr(X, "columns", None)
    if isinstance(columns, pd.Index):
        return not isinstance(columns, pd.RangeIndex)
    return (
        columns is not None
        or isinstance(X, Mapping)
        or (isinstance(X, pd.Series) and X.name is not None)
        or hasattr(X, "column_names")
        or (isinstance(X, np.ndarray) and X.dtype.names is not None)
    )


def array_names(n_columns: int) -> list[str]:
    """Return the names of columns that have none: ``x0, x1, ...``."""
    return [f"x{number}" for number in range(n_columns)]


def unique_names(names: Sequence[str], label: str = "the table") -> list[str]:
    """Number repeated names, with a `DataWarning`: ``a, a, b`` becomes ``a, a.1, b``."""
    if len(set(names)) == len(names):
        return list(names)
    taken = set(names)
    seen: set[str] = set()
    unique, renamed = [], []
    for name in names:
        new = name
        count = 0
        while new in seen or (count and new in taken):
            count += 1
            new = f"{name}.{count}"
        if new != name:
            renamed.append(f"{name!r} as {new!r}")
        seen.add(new)
        unique.append(new)
    shown = ", ".join(renamed[:5]) + (f" and {len(renamed) - 5} more" if len(renamed) > 5 else "")
    warnings.warn(f"column names repeat in {label}; they are read as: {shown}", DataWarning, stacklevel=3)
    return unique


def _named_frame(frame: pd.DataFrame) -> pd.DataFrame:
    columns = frame.columns
    if isinstance(columns, pd.RangeIndex):
        names = array_names(len(columns))
    elif isinstance(columns, pd.MultiIndex):
        names = ["_".join(str(part) for part in name) for name in columns]
    else:
        names = [name if isinstance(name, str) else str(name) for name in columns]
    names = unique_names(names)
    if isinstance(columns, pd.MultiIndex) or names != list(columns):
        frame = frame.set_axis(pd.Index(names), axis=1)
    for name, dtype in frame.dtypes.items():
        if getattr(dtype, "kind", "O") == "c":
            raise DataError(f"column {name!r} must hold real numbers, but holds complex ones")
    return frame


def _only_numbers(rows: Sequence[Any]) -> bool:
    def flat(row: Any) -> Any:
        return row if isinstance(row, (Sequence, np.ndarray)) and not isinstance(row, (str, bytes)) else [row]

    return all(
        isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
        for row in rows
        for value in flat(row)
    )
