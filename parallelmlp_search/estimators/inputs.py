"""What the estimators accept, checked as scikit-learn checks it: tables, targets, weights, budgets."""

from __future__ import annotations

import math
import re
from numbers import Real
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse
from sklearn.utils import assert_all_finite, check_array, check_consistent_length, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from parallelmlp_search.data import as_frame
from parallelmlp_search.data.frames import has_names
from parallelmlp_search.exceptions import DataError, InvalidParameterError, near_miss

__all__ = [
    "column_of_rows",
    "label_target",
    "memory_bytes",
    "numeric_target",
    "row_weights",
    "table",
]

MIN_TRAINING_ROWS = 2

_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12} | {
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}
_SIZE = re.compile(r"\s*([0-9]*\.?[0-9]+)\s*([A-Za-z]*)\s*")


def table(estimator: Any, X: Any, *, names: list[str] | None = None) -> pd.DataFrame:
    """A table as a pandas frame with unique text names.

    The estimator learns names and number of columns in training and checks them afterwards, so that errors
    and warnings are scikit-learn's own. Frames keep their dtypes; every number of an array is read as a
    measurement, never as an identifier of its row.

    Parameters
    ----------
    estimator
        Learns ``n_features_in_`` and ``feature_names_in_``.
    X
        pandas, polars or Arrow table, mapping of columns, array of shape (rows, columns), list of rows, scipy
        sparse matrix (made dense).
    names
        Names of the training columns, under which the columns of `X` are returned; None while training.

    Raises
    ------
    ValueError
        If the table has too few rows, no columns, or columns other than those of training.
    """
    training = names is None
    least_rows = MIN_TRAINING_ROWS if training else 1
    if isinstance(X, pd.DataFrame) or _is_named(X):
        frame = X if isinstance(X, pd.DataFrame) else as_frame(X)
        validate_data(estimator, frame, reset=training, skip_check_array=True)
        _check_size(estimator, frame, least_rows)
        return as_frame(frame if names is None else frame.set_axis(pd.Index(names), axis=1))
    array = validate_data(
        estimator,
        _rows(X),
        reset=training,
        accept_sparse="csr",
        dtype=None,
        ensure_all_finite=False,
        ensure_min_samples=least_rows,
    )
    if array.dtype.kind in "iub":
        array = array.astype(np.float64)
    frame = as_frame(array)
    whole = [name for name, dtype in frame.dtypes.items() if getattr(dtype, "kind", "O") in "iu"]
    if whole:
        frame = frame.astype(dict.fromkeys(whole, np.float64))
    return frame if names is None else frame.set_axis(pd.Index(names), axis=1)


def _is_named(X: Any) -> bool:
    # a series is one row or one column: scikit-learn asks to say which
    if isinstance(X, np.ndarray):
        return X.dtype.names is not None
    # a sparse matrix of the DOK format is a mapping of its cells, not of columns
    return has_names(X) and not isinstance(X, pd.Series) and not sparse.issparse(X)


def _rows(X: Any) -> Any:
    """Lists of rows as an array in which texts and numbers stay apart; anything else as it is."""
    if not isinstance(X, (list, tuple)):
        return X
    try:
        array = np.asarray(X)
    except ValueError:
        raise DataError("X must have rows of one length, but they differ") from None
    return np.array(X, dtype=object) if array.dtype.kind in "US" else array


def _check_size(estimator: Any, frame: pd.DataFrame, least_rows: int) -> None:
    name = type(estimator).__name__
    for found, least, unit in ((len(frame), least_rows, "sample"), (frame.shape[1], 1, "feature")):
        if found < least:
            raise DataError(
                f"Found table with {found} {unit}(s) (shape={frame.shape}) while a minimum of {least} is "
                f"required by {name}."
            )


def label_target(y: Any) -> npt.NDArray[Any]:
    """Class labels ``(n,)`` without gaps.

    Raises
    ------
    ValueError
        If there are gaps or infinities, several columns, or numbers that are no classes.
    """
    values = column_or_1d(_without_gaps(y), warn=True)
    if values.dtype == object:
        narrow = pd.Series(values).infer_objects().to_numpy()
        values = narrow if narrow.dtype.kind in "biuf" else values
    if values.dtype.kind == "f":
        assert_all_finite(values, input_name="y")
    check_classification_targets(values)
    return cast("npt.NDArray[Any]", values)


