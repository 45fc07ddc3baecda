"""Encoding of tables: finite matrices, reproducible to the bit."""

from __future__ import annotations

import datetime
import json
import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from parallelmlp_search.data import TablePreprocessor, read_table, recognise_columns
from parallelmlp_search.exceptions import DataError, InvalidParameterError

DATASETS = Path(__file__).resolve().parents[2] / "datasets"
RNG = np.random.default_rng(0)


def encoded(train: Any, test: Any = None, **parameters: Any) -> dict[str, np.ndarray]:
    """Columns of the result by name."""
    preprocessor = TablePreprocessor(**parameters).fit(train)
    matrix = preprocessor.transform(train if test is None else test)
    assert matrix.dtype == np.float32
    assert matrix.flags.c_contiguous
    assert np.isfinite(matrix).all()
    names = preprocessor.get_feature_names_out()
    assert len(set(names)) == len(names) == matrix.shape[1] == preprocessor.n_features_out_
    return dict(zip(names, matrix.T, strict=True))


def restored(preprocessor: TablePreprocessor) -> TablePreprocessor:
    return TablePreprocessor.from_dict(json.loads(json.dumps(preprocessor.to_dict(), allow_nan=False)))


def mixed(rows: int = 120) -> pd.DataFrame:
    """A table with a column of every kind and missing values in all of them."""
    rng = np.random.default_rng(rows)
    frame = pd.DataFrame(
        {
            "number": rng.normal(size=rows),
            "count": rng.integers(0, 9, rows),
            "text number": [f" {value} " for value in rng.integers(0, 99, rows)],
            "flag": rng.random(rows) < 0.5,
            "colour": rng.choice(["red", "green", "blue"], rows),
            "city": rng.choice([f"city {i}" for i in range(14)], rows),
            "when": pd.date_range("2024-01-01", periods=rows, freq="37h"),
            "id": range(rows),
            "same": 1,
        }
    )
    for column in frame.columns[:-2]:
        frame[column] = frame[column].astype(object).where(rng.random(rows) < 0.8, None)
    return frame.infer_objects()


# numbers


def test_robust_scaling_equals_realmlp() -> None:
    x = RNG.lognormal(size=400)
    median, (low, high) = np.median(x), np.quantile(x, [0.25, 0.75])
    z = (x - median) / (high - low)
    np.testing.assert_allclose(encoded(x[:, None])["x0"], z / np.sqrt(1 + (z / 3) ** 2), rtol=1e-6, atol=1e-7)


def test_robust_scaling_falls_back_to_the_range() -> None:
    x = np.zeros(100)
    x[0] = 4.0  # the quartiles are equal
    result = encoded(x[:, None])["x0"]
    assert result[1:].tolist() == [0.0] * 99
    np.testing.assert_allclose(result[0], 2 / np.sqrt(1 + (2 / 3) ** 2), rtol=1e-6)


def test_standard_and_quantile_scaling() -> None:
    x = RNG.lognormal(size=1000)
    np.testing.assert_allclose(
        encoded(x[:, None], scaling="standard")["x0"], (x - x.mean()) / x.std(), rtol=1e-5, atol=1e-6
    )
    scores = encoded(x[:, None], scaling="quantile")["x0"]
    assert (np.argsort(scores, kind="stable")[5:-5] == np.argsort(x, kind="stable")[5:-5]).mean() > 0.99
    assert abs(float(np.median(scores))) < 0.01
    assert 0.9 < scores.std() < 1.1
    assert np.abs(scores).max() < 3.2
    far = encoded(x[:, None], np.array([[-1e9], [1e9]]), scaling="quantile")["x0"]
    assert far.tolist() == [scores.min(), scores.max()]


@pytest.mark.parametrize("scaling", ["robust", "standard", "quantile"])
def test_missing_numbers_are_zero_and_marked(scaling: str) -> None:
    train = pd.DataFrame({"holes": [1.0, 2.0, np.nan, 4.0, 9.0], "full": [1.0, 2.0, 3.0, 4.0, 5.0]})
    result = encoded(train, scaling=scaling)
    assert list(result) == ["holes", "full", "holes__missing"]
    assert result["holes__missing"].tolist() == [0, 0, 1, 0, 0]
    assert result["holes"][2] == 0
    later = encoded(train, pd.DataFrame({"holes": [1.0], "full": [np.nan]}), scaling=scaling)
    assert later["full"].tolist() == [0]  # no indicator without missing training values


