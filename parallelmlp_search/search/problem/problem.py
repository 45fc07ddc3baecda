"""Problem of a search: a table, a target, and the values that belong to its rows."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parallelmlp_search.data import (
    TableSchema,
    as_frame,
    fingerprint,
    infer_task,
    split_target,
)
from parallelmlp_search.data.cells.numbers import NumberCells
from parallelmlp_search.data.cells.recognition import ReadTable, read_columns, read_target
from parallelmlp_search.data.cells.table import TableReader
from parallelmlp_search.data.coercion import as_numbers, shown
from parallelmlp_search.data.labels import as_labels
from parallelmlp_search.data.profile.columns import profile_columns
from parallelmlp_search.data.profile.table import (
    TableProfile,
    TargetProfile,
    columns_frame,
    profile_table,
)
from parallelmlp_search.data.profile.target import describe_target
from parallelmlp_search.data.row_values import group_codes, refuse_rows, row_times, row_values, row_weights
from parallelmlp_search.engine import Head, Task
from parallelmlp_search.exceptions import DataError, DataWarning, InvalidParameterError
from parallelmlp_search.search.problem.target_transforms import offered_transforms
from parallelmlp_search.selection import get_metric

Target = pd.Series | pd.DataFrame | NDArray[Any]

MIN_ROWS = 2


class TargetColumns(tuple[str, ...]):
    """Names of several target columns of a table."""

    __slots__ = ()


MAX_NAMED = 5
"""Classes that a message names."""


@dataclass(frozen=True)
class Problem:
    """A table and its target. Use :meth:`from_table`, which checks both.

    Attributes
    ----------
    frame
        Features, one row per sample.
    target
        Raw target, ``(n,)`` of classes or numbers, or ``(n, outputs)`` of numbers or of 0 and 1 of labels.
    task
        ``binary``, ``multiclass``, ``multilabel`` or ``regression``.
    weight, groups, time
        For each row, or None: its weight; its group, which no split divides; its time.
    class_weight
        None, ``balanced`` or a mapping from class to weight.
    target_name
        Name of the target column, or None; of several columns their names.
    output_names
        Names of the columns of a target with several, or None.
    column_types
        Kind by column name, for columns whose kind is not to be recognised.
    target_reader
        Reader of a target column of texts that are numbers, or None.
    row_numbers
        Number of each row in the table that was given, which can have rows without a target or of weight
        zero; None for all rows in order.
    """

    frame: pd.DataFrame
    target: NDArray[Any]
    task: Task
    weight: NDArray[np.floating[Any]] | None = None
    groups: NDArray[Any] | None = None
    time: NDArray[Any] | None = None
    class_weight: str | Mapping[Any, float] | None = None
    target_name: str | None = None
    output_names: tuple[str, ...] | None = None
    column_types: Mapping[str, str] | None = None
    target_reader: NumberCells | None = None
    row_numbers: NDArray[np.intp] | None = None

    @classmethod
    def from_table(
        cls,
        table: Any,
        target: Any,
        *,
        task: str | None = None,
        weight: Any = None,
        groups: Any = None,
        time: Any = None,
        class_weight: str | Mapping[Any, float] | None = None,
    ) -> Problem:
        """Check a table and its target, and leave out rows of weight zero.

        Parameters
        ----------
        table
            Table of shape (n, columns); with the target and other named columns where `target` is a name.
        target
            Name of the target column, or names of several as :class:`TargetColumns`; rows without a target
            are left out with a warning. Or one value per row, shape (n,), or (n, outputs) for a regression or
            for labels.
        task
            ``binary``, ``multiclass``, ``multilabel``, ``regression`` or ``classification``; None infers it.
        weight, groups, time
            Names of columns where `target` is a name, otherwise values of shape (n,); or None. Equal weights
            are the same as none.
        class_weight
            None, ``balanced`` or a mapping from class to weight.

        Returns
        -------
        Problem

        Raises
        ------
        DataError
            If a column is missing, the target does not fit the task, or a row has an unusable value.
        InvalidParameterError
            If a parameter breaks its rule.
        """
        if groups is not None and time is not None:
            raise InvalidParameterError("only one of groups and time can divide the rows, but got both")
        frame = as_frame(table).reset_index(drop=True)
        values: dict[str, Any] = {"weight": weight, "groups": groups, "time": time}
        values = {role: given for role, given in values.items() if given is not None}
        name, label, target_reader, output_names = None, "the target", None, None
        if isinstance(target, TargetColumns):
            name, output_names = ", ".join(target), tuple(target)
            whole, label = frame, f"the target {name!r}"
            frame, target = split_target(whole, output_names, drop=values.values())
            values = {role: _read_role(role, whole.loc[target.index, values[role]]) for role in values}
        elif isinstance(target, str):
            name, label = target, f"the target {target!r}"
            if task in (None, "regression") and name in frame.columns:
                target_reader = read_target(frame[name])
            whole = TableReader((), target_reader).with_numbers(frame, name)
            frame, target = split_target(whole, name, drop=values.values())
            values = {role: _read_role(role, whole.loc[target.index, values[role]]) for role in values}
        else:
            values = {role: _checked_role(role, given, len(frame)) for role, given in values.items()}
        every = target = _checked_target(target, len(frame), label)
        if values.get("weight") is not None:
            rows = np.flatnonzero(values["weight"] > 0)
            frame = frame.iloc[rows]
            target = target[rows] if isinstance(target, np.ndarray) else target.iloc[rows]
            values = {role: given[rows] for role, given in values.items()}
        if len(frame) < MIN_ROWS:
            raise DataError(f"at least {MIN_ROWS} rows must have a weight > 0, but there is {len(frame)}")
        lost = _lost_values(every, target, label)
        task = infer_task(target, task)
        if len(lost) and task != "regression":
            names = ", ".join(map(shown, lost[:MAX_NAMED]))
            what = f"class {names} is" if len(lost) == 1 else f"{len(lost)} classes ({names}) are"
            reason = "all of its rows have weight 0" if len(lost) == 1 else "all of their rows have weight 0"
            warnings.warn(f"{what} left out: {reason}", DataWarning, stacklevel=2)
        if task in ("regression", "multilabel") and class_weight is not None:
            found = "a regression" if task == "regression" else "one of several labels"
            raise InvalidParameterError(f"class_weight needs classes, but {label} makes the task {found}")
        target = _numbers(target) if task == "regression" else _labels(target)
        return cls(
            frame.reset_index(drop=True),
            target,
            task,
            class_weight=class_weight,
            target_name=name,
            output_names=output_names,
            target_reader=target_reader,
            row_numbers=frame.index.to_numpy(),
            **values,
        )

    def with_column_types(self, column_types: Mapping[str, str] | None) -> Problem:
        """Return the problem with kinds of columns that the user has set, by name.

        See :func:`~parallelmlp_search.data.cells.recognition.read_columns`, whose errors :attr:`read` raises.
        """
        return replace(self, column_types=dict(column_types)) if column_types else self

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self.frame)

    @cached_property
    def read(self) -> ReadTable:
        """Columns of the whole table, recognised and read. It does not depend on the target."""
        return read_columns(self.frame, self.column_types)

    @property
    def inputs(self) -> pd.DataFrame:
        """Table of plain numbers, dates and categories, which is encoded for the networks."""
        return self.read.frame

    @property
    def columns(self) -> TableSchema:
        """Kind of each column of :attr:`inputs`."""
        return self.read.schema

    @property
    def reader(self) -> TableReader | None:
        """Readers of the cells, which a model needs; None if all columns are used as they are."""
        reader = replace(self.read.reader, target=self.target_reader)
        return None if reader.is_plain and reader.target is None else reader

    @property
    def has_usable_column(self) -> bool:
        """True if a column differs between rows other than by numbering them."""
        return any(column.kind not in ("constant", "identifier") for column in self.columns)

    @cached_property
    def head(self) -> Head:
        """Output side of the networks, without the scaling of a regression target."""
        if self.task == "regression":
            n_outputs = 1 if self.target.ndim == 1 else self.target.shape[1]
            return Head("regression", n_outputs, (0.0,) * n_outputs, (1.0,) * n_outputs)
        if self.task == "multilabel":
            return Head(self.task, self.target.shape[1])
        # sorting 36,631 strings takes 24 ms, hence the cache
        return Head(self.task, len(np.unique(self.target)))

    @property
    def labels(self) -> list[str]:
        """Names of the labels of a multilabel classification."""
        return list(self.output_names or (f"label_{number}" for number in range(self.target.shape[1])))

    @cached_property
    def column_table(self) -> pd.DataFrame:
        """Facts about the columns of the table, one row each."""
        return columns_frame(profile_columns(self.frame, self.read))

    def profile(self, *, short: bool = False) -> TableProfile:
        """Facts about the table and findings that deserve attention; `short` leaves out those of columns."""
        reason = None if self.target_reader is None else self.target_reader.describe()
        values = describe_target(self.target, self.task)
        metric = get_metric(None, self.task)
        transforms = offered_transforms(self.target, self.task, metric)[1:]
        about = TargetProfile(self.target_name, self.task, values, reason, transforms)
        return profile_table(self.frame, self.read, self.target, about, short=short)

    def fingerprint(self) -> str:
        """Text that depends on all data of the search."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        class_weight = self.class_weight
        if isinstance(class_weight, Mapping):
            class_weight = str(sorted((str(label), float(weight)) for label, weight in class_weight.items()))
        terms = [self.task, str(class_weight)]
        if self.column_types:
            terms.append(str(sorted(self.column_types.items())))
        return fingerprint(self.frame, self.target, self.weight, self.groups, self.time, np.array(terms))


