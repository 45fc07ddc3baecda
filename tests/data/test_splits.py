"""Splits: stratification, groups, time, and the smallest tables."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallelmlp_search.data import Split, folds, holdout, read_table
from parallelmlp_search.exceptions import DataError, InvalidParameterError

DATASETS = Path(__file__).resolve().parents[2] / "datasets"
RNG = np.random.default_rng(0)


def check_split(split: Split, rows: int, *, whole: bool = True) -> None:
    train, test = split
    for part in (train, test):
        assert part.dtype == np.int64
        assert len(part) > 0
        assert (np.diff(part) > 0).all()  # sorted, no row twice
        assert part[0] >= 0
        assert part[-1] < rows
    assert not set(train) & set(test)
    if whole:
        assert len(train) + len(test) == rows


def check_folds(parts: list[Split], rows: int) -> None:
    for part in parts:
        check_split(part, rows)
    assert np.array_equal(np.sort(np.concatenate([part.test for part in parts])), np.arange(rows))


# classes


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5, 0.9])
def test_holdout_keeps_the_shares_of_classes(fraction: float) -> None:
    y = RNG.choice(["a", "b", "c"], 1000, p=[0.7, 0.25, 0.05])
    split = holdout(y, fraction=fraction, task="multiclass", seed=3)
    check_split(split, 1000)
    assert len(split.test) == round(fraction * 1000)
    for name in "abc":
        assert abs((y[split.test] == name).mean() - (y == name).mean()) < 0.01


def test_folds_keep_the_shares_of_classes() -> None:
    y = RNG.choice(["a", "b", "c"], 1000, p=[0.7, 0.25, 0.05])
    parts = folds(y, n_folds=5, task="multiclass", seed=3)
    check_folds(parts, 1000)
    for part in parts:
        for name in "abc":
            assert abs((y[part.test] == name).sum() - (y == name).sum() / 5) <= 1


@pytest.mark.parametrize("seed", range(5))
def test_rare_classes_keep_a_training_row(seed: int) -> None:
    y = np.array([0] * 50 + [1] * 30 + [2] * 2 + [3])
    split = holdout(y, fraction=0.5, task="multiclass", seed=seed)
    check_split(split, 83)
    assert set(y[split.train]) == {0, 1, 2, 3}
    parts = folds(y, n_folds=5, task="multiclass", seed=seed)
    check_folds(parts, 83)
    for part in parts:
        assert {0, 1, 2} <= set(y[part.train])
        assert 16 <= len(part.test) <= 18


def test_folds_where_every_class_is_rare() -> None:
    y = np.repeat(np.arange(12), 2)
    parts = folds(y, n_folds=4, task="multiclass")
    check_folds(parts, 24)
    assert all(len(part.test) == 6 and len(set(y[part.train])) == 12 for part in parts)


@pytest.mark.parametrize("y", [[0, 1], [0, 0, 1], ["a", "b", "b", "b"]])
def test_smallest_tables(y: list[Any]) -> None:
    if len(y) > len(set(y)):
        split = holdout(y, fraction=0.9, task="binary")
        check_split(split, len(y))
        assert len(set(np.asarray(y)[split.train])) == 2
    check_folds(folds(y, n_folds=2, task="binary"), len(y))


def test_holdout_needs_more_rows_than_classes() -> None:
    with pytest.raises(
        DataError, match="3 rows of 3 classes cannot be split: every class needs a training row"
    ):
        holdout([0, 1, 2], fraction=0.3, task="multiclass")
    with pytest.raises(DataError, match="at least 2 rows are needed for a split, but there are 1"):
        holdout([0], fraction=0.3, task="regression")


# numbers


def test_regression_is_stratified_on_quantiles() -> None:
    y = RNG.lognormal(sigma=2, size=500)
    median = np.median(y)
    for seed in range(5):
        split = holdout(y, fraction=0.2, task="regression", seed=seed)
        check_split(split, 500)
        assert (y[split.test] > median).sum() == 50
        parts = folds(y, n_folds=5, task="regression", seed=seed)
        check_folds(parts, 500)
        assert all((y[part.test] > median).sum() == 50 for part in parts)
    plain = [(y[RNG.permutation(500)[:100]] > median).sum() for _ in range(20)]
    assert any(count != 50 for count in plain)  # without stratification counts differ


def test_regression_with_several_outputs_ties_and_few_rows() -> None:
    check_folds(folds(RNG.normal(size=(40, 3)), n_folds=4, task="regression"), 40)
    check_folds(folds(np.zeros(11), n_folds=3, task="regression"), 11)
    check_split(holdout(np.zeros(11), fraction=0.3, task="regression"), 11)
    for rows in range(2, 12):
        y = np.arange(rows, dtype=float)
        check_split(holdout(y, fraction=0.25, task="regression"), rows)
        check_folds(folds(y, n_folds=rows, task="regression"), rows)
    check_folds(folds(pd.Series(["1", "2.5", "3", "4"]), n_folds=2, task="regression"), 4)


# groups


@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_groups_are_on_one_side(task: str) -> None:
    groups = np.array([f"g{i}" for i in RNG.integers(0, 40, 600)])
    y = RNG.integers(0, 3, 600) if task == "multiclass" else RNG.normal(size=600)
    split = holdout(y, fraction=0.25, task=task, groups=groups, seed=1)
    check_split(split, 600)
    assert not set(groups[split.train]) & set(groups[split.test])
    assert 0.2 < len(split.test) / 600 < 0.3
    parts = folds(y, n_folds=4, task=task, groups=pd.Series(groups, index=range(5, 605)), seed=1)
    check_folds(parts, 600)
    for part in parts:
        assert not set(groups[part.train]) & set(groups[part.test])
        assert 100 < len(part.test) < 200


def test_groups_of_a_single_class_are_balanced() -> None:
    groups = np.repeat(np.arange(20), 10)
    y = np.where(groups < 4, "rare", "common")
    for part in folds(y, n_folds=4, task="binary", groups=groups):
        assert len(set(groups[part.test][y[part.test] == "rare"])) == 1
    for seed in range(5):
        split = holdout(y, fraction=0.25, task="binary", groups=groups, seed=seed)
        assert set(y[split.train]) == set(y[split.test]) == {"rare", "common"}


def test_the_only_group_of_a_class_is_in_training() -> None:
    groups = np.repeat(np.arange(6), 5)
    y = np.where(groups == 0, 1, 0)
    for seed in range(10):
        split = holdout(y, fraction=0.5, task="binary", groups=groups, seed=seed)
        assert 0 in groups[split.train]
    with pytest.raises(DataError, match="no group can be held out, since each has a class"):
        holdout([0, 0, 1, 1], fraction=0.5, task="binary", groups=[0, 0, 1, 1])
    check_folds(folds([0, 0, 1, 1], n_folds=2, task="binary", groups=[0, 0, 1, 1]), 4)


def test_uneven_groups_leave_no_fold_empty() -> None:
    groups = np.array([0] * 500 + [1] * 3 + [2] * 2 + [3])
    y = np.arange(506) % 2
    check_folds(folds(y, n_folds=4, task="binary", groups=groups), 506)


def test_many_groups_are_fast_and_not_divided() -> None:
    groups = np.arange(20_000) // 2
    y = RNG.integers(0, 2, 20_000)
    parts = folds(y, n_folds=5, task="binary", groups=groups)
    check_folds(parts, 20_000)
    assert all(not set(groups[part.train]) & set(groups[part.test]) for part in parts)


def test_group_errors() -> None:
    y = np.arange(8) % 2
    with pytest.raises(DataError, match="3 folds need at least 3 groups, but got 2"):
        folds(y, n_folds=3, task="binary", groups=np.arange(8) // 4)
    with pytest.raises(DataError, match="at least 2 groups are needed to hold one out"):
        holdout(y, fraction=0.5, task="binary", groups=np.zeros(8))
    with pytest.raises(InvalidParameterError, match=r"groups must have the shape \(8,\), but has \(3,\)"):
        folds(y, n_folds=2, task="binary", groups=[1, 2, 3])
    with pytest.raises(DataError, match="groups must have a value in every row, but row 1 has nothing"):
        folds(y, n_folds=2, task="binary", groups=["a", None] * 4)


# time


TIMES = {
    "numbers": np.arange(100)[::-1].copy(),
    "dates": pd.Series(pd.date_range("2024-01-01", periods=100)[::-1]),
    "texts": np.array([f"2024-01-{1 + i // 4:02d}" for i in range(100)][::-1]),
    "polars": pl.Series(range(100, 0, -1)),
    "numbers as text": [str(i) for i in range(100, 0, -1)],
}


@pytest.mark.parametrize("name", TIMES)
def test_training_rows_are_earlier(name: str) -> None:
    y = RNG.integers(0, 2, 100)
    split = holdout(y, fraction=0.2, task="binary", time=TIMES[name])
    check_split(split, 100)
    assert split.test.max() < split.train.min()  # the times run backwards
    assert len(split.test) == 20
    parts = folds(y, n_folds=4, task="binary", time=TIMES[name])
    assert len(parts) == 4
    for earlier, later in pairwise(parts):
        check_split(later, 100, whole=False)
        assert np.array_equal(np.sort(np.concatenate(earlier)), later.train)
    for part in parts:
        assert part.test.max() < part.train.min()
        assert len(part.test) == 20


def test_equal_times_are_on_one_side() -> None:
    time = np.array([1] * 50 + [2] * 30 + [3] * 20)
    split = holdout(np.zeros(100), fraction=0.3, task="regression", time=time)
    assert set(time[split.train]) == {1, 2}
    assert set(time[split.test]) == {3}
    parts = folds(np.zeros(100), n_folds=2, task="regression", time=time)
    assert [(set(time[part.train]), set(time[part.test])) for part in parts] == [({1}, {2}), ({1, 2}, {3})]


def test_time_errors() -> None:
    y = np.zeros(6)
    with pytest.raises(DataError, match="time must have at least two values"):
        holdout(y, fraction=0.5, task="regression", time=np.ones(6))
    with pytest.raises(DataError, match="3 folds in time need 4 different times, but there are 3"):
        folds(y, n_folds=3, task="regression", time=[1, 1, 2, 2, 3, 3])
    with pytest.raises(DataError, match="time must have a value in every row, but row 2 has nothing"):
        folds(y, n_folds=2, task="regression", time=["2024-01-01", "2024-01-02", None] * 2)
    with pytest.raises(DataError, match="row 1 has 'monday'"):
        folds(y, n_folds=2, task="regression", time=["2024-01-01", "monday"] * 3)
    with pytest.raises(InvalidParameterError, match="by groups or by time"):
        folds(y, n_folds=2, task="regression", time=range(6), groups=range(6))


# all of them


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"fraction": 0.0}, "fraction must be between 0 and 1, but got 0.0"),
        ({"fraction": 1}, "fraction must be between 0 and 1, but got 1"),
        ({"task": "binry"}, r"task must be one of .*, but got 'binry'; did you mean 'binary'\?"),
    ],
)
def test_holdout_parameters(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        holdout([0, 1, 0, 1], **{"fraction": 0.5, "task": "binary", **parameters})


@pytest.mark.parametrize("n_folds", [1, 0, 2.5, True])
def test_n_folds_is_checked(n_folds: Any) -> None:
    with pytest.raises(InvalidParameterError, match="n_folds must be an integer >= 2, but got"):
        folds([0, 1, 0, 1], n_folds=n_folds, task="binary")


def test_target_is_checked() -> None:
    with pytest.raises(DataError, match="5 folds need at least 5 rows, but there are 4"):
        folds([0, 1, 0, 1], n_folds=5, task="binary")
    with pytest.raises(DataError, match="must have no missing values, but has 1"):
        folds(["a", None, "b"], n_folds=2, task="binary")
    with pytest.raises(DataError, match="must have one column"):
        folds(np.zeros((4, 2)), n_folds=2, task="binary")


def test_the_seed_changes_the_rows() -> None:
    y = RNG.integers(0, 3, 200)
    groups = np.arange(200) // 4
    for task in ("multiclass", "regression"):
        for grouping in (None, groups):

            def once(seed: int, task: str = task, grouping: Any = grouping) -> list[Any]:
                parts = [
                    holdout(y, fraction=0.3, task=task, groups=grouping, seed=seed),
                    *folds(y, n_folds=4, task=task, groups=grouping, seed=seed),
                ]
                return [part.test.tolist() for part in parts]

            assert once(7) == once(7)
            assert once(7)[0] != once(8)[0]
            assert once(7)[1:] != once(8)[1:]
    assert holdout(y, fraction=0.3, task="multiclass", seed=2**40).test.shape == (60,)


@settings(max_examples=150, deadline=None)
@given(
    y=st.lists(st.integers(0, 5), min_size=2, max_size=40),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**40),
    n_folds=st.integers(2, 6),
)
def test_any_classes(y: list[int], fraction: float, seed: int, n_folds: int) -> None:
    values = np.array(y)
    if len(y) > len(set(y)):
        split = holdout(values, fraction=fraction, task="multiclass", seed=seed)
        check_split(split, len(y))
        assert set(values[split.train]) == set(y)
        assert len(split.test) == min(max(round(fraction * len(y)), 1), len(y) - len(set(y)))
    if n_folds <= len(y):
        parts = folds(values, n_folds=n_folds, task="multiclass", seed=seed)
        check_folds(parts, len(y))
        repeated = {name for name in y if y.count(name) > 1}
        assert all(repeated <= set(values[part.train]) for part in parts)


@settings(max_examples=100, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=4, max_size=40),
    seed=st.integers(0, 99),
    n_folds=st.integers(2, 4),
    task=st.sampled_from(["multiclass", "regression"]),
)
def test_any_groups_and_times(rows: list[tuple[int, int]], seed: int, n_folds: int, task: str) -> None:
    y, other = np.array(rows).T
    distinct = len(set(other))
    if distinct >= n_folds:
        parts = folds(y, n_folds=n_folds, task=task, groups=other, seed=seed)
        check_folds(parts, len(y))
        assert all(not set(other[part.train]) & set(other[part.test]) for part in parts)
    if distinct > n_folds:
        for part in folds(y, n_folds=n_folds, task=task, time=other):
            check_split(part, len(y), whole=False)
            assert other[part.train].max() < other[part.test].min()
    if distinct > 1:
        part = holdout(y, fraction=0.3, task=task, time=other)
        check_split(part, len(y))
        assert other[part.train].max() < other[part.test].min()


@pytest.mark.parametrize(
    ("name", "target"), [("letter", "lettr"), ("adult", "income"), ("wine_quality", "quality")]
)
def test_real_tables(name: str, target: str) -> None:
    y = read_table(DATASETS / f"{name}.csv.gz")[target]
    for task in ("multiclass", "regression") if name == "wine_quality" else ("multiclass",):
        split = holdout(y, fraction=0.25, task=task)
        check_split(split, len(y))
        check_folds(folds(y, n_folds=5, task=task), len(y))