@pytest.mark.parametrize("scaling", ["robust", "standard", "quantile"])
def test_infinities_become_the_extremes_of_training(scaling: str) -> None:
    train = np.array([[1.0], [2.0], [3.0], [10.0], [np.inf], [-np.inf]])
    test = np.array([[np.inf], [10.0], [-np.inf], [1.0]])
    result = encoded(train, test, scaling=scaling)["x0"]
    assert result[0] == result[1] > result[2] == result[3]


@pytest.mark.parametrize("scaling", ["robust", "standard", "quantile"])
@pytest.mark.parametrize(
    "column",
    [
        [1e308, -1e308, 0.0, 1.0],
        [5e-324, 0.0, 1e-310, 1.0e-300],
        [1e300, 1e300, 1e300, np.nan],
        [np.inf, -np.inf, np.inf, np.nan],
        [0.1, 0.1, 0.1, np.nan],
        [2**63 - 1, -(2**63), 0, 1],
        [np.nan, np.nan, 3.0, np.inf],
    ],
)
def test_extreme_numbers_stay_finite(column: list[float], scaling: str) -> None:
    test = [[np.inf], [-np.inf], [np.nan], [1e308], [-1e308], [5e-324], [0.0]]
    with np.errstate(all="raise", under="ignore"):
        encoded(pd.DataFrame({"x": column}), pd.DataFrame(test, columns=["x"]), scaling=scaling)


def test_numbers_do_not_depend_on_the_dtype() -> None:
    plain = pd.DataFrame({"x": [1.0, np.nan, 3.0, 7.0]})
    wanted = TablePreprocessor().fit_transform(plain)
    for dtype in ("Int64", "Float64", "float32", "int64[pyarrow]", "object", "category"):
        frame = plain.astype(dtype)
        kinds = {"x": "numeric"} if dtype == "category" else None
        assert np.array_equal(TablePreprocessor(column_kinds=kinds).fit_transform(frame), wanted), dtype
    text = pd.DataFrame({"x": ["1", None, " 3.0", "7e0"]})
    assert np.array_equal(TablePreprocessor().fit_transform(text), wanted)
    assert np.array_equal(TablePreprocessor().fit(plain).transform(text), wanted)
    spoilt = pd.DataFrame({"x": ["1", "oops", "3", "7"]})
    assert np.array_equal(TablePreprocessor().fit(plain).transform(spoilt), wanted)


def test_chunks_of_columns_and_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import parallelmlp_search.data.columns as columns
    import parallelmlp_search.data.preprocessing as preprocessing

    frame = pd.concat([mixed(700), pd.DataFrame(RNG.normal(size=(700, 9)))], axis=1)
    wanted = TablePreprocessor().fit_transform(frame)
    monkeypatch.setattr(preprocessing, "_CHUNK_VALUES", 1)
    monkeypatch.setattr(columns, "_CHUNK_VALUES", 1)
    assert np.array_equal(TablePreprocessor().fit_transform(frame), wanted)


# categories


def test_two_categories_are_one_signed_column() -> None:
    train = pd.DataFrame({"sex": ["f", "m", None, "f"], "flag": [True, False, True, True]})
    result = encoded(
        train, pd.DataFrame({"sex": ["m", "f", None, "x"], "flag": [True, False, None, "maybe"]})
    )
    assert result["sex=m"].tolist() == [1, -1, 0, 0]
    assert result["flag=True"].tolist() == [1, -1, 0, 0]


def test_few_categories_are_one_hot_and_unseen_ones_are_zeros() -> None:
    train = pd.DataFrame({"c": ["b", "a", "c", None]})
    result = encoded(train, pd.DataFrame({"c": ["a", "z", None, " c "]}))
    assert list(result) == ["c=a", "c=b", "c=c"]
    assert np.stack(list(result.values()), axis=1).tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 1]]