def _read_role(role: str, column: pd.Series) -> Any:
    """Weights, groups or times from a column of the table."""
    label = f"{role} column {column.name!r}"
    if role == "weight":
        return _unless_equal(row_weights(column, len(column), label))
    if role == "time":
        return row_times(column, label)
    return group_codes(row_values(column, len(column), label))


def _checked_role(role: str, values: Any, n_rows: int) -> Any:
    """Weights, groups or times that were given as values."""
    if role == "weight":
        return _unless_equal(row_weights(values, n_rows, "sample_weight"))
    return row_values(values, n_rows, role).to_numpy()


def _unless_equal(weights: NDArray[np.float64]) -> NDArray[np.float64] | None:
    return None if weights.min() == weights.max() else weights


def _checked_target(target: Any, n_rows: int, label: str) -> Target:
    """Target of shape (n,) or (n, outputs) without missing or infinite values; tables keep their dtypes."""
    if hasattr(target, "to_pandas"):
        target = target.to_pandas()
    if isinstance(target, pd.DataFrame) and target.shape[1] == 1:
        target = target.iloc[:, 0]
    if not isinstance(target, (pd.Series, pd.DataFrame)):
        target = np.asarray(target)
        target = target[:, 0] if target.shape[1:] == (1,) else target
    if target.shape[:1] != (n_rows,):
        raise DataError(f"{label} must have a value for each of the {n_rows} rows, but has {target.shape}")
    if target.ndim == 1:
        column = pd.Series(target)
        refuse_rows(column.isna().to_numpy(), column, f"{label} must have a value in every row")
        if pd.api.types.is_float_dtype(column.dtype):
            refuse_rows(np.isinf(as_numbers(column)), column, f"{label} must hold finite numbers")
    checked: Target = target
    return checked


