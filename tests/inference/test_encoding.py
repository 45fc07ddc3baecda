"""Encoding of all folds at once against the encoder of each fold, to the bit."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parallelmlp_search.data import TablePreprocessor, recognise_columns
from parallelmlp_search.data.categorical import CategoryEncoder
from parallelmlp_search.data.coercion import as_keys, as_numbers, key_of, number_of
from parallelmlp_search.data.encoding import TableEncoder
from parallelmlp_search.data.means import CategoryMeans
from parallelmlp_search.exceptions import DataError
from parallelmlp_search.inference.encoding import FoldEncoder
from parallelmlp_search.inference.raw_columns import FEW_ROWS

N_ROWS = 240


def mixed() -> pd.DataFrame:
    """A table with all kinds of columns, of which parts of the rows lack values and categories."""
    rng = np.random.default_rng(0)
    number = rng.normal(size=N_ROWS).round(2)
    number[:90] = 0.0  # fills many quantiles
    number[100] = np.nan  # only some folds have an indicator
    town = rng.zipf(1.4, N_ROWS).clip(max=60)
    frame = pd.DataFrame(
        {
            "number": number,
            "count": rng.integers(0, 50, N_ROWS),
            "text": [f" {value}" if value % 9 else "none" for value in rng.integers(0, 99, N_ROWS)],
            "flag": rng.random(N_ROWS) < 0.5,
            "sex": rng.choice(["f", "m"], N_ROWS),
            "size": rng.choice(["S", "M", "L", "XL"], N_ROWS),
            "colour": pd.Categorical(rng.choice(["red", "green", "blue"], N_ROWS)),
            "code": rng.choice([1, 2, 7], N_ROWS),
            "town": [f"town {value}" for value in town],
            "when": pd.date_range("2024-01-01", periods=N_ROWS, freq="37h"),
            "id": range(N_ROWS),
        }
    )
    frame.loc[::17, "town"] = None
    frame.loc[3:5, "when"] = pd.NaT
    frame.loc[200:, "colour"] = "blue"
    return frame


def random_means(preprocessor: TablePreprocessor, name: str, seed: int) -> CategoryMeans:
    """Means of the categories of a column, and of one that no other encoder of the fold knows."""
    encoder = preprocessor.encoder_.columns[name]
    assert isinstance(encoder, CategoryEncoder)
    keys = (*encoder.keys[seed:], "elsewhere")
    return CategoryMeans(keys, np.random.default_rng(seed).normal(size=(len(keys), 2)).astype(np.float32))


def fold_encoders(frame: Any, n_folds: int = 3, **parameters: Any) -> list[TableEncoder]:
    kinds = recognise_columns(frame).kinds
    if "code" in kinds:
        kinds["code"] = "categorical"
    parameters = {"quantiles": True, "numeric_bins": 6, "max_one_hot": 4, "max_categories": 5} | parameters
    found = []
    for fold in range(n_folds):
        # folds of other sizes have other numbers of quantiles
        rows = np.arange(len(frame))[fold * 30 : 180 + 25 * fold]
        part = frame.iloc[rows] if isinstance(frame, pd.DataFrame) else frame[rows]
        preprocessor = TablePreprocessor(column_kinds=kinds, **parameters).fit(part)
        if "town" in kinds:
            preprocessor = preprocessor.with_means(
                {name: random_means(preprocessor, name, fold) for name in ("town", "size")}
            )
        found.append(preprocessor.encoder_)
    return found


def assert_same_encoding(encoders: list[TableEncoder], table: Any) -> None:
    together = FoldEncoder(encoders)
    with np.errstate(over="ignore", invalid="ignore"):
        encoded = together.encode(together.read(table))
        assert encoded.shape == (len(encoders), len(table), together.width)
        assert np.isfinite(encoded).all()
        for fold, encoder in enumerate(encoders):
            own = encoder.encode(table)
            np.testing.assert_array_equal(encoded[fold][:, together.places[fold]], own)
            if len(table) > FEW_ROWS:
                assert own.std() > 0.1


TABLES = {
    "all rows": slice(None),
    "some rows": slice(50, 60),
    "few rows": slice(3, 3 + FEW_ROWS),
    "one row": slice(7, 8),
    "another row": slice(100, 101),
    "no rows": slice(0, 0),
}


@pytest.mark.parametrize("rows", TABLES.values(), ids=TABLES)
def test_folds_are_encoded_as_each_alone(rows: slice) -> None:
    frame = mixed()
    encoders = fold_encoders(frame)
    assert len({encoder.n_outputs for encoder in encoders}) > 1
    assert len({len(encoder.numeric["scores"].grid) for encoder in encoders}) > 1  # type: ignore[union-attr]
    assert_same_encoding(encoders, frame.iloc[rows])
    shuffled = frame.iloc[rows, ::-1].assign(another="x")
    assert_same_encoding(encoders, shuffled)


@pytest.mark.parametrize("scaling", ["robust", "standard", "quantile"])
def test_every_scaling(scaling: str) -> None:
    frame = mixed()
    encoders = fold_encoders(frame, scaling=scaling, quantiles=False, numeric_bins=0)
    assert_same_encoding(encoders, frame)
    assert_same_encoding(encoders, frame.head(2))


@pytest.mark.parametrize("n_rows", [1, 3, 30])
def test_values_of_other_dtypes(n_rows: int) -> None:
    encoders = fold_encoders(mixed())
    other = mixed().head(n_rows)
    other["number"] = other["number"].astype("Float32")
    other["count"] = [str(value) for value in other["count"]]
    other["text"] = [True, None, "7.5", np.inf, "-inf", "1_000"][:n_rows] + ["3"] * (n_rows - 6)
    other["flag"] = other["flag"].map({True: "true", False: 0}).astype(object)
    other["sex"] = other["sex"].astype("category")
    other["code"] = other["code"].astype(float)
    other["town"] = ["  town 1 ", "elsewhere", ""][:n_rows] + ["town 2"] * (n_rows - 3)
    other["when"] = other["when"].dt.strftime("%Y-%m-%d %H:%M")
    assert_same_encoding(encoders, other)
    missing = pd.DataFrame({name: [None] * n_rows for name in other}, dtype=object)
    together = FoldEncoder(encoders)
    read = together.read(missing)
    assert read.missing.all()
    assert all((rows == 0).all() for rows in read.categories)


@pytest.mark.parametrize("n_rows", [1, FEW_ROWS, 60])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_arrays_are_read_by_the_places_of_their_columns(n_rows: int, dtype: Any) -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(N_ROWS, 6)).astype(dtype)
    values[:, 2] = rng.integers(0, 3, N_ROWS)
    values[::9, 4] = np.nan
    values[:, 5] = 1.0  # constant, left out
    frame = pd.DataFrame(values, columns=[f"x{place}" for place in range(6)])
    kinds = recognise_columns(frame, overrides={"x2": "categorical"}).kinds
    for X in (values, frame):
        encoders = [
            TablePreprocessor(column_kinds=kinds, numeric_bins=4).fit(X[start : start + 200]).encoder_
            for start in (0, 40)
        ]
        assert_same_encoding(encoders, values[:n_rows])
        assert_same_encoding(encoders, values[:n_rows].copy(order="F"))


def test_tables_without_a_column_are_refused() -> None:
    frame = mixed()
    together = FoldEncoder(fold_encoders(frame))
    for n_rows in (1, 50):
        with pytest.raises(DataError, match="no column 'town'"):
            together.read(frame.head(n_rows).drop(columns="town"))
        with pytest.raises(DataError, match=r"must have the 11 columns of training, but has 9"):
            together.read(np.zeros((n_rows, 9)))


def test_sections_that_no_network_uses_are_not_computed() -> None:
    frame = mixed()
    encoders = fold_encoders(frame)
    whole, part = FoldEncoder(encoders), FoldEncoder(encoders)
    n_scores = encoders[0].groups.n_quantiles
    part.keep([(n_scores, whole.width)])
    assert len(part.sections) == len(whole.sections) - 1
    used = whole.read(frame)
    encoded = whole.encode(used)[:, :, n_scores:]
    np.testing.assert_array_equal(part.encode(used)[:, :, n_scores:], encoded)


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.floats(width=32).map(np.float32),
    st.integers(-9, 9).map(np.int64),
    st.booleans().map(np.bool_),
    st.text(max_size=4),
    st.sampled_from(["7", "7.0", " 7 ", "1e3", "nan", "inf", "", "  ", "True", "1_0", pd.NA, pd.NaT, np.nan]),
    st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(2200, 1, 1)).map(pd.Timestamp),
    st.integers(-(10**9), 10**9).map(lambda seconds: pd.Timedelta(seconds, "s")),
    st.dates(),
    st.binary(max_size=3),
    st.decimals(allow_nan=False, places=2, min_value=-99, max_value=99),
    st.lists(st.integers(0, 3), max_size=2),
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(VALUES, min_size=1, max_size=5))
def test_single_values_are_converted_as_in_a_column(values: list[Any]) -> None:
    column = pd.Series(values, dtype=object)
    np.testing.assert_array_equal(np.array([number_of(value) for value in values]), as_numbers(column))
    codes, keys = as_keys(column)
    assert [key_of(value) for value in values] == [keys[code] if code >= 0 else "" for code in codes]