def test_many_categories_are_ranked_by_frequency() -> None:
    counts = {f"k{i}": i + 1 for i in range(12)}
    train = pd.DataFrame({"c": [key for key, count in counts.items() for _ in range(count)]})
    test = pd.DataFrame({"c": ["k11", "k10", "k9", "k0", "new", None]})
    result = encoded(train, test, max_one_hot=5, max_categories=2)
    assert list(result) == ["c=k11", "c=k10", "c__other", "c__frequency"]
    assert np.stack(list(result.values())[:3]).T.tolist() == [
        [1, 0, 0],
        [0, 1, 0],
        [0, 0, 1],
        [0, 0, 1],
        [0, 0, 0],
        [0, 0, 0],
    ]
    frequency = result["c__frequency"]
    assert frequency[0] > frequency[1] > frequency[2] > frequency[3]
    assert frequency[4:].tolist() == [0, 0]
    assert "c__other" not in encoded(train, max_one_hot=5)  # every category has a column
    assert len(encoded(train, max_one_hot=12)) == 12
    even = pd.DataFrame({"c": [f"k{i}" for i in range(12)] * 3})
    assert len(encoded(even)) == 12  # no column for equal frequencies


def test_categories_do_not_depend_on_the_spelling() -> None:
    train = pd.DataFrame(
        {"code": pd.Categorical([1, 2, 3]), "flag": [True, False, None], "bit": pd.Categorical([0, 1, 1])}
    )
    plain = encoded(train, pd.DataFrame({"code": [2], "flag": [True], "bit": [1]}))
    for code, flag, bit in ((2.0, 1, "1"), ("2", "true", True), ("2.0", 1.0, 1.0)):
        other = encoded(train, pd.DataFrame({"code": [code], "flag": [flag], "bit": [bit]}))
        assert all(np.array_equal(plain[name], other[name]) for name in plain)
    assert list(plain) == ["code=1", "code=2", "code=3", "flag=True", "bit=1"]
    assert [plain[name][0] for name in plain] == [0, 1, 0, 1, 1]


def test_categories_may_be_dates_numbers_and_texts_at_once() -> None:
    values = pd.Categorical([1.5, True, datetime.date(2024, 1, 1), "a", "a"])
    preprocessor = TablePreprocessor().fit(pd.DataFrame({"c": values}))
    assert list(preprocessor.get_feature_names_out()) == ["c=1.5", "c=2024-01-01", "c=True", "c=a"]
    test = pd.DataFrame({"c": pd.Series([datetime.date(2024, 1, 1), "a", 1.5], dtype=object)})
    assert restored(preprocessor).transform(test).argmax(axis=1).tolist() == [1, 3, 0]


# dates


