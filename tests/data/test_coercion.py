"""Conversion of columns of any dtype to numbers, dates and category keys."""

from __future__ import annotations

import datetime
import decimal

import numpy as np
import pandas as pd
import pytest

from parallelmlp_search.data.coercion import as_codes, as_keys, as_numbers, as_seconds

NAN = float("nan")


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pd.Series([1, 2], dtype="int8"), [1, 2]),
        (pd.Series([1, None], dtype="Int64"), [1, NAN]),
        (pd.Series([1.5, None], dtype="float64[pyarrow]"), [1.5, NAN]),
        (pd.Series([True, None], dtype="boolean"), [1, NAN]),
        (pd.Series([" 7 ", "x", None, "1e3", "-inf"], dtype=object), [7, NAN, NAN, 1000, -np.inf]),
        (pd.Series(["7", "1_000"], dtype="str"), [7, NAN]),
        (
            pd.Series([decimal.Decimal("1.5"), True, 10**400, -(10**400)], dtype=object),
            [1.5, 1, np.inf, -np.inf],
        ),
        (pd.Series(["2", "x", "2"], dtype="category"), [2, NAN, 2]),
        (pd.Series(pd.to_timedelta([90, None], unit="s")), [90, NAN]),
        (pd.Series(pd.to_datetime(["2024-01-01"])), [NAN]),
        (pd.Series(pd.arrays.SparseArray([0.0, 0.0, 1.5])), [0, 0, 1.5]),
        (pd.Series([[1], {}], dtype=object), [NAN, NAN]),
        (pd.Series([], dtype=object), []),
    ],
)
def test_numbers(column: pd.Series, expected: list[float]) -> None:
    numbers = as_numbers(column)
    assert numbers.dtype == np.float64
    np.testing.assert_array_equal(numbers, np.array(expected, dtype=float))


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (["2024-02-29", "2023-02-29", None], ["2024-02-29", None, None]),
        (["2024/1/2 10:30", "2024-01-02T10:30:00.5+02:00"], ["2024-01-02T10:30:00", "2024-01-02T08:30:00"]),
        (["2024-03", "03.04.2024", "hello", "2024"], ["2024-03-01", None, None, None]),
        ([datetime.date(2024, 1, 2), datetime.datetime(2024, 1, 2, 3)], ["2024-01-02", "2024-01-02T03"]),
        ([pd.Timestamp("2024-01-01", tz="Europe/Berlin")], ["2023-12-31T23:00:00"]),
        ([20240131, 20241331, 7], ["2024-01-31", None, None]),
        ([None, None], [None, None]),
    ],
)
def test_dates_in_objects(column: list[object], expected: list[str | None]) -> None:
    seconds = as_seconds(pd.Series(column, dtype=object))
    wanted = np.array(expected, dtype="datetime64[s]")
    np.testing.assert_array_equal(seconds, wanted)


def test_dates_in_date_dtypes() -> None:
    plain = pd.Series(pd.to_datetime(["2024-01-01", None]))
    zoned = plain.dt.tz_localize("Europe/Berlin")
    months = pd.Series(pd.period_range("2024-01", periods=2, freq="M"))
    assert as_seconds(plain)[0] == np.datetime64("2024-01-01T00:00:00")
    assert as_seconds(zoned)[0] == np.datetime64("2023-12-31T23:00:00")
    assert as_seconds(months)[1] == np.datetime64("2024-02-01T00:00:00")
    assert np.isnat(as_seconds(plain)[1])


def test_keys_do_not_depend_on_the_spelling() -> None:
    codes, keys = as_keys(pd.Series([7, 7.0, "7", " 7 ", True, None, "", 7.5], dtype=object))
    assert keys == ["7", "True", "7.5"]
    assert codes.tolist() == [0, 0, 0, 0, 1, -1, -1, 2]
    assert as_keys(pd.Series([1.0, None, 2.0]))[1] == ["1", "2"]
    assert as_keys(pd.Series(pd.to_datetime(["2024-01-01"])))[1] == ["2024-01-01T00:00:00"]
    assert as_keys(pd.Series([b"a", [1], [1]], dtype=object))[1] == ["a", "[1]"]


def test_codes_keep_equal_values_of_different_types_apart() -> None:
    codes, values = as_codes(pd.Series([1, True, 1.0, 1], dtype=object))
    assert codes.tolist() == [0, 1, 2, 0]
    assert [type(value) for value in values] == [int, bool, float]
    codes, values = as_codes(pd.Series(["b", "a", None], dtype="category"))
    assert values == ["a", "b"]
    assert codes.tolist() == [1, 0, -1]