def numeric_target(y: Any) -> npt.NDArray[np.float64]:
    """Numbers ``(n,)`` or ``(n, outputs)``, finite.

    Raises
    ------
    ValueError
        If there are gaps, infinities, or values that are no numbers.
    """
    values = check_array(
        _without_gaps(y),
        ensure_2d=False,
        allow_nd=True,
        dtype=np.float64,
        input_name="y",
        ensure_min_samples=0,
    )
    if values.ndim not in (1, 2) or 0 in values.shape[1:]:
        raise DataError(f"y must have the shape (rows,) or (rows, outputs), but has {values.shape}")
    return cast("npt.NDArray[np.float64]", values)


def _without_gaps(y: Any) -> npt.NDArray[Any]:
    if sparse.issparse(y):
        raise DataError("y must be dense, but got a sparse matrix: pass y.toarray()")
    if hasattr(y, "to_pandas"):
        y = y.to_pandas()
    values = np.asarray(y)
    if values.dtype.kind == "c":
        raise DataError("Complex data not supported: y must hold real numbers or classes")
    gaps = np.asarray(pd.isna(values))
    if gaps.any():
        rows = int(gaps.reshape(len(gaps), -1).any(axis=1).sum())
        raise DataError(f"Input y contains NaN: {rows} of its {len(gaps)} rows have no value")
    return values


def row_weights(sample_weight: Any, n_rows: int) -> npt.NDArray[np.float64] | None:
    """Weights ``(n_rows,)``, or None where every row weighs the same.

    Raises
    ------
    ValueError
        If there is not one finite weight >= 0 for each row, or all are zero.
    """
    if sample_weight is None:
        return None
    if hasattr(sample_weight, "to_pandas"):
        sample_weight = sample_weight.to_pandas()
    weights = check_array(
        sample_weight, ensure_2d=False, allow_nd=True, dtype=np.float64, input_name="sample_weight"
    )
    if weights.shape != (n_rows,):
        raise InvalidParameterError(f"sample_weight must have the shape ({n_rows},), but has {weights.shape}")
    if weights.min() < 0:
        row = int(np.argmin(weights))
        raise InvalidParameterError(f"sample_weight must be >= 0, but row {row} has {weights[row]:g}")
    if not weights.any():
        raise InvalidParameterError(
            "sample_weight must be > 0 for at least one row, but all weights are zero"
        )
    return None if weights.min() == weights.max() else cast("npt.NDArray[np.float64]", weights)


def column_of_rows(name: str, values: Any, n_rows: int) -> npt.NDArray[Any] | None:
    """Groups or times ``(n_rows,)``, one for each row.

    Raises
    ------
    ValueError
        If there are not `n_rows` of them, or one is missing.
    """
    if values is None:
        return None
    if hasattr(values, "to_pandas"):
        values = values.to_pandas()
    column = column_or_1d(values if isinstance(values, pd.Series) else np.asarray(values))
    check_consistent_length(column, np.empty(n_rows))
    gaps = np.asarray(pd.isna(column))
    if gaps.any():
        raise DataError(f"{name} must have a value in every row, but row {int(np.argmax(gaps))} has none")
    return cast("npt.NDArray[Any]", column)


def memory_bytes(limit: Any) -> int | None:
    """Bytes of ``memory_limit``: None, a number of bytes, or a text such as ``"2GB"`` or ``"512 MiB"``.

    Raises
    ------
    InvalidParameterError
        If it is none of these, or not positive.
    """
    if limit is None:
        return None
    number = math.nan
    unit = "B"
    if isinstance(limit, str) and (match := _SIZE.fullmatch(limit)):
        number, unit = float(match[1]), match[2].upper() or "B"
        if unit not in _UNITS:
            raise InvalidParameterError(
                f"memory_limit must have a unit of {', '.join(_UNITS)}, but got {limit!r}"
                f"{near_miss(unit, _UNITS)}"
            )
    elif isinstance(limit, Real) and not isinstance(limit, bool):
        number = float(limit)
    size = number * _UNITS[unit]
    if not (math.isfinite(size) and size >= 1):
        raise InvalidParameterError(
            f"memory_limit must be bytes > 0 or a text such as '2GB', but got {limit!r}"
        )
    return int(size)
