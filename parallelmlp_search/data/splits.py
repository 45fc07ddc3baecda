"""Splits of the rows into training and test rows: stratified, grouped, or ordered in time."""

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

from parallelmlp_search._checks import check_choice, check_integer
from parallelmlp_search.data.coercion import as_numbers
from parallelmlp_search.data.labels import label_strata
from parallelmlp_search.data.row_values import group_codes, row_times, row_values
from parallelmlp_search.data.task import TASKS
from parallelmlp_search.exceptions import DataError, InvalidParameterError

Rows = npt.NDArray[np.int64]

_N_STRATA = 10  # of a numeric target
_N_TRIES = 32  # random holdouts of groups, of which the best balanced is taken
_MAX_STRATIFIED_GROUPS = (
    5_000  # with more groups stratification takes over a second, and chance balances as well
)


class Split(NamedTuple):
    """Disjoint numbers of training and test rows, sorted, int64."""

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
    """Hold out a part of the rows.

    Without `groups` and `time` the split is stratified by class, by combination of labels, or by deciles of a
    numeric target, and every class keeps at least one training row.

    Parameters
    ----------
    y
        Target of shape (rows,) or, for regression and labels, (rows, outputs).
    fraction
        Share of the rows to hold out, between 0 and 1.
    task
        One of `TASKS`.
    groups
        Group of each row; no group is on both sides. Out of several random splits the one that is closest to
        `fraction` in every class is taken.
    time
        Time of each row (numbers, dates, or texts of dates). The latest rows are held out; all training rows
        are earlier. Classes are not balanced.
    seed
        Random seed.

    Returns
    -------
    Split
        Training rows and held-out rows.

    Raises
    ------
    DataError
        If there are too few rows, groups or times.
    InvalidParameterError
        If `fraction` or `task` is out of its range, or both `groups` and `time` are given.
    """
    if not 0 < fraction < 1:
        raise InvalidParameterError(f"fraction must be between 0 and 1, but got {fraction!r}")
    strata, rows = _checked(y, task, groups, time)
    size = min(max(round(fraction * rows), 1), rows - 1)
    random = int(seed) % 2**32
    if time is not None:
        return _late_rows(_time_ranks(time, rows), size)
    classes = task != "regression"
    if groups is not None:
        return _group_holdout(strata, _group_codes(groups, rows), fraction, classes, random)
    counts = np.bincount(strata)
    if classes:
        if rows <= len(counts):
            raise DataError(
                f"{rows} rows of {len(counts)} classes cannot be split: every class needs a training row"
            )
        size = min(size, rows - len(counts))
    else:
        strata = _quantile_strata(strata, min(_N_STRATA, size, rows - size, rows // 2))
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
    """Split the rows for cross-validation.

    Without `groups` and `time` folds are stratified by class, or by deciles of a numeric target. The rows of
    a class with fewer rows than folds go to different folds, so that every fold trains on each class of two
    rows or more.

    Parameters
    ----------
    y, task, groups, seed
        As in `holdout`. Groups are assigned to folds such that classes are balanced.
    n_folds
        Number of folds S, at least 2.
    time
        As in `holdout`. The rows are cut into S + 1 periods; fold j trains on periods 0 to j and tests on
        period j + 1, so the first period is never tested on.

    Returns
    -------
    list of S `Split`
        Without `time` every row is a test row once.

    Raises
    ------
    DataError
        If there are too few rows, groups or times.
    InvalidParameterError
        If `n_folds` or `task` is out of its range, or both `groups` and `time` are given.
    """
    n_folds = check_integer("n_folds", n_folds, 2)
    strata, rows = _checked(y, task, groups, time)
    if n_folds > rows:
        raise DataError(f"{n_folds} folds need at least {n_folds} rows, but there are {rows}")
    random = int(seed) % 2**32
    if time is not None:
        return _forward_folds(_time_ranks(time, rows), n_folds)
    if task == "regression":
        strata = _quantile_strata(strata, min(_N_STRATA, rows // n_folds))
    if groups is not None:
        fold_of_row = _group_folds(strata, _group_codes(groups, rows), n_folds, random)
    else:
        fold_of_row = _stratified_folds(strata, n_folds, random)
    return [_split(fold_of_row == fold) for fold in range(n_folds)]


def _checked(y: Any, task: str, groups: Any, time: Any) -> tuple[npt.NDArray[np.int64], int]:
    """Return the class (or rank) of each row as an integer, and the number of rows."""
    check_choice("task", task, TASKS)
    if groups is not None and time is not None:
        raise InvalidParameterError("rows can be split by groups or by time, but both were given")
    if hasattr(y, "to_pandas"):
        y = y.to_pandas()
    values = np.asarray(y)
    rows = len(values)
    if rows < 2:
        raise DataError(f"at least 2 rows are needed for a split, but there are {rows}")
    if task == "regression":
        ranks = sum(_ranks(_floats(column)) for column in values.reshape(rows, -1).T)
        return _ranks(np.asarray(ranks)), rows
    if task == "multilabel":
        return label_strata(values), rows
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise DataError(f"a target of classes must have one column, but has the shape {values.shape}")
    codes = pd.factorize(values)[0]
    if (codes < 0).any():
        raise DataError(f"the target must have no missing values, but has {int((codes < 0).sum())}")
    return codes.astype(np.int64), rows


def _ranks(values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    return np.argsort(np.argsort(values, kind="stable"), kind="stable").astype(np.int64)


def _floats(column: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    return as_numbers(pd.Series(column, dtype=object if column.dtype.kind not in "biuf" else None))


def _quantile_strata(ranks: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    return ranks * max(count, 1) // len(ranks)


def _group_codes(groups: Any, rows: int) -> npt.NDArray[np.int64]:
    return group_codes(row_values(groups, rows, "groups"))


def _time_ranks(time: Any, rows: int) -> npt.NDArray[np.int64]:
    """Ranks of times, of shape (rows,); equal times have equal ranks."""
    times = row_times(row_values(time, rows, "time"), "time")
    return np.unique(times, return_inverse=True)[1].astype(np.int64)


def _split(held: npt.NDArray[np.bool_]) -> Split:
    return Split(np.flatnonzero(~held), np.flatnonzero(held))


def _return_lost_classes(held: npt.NDArray[np.bool_], strata: npt.NDArray[np.int64]) -> None:
    """Give each class without a training row one, in exchange for a row of the most frequent class."""
    kept = np.bincount(strata[~held], minlength=int(strata.max()) + 1)
    for lost in np.flatnonzero(kept == 0):
        donor = int(np.argmax(kept))
        held[np.flatnonzero(held & (strata == lost))[0]] = False
        kept[lost] += 1
        if kept[donor] > 1:
            held[np.flatnonzero(~held & (strata == donor))[0]] = True
            kept[donor] -= 1


def _group_holdout(
    strata: npt.NDArray[np.int64], groups: npt.NDArray[np.int64], fraction: float, classes: bool, random: int
) -> Split:
    count = int(groups.max()) + 1
    if count < 2:
        raise DataError("at least 2 groups are needed to hold one out, but there is 1")
    if not classes:
        strata = _quantile_strata(strata, min(_N_STRATA, len(strata) // 2))
    size = min(max(round(fraction * count), 1), count - 1)
    total = np.bincount(strata)

    def imbalance(test: npt.NDArray[np.int64]) -> float:
        part = np.bincount(strata[test], minlength=len(total))
        deviation = float(np.abs(part - fraction * total).sum()) / len(strata)
        # a class without a training row outweighs any deviation
        lost = 10.0 * int((part == total).sum()) if classes else 0.0
        return deviation + (abs(len(test) / len(strata) - fraction) + lost)

    splitter = GroupShuffleSplit(_N_TRIES, test_size=size, random_state=random)
    held = np.zeros(len(strata), dtype=bool)
    held[min((test for _, test in splitter.split(strata, groups=groups)), key=imbalance)] = True
    if classes:
        for lost in np.flatnonzero(np.bincount(strata[~held], minlength=len(total)) == 0):
            held[groups == groups[np.flatnonzero(strata == lost)[0]]] = False
        if not held.any():
            raise DataError("no group can be held out, since each has a class that no other group has")
    return _split(held)


def _stratified_folds(strata: npt.NDArray[np.int64], n_folds: int, random: int) -> npt.NDArray[np.int64]:
    """Fold of each row. scikit-learn stratifies the classes that have a row for each fold."""
    fold_of_row = np.zeros(len(strata), dtype=np.int64)
    rare = np.bincount(strata)[strata] < n_folds
    common = np.flatnonzero(~rare)
    if len(common):
        splitter = StratifiedKFold(n_folds, shuffle=True, random_state=random)
        for fold, (_, test) in enumerate(splitter.split(common, strata[common])):
            fold_of_row[common[test]] = fold
    sizes = np.bincount(fold_of_row[common], minlength=n_folds)
    # rows of rare classes go round the folds class by class, starting with the smallest fold
    order = np.argsort(sizes, kind="stable")
    shuffled = np.random.default_rng(random).permutation(np.flatnonzero(rare))
    ordered = shuffled[np.argsort(strata[shuffled], kind="stable")]
    fold_of_row[ordered] = order[np.arange(len(ordered)) % n_folds]
    return fold_of_row


def _group_folds(
    strata: npt.NDArray[np.int64], groups: npt.NDArray[np.int64], n_folds: int, random: int
) -> npt.NDArray[np.int64]:
    """Fold of each row, the same for all rows of a group."""
    count = int(groups.max()) + 1
    if count < n_folds:
        raise DataError(f"{n_folds} folds need at least {n_folds} groups, but got {count}")
    if count > _MAX_STRATIFIED_GROUPS:
        splitter = KFold(n_folds, shuffle=True, random_state=random)
        fold_of_group = np.zeros(count, dtype=np.int64)
        for fold, (_, test) in enumerate(splitter.split(np.arange(count))):
            fold_of_group[test] = fold
        return fold_of_group[groups]
    # classes with fewer rows than folds are balanced as one; scikit-learn warns about them or fails
    counts = np.bincount(strata)
    balanced = np.where(counts[strata] < n_folds, -1, strata)
    if 0 < (balanced < 0).sum() < n_folds:
        balanced = np.where(balanced < 0, int(np.argmax(counts)), balanced)
    stratified = StratifiedGroupKFold(n_folds, shuffle=True, random_state=random)
    parts = [test for _, test in stratified.split(balanced, balanced, groups)]
    if min(len(test) for test in parts) == 0:
        parts = [test for _, test in GroupKFold(n_folds).split(balanced, balanced, groups)]
    fold_of_row = np.zeros(len(strata), dtype=np.int64)
    for fold, test in enumerate(parts):
        fold_of_row[test] = fold
    return fold_of_row


def _late_rows(times: npt.NDArray[np.int64], size: int) -> Split:
    if times.max() == 0:
        raise DataError("time must have at least two values to hold the latest rows out, but has 1")
    # of all splits between two times, the one closest to the wanted size
    before = np.cumsum(np.bincount(times))[:-1]
    cut = int(np.argmin(np.abs(before - (len(times) - size)))) + 1
    return _split(times >= cut)


def _forward_folds(times: npt.NDArray[np.int64], n_folds: int) -> list[Split]:
    distinct = int(times.max()) + 1
    if distinct <= n_folds:
        raise DataError(
            f"{n_folds} folds in time need {n_folds + 1} different times, but there are {distinct}"
        )
    ordered = np.sort(times)
    splitter = TimeSeriesSplit(n_folds)
    starts = [ordered[test[0]] for _, test in splitter.split(ordered)] if len(ordered) > n_folds else []
    if len(set(starts)) < n_folds or min(starts) == 0:
        # many rows have the same time: cut the times instead of the rows
        starts = [test[0] for _, test in splitter.split(np.arange(distinct))]
    return [
        Split(np.flatnonzero(times < start), np.flatnonzero((times >= start) & (times < end)))
        for start, end in zip(starts, [*starts[1:], distinct], strict=True)
    ]
