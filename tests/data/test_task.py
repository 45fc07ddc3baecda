"""Target column and task."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from parallelmlp_search.data import infer_task, read_table, split_target
from parallelmlp_search.exceptions import DataError, DataWarning, InvalidParameterError

DATASETS = Path(__file__).resolve().parents[2] / "datasets"


@pytest.mark.parametrize(
    ("y", "task"),
    [
        (["a", "b", "a"], "binary"),
        (["a", "b", "c"], "multiclass"),
        ([True, False], "binary"),
        (pd.Series([True, None, False], dtype=object), "binary"),
        (pd.Series([1, 2, 3], dtype="category"), "multiclass"),
        (pd.Categorical([1.5, 2.5, 1.5]), "binary"),
        (np.array(["1", "2", "3"]), "multiclass"),  # numbers as texts are classes
        ([0, 1, 1], "binary"),
        ([-1.0, 1.0, 1.0], "binary"),
        ([0.5, 1.5, 1.5], "regression"),
        (np.repeat(np.arange(10), 20), "multiclass"),
        (np.repeat(np.arange(10.0), 20), "regression"),  # floats
        (np.repeat(np.arange(10), 19), "regression"),  # too few rows per value
        (np.repeat(np.arange(11), 20), "regression"),  # too many values
        (pd.Series(np.repeat(np.arange(3), 20), dtype="Int64"), "multiclass"),
        (np.arange(100), "regression"),
        (np.linspace(0, 1, 30), "regression"),
        (np.random.default_rng(0).normal(size=(9, 2)), "regression"),
        (np.array([[0], [1], [1]]), "binary"),
    ],
)
def test_inferred(y: object, task: str) -> None:
    assert infer_task(y) == task


@pytest.mark.parametrize(
    ("name", "target", "task"),
    [
        ("adult", "income", "binary"),
        ("spambase", "type", "binary"),
        ("credit_g", "class", "binary"),
        ("letter", "lettr", "multiclass"),
        ("satimage", "classes", "multiclass"),
        ("mnist5k", "target", "multiclass"),
        ("diamonds", "price", "regression"),
        ("wine_quality", "quality", "regression"),
    ],
)
def test_inferred_on_real_tables(name: str, target: str, task: str) -> None:
    X, y = split_target(read_table(DATASETS / f"{name}.csv.gz"), target)
    assert target not in X.columns
    assert infer_task(y) == task


@pytest.mark.parametrize(
    ("y", "asked", "task"),
    [
        (np.arange(30) % 5, "multiclass", "multiclass"),
        (np.arange(30) % 5, "classification", "multiclass"),
        (np.arange(30) % 2, "classification", "binary"),
        (np.arange(30) % 2, "regression", "regression"),
        (np.repeat(np.arange(12.0), 30), "classification", "multiclass"),
        (["1", "2.5"], "regression", "regression"),
        ([3.0, 3.0], "regression", "regression"),  # a constant can be predicted
        ([True, False], "regression", "regression"),
    ],
)
def test_given_task(y: object, asked: str, task: str) -> None:
    assert infer_task(y, asked) == task


@pytest.mark.parametrize(
    ("y", "asked", "message"),
    [
        (["a", "a"], None, "must have at least two values or classes, but every row has 'a'"),
        ([1.0, 1.0], None, "every row has 1.0"),
        ([np.nan, np.nan], None, "has no values: all of its rows are missing"),
        ([None, None], "regression", "has no values"),
        ([], None, "has no values"),
        (["a", "b", "c"], "binary", "takes a target with 2 classes, but got 3"),
        (["a", "b"], "multiclass", "3 classes or more, but got 2; choose 'binary'"),
        (["1", "2", "tall", "4"], "regression", "takes numbers in the target, but row 2 has 'tall'"),
        ([1.0, np.inf, 2.0], "regression", "row 1 has inf"),
        (pd.to_datetime(["2024-01-01", "2024-01-02"]), None, "it holds dates"),
        ([f"name {i}" for i in range(50)], None, "50 distinct values in 50 rows, too many to be classes"),
        (np.linspace(0, 1, 50), "classification", "50 distinct numbers in 50 rows"),
        (np.zeros((4, 2)), "binary", "takes a target with one column, but got 2 columns"),
    ],
)
def test_errors(y: object, asked: str | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        infer_task(pd.Series(y) if isinstance(y, pd.DatetimeIndex) else y, asked)


def test_unknown_task_has_a_near_miss() -> None:
    with pytest.raises(InvalidParameterError, match=r"but got 'regresion'; did you mean 'regression'\?"):
        infer_task([0, 1], "regresion")


def test_split_target_leaves_out_rows_without_target() -> None:
    frame = pd.DataFrame({"x": [1, 2, 3, 4], "y": [0, None, 2, None], "w": [1, 1, 2, 2]}, index=[5, 6, 7, 8])
    with pytest.warns(DataWarning, match="2 rows are left out: the target 'y' is missing"):
        X, y = split_target(frame, "y", drop=["w"])
    assert list(X.columns) == ["x"]
    assert y.tolist() == [0, 2]
    assert y.dtype == np.int64  # floats because of missing values
    assert frame.loc[y.index, "w"].tolist() == [1, 2]


def test_split_target_keeps_real_floats_and_restores_booleans() -> None:
    with pytest.warns(DataWarning, match="1 row is left out"):
        _, y = split_target(pd.DataFrame({"x": [1, 2, 3], "y": [0.5, None, 2]}), "y")
    assert y.dtype == np.float64
    frame = pd.DataFrame({"x": [1, 2, 3], "y": pd.Series([True, None, False], dtype=object)})
    with pytest.warns(DataWarning, match="1 row is left out"):
        _, y = split_target(frame, "y")
    assert y.dtype == bool


def test_split_target_errors() -> None:
    frame = pd.DataFrame({"x": [1.0], "income": [2.0], "empty": [np.nan]})
    with pytest.raises(DataError, match=r"no column 'incom' in the table; did you mean 'income'\?"):
        split_target(frame, "incom")
    with pytest.raises(DataError, match="no column 'weights'"):
        split_target(frame, "income", drop=["weights"])
    with pytest.raises(DataError, match="'empty' has no values: all 1 rows are missing"):
        split_target(frame, "empty")
    with pytest.raises(DataError, match="no feature beside the target 'income'"):
        split_target(frame, "income", drop=["x", "empty"])


def test_long_values_are_shortened_in_messages() -> None:
    with pytest.raises(DataError) as caught:
        infer_task(["9" * 5000, *map(str, range(30))], "regression")
    assert "but row 0 has '999" in str(caught.value)
    assert len(str(caught.value)) < 500
    with pytest.raises(DataError, match="every row has an integer of thousands of digits"):
        infer_task(np.array([10**5000] * 3, dtype=object))
