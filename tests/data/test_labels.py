"""Columns of labels: their values, the inferred task, and stratified splits."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallelmlp_search.data import folds, holdout, infer_task, split_target
from parallelmlp_search.data.labels import as_labels, label_strata
from parallelmlp_search.exceptions import DataError, DataWarning


@pytest.mark.parametrize(
    "values",
    [
        [1, 0, 1],
        [True, False, True],
        [1.0, 0.0, 1.0],
        ["yes", "no", "Yes "],
        ["TRUE", "false", "t"],
        ["1", "0", "1"],
    ],
)
def test_values_of_labels(values: list[object]) -> None:
    column = pd.Series(values)
    assert as_labels(column, "a").tolist() == [1, 0, 1]
    other = pd.DataFrame({"a": column, "b": [0, 0, 1]})
    assert infer_task(other) == "multilabel"
    assert infer_task(other, "classification") == "multilabel"


def test_other_values_are_refused_by_name() -> None:
    with pytest.raises(DataError, match="label 'a' must hold 0 and 1, booleans, or yes and no, but has 2"):
        as_labels(pd.Series([0, 1, 2]), "a")
    with pytest.raises(DataError, match="label 'a' must have a value in every row, but 1 miss it"):
        as_labels(pd.Series([0, 1, None]), "a")


def test_tasks_of_several_columns() -> None:
    labels = pd.DataFrame({"a": [0, 1, 1], "b": [True, False, True]})
    numbers = pd.DataFrame({"x": [0.5, 1.5, 2.0], "y": [3, 4, 5]})
    classes = pd.DataFrame({"c": ["red", "green", "blue"]})
    assert infer_task(labels) == "multilabel"
    assert infer_task(numbers) == "regression"
    assert infer_task(labels.astype(int), "regression") == "regression"
    assert infer_task(np.array([[0, 1], [1, 0]])) == "multilabel"
    with pytest.raises(
        DataError, match="labels are in 'a', 'b' and numbers are in 'x', 'y' and classes are in 'c'"
    ):
        infer_task(pd.concat([labels, numbers, classes], axis=1))
    with pytest.raises(DataError, match="classes are in 'c', 'd': start one search per target"):
        infer_task(classes.assign(d=["low", "high", "low"]))
    with pytest.raises(DataError, match=r"task 'multilabel' takes several columns only if .* 'x' has 0\.5"):
        infer_task(numbers, "multilabel")
    with pytest.raises(DataError, match="task 'binary' takes a target with one column, but got 2"):
        infer_task(labels, "binary")
    with pytest.raises(DataError, match="task 'multilabel' takes a target with several columns"):
        infer_task(labels["a"], "multilabel")
    with pytest.raises(DataError, match="every row has the same labels"):
        infer_task(pd.DataFrame({"a": [1, 1], "b": [0, 0]}))


def test_rows_without_one_of_the_targets_are_left_out() -> None:
    frame = pd.DataFrame({"x": [1, 2, 3], "a": [0, None, 1], "b": [1, 0, 1]})
    with pytest.warns(DataWarning, match="1 row is left out: the target 'a', 'b' is missing"):
        features, targets = split_target(frame, ["a", "b"])
    assert list(features) == ["x"]
    assert targets.index.tolist() == [0, 2]
    assert targets.dtypes.astype(str).tolist() == ["int64", "int64"]
    with pytest.raises(DataError, match="no column 'c' in the table"):
        split_target(frame, ["a", "c"])


@given(st.integers(0, 10_000), st.integers(2, 60), st.integers(2, 12))
def test_any_labels_can_be_split(seed: int, n_rows: int, n_labels: int) -> None:
    rng = np.random.default_rng(seed)
    labels = (rng.random((n_rows, n_labels)) < rng.random(n_labels)).astype(float)
    strata = label_strata(labels)
    assert strata.shape == (n_rows,)
    assert np.bincount(strata).min() >= min(2, n_rows)
    split = holdout(labels, fraction=0.2, task="multilabel", seed=seed)
    assert sorted([*split.train, *split.test]) == list(range(n_rows))
    parts = folds(labels, n_folds=2, task="multilabel", seed=seed)
    assert sorted(np.concatenate([part.test for part in parts])) == list(range(n_rows))


def test_rare_labels_are_spread_over_the_folds() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((600, 8)) < 0.4).astype(float)  # most combinations are rare
    labels[:, 7] = 0.0
    labels[rng.choice(600, 10, replace=False), 7] = 1.0
    counts = [int(labels[part.test, 7].sum()) for part in folds(labels, n_folds=5, task="multilabel")]
    assert counts == [2, 2, 2, 2, 2]
    split = holdout(labels, fraction=0.2, task="multilabel")
    assert int(labels[split.test, 7].sum()) == 2