def _lost_values(every: Target, kept: Target, label: str) -> NDArray[Any]:
    """Values of the target that only rows of weight zero have; the values of the other rows must differ."""
    if every.ndim > 1 or len(every) == len(kept):
        return np.empty(0)
    whole, left = pd.Series(every).drop_duplicates(), pd.Series(kept).drop_duplicates()
    if len(left) == 1 < len(whole):
        raise DataError(
            f"{label} must have at least two values or classes in rows of weight > 0, but all {len(kept)} "
            f"of them have {shown(left.iloc[0])}"
        )
    return whole[~whole.isin(left)].to_numpy()


def _numbers(target: Target) -> NDArray[np.float64]:
    if isinstance(target, pd.DataFrame):
        return np.stack([as_numbers(target[name]) for name in target], axis=1)
    return as_numbers(pd.Series(target)) if target.ndim == 1 else np.asarray(target, dtype=np.float64)


def _labels(target: Target) -> NDArray[Any]:
    """Classes (n,), or 0 and 1 of labels (n, labels)."""
    if target.ndim == 2:
        frame = pd.DataFrame(target)
        return np.stack([as_labels(frame[name], str(name)) for name in frame], axis=1)
    if isinstance(target, pd.Series) and isinstance(target.dtype, pd.CategoricalDtype):
        target = target.astype(target.cat.categories.dtype)
    values = target.to_numpy() if isinstance(target, (pd.Series, pd.DataFrame)) else target
    return pd.Series(values).infer_objects().to_numpy() if values.dtype == object else values
