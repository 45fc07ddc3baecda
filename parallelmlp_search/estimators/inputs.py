"""Validation of estimator inputs with the rules and messages of scikit-learn."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.utils import assert_all_finite, check_array, column_or_1d
from sklearn.utils.validation import validate_data

from parallelmlp_search.data import as_frame
from parallelmlp_search.data.frames import has_names, is_sparse
from parallelmlp_search.exceptions import DataError

MIN_TRAINING_ROWS = 2


def check_table(estimator: Any, X: Any, *, names: list[str] | None = None) -> pd.DataFrame:
    """Return a table as a pandas frame with unique text names.

    Names and number of columns are stored in training and compared in prediction by scikit-learn's
    ``validate_data``, with its errors and warnings. Frames keep their dtypes. Integers of an array become
    floats, so that no column is taken for an identifier of the rows.

    Parameters
    ----------
    estimator
        Estimator that stores ``n_features_in_`` and ``feature_names_in_``.
    X
        pandas, polars or Arrow table, mapping of columns, array of shape (n_samples, n_features), list of
        rows, scipy sparse matrix (converted to dense).
    names
        Names of the training columns, given to the columns of `X`; None in training.

    Returns
    -------
    pandas.DataFrame of shape (n_samples, n_features)

    Raises
    ------
    ValueError
        If the table has too few rows, no columns, or columns other than those of training.
    """
    training = names is None
    min_rows = MIN_TRAINING_ROWS if training else 1
    if isinstance(X, pd.DataFrame) or _has_column_names(X):
        frame = X if isinstance(X, pd.DataFrame) else as_frame(X)
        validate_data(estimator, frame, reset=training, skip_check_array=True)
        shape = np.broadcast_to(0.0, frame.shape)  # scikit-learn checks it without a copy of the table
        check_array(shape, ensure_min_samples=min_rows, ensure_all_finite=False, estimator=estimator)
        return as_frame(frame if names is None else frame.set_axis(pd.Index(names), axis=1))
    frame = as_frame(_checked_array(estimator, X, reset=training))
    integers = [name for name, dtype in frame.dtypes.items() if getattr(dtype, "kind", "O") in "iu"]
    if integers:
        frame = frame.astype(dict.fromkeys(integers, np.float64))
    return frame if names is None else frame.set_axis(pd.Index(names), axis=1)


def check_rows(estimator: Any, X: Any, *, names: list[str]) -> pd.DataFrame | npt.NDArray[Any]:
    """Return rows to predict, checked as by :func:`check_table`.

    An array of floats or integers becomes an array of floats, which is predicted by the places of the
    columns, without a frame.

    Parameters
    ----------
    estimator, X, names
        As for :func:`check_table`.

    Returns
    -------
    pandas.DataFrame or array of shape (n_samples, n_features)

    Raises
    ------
    ValueError
        If the table has no rows or columns other than those of training.
    """
    if isinstance(X, np.ndarray) and X.dtype.kind in "fiub":
        array: npt.NDArray[Any] = _checked_array(estimator, X, reset=False)
        return array if array.dtype.itemsize in (4, 8) else array.astype(np.float64)
    return check_table(estimator, X, names=names)


def _checked_array(estimator: Any, X: Any, *, reset: bool) -> Any:
    """Array or sparse matrix of the rows of a table without column names; integers become floats."""
    array = validate_data(
        estimator,
        _rows_as_array(X),
        reset=reset,
        accept_sparse="csr",
        dtype=None,
        ensure_all_finite=False,
        ensure_min_samples=MIN_TRAINING_ROWS if reset else 1,
    )
    return array.astype(np.float64) if array.dtype.kind in "iub" else array


def _has_column_names(X: Any) -> bool:
    if isinstance(X, np.ndarray):
        return X.dtype.names is not None
    # A series could be a row or a column; scikit-learn's error asks for a reshape. A DOK matrix is a mapping
    # of cells, not of columns.
    return has_names(X) and not isinstance(X, pd.Series) and not is_sparse(X)


def _rows_as_array(X: Any) -> Any:
    """Return a list of rows as an array that does not turn numbers into texts; other inputs unchanged."""
    if not isinstance(X, (list, tuple)):
        return X
    try:
        array = np.asarray(X)
    except ValueError:
        raise DataError("X must have rows of one length, but they differ") from None
    return np.array(X, dtype=object) if array.dtype.kind in "US" else array


def check_labels(y: Any) -> npt.NDArray[Any]:
    """Return class labels of shape (n_samples,), or several labels (n_samples, n_labels), none missing.

    Raises
    ------
    ValueError
        If values are missing or infinite, or the numbers are continuous.
    """
    values = _without_missing(y)
    if values.ndim == 2 and values.shape[1] > 1:
        return values
    values = column_or_1d(values, warn=True)
    if values.dtype == object:
        inferred = pd.Series(values).infer_objects().to_numpy()
        values = inferred if inferred.dtype.kind in "biuf" else values
    if values.dtype.kind == "f":
        assert_all_finite(values, input_name="y")
    from sklearn.utils.multiclass import check_classification_targets

    check_classification_targets(values)
    return cast("npt.NDArray[Any]", values)


def check_numbers(y: Any) -> npt.NDArray[np.float64]:
    """Return finite numbers of shape (n_samples,) or (n_samples, n_outputs).

    Raises
    ------
    ValueError
        If values are missing, infinite or not numeric.
    """
    try:
        values = check_array(
            _without_missing(y),
            ensure_2d=False,
            allow_nd=True,
            dtype=np.float64,
            input_name="y",
            ensure_min_samples=0,
        )
    except OverflowError as error:
        raise DataError(f"y must hold finite numbers, but has a number beyond 1e308 ({error})") from None
    if values.ndim not in (1, 2) or 0 in values.shape[1:]:
        raise DataError(f"y must have the shape (rows,) or (rows, outputs), but has {values.shape}")
    return cast("npt.NDArray[np.float64]", values)


def target_names(y: Any) -> tuple[str | None, tuple[str, ...] | None]:
    """Return the name of a target, and the names of its columns if it has several with distinct texts."""
    names = [str(name) for name in y.columns] if isinstance(y, pd.DataFrame) else []
    if len(names) > 1:
        return (", ".join(names), tuple(names)) if len(set(names)) == len(names) else (None, None)
    name = names[0] if names else getattr(y, "name", None)
    return (name if isinstance(name, str) else None), None


def _without_missing(y: Any) -> npt.NDArray[Any]:
    if is_sparse(y):
        raise DataError("y must be dense, but got a sparse matrix: pass y.toarray()")
    values = np.asarray(y.to_pandas() if hasattr(y, "to_pandas") else y)
    if values.dtype.kind == "c":
        raise DataError("Complex data not supported: y must hold real numbers or classes")
    missing = np.asarray(pd.isna(values))
    if missing.any():
        rows = int(missing.reshape(len(missing), -1).any(axis=1).sum())
        raise DataError(f"Input y contains NaN: {rows} of its {len(missing)} rows have no value")
    return values
