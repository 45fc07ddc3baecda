"""Target column of a table, and the task inferred from its values."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from parallelmlp_search._checks import check_choice
from parallelmlp_search.data.coercion import as_codes, as_numbers, shown
from parallelmlp_search.data.frames import as_frame
from parallelmlp_search.data.labels import wrong_label
from parallelmlp_search.data.row_values import refuse_rows
from parallelmlp_search.exceptions import DataError, DataWarning, near_miss

Task = Literal["binary", "multiclass", "regression", "multilabel"]
TASKS: tuple[Task, ...] = get_args(Task)

MAX_INTEGER_CLASSES = 10
"""Maximum number of distinct integers of a target that counts as classes."""
MIN_ROWS_PER_CLASS = 20
"""Minimum number of rows of each of these integers."""


def infer_task(y: Any, task: str | None = None) -> Task:
    """Infer the task from a target of shape (rows,) or (rows, outputs). Missing values are ignored.

    - Texts, booleans and categories are classes: two make ``"binary"``, more ``"multiclass"``.
    - Numbers with exactly two values, both whole, are ``"binary"``.
    - Whole numbers of an integer dtype with 3 to 10 values, each in at least 20 rows, are ``"multiclass"``.
    - All other numbers are ``"regression"``.
    - Several columns are ``"multilabel"`` if all hold 0 and 1, booleans, or yes and no, and ``"regression"``
      if all hold other numbers.

    Parameters
    ----------
    y
        Target.
    task
        ``"binary"``, ``"multiclass"``, ``"multilabel"``, ``"regression"`` or ``"classification"`` (any but
        a regression) to set the task. The target is then only checked against it.

    Raises
    ------
    DataError
        If the target has no values, only one class, dates, a class for nearly every row, values that do not
        suit `task`, or columns of different kinds.
    InvalidParameterError
        If `task` is none of the above.
    """
    if task is not None:
        check_choice("task", task, (*TASKS, "classification"))
    frame = _target_frame(y)
    if frame.shape[1] > 1:
        return _task_of_columns(frame, task)
    if task == "multilabel":
        raise DataError("task 'multilabel' takes a target with several columns, one per label, but got 1")
    column = frame.iloc[:, 0].dropna()
    if column.empty:
        raise DataError("the target has no values" + (": all of its rows are missing" if len(frame) else ""))
    if task == "regression":
        _check_numbers(column, "the target")
        return "regression"
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        raise DataError("the target must be numbers or classes, but it holds dates")

    codes, values = as_codes(column)
    counts = np.bincount(codes, minlength=len(values))
    values = [value for value, count in zip(values, counts, strict=True) if count]
    counts = counts[counts > 0]
    if len(values) == 1:
        only = shown(values[0])
        raise DataError(f"the target must have at least two values or classes, but every row has {only}")
    numeric = _is_numeric(column, values)
    numbers = np.array([float(value) for value in values]) if numeric else np.zeros(0)
    whole = numeric and bool(np.all(np.isfinite(numbers)) and np.all(numbers == np.floor(numbers)))
    if task is None and numeric:
        if len(values) == 2 and whole:
            return "binary"
        integers = not pd.api.types.is_float_dtype(column.dtype)
        if whole and integers and len(values) <= MAX_INTEGER_CLASSES and counts.min() >= MIN_ROWS_PER_CLASS:
            return "multiclass"
        return "regression"
    crowded = len(values) >= MIN_ROWS_PER_CLASS and len(values) > len(column) / 2
    if crowded and (not numeric or not whole):
        what = "numbers" if numeric else "values"
        raise DataError(
            f"the target has {len(values)} distinct {what} in {len(column)} rows, too many to be classes"
        )
    if task == "binary" and len(values) != 2:
        raise DataError(f"task 'binary' takes a target with 2 classes, but got {len(values)}")
    if task == "multiclass" and len(values) == 2:
        raise DataError("task 'multiclass' takes a target with 3 classes or more, but got 2; choose 'binary'")
    return "binary" if len(values) == 2 else "multiclass"


def _task_of_columns(frame: pd.DataFrame, task: str | None) -> Task:
    """Infer the task from a target with several columns."""
    if task in ("binary", "multiclass"):
        raise DataError(f"task {task!r} takes a target with one column, but got {frame.shape[1]} columns")
    if task == "regression":
        for name in frame:
            _check_numbers(frame[name], f"target column {name!r}")
        return "regression"
    wrong = {str(name): value for name in frame if (value := wrong_label(frame[name])) is not None}
    if not wrong and frame.nunique().max() < 2:
        raise DataError("a label must differ between rows, but every row has the same labels")
    if not wrong:
        return "multilabel"
    if task is not None:
        name, value = next(iter(wrong.items()))
        raise DataError(
            f"task {task!r} takes several columns only if each holds 0 and 1, booleans, or yes and no, but "
            f"target column {name!r} has {shown(value)}"
        )
    classes = [name for name in wrong if not np.isfinite(as_numbers(frame[name].dropna())).all()]
    kinds = {
        "labels": [str(name) for name in frame if str(name) not in wrong],
        "numbers": [name for name in wrong if name not in classes],
        "classes": classes,
    }
    if len(kinds["numbers"]) == frame.shape[1]:
        return "regression"
    parts = [f"{kind} are in {', '.join(map(repr, names))}" for kind, names in kinds.items() if names]
    raise DataError(
        f"several target columns must all hold labels (such as 0 and 1) or all hold numbers, but "
        f"{' and '.join(parts)}: start one search per target"
    )


def split_target(
    frame: Any, target: str | Sequence[str], *, drop: Iterable[str] = ()
) -> tuple[pd.DataFrame, Any]:
    """Split a table into features and target. Rows without a target are left out with a `DataWarning`.

    Parameters
    ----------
    frame
        Any table that `as_frame` accepts.
    target
        Name of the target column, or names of several.
    drop
        Names of other columns that are no features (groups, times, weights).

    Returns
    -------
    (X, y)
        Features of shape (rows, columns), and target of shape (rows,) as a series, or of shape
        (rows, targets) as a frame. Both keep the index of `frame`, so ``frame.loc[y.index, "weight"]`` are
        the weights of the same rows. Whole numbers that were floats because of missing values become integers
        again.

    Raises
    ------
    DataError
        If a column does not exist, no row has a target, or no feature is left.
    """
    frame = as_frame(frame)
    names = [target] if isinstance(target, str) else list(target)
    dropped = [*names, *drop]
    for name in dropped:
        if name not in frame.columns:
            raise DataError(f"no column {name!r} in the table{near_miss(str(name), frame.columns)}")
    targets, X = frame[names], frame.drop(columns=dropped)
    label = ", ".join(map(repr, names))
    if X.shape[1] == 0:
        raise DataError(f"the table has no feature beside the target {label}")
    present = targets.notna().all(axis=1)
    n_missing = int((~present).sum())
    if n_missing == len(frame):
        raise DataError(f"the target {label} has no values: all {len(frame)} rows are missing")
    if n_missing:
        rows = "1 row is" if n_missing == 1 else f"{n_missing} rows are"
        warnings.warn(f"{rows} left out: the target {label} is missing", DataWarning, stacklevel=2)
        X, targets = X[present], targets[present]
        targets = pd.DataFrame({name: _as_inferred(targets[name]) for name in names})
    return X, targets[target] if isinstance(target, str) else targets


def _as_inferred(column: pd.Series) -> pd.Series:
    """Column without missing values, of whole numbers again where they were floats because of them."""
    if column.dtype == object:
        return column.infer_objects()
    if column.dtype.kind == "f" and bool((np.mod(column, 1) == 0).all() and (column.abs() < 2**53).all()):
        return column.astype(np.int64)
    return column


def _target_frame(y: Any) -> pd.DataFrame:
    if isinstance(y, np.ndarray) and y.dtype.kind in "SU":
        y = y.astype(object)
    frame = as_frame(y)
    for name in frame:
        if frame[name].dtype == object:
            frame = frame.assign(**{str(name): frame[name].infer_objects()})
    return frame


def _is_numeric(column: pd.Series, values: list[Any]) -> bool:
    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype) or pd.api.types.is_bool_dtype(dtype):
        return False
    if pd.api.types.is_object_dtype(dtype):  # whole numbers beyond 64 bits, decimals
        return all(not isinstance(value, (str, bytes, bool)) for value in values) and not bool(
            np.isnan(as_numbers(pd.Series(values, dtype=object))).any()
        )
    return bool(pd.api.types.is_numeric_dtype(dtype))


def _check_numbers(column: pd.Series, label: str) -> None:
    present = column.dropna()
    if present.empty:
        raise DataError(f"{label} has no values: all of its rows are missing")
    wrong = ~np.isfinite(as_numbers(present))
    refuse_rows(wrong, present, f"task 'regression' takes numbers in {label}")
