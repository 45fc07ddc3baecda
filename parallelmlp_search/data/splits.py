"""Rows for training and rows for the verdict: stratified, grouped, or ordered in time."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.model_selection import (
    GroupKFold,
    GroupShuffleSplit,
    KFold,
    ShuffleSplit,
    StratifiedGroupKFold,
    StratifiedKFold,
    StratifiedShuffleSplit,
    TimeSeriesSplit,
)

from parallelmlp_search.data.coercion import as_numbers, as_seconds
from parallelmlp_search.data.task import TASKS
from parallelmlp_search.exceptions import DataError, InvalidParameterError, near_miss

__all__ = ["Split", "folds", "holdout"]

Rows = npt.NDArray[np.int64]

_QUANTILES = 10  # strata of a numeric target
_DRAWS = 32  # random choices of groups, of which the one that fits best is taken
_GREEDY_GROUPS = 5_000  # beyond, stratifying whole groups takes over a second and chance does it as well


class Split(NamedTuple):
    """Row numbers for training and for testing, each sorted, int64, without a common one."""

    train: Rows
    test: Rows


def holdout(
    y: Any,
    *,
    fraction: float,
    task: str,
    groups: Any = None,
    time: Any = None,
    seed: int = 0,
) -> Split:
    """Hold back a part of the rows.

    Without `groups` and `time` the parts have the same share of each class (or of each tenth of a numeric
    target), and every class keeps at least one row for training.

    Parameters
    ----------
    y
        Target of shape (rows,) or, for regression, (rows, outputs).
    fraction
        Share of the rows to hold back, between 0 and 1.
    task
        ``"binary"``, ``"multiclass"`` or ``"regression"``.
    groups
        Group of each row; no group is on both sides. Of several random choices of whole groups the one is
        taken that comes closest to `fraction` in every class.
    time
        Time of each row (numbers, dates, or texts of dates); the latest rows are held back, and no training
        row is as late as a test row. Classes are then not balanced.
    seed
        The same seed gives the same rows.

    Raises
    ------
    DataError
        If there are too few rows, groups or moments to do so.
    InvalidParameterError
        If `fraction` or `task` is out of its range, or both `groups` and `time` are given.
    """
    if not 0 < fraction < 1:
        raise InvalidParameterError(f"fraction must be between 0 and 1, but got {fraction!r}")
    strata, rows = _checked(y, task, groups, time)
    size = min(max(round(fraction * rows), 1), rows - 1)
    random = int(seed) % 2**32
    if time is not None:
        return _late_rows(_moments(time, rows), size)
    classes = task != "regression"
    if groups is not None:
        return _group_holdout(strata, _group_codes(groups, rows), fraction, classes, random)
    counts = np.bincount(strata)
    if classes:
        if rows <= len(counts):
            raise DataError(
                f"{rows} rows of {len(counts)} classes cannot be parted: every class needs a row for training"
            )
        size = min(size, rows - len(counts))
    else:
        strata = _quantile_strata(strata, min(_QUANTILES, size, rows - size, rows // 2))
        counts = np.bincount(strata)
    everything = np.arange(rows)
    if counts.min() >= 2 and min(size, rows - size) >= len(counts) > 1:
        splitter = StratifiedShuffleSplit(1, test_size=size, random_state=random)
    else:
        splitter = ShuffleSplit(1, test_size=size, random_state=random)
    _, test = next(splitter.split(everything, strata))
    held = np.zeros(rows, dtype=bool)
    held[test] = True
    if classes:
        _return_lost_classes(held, strata)
    return _split(held)


def folds(
    y: Any,
    *,
    n_folds: int,
    task: str,
    groups: Any = None,
    time: Any = None,
    seed: int = 0,
) -> list[Split]:
    """Part the rows into folds, each of which is the test part once.

    Without `groups` and `time` every fold has the same share of each class (or of each tenth of a numeric
    target). The rows of a class with fewer rows than folds go to different folds, so that a class with two
    rows or more is in every training part.

    Parameters
    ----------
    y, task, groups, seed
        As in `holdout`. Groups are spread such that classes are balanced where they can be.
    n_folds
        Folds, S, at least 2.
    time
        As in `holdout`. The rows are cut into S + 1 spans; span j + 1 tests what trained on spans 0 to j, so
        the first span is never tested on.

    Returns
    -------
    list of S `Split`
        Without `time` the test parts cover every row once.

    Raises
    ------
    DataError
        If there are fewer rows, groups, or moments than it takes.
    InvalidParameterError
        If `n_folds` or `task` is out of its range, or both `groups` and `time` are given.
    """
    if isinstance(n_folds, bool) or not isinstance(n_folds, (int, np.integer)) or n_folds < 2:
        raise InvalidParameterError(f"n_folds must be an integer >= 2, but got {n_folds!r}")
    strata, rows = _checked(y, task, groups, time)
    if n_folds > rows:
        raise DataError(f"{n_folds} folds need as many rows, but there are {rows}")
    random = int(seed) % 2**32
    if time is not None:
        return _forward_folds(_moments(time, rows), int(n_folds))
    if task == "regression":
        strata = _quantile_strata(strata, min(_QUANTILES, rows // n_folds))
    if groups is not None:
        place = _group_folds(strata, _group_codes(groups, rows), int(n_folds), random)
    else:
        place = _stratified_folds(strata, int(n_folds), random)
    return [_split(place == fold) for fold in range(n_folds)]


def _checked(y: Any, task: str, groups: Any, time: Any) -> tuple[npt.NDArray[np.int64], int]:
    """Class (or rank) of each row as an integer, and the number of rows."""
    if task not in TASKS:
        raise InvalidParameterError(
            f"task must be one of {', '.join(TASKS)}, but got {task!r}{near_miss(task, TASKS)}"
        )
    if groups is not None and time is not None:
        raise InvalidParameterError("only one of groups and time can part the rows, but both were given")
    if hasattr(y, "to_pandas"):
        y = y.to_pandas()
    values = np.asarray(y)
    rows = len(values)
    if rows < 2:
        raise DataError(f"at least 2 rows are needed to part them, but there are {rows}")
    if task == "regression":
        columns = values.reshape(rows, -1)
        ranks = np.stack(
            [np.argsort(np.argsort(_floats(column), kind="stable"), kind="stable") for column in columns.T]
        ).sum(axis=0)
        return np.asarray(np.argsort(np.argsort(ranks, kind="stable"), kind="stable"), dtype=np.int64), rows
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise DataError(f"a target of classes must have one column, but has the shape {values.shape}")
    codes = pd.factorize(values)[0]
    if (codes < 0).any():
        raise DataError(f"the target must have no gaps, but has {int((codes < 0).sum())}")
    return codes.astype(np.int64), rows


def _floats(column: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    return as_numbers(pd.Series(column, dtype=object if column.dtype.kind not in "biuf" else None))


def _quantile_strata(ranks: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    return ranks * max(count, 1) // len(ranks)


def _group_codes(groups: Any, rows: int) -> npt.NDArray[np.int64]:
    codes = _column("groups", groups, rows)
    numbered = pd.factorize(codes)[0].astype(np.int64)
    if (numbered < 0).any():
        raise DataError(f"groups must have no gaps, but row {int(np.argmax(numbered < 0))} has none")
    return numbered


def _moments(time: Any, rows: int) -> npt.NDArray[np.float64]:
    """Times as ranks of shape (rows,): equal times have equal ranks."""
    column = _column("time", time, rows)
    if not isinstance(column.dtype, np.dtype) or column.dtype.kind not in "biufmM":
        numbers = as_numbers(column)
        exact: Any = as_seconds(column) if np.isnan(numbers).any() else numbers
    else:
        exact = column.to_numpy()
    missing = pd.isna(exact)
    if missing.any():
        row = int(np.argmax(missing))
        raise DataError(
            f"time must be a number or a date in every row, but row {row} has {column.iloc[row]!r}"
        )
    return np.unique(exact, return_inverse=True)[1].astype(np.float64)


def _column(name: str, values: Any, rows: int) -> pd.Series:
    if hasattr(values, "to_pandas"):
        values = values.to_pandas()
    column = (
        values.reset_index(drop=True)
        if isinstance(values, pd.Series)
        else pd.Series(np.asarray(values).ravel())
    )
    if len(column) != rows:
        raise DataError(f"{name} must have one value for each of the {rows} rows, but has {len(column)}")
    return column


def _split(held: npt.NDArray[np.bool_]) -> Split:
    return Split(np.flatnonzero(~held).astype(np.int64), np.flatnonzero(held).astype(np.int64))


def _return_lost_classes(held: npt.NDArray[np.bool_], strata: npt.NDArray[np.int64]) -> None:
    """Give each class without a training row one back, in exchange for a row of the best covered class."""
    kept = np.bincount(strata[~held], minlength=int(strata.max()) + 1)
    for lost in np.flatnonzero(kept == 0):
        giver = int(np.argmax(kept))
        held[np.flatnonzero(held & (strata == lost))[0]] = False
        kept[lost] += 1
        if kept[giver] > 1:
            held[np.flatnonzero(~held & (strata == giver))[0]] = True
            kept[giver] -= 1


def _group_holdout(
    strata: npt.NDArray[np.int64], groups: npt.NDArray[np.int64], fraction: float, classes: bool, random: int
) -> Split:
    count = int(groups.max()) + 1
    if count < 2:
        raise DataError("at least 2 groups are needed to hold one back, but there is 1")
    if not classes:
        strata = _quantile_strata(strata, min(_QUANTILES, len(strata) // 2))
    size = min(max(round(fraction * count), 1), count - 1)
    total = np.bincount(strata)
    best: tuple[float, npt.NDArray[np.bool_]] | None = None
    splitter = GroupShuffleSplit(_DRAWS, test_size=size, random_state=random)
    for _, test in splitter.split(strata, groups=groups):
        part = np.bincount(strata[test], minlength=len(total))
        # a class without a training row outweighs any imbalance
        misfit = float(np.abs(part - fraction * total).sum()) / len(strata)
        misfit += abs(len(test) / len(strata) - fraction) + (
            10.0 * int((part == total).sum()) if classes else 0.0
        )
        if best is None or misfit < best[0]:
            held = np.zeros(len(strata), dtype=bool)
            held[test] = True
            best = misfit, held
    assert best is not None
    held = best[1]
    if classes:
        for lost in np.flatnonzero(np.bincount(strata[~held], minlength=len(total)) == 0):
            held[groups == groups[np.flatnonzero(strata == lost)[0]]] = False
        if not held.any():
            raise DataError("no group can be held back, since each has a class that no other group has")
    return _split(held)


def _stratified_folds(strata: npt.NDArray[np.int64], n_folds: int, random: int) -> npt.NDArray[np.int64]:
    """Fold of each row. scikit-learn deals with the classes that fill the folds, the others are dealt out."""
    place = np.zeros(len(strata), dtype=np.int64)
    rare = np.bincount(strata)[strata] < n_folds
    common = np.flatnonzero(~rare)
    if len(common):
        splitter = StratifiedKFold(n_folds, shuffle=True, random_state=random)
        for fold, (_, test) in enumerate(splitter.split(common, strata[common])):
            place[common[test]] = fold
    sizes = np.bincount(place[common], minlength=n_folds)
    # one class after the other, row by row to the next of the folds, the smallest fold first
    order = np.argsort(sizes, kind="stable")
    shuffled = np.random.default_rng(random).permutation(np.flatnonzero(rare))
    dealt = shuffled[np.argsort(strata[shuffled], kind="stable")]
    place[dealt] = order[np.arange(len(dealt)) % n_folds]
    return place


def _group_folds(
    strata: npt.NDArray[np.int64], groups: npt.NDArray[np.int64], n_folds: int, random: int
) -> npt.NDArray[np.int64]:
    """Fold of each row, the same for all rows of a group."""
    count = int(groups.max()) + 1
    if count < n_folds:
        raise DataError(
            f"{n_folds} folds need as many groups, but there {'is' if count == 1 else 'are'} {count}"
        )
    place = np.zeros(len(strata), dtype=np.int64)
    if count > _GREEDY_GROUPS:
        splitter = KFold(n_folds, shuffle=True, random_state=random)
        of_group = np.zeros(count, dtype=np.int64)
        for fold, (_, test) in enumerate(splitter.split(np.arange(count))):
            of_group[test] = fold
        return of_group[groups]
    # classes that cannot be in every fold are balanced as one, or scikit-learn warns or refuses
    counts = np.bincount(strata)
    balanced = np.where(counts[strata] < n_folds, -1, strata)
    if 0 < (balanced < 0).sum() < n_folds:
        balanced = np.where(balanced < 0, int(np.argmax(counts)), balanced)
    stratified = StratifiedGroupKFold(n_folds, shuffle=True, random_state=random)
    parts = [test for _, test in stratified.split(balanced, balanced, groups)]
    if min(len(test) for test in parts) == 0:
        parts = [test for _, test in GroupKFold(n_folds).split(balanced, balanced, groups)]
    for fold, test in enumerate(parts):
        place[test] = fold
    return place


def _late_rows(moments: npt.NDArray[np.float64], size: int) -> Split:
    last = int(moments.max())
    if last == 0:
        raise DataError("time must have at least two values to hold the latest rows back, but has 1")
    # rows before each moment; the cut that comes closest to the size asked for
    before = np.cumsum(np.bincount(moments.astype(np.int64)))[:-1]
    cut = int(np.argmin(np.abs(before - (len(moments) - size)))) + 1
    return _split(moments >= cut)


def _forward_folds(moments: npt.NDArray[np.float64], n_folds: int) -> list[Split]:
    distinct = int(moments.max()) + 1
    if distinct <= n_folds:
        raise DataError(
            f"{n_folds} folds in time need {n_folds + 1} different times, but there are {distinct}"
        )
    ordered = np.sort(moments)
    splitter = TimeSeriesSplit(n_folds)
    starts = [ordered[test[0]] for _, test in splitter.split(ordered)] if len(ordered) > n_folds else []
    if len(set(starts)) < n_folds or min(starts) == 0:
        # many rows at the same times: cut the times instead of the rows
        starts = [float(test[0]) for _, test in splitter.split(np.arange(distinct))]
    ends = [*starts[1:], float(distinct)]
    return [
        Split(
            np.flatnonzero(moments < start).astype(np.int64),
            np.flatnonzero((moments >= start) & (moments < end)).astype(np.int64),
        )
        for start, end in zip(starts, ends, strict=True)
    ]
