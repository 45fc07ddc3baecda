"""Problems from tables, by column names and by values."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.testing as npt
import pandas as pd
import polars as pl
import pytest

from parallelmlp_search.data.cells.recognition import read_columns
from parallelmlp_search.exceptions import DataError, DataWarning, InvalidParameterError
from parallelmlp_search.search import Problem
from parallelmlp_search.search.problem import problem as module


@pytest.fixture
def table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "age": [31.0, 42.0, 18.0, 27.0, 50.0, 61.0],
            "city": ["a", "b", "a", "c", "b", "a"],
            "sold": ["yes", "no", "no", "yes", "no", "yes"],
            "price": [1.5, 2.0, 3.0, 2.5, 0.5, 1.0],
            "house": ["x", "y", "x", "z", "z", "y"],
            "day": ["2024-01-03", "2024-01-01", "2024-01-02", "2024-01-05", "2024-01-04", "2024-01-06"],
            "w": [1.0, 0.0, 2.0, 1.0, 0.0, 3.0],
        }
    )


def assert_same(first: Problem, second: Problem) -> None:
    pd.testing.assert_frame_equal(first.frame, second.frame)
    npt.assert_array_equal(first.target, second.target)
    assert (first.task, first.class_weight) == (second.task, second.class_weight)
    assert (first.weight is None) == (second.weight is None)
    if first.weight is not None and second.weight is not None:
        npt.assert_array_equal(first.weight, second.weight)


def test_names_and_values_give_the_same_problem(table: pd.DataFrame) -> None:
    by_name = Problem.from_table(table, "sold", weight="w", groups="house", class_weight="balanced")
    by_value = Problem.from_table(
        table.drop(columns=["sold", "w", "house"]),
        table["sold"].tolist(),
        weight=table["w"].tolist(),
        groups=pl.Series(table["house"].tolist()),
        class_weight="balanced",
    )
    assert_same(by_name, by_value)
    assert by_name.target_name == "sold"
    assert by_value.target_name is None
    # codes in order of appearance for a column, labels for values
    assert by_name.groups is not None
    assert by_value.groups is not None
    assert by_name.groups.tolist() == pd.factorize(table["house"])[0][[0, 2, 3, 5]].tolist()
    assert by_value.groups.tolist() == ["x", "x", "z", "y"]


def test_rows_of_weight_zero_are_dropped(table: pd.DataFrame) -> None:
    kept = table[table["w"] > 0]
    assert_same(Problem.from_table(table, "price", weight="w"), Problem.from_table(kept, "price", weight="w"))
    problem = Problem.from_table(table, "sold", weight="w", time="day")
    assert problem.n_rows == 4
    assert problem.time is not None
    assert problem.time.tolist() == pd.to_datetime(kept["day"]).to_numpy("datetime64[s]").tolist()


def test_equal_weights_are_no_weights(table: pd.DataFrame) -> None:
    assert Problem.from_table(table.assign(w=7), "sold", weight="w").weight is None
    features = table[["age", "city"]]
    assert Problem.from_table(features, table["sold"], weight=np.full(6, 0.5)).weight is None


def test_rows_without_a_target_are_dropped(table: pd.DataFrame) -> None:
    table.loc[1, "sold"] = None
    with pytest.warns(DataWarning, match="1 row is left out: the target 'sold' is missing"):
        problem = Problem.from_table(table, "sold", groups="house")
    assert problem.frame["age"].tolist() == [31.0, 18.0, 27.0, 50.0, 61.0]
    assert problem.groups is not None
    assert problem.groups.tolist() == [0, 0, 1, 1, 2]


@pytest.mark.parametrize(
    ("target", "task", "expected"),
    [
        ([0, 1, 1, 0, 1, 0], None, "binary"),
        ([0, 1, 1, 0, 1, 0], "regression", "regression"),
        (["a", "b", "c", "a", "b", "c"], "classification", "multiclass"),
        (pd.Series([1, 2, 3, 1, 2, 3], dtype="category"), None, "multiclass"),
        (pd.Series([1.0, 2.0, 3.0, 1.0, 2.0, 3.5]), None, "regression"),
        (pd.Series([True, False] * 3, dtype="boolean"), None, "binary"),
        (np.arange(12.0).reshape(6, 2), None, "regression"),
        (np.arange(6.0)[:, None], None, "regression"),
    ],
)
def test_the_task_is_inferred_from_the_target(
    table: pd.DataFrame, target: Any, task: str | None, expected: str
) -> None:
    problem = Problem.from_table(table[["age", "city"]], target, task=task)
    assert problem.task == expected
    values = np.asarray(target).reshape(6, -1).squeeze()
    assert problem.target.shape == values.shape
    assert problem.target.dtype.kind in ("f" if expected == "regression" else "biUO")
    assert problem.target.tolist() == values.tolist()


def test_a_regression_parses_numbers_in_text(table: pd.DataFrame) -> None:
    table["price"] = [" 1.5", "2", "3", "2.5", "0.5", "1e0"]
    assert Problem.from_table(table, "price", task="regression").target.tolist() == [1.5, 2, 3, 2.5, 0.5, 1]


@pytest.mark.parametrize(
    ("target", "values", "error", "message"),
    [
        ("prize", {}, DataError, "no column 'prize' in the table; did you mean 'price'"),
        ("sold", {"weight": "v"}, DataError, "no column 'v' in the table"),
        ("sold", {"groups": "w", "time": "day"}, InvalidParameterError, "only one of groups"),
        ("sold", {"weight": "city"}, DataError, "weight column 'city' must hold numbers >= 0, but row 0"),
        ("sold", {"weight": "minus"}, DataError, "weight column 'minus' must .* but row 3 has -1"),
        ("sold", {"groups": "missing"}, DataError, "groups column 'missing' must have a value .* but row 2"),
        ("sold", {"time": "city"}, DataError, "time column 'city' must hold a number or a date"),
        ("sold", {"weight": "one"}, DataError, "at least 2 rows must have a weight > 0, but there is 1"),
        ("price", {"class_weight": "balanced"}, InvalidParameterError, "class_weight needs classes"),
        ("wide", {}, DataError, "the target 'wide' must hold finite numbers, but row 1 has inf"),
        ([0, 1], {}, DataError, "must have a value for each of the 6 rows"),
        ([0, 1, None, 0, 1, 0], {}, DataError, "the target must have a value in every row, but row 2"),
        ([1] * 6, {}, DataError, "at least two values or classes, but every row has 1"),
        ([0, 1] * 3, {"weight": [1] * 5}, InvalidParameterError, r"the shape \(6,\), but has \(5,\)"),
        ([0, 1] * 3, {"weight": np.ones((6, 2))}, InvalidParameterError, r"must have the shape \(6,\)"),
        ([0, 1] * 3, {"weight": [0] * 6}, InvalidParameterError, "all weights are zero"),
        ([0, 1] * 3, {"weight": [1, 1, np.nan, 1, 1, 1]}, DataError, "sample_weight must .* but row 2"),
        ([0, 1] * 3, {"weight": [1, 0] * 3}, DataError, "two .* in rows of weight > 0, but all 3 .* have 0"),
        ("sold", {"weight": "yes"}, DataError, "'sold' must have .* but all 3 of them have 'yes'"),
        ("price", {"weight": "same"}, DataError, "'price' must have .* but all 2 of them have 1.5"),
        ([0, 1] * 3, {"groups": ["a", None] * 3}, DataError, "groups must have a value .* but row 1"),
        ([0, 1] * 3, {"time": [1, 2]}, InvalidParameterError, r"time must have the shape \(6,\)"),
    ],
)  # fmt: skip
def test_unusable_values_are_an_error(
    table: pd.DataFrame, target: Any, values: dict[str, Any], error: type[Exception], message: str
) -> None:
    table = table.assign(
        minus=[1, 2, 3, -1, 2, 3],
        missing=["a", "b", None, "c", "d", "e"],
        one=[0, 0, 0, 1, 0, 0],
        wide=[1.5, np.inf, 2, 3, 4, 5],
        yes=(table["sold"] == "yes").astype(float) * [1, 2, 3, 4, 5, 6],
        same=[1, 0, 0, 0, 0, 2],
        price=[1.5, 2.0, 3.0, 2.5, 0.5, 1.5],
    )
    with pytest.raises(error, match=message):
        Problem.from_table(table, target, **values)


def test_a_class_of_weight_zero_is_left_out_with_a_warning(table: pd.DataFrame) -> None:
    table["w"] = [1.0, 2.0, 3.0, 0.0, 1.0, 2.0]
    with pytest.warns(DataWarning, match="class 'c' is left out: all of its rows have weight 0"):
        problem = Problem.from_table(table, "city", weight="w")
    assert set(problem.target) == {"a", "b"}
    assert problem.task == "binary"


def test_columns_are_recognised_and_classes_counted_once(
    table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def counted(frame: pd.DataFrame, types: Any) -> Any:
        calls.append(len(frame))
        return read_columns(frame, types)

    monkeypatch.setattr(module, "read_columns", counted)
    problem = Problem.from_table(table, "sold", weight="w")
    assert problem.has_usable_column
    assert problem.columns.kinds["age"] == "numeric"
    assert calls == [4]
    assert problem.head is problem.head
    assert problem.head.n_predictions == 2
    assert not Problem.from_table(pd.DataFrame({"a": [1.0] * 6}), [0, 1] * 3).has_usable_column


def test_a_target_of_money_is_a_regression_and_its_spelled_missing_values_are_left_out() -> None:
    table = pd.DataFrame({"x": range(6), "price": ["$1,200.50", "$3", "n/a", "$4", "$5", "$6.25"]})
    with pytest.warns(DataWarning, match="1 row is left out"):
        problem = Problem.from_table(table, "price")
    assert problem.task == "regression"
    assert problem.target.tolist() == [1200.5, 3.0, 4.0, 5.0, 6.25]
    assert problem.reader is not None
    assert problem.reader.is_plain


def test_kinds_set_by_the_user_change_inputs_and_fingerprint(table: pd.DataFrame) -> None:
    plain = Problem.from_table(table, "sold")
    assert plain.reader is None
    assert plain.inputs is plain.frame
    changed = plain.with_column_types({"age": "categorical"})
    assert changed.columns.kinds["age"] == "categorical"
    assert changed.fingerprint() != plain.fingerprint()