def test_parts_of_dates() -> None:
    train = pd.DataFrame(
        {"t": pd.to_datetime(["2023-01-02 00:00", "2024-04-02 06:00", "2024-07-03 12:00", None])}
    )
    result = encoded(train)
    assert [name.removeprefix("t__") for name in result] == [
        "year",
        "elapsed_days",
        "month_sin",
        "month_cos",
        "weekday_sin",
        "weekday_cos",
        "hour_sin",
        "hour_cos",
        "missing",
    ]
    np.testing.assert_allclose(result["t__month_sin"], [0, 1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(result["t__month_cos"], [1, 0, -1, 0], atol=1e-6)
    np.testing.assert_allclose(result["t__hour_sin"], [0, 1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(result["t__weekday_cos"][0], 1)  # a Monday
    assert result["t__missing"].tolist() == [0, 0, 0, 1]
    text = train.assign(t=["2023-01-02", "2024-04-02T06:00:00", "2024-07-03 14:00+02:00", "?"])
    again = encoded(train, text)
    assert all(np.array_equal(result[name], again[name]) for name in result)


def test_parts_that_do_not_vary_are_left_out() -> None:
    names = list(encoded(pd.DataFrame({"t": pd.date_range("2024-03-01", periods=20)})))
    assert names == ["t__elapsed_days", "t__weekday_sin", "t__weekday_cos"]


# tables


def test_columns_are_found_by_name_in_any_order() -> None:
    train = mixed()
    preprocessor = TablePreprocessor().fit(train)
    wanted = preprocessor.transform(train)
    assert np.array_equal(preprocessor.transform(train[train.columns[::-1]].assign(extra=1)), wanted)
    assert np.array_equal(preprocessor.transform(train.drop(columns=["id", "same"])), wanted)  # not used
    with pytest.raises(DataError, match=r"no column 'number' in the table; did you mean 'numbre'\?"):
        preprocessor.transform(train.rename(columns={"number": "numbre"}))
    with pytest.raises(DataError, match=r"no column 'number' \(and 1 more\) in the table"):
        preprocessor.transform(train.drop(columns=["number", "city"]))


def test_arrays_by_position() -> None:
    train = mixed()
    array = train.to_numpy(dtype=object)
    preprocessor = TablePreprocessor().fit(train)
    assert np.array_equal(preprocessor.transform(array), preprocessor.transform(train))
    unnamed = TablePreprocessor().fit(array)
    assert not hasattr(unnamed, "feature_names_in_")
    assert np.array_equal(unnamed.transform(train), unnamed.transform(array))
    with pytest.raises(DataError, match="must have the 9 columns of training, but has 8"):
        preprocessor.transform(array[:, 1:])


@pytest.mark.parametrize("form", ["polars", "arrow", "mapping"])
def test_other_kinds_of_tables(form: str) -> None:
    train = mixed().drop(columns="flag")  # Arrow has no type for objects of booleans and missing values
    table = pl.from_pandas(train)
    other = {"polars": table, "arrow": table.to_arrow(), "mapping": train.to_dict(orient="list")}[form]
    preprocessor = TablePreprocessor().fit(train)
    assert np.array_equal(preprocessor.transform(other), preprocessor.transform(train))
    assert np.array_equal(TablePreprocessor().fit_transform(other), preprocessor.transform(train))


def test_sparse_tables() -> None:
    dense = sparse.random(80, 7, density=0.3, random_state=0).toarray()
    preprocessor = TablePreprocessor().fit(sparse.csr_matrix(dense))
    assert np.array_equal(preprocessor.transform(sparse.coo_array(dense)), preprocessor.transform(dense))


def test_tables_without_rows_or_usable_columns() -> None:
    with pytest.raises(DataError, match=r"no usable column: it has 'id' \(identifier\), 'same' \(constant\)"):
        TablePreprocessor().fit(pd.DataFrame({"id": range(100), "same": 1}))
    with pytest.raises(DataError, match="no usable column: it has no columns at all"):
        TablePreprocessor().fit(pd.DataFrame(index=range(5)))
    with pytest.raises(DataError, match="has no rows"):
        TablePreprocessor().fit(pd.DataFrame({"x": []}))
    with pytest.raises(NotFittedError):
        TablePreprocessor().transform(pd.DataFrame({"x": [1.0]}))


def test_no_rows_to_transform() -> None:
    train = mixed()
    preprocessor = TablePreprocessor().fit(train)
    assert preprocessor.transform(train[:0]).shape == (0, preprocessor.n_features_out_)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            {"scaling": "robus"},
            r"scaling must be one of robust, quantile, standard, but got 'robus'; did you mean",
        ),
        ({"max_one_hot": 1}, "max_one_hot must be an integer >= 2, but got 1"),
        ({"max_one_hot": True}, "max_one_hot must be an integer >= 2, but got True"),
        ({"max_categories": 0.5}, "max_categories must be an integer >= 1, but got 0.5"),
        ({"column_kinds": {"x": "date"}}, "the kind of column 'x' must be one of"),
    ],
)
def test_parameters_are_checked(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        TablePreprocessor(**parameters).fit(pd.DataFrame({"x": [1.0, 2.0]}))


def test_kinds_of_the_whole_table_apply_to_a_fold() -> None:
    whole = pd.DataFrame(
        {
            "x": [1.0] * 9 + [2.0],
            "c": ["a"] * 9 + ["b"],
            "t": ["2024-01-01"] * 9 + ["2024-01-02"],
            "b": [True] * 9 + [False],
        }
    )
    kinds = recognise_columns(whole).kinds
    result = encoded(whole[:9], whole, column_kinds=kinds)
    assert list(result) == ["x", "c=a", "b=True"]
    empty = whole[:9].assign(c=None, t=None)
    assert list(encoded(empty, whole, column_kinds=kinds)) == ["x", "b=True"]


def test_is_a_scikit_learn_transformer() -> None:
    train = mixed()
    preprocessor = TablePreprocessor(max_one_hot=12, column_kinds={"count": "categorical"})
    copy = clone(preprocessor)
    assert copy.get_params() == preprocessor.get_params()
    pipeline = make_pipeline(preprocessor, FunctionTransformer())
    with sklearn.config_context(transform_output="default"):
        wanted = pipeline.fit_transform(train)
    with sklearn.config_context(transform_output="pandas"):
        assert isinstance(copy.fit(train).transform(train), np.ndarray)  # always an array
    assert np.array_equal(copy.transform(train), wanted)
    assert np.array_equal(pickle.loads(pickle.dumps(copy)).transform(train), wanted)
    assert preprocessor.n_features_in_ == 9
    assert list(preprocessor.feature_names_in_) == list(train.columns)


@pytest.mark.parametrize("scaling", ["robust", "standard", "quantile"])
def test_saved_and_restored_to_the_bit(scaling: str) -> None:
    train, test = mixed(), mixed(130)
    preprocessor = TablePreprocessor(scaling=scaling, column_kinds={"count": "categorical"}).fit(train)
    twin = restored(preprocessor)
    assert np.array_equal(twin.transform(test), preprocessor.transform(test))
    assert list(twin.get_feature_names_out()) == list(preprocessor.get_feature_names_out())
    assert twin.get_params() == preprocessor.get_params()
    assert twin.to_dict() == preprocessor.to_dict()
    assert not np.array_equal(TablePreprocessor().fit(test).transform(test), preprocessor.transform(test))
    with pytest.raises(DataError, match="must be saved in format 4, but got 1"):
        TablePreprocessor.from_dict({**preprocessor.to_dict(), "format": 1})


def test_reads_the_keys_of_older_versions() -> None:
    train, test = mixed(), mixed(130)
    preprocessor = TablePreprocessor(quantiles=True, numeric_bins=4).fit(train)
    written = json.dumps(preprocessor.to_dict())
    old = written.replace('"has_missing"', '"gappy"')
    assert old.count('"gappy"') == 4  # scores, numbers, a date column and its scaler
    read = TablePreprocessor.from_dict(json.loads(old))
    assert np.array_equal(read.transform(test), preprocessor.transform(test))
    assert read.to_dict() == preprocessor.to_dict()


def test_reads_format_3_without_ranks_and_means() -> None:
    train = mixed()
    preprocessor = TablePreprocessor().fit(train)
    state = json.loads(json.dumps(preprocessor.to_dict()))
    del state["means"]
    for part in state["categories"].values():
        assert part.pop("rank") == []
    read = TablePreprocessor.from_dict({**state, "format": 3})
    assert np.array_equal(read.transform(train), preprocessor.transform(train))
    assert read.to_dict() == preprocessor.to_dict()


# real tables


@pytest.mark.alone
@pytest.mark.parametrize(
    ("name", "target", "seconds"),
    [
        ("adult", "income", 1.5),
        ("credit_g", "class", 0.5),
        ("diamonds", "price", 1.0),
        ("letter", "lettr", 0.5),
        ("mnist5k", "target", 2.0),
        ("satimage", "classes", 0.5),
        ("spambase", "type", 0.5),
        ("wine_quality", "quality", 0.5),
    ],
)
def test_real_tables(name: str, target: str, seconds: float) -> None:
    """The limits leave room for a busy machine: adult takes 0.13 s and mnist5k 0.25 s on one core."""
    X = read_table(DATASETS / f"{name}.csv.gz").drop(columns=target)
    rows = len(X) * 4 // 5
    start = time.process_time()
    preprocessor = TablePreprocessor().fit(X[:rows])
    matrix = preprocessor.transform(X)
    assert time.process_time() - start < seconds
    assert np.isfinite(matrix).all()
    assert np.abs(matrix).max() <= 3.0
    assert (matrix[:rows].min(axis=0) < matrix[:rows].max(axis=0)).all()  # no dead column
    assert np.array_equal(restored(preprocessor).transform(X[rows:]), matrix[rows:])


# any table


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=4),
    st.sampled_from(["1", "2.5", "a", "b", "2024-01-01", "nan", "inf", "?"]),
    st.dates(),
    st.datetimes(),
)
COLUMNS = st.one_of(
    st.lists(VALUES, min_size=8, max_size=8).map(lambda values: pd.Series(values, dtype=object)),
    st.lists(st.floats(), min_size=8, max_size=8).map(pd.Series),
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=8, max_size=8).map(pd.Series),
    st.lists(st.sampled_from(["a", "b", "c", "1", None]), min_size=8, max_size=8).map(pd.Series),
    st.lists(st.sampled_from([True, False, None]), min_size=8, max_size=8).map(
        lambda v: pd.Series(v, dtype="boolean")
    ),
    st.lists(st.datetimes() | st.none(), min_size=8, max_size=8).map(
        lambda values: pd.Series(np.array(values, dtype="datetime64[us]"))
    ),
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    train=st.lists(COLUMNS, min_size=1, max_size=4),
    test=st.lists(COLUMNS, min_size=4, max_size=4),
    scaling=st.sampled_from(["robust", "standard", "quantile"]),
    max_one_hot=st.integers(2, 5),
)
def test_any_table_is_finite_and_round_trips(
    train: list[pd.Series], test: list[pd.Series], scaling: str, max_one_hot: int
) -> None:
    frame = pd.DataFrame({f"c{i}": column for i, column in enumerate(train)})
    other = pd.DataFrame({f"c{i}": column for i, column in enumerate(test[: len(train)])})
    preprocessor = TablePreprocessor(scaling=scaling, max_one_hot=max_one_hot, max_categories=3)
    if not recognise_columns(frame).of_kind("numeric", "boolean", "categorical", "datetime"):
        with pytest.raises(DataError, match="no usable column"):
            preprocessor.fit(frame)
        return
    preprocessor.fit(frame)
    twin = restored(preprocessor)
    for table in (frame, other):
        matrix = preprocessor.transform(table)
        assert matrix.dtype == np.float32
        assert matrix.flags.c_contiguous
        assert matrix.shape == (8, preprocessor.n_features_out_)
        assert np.isfinite(matrix).all()
        assert np.array_equal(twin.transform(table), matrix)
        rows = np.concatenate([preprocessor.transform(table.iloc[[row]]) for row in range(8)])
        assert np.array_equal(rows, matrix)  # a row does not depend on the rows beside it


