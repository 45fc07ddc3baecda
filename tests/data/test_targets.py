"""Encoding of classes and numeric targets; weights of rows."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.utils.class_weight import compute_sample_weight

from parallelmlp_search.data import ClassTarget, RegressionTarget, class_weights, combine_weights
from parallelmlp_search.exceptions import DataError, InvalidParameterError


def through_json(target: ClassTarget) -> ClassTarget:
    return ClassTarget.from_dict(json.loads(json.dumps(target.to_dict(), allow_nan=False)))


# classes


@pytest.mark.parametrize(
    "y",
    [
        np.array(["b", "a", "c", "a"]),
        np.array(["b", "a"], dtype=object),
        np.array([3, -1, 3]),
        np.array([3, 1], dtype=np.uint8),
        np.array([True, False]),
        np.array([1.5, -0.5, 0.1]),
        np.array([0.1, 0.2], dtype=np.float32),
    ],
    ids=lambda y: str(y.dtype),
)
def test_classes_keep_values_and_dtype(y: np.ndarray) -> None:
    target = ClassTarget.fit(y)
    assert np.array_equal(target.classes_, np.unique(y))
    encoded = target.encode(y)
    assert encoded.dtype == np.int64
    twin = through_json(target)
    assert twin.classes_.dtype == target.classes_.dtype == y.dtype
    assert np.array_equal(twin.classes_[encoded], y)


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        (["b", "a", "b"], ["a", "b"]),
        (pd.Series(["b", "a"]), ["a", "b"]),
        (pd.Series(["b", "a"], dtype="category"), ["a", "b"]),
        (pd.Categorical([2, 1]), [1, 2]),
        (pd.Series([2, 1], dtype="Int64"), [1, 2]),
        (pd.Series([True, False], dtype="boolean"), [False, True]),
        (pd.Series([True, False], dtype=object), [False, True]),
        (pd.DataFrame({"y": ["b", "a"]}), ["a", "b"]),
        (pl.Series(["b", "a"]), ["a", "b"]),
        (np.array([["b"], ["a"]]), ["a", "b"]),
        (np.array(["None", "Some"]), ["None", "Some"]),
    ],
)
def test_classes_of_other_containers(y: Any, classes: list[Any]) -> None:
    target = ClassTarget.fit(y)
    assert target.classes_.tolist() == classes
    assert len(target) == 2
    assert through_json(target).classes_.tolist() == classes
    assert sorted(target.encode(y).tolist())[:2] in ([0, 1], [0, 1, 1])


def test_class_errors() -> None:
    target = ClassTarget.fit(["small", "large"])
    with pytest.raises(
        DataError, match=r"class 'smal' was not in the training target; did you mean 'small'\?"
    ):
        target.encode(["small", "smal"])
    with pytest.raises(DataError, match="class 7 was not"):
        ClassTarget.fit([1, 2]).encode([7])
    with pytest.raises(DataError, match="has only one class, 'a'"):
        ClassTarget.fit(["a", "a"])
    with pytest.raises(DataError, match="has no rows"):
        ClassTarget.fit([])
    with pytest.raises(DataError, match="must have no missing values, but has 1"):
        ClassTarget.fit(["a", None, "b"])
    with pytest.raises(DataError, match="must have no missing values, but has 1"):
        target.encode(pd.Series(["small", None]))
    with pytest.raises(DataError, match="mixes int and str"):
        ClassTarget.fit(np.array(["a", 1], dtype=object))
    with pytest.raises(DataError, match="must have one column"):
        ClassTarget.fit(np.zeros((3, 2)))
    with pytest.raises(DataError, match="must be texts, numbers or booleans, but the target has"):
        ClassTarget.fit(pd.Series(pd.to_datetime(["2024-01-01", "2024-01-02"])))
    with pytest.raises(DataError, match=r"but the target has b'a'"):
        ClassTarget.fit(np.array([b"a", b"b"]))
    assert target.encode([]).shape == (0,)


CLASS_VALUES = st.one_of(
    st.lists(st.text(), min_size=2),
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=2),
    st.lists(st.booleans(), min_size=2),
)


@settings(max_examples=80, deadline=None)
@given(CLASS_VALUES)
def test_any_classes_round_trip(values: list[Any]) -> None:
    assume(len(set(values)) > 1)
    y = np.array(values, dtype=object if isinstance(values[0], str) else None)
    target = through_json(ClassTarget.fit(y))
    assert np.array_equal(target.classes_, np.unique(y))
    assert np.array_equal(target.classes_[target.encode(y)], y)


# numbers


def test_standard_scores_by_weight_and_output() -> None:
    y = np.array([[1.0, 10.0], [3.0, 30.0], [100.0, -5.0]])
    target = RegressionTarget.fit(y, [1.0, 3.0, 0.0])
    np.testing.assert_allclose(target.mean_, [2.5, 25.0])
    np.testing.assert_allclose(target.scale_, [np.sqrt(0.75), np.sqrt(75)])
    assert target.low_.tolist() == [1.0, 10.0]
    assert target.high_.tolist() == [3.0, 30.0]  # rows of weight 0 are ignored
    assert target.n_outputs == 2
    repeated = RegressionTarget.fit(y[[0, 1, 1, 1]])
    np.testing.assert_allclose(repeated.mean_, target.mean_)
    np.testing.assert_allclose(repeated.scale_, target.scale_)
    assert not np.allclose(RegressionTarget.fit(y).mean_, target.mean_)


def test_encoding_keeps_the_shape() -> None:
    one = RegressionTarget.fit([1.0, 2.0, 6.0])
    assert one.encode([1.0, 2.0]).shape == (2,)
    assert one.encode([[1.0], [2.0]]).shape == (2, 1)
    assert one.encode([1.0]).dtype == np.float32
    assert one.encode([1.0], dtype=np.float64).dtype == np.float64
    two = RegressionTarget.fit(np.array([[1.0, 2.0], [3.0, 5.0]]))
    assert two.encode([[1.0, 2.0]]).shape == (1, 2)
    with pytest.raises(DataError, match="must have 2 outputs as in training, but has 1"):
        two.encode([1.0, 2.0])


def test_constant_target_has_scale_one() -> None:
    target = RegressionTarget.fit([0.1] * 7)
    assert target.scale_.tolist() == [1.0]
    assert target.encode([0.1]).tolist() == [0.0]
    assert target.mean_.tolist() == [0.1]


@pytest.mark.parametrize(
    "y",
    [
        pd.Series(["1", "2.5"]),
        pd.Series([1, 2.5], dtype="Float64"),
        np.array([1, 2.5], dtype=object),
        pl.Series([1.0, 2.5]),
        pd.DataFrame({"y": [1, 2.5]}),
        np.array(["1", "2.5"]),
    ],
)
def test_numbers_of_other_containers(y: Any) -> None:
    assert RegressionTarget.fit(y).mean_.tolist() == [1.75]


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([1.0, np.nan], "must hold finite numbers, but row 1 has nan"),
        ([1.0, np.inf], "row 1 has inf"),
        (["1", "tall"], "row 1 has 'tall'"),
        (pd.Series(["1", "tall"], index=[7, 8]), "row 1 has 'tall'"),
        ([[1.0, 2.0], [3.0, np.nan]], r"row 1 has \[3.0, nan\]"),
        ([], "has no rows"),
        (np.zeros((2, 2, 2)), "one or two axes"),
        ([1j, 2j], "real numbers"),
    ],
)
def test_target_errors(y: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        RegressionTarget.fit(y)


FLOATS = st.floats(-1e300, 1e300)


@settings(max_examples=120, deadline=None)
@given(hnp.arrays(np.float64, st.tuples(st.integers(1, 12), st.integers(1, 3)), elements=FLOATS))
def test_any_target_is_standardized(y: np.ndarray) -> None:
    target = RegressionTarget.fit(y)
    z = target.encode(y, dtype=np.float64)
    assert np.isfinite(target.encode(y)).all()
    assert np.abs(z).max() < 12
    span = np.maximum(np.abs(y).max(axis=0), np.finfo(float).tiny)
    assert (np.abs(z * target.scale_ + target.mean_ - y) <= 1e-12 * span).all()
    assert np.array_equal(np.clip(y, target.low_, target.high_), y)


# weights


def test_class_weights_equal_scikit_learn() -> None:
    y = np.array([0, 0, 0, 1, 2, 2])
    classes = np.array(["a", "b", "c"])
    assert class_weights(y, None, classes) is None
    np.testing.assert_allclose(class_weights(y, "balanced", classes), compute_sample_weight("balanced", y))
    assert class_weights(y, {"a": 2, "c": 0.5}, classes).tolist() == [2, 2, 2, 1, 0.5, 0.5]
    assert class_weights([0, 1], {np.int64(5): 3.0}, np.array([5, 6])).tolist() == [3.0, 1.0]
    # a class without rows is ignored
    np.testing.assert_allclose(class_weights([0, 0, 1], "balanced", classes), [0.75, 0.75, 1.5])


@pytest.mark.parametrize(
    ("class_weight", "message"),
    [
        ("balance", r"but got 'balance'; did you mean 'balanced'\?"),
        ({"larg": 1}, r"names the class 'larg', which the target does not have; did you mean 'large'\?"),
        ({"large": -1}, "class_weight of 'large' must be >= 0 and finite, but got -1"),
        ({"large": np.nan}, "must be >= 0 and finite, but got nan"),
        ({"large": "2"}, "must be >= 0 and finite, but got '2'"),
        (3.0, "must be None, 'balanced' or a mapping, but got 3.0"),
    ],
)
def test_class_weight_errors(class_weight: Any, message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        class_weights([0, 1], class_weight, np.array(["large", "small"]))


def test_weights_are_combined() -> None:
    assert combine_weights(None, None, 3) is None
    both = combine_weights([1, 2, 0], [0.5, 2, 1], 3)
    assert both is not None
    assert both.dtype == np.float32
    assert both.tolist() == [0.5, 4, 0]
    assert combine_weights([2, 2], None, 2).tolist() == [2, 2]
    with pytest.raises(InvalidParameterError, match="sample_weight times class_weight is 0"):
        combine_weights([1, 0], [0, 1], 2)
    assert combine_weights(pd.Series([1, 2], index=[5, 6]), None, 2).tolist() == [1, 2]
    assert np.isfinite(combine_weights([1e38, 1], [1e38, 1], 2)).all()


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, 2], r"sample_weight must have the shape \(3,\), but has \(2,\)"),
        (np.ones((3, 1)), r"but has \(3, 1\)"),
        ([1, -2, 1], "must hold numbers >= 0, but row 1 has -2"),
        ([1, 1, np.nan], "must have a value in every row, but row 2 has nothing"),
        ([np.inf, 1, 1], "row 0 has inf"),
        ([0, 0, 0], "must be > 0 in at least one row"),
        (["a", 1, 1], "must hold numbers >= 0, but row 0 has 'a'"),
    ],
)
def test_weight_errors(weights: Any, message: str) -> None:
    with pytest.raises((DataError, InvalidParameterError), match=message):
        combine_weights(weights, None, 3)
    with pytest.raises((DataError, InvalidParameterError), match=message):
        RegressionTarget.fit([1.0, 2.0, 3.0], weights)
