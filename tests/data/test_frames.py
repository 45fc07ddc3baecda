"""Conversion of tables to pandas frames."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from scipy import sparse

from parallelmlp_search.data import as_frame
from parallelmlp_search.data.frames import has_names, unique_names
from parallelmlp_search.exceptions import DataError, DataWarning


def test_a_frame_is_passed_through() -> None:
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}, index=[5, 6])
    assert as_frame(frame) is frame


@pytest.mark.parametrize(
    "table",
    [
        pl.DataFrame({"a": [1, 2], "b": ["x", None]}),
        pl.LazyFrame({"a": [1, 2], "b": ["x", None]}),
        pa.table({"a": [1, 2], "b": ["x", None]}),
        {"a": [1, 2], "b": ["x", None]},
    ],
    ids=["polars", "lazy polars", "arrow", "mapping"],
)
def test_named_tables(table: object) -> None:
    frame = as_frame(table)
    assert list(frame.columns) == ["a", "b"]
    assert frame["a"].tolist() == [1, 2]
    assert frame["b"].isna().tolist() == [False, True]
    if not isinstance(table, pl.LazyFrame):
        assert has_names(table)


def test_polars_categories_dates_and_nulls() -> None:
    table = pl.DataFrame({"c": ["x", None, "y"], "n": [1, None, 3]}).with_columns(
        pl.col("c").cast(pl.Categorical)
    )
    frame = as_frame(table)
    assert frame["c"].isna().tolist() == [False, True, False]
    assert np.isnan(frame["n"].to_numpy(dtype=float)[1])


def test_arrays_get_names_and_are_not_copied() -> None:
    array = np.arange(6.0).reshape(3, 2)
    frame = as_frame(array)
    assert list(frame.columns) == ["x0", "x1"]
    assert np.shares_memory(frame.to_numpy(), array)
    assert not has_names(array)
    assert as_frame(np.arange(3)).shape == (3, 1)
    assert list(as_frame(pd.DataFrame(array)).columns) == ["x0", "x1"]
    assert not has_names(pd.DataFrame(array))


def test_sparse_becomes_dense() -> None:
    dense = np.array([[0.0, 1.0], [2.0, 0.0]])
    for form in (sparse.csr_matrix, sparse.csc_array, sparse.coo_array):
        assert np.array_equal(as_frame(form(dense)).to_numpy(), dense)


def test_lists_keep_numbers_and_texts_apart() -> None:
    frame = as_frame([[1, "a"], [2, "b"]])
    assert frame["x0"].dtype == np.int64
    assert frame["x1"].tolist() == ["a", "b"]
    assert as_frame([[1, 2.5], [3, None]])["x1"].isna().tolist() == [False, True]
    assert as_frame([1.0, 2.0]).shape == (2, 1)
    with pytest.raises(DataError, match="rows of one length"):
        as_frame([[1, 2], [3]])


def test_series_records_half_precision_and_other_arrays() -> None:
    assert list(as_frame(pd.Series([1, 2], name="s")).columns) == ["s"]
    assert list(as_frame(pd.Series([1, 2])).columns) == ["x0"]
    assert list(as_frame(np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")])).columns) == ["a", "b"]
    assert as_frame(np.ones((2, 2), dtype=np.float16)).dtypes.iloc[0] == np.float64
    assert list(as_frame(pl.Series("s", [1, 2])).columns) == ["s"]


def test_names_become_unique_texts() -> None:
    assert list(as_frame(pd.DataFrame([[1, 2]], columns=[3, "b"])).columns) == ["3", "b"]
    levels = pd.MultiIndex.from_tuples([("a", 1), ("a", 2)])
    assert list(as_frame(pd.DataFrame([[1, 2]], columns=levels)).columns) == ["a_1", "a_2"]
    with pytest.warns(DataWarning, match="'a' as 'a.1'"):
        assert list(as_frame(pd.DataFrame([[1, 2]], columns=["a", "a"])).columns) == ["a", "a.1"]
    with pytest.warns(DataWarning, match="and 2 more"):
        assert len(set(unique_names(["a"] * 8))) == 8


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (np.zeros((2, 2, 2)), "must have two axes, rows and columns, but has 3"),
        (np.zeros((2, 2), dtype=complex), "must hold real numbers"),
        (pd.DataFrame({"z": [1j, 2j]}), "column 'z' must hold real numbers"),
        ("table.csv", "must be a table, but got str"),
        (7, "must be a table, but got int"),
        (None, "must be a table, but got NoneType"),
    ],
)
def test_errors(table: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        as_frame(table)