def test_column_groups() -> None:
    n_rows = 60
    frame = pd.DataFrame(
        {
            "number": np.linspace(0.0, 1.0, n_rows),
            "two": ["a", "b"] * 30,
            "five": [f"c{number % 5}" for number in range(n_rows)],
            "many": [f"d{number % 20}" for number in range(n_rows)],
        }
    )
    frame.loc[3, "five"] = None
    for preprocessor in (
        TablePreprocessor(numeric_bins=4),
        TablePreprocessor(max_one_hot=4, max_categories=6),
    ):
        rows = preprocessor.fit(frame).transform(frame)
        names = list(preprocessor.get_feature_names_out())
        again = TablePreprocessor.from_dict(preprocessor.to_dict())
        assert again.columns_ == preprocessor.columns_
        (first, five), (second, many) = preprocessor.columns_.categories
        assert five == 5
        assert many == (20 if preprocessor.max_categories == 64 else 7)  # six, and one for all others
        assert names[first] == "five=c0"
        assert all(name.startswith(("many=", "many__other")) for name in names[second : second + many])
        sums = rows[:, first : first + five].sum(1)
        assert sums[3] == 0.0
        assert np.delete(sums, 3).tolist() == [1.0] * (n_rows - 1)
        assert (rows[:, second : second + many].sum(1) == 1.0).all()
