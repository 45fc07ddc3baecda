"""Recognition of columns: each case is one edge."""

from __future__ import annotations

import datetime
import uuid
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from parallelmlp_search.data import TableSchema, read_table, recognise_columns
from parallelmlp_search.exceptions import DataError, InvalidParameterError

DATASETS = Path(__file__).resolve().parents[2] / "datasets"
RNG = np.random.default_rng(0)
N = 200
UUIDS = [str(uuid.UUID(int=int(value))) for value in RNG.integers(1, 2**60, N)]


def objects(*values: object) -> pd.Series:
    repeated = list(values) * (N // len(values) + 1)
    return pd.Series(repeated[:N], dtype=object)


CASES = {
    # name of the column: (values, kind)
    "floats": (RNG.normal(size=N), "numeric"),
    "whole floats that count": (np.arange(N, dtype=float), "numeric"),
    "small integers": (RNG.integers(0, 16, N), "numeric"),
    "zeros and ones": (RNG.integers(0, 2, N), "numeric"),
    "distinct integers in any order": (RNG.permutation(10 * N)[:N], "numeric"),
    "fnlwgt": (RNG.integers(10_000, 1_000_000, N), "numeric"),
    "unix time": (1_700_000_000 + 3600 * np.arange(N), "numeric"),
    "row": (np.arange(1, N + 1), "identifier"),
    "row backwards": (np.arange(N)[::-1].copy(), "identifier"),
    "row with holes": (np.flatnonzero(RNG.random(3 * N) < 0.75)[:N], "identifier"),
    "nullable row": (pd.Series(range(N), dtype="Int64"), "identifier"),
    "customer_id": (RNG.permutation(10 * N)[:N], "identifier"),
    "customerId": (RNG.permutation(10 * N)[:N], "identifier"),
    "Unnamed: 0": (RNG.permutation(10 * N)[:N], "identifier"),
    "shop_id": (RNG.integers(0, 20, N), "numeric"),
    "humid": (RNG.permutation(10 * N)[:N], "numeric"),
    "uuid": (UUIDS, "identifier"),
    "names": ([f"name {i % (N - 5)}" for i in range(N)], "identifier"),
    "half distinct": ([f"name {i % (N // 2)}" for i in range(N)], "categorical"),
    "text": (objects("a", "b", "c"), "categorical"),
    "None is a class": (objects("None", "Some"), "categorical"),
    "numbers as text": (objects("1", "2.5", " 3 ", 7, None), "numeric"),
    "96 % numbers": (pd.Series(["1.5"] * 97 + ["2"] * 95 + ["n/a"] * 8, dtype=object), "numeric"),
    "90 % numbers": (pd.Series(["1.5"] * 90 + ["2"] * 90 + ["n/a"] * 20, dtype=object), "categorical"),
    "row as text": ([str(i) for i in range(N)], "identifier"),
    "two infinities": (["inf", "inf", *map(str, range(N - 2))], "numeric"),
    "booleans": (RNG.random(N) < 0.5, "boolean"),
    "booleans with missing values": (objects(True, False, None), "boolean"),
    "nullable booleans": (pd.Series([True, None] * (N // 2), dtype="boolean"), "boolean"),
    "dates": (pd.date_range("2024-01-01", periods=N), "datetime"),
    "zoned dates": (pd.date_range("2024-01-01", periods=N, tz="UTC"), "datetime"),
    "periods": (pd.period_range("2020-01", periods=N, freq="M"), "datetime"),
    "date objects": (objects(datetime.date(2024, 1, 1), datetime.date(2024, 1, 2), None), "datetime"),
    "dates as text": (objects("2024-01-01", "2024-02-01T10:00:00Z", None), "datetime"),
    "german dates": (objects("01.02.2024", "03.04.2024"), "categorical"),
    "durations": (pd.to_timedelta(RNG.integers(0, 99, N), unit="s"), "numeric"),
    "category dtype": (pd.Categorical(RNG.integers(0, 3, N)), "categorical"),
    "categories of numbers as text": (pd.Categorical(["1", "2"] * (N // 2)), "categorical"),
    "one value": (np.full(N, 7.0), "constant"),
    "one text": (["a"] * N, "constant"),
    "one value or missing": (pd.Series([7.0, None] * (N // 2)), "numeric"),
    "one text or missing": (objects("a", None), "categorical"),
    "nothing": (pd.Series([None] * N, dtype=object), "constant"),
    "only nan": (np.full(N, np.nan), "constant"),
    "infinities": (pd.Series([np.inf, -np.inf, 1.0, 2.0] * (N // 4)), "numeric"),
    "lists": (objects([1], [2]), "categorical"),
}


@pytest.mark.parametrize("name", CASES)
def test_kind(name: str) -> None:
    values, kind = CASES[name]
    schema = recognise_columns(pd.DataFrame({name: values}))
    assert schema.kinds == {name: kind}
    assert schema.columns[0].reason


def test_columns_keep_the_order_of_the_table() -> None:
    frame = pd.DataFrame({name: values for name, (values, _) in CASES.items()})
    schema = recognise_columns(frame)
    assert schema.names == tuple(CASES)
    assert schema.kinds == {name: kind for name, (_, kind) in CASES.items()}
    assert schema.of_kind("boolean") == ("booleans", "booleans with missing values", "nullable booleans")
    assert TableSchema.from_dict(schema.to_dict()) == schema


def test_small_tables_have_no_integer_identifiers() -> None:
    assert recognise_columns(pd.DataFrame({"id": range(99)})).kinds == {"id": "numeric"}
    assert recognise_columns(pd.DataFrame({"id": range(100)})).kinds == {"id": "identifier"}
    assert recognise_columns(pd.DataFrame({"t": [f"n{i}" for i in range(29)]})).kinds == {"t": "categorical"}
    assert recognise_columns(pd.DataFrame({"t": [f"n{i}" for i in range(30)]})).kinds == {"t": "identifier"}


def test_overrides_are_used_and_checked() -> None:
    frame = pd.DataFrame({"zip": range(100, 300), "id": range(200)})
    assert recognise_columns(frame, overrides={"zip": "categorical", "id": "numeric"}).kinds == {
        "zip": "categorical",
        "id": "numeric",
    }
    with pytest.raises(DataError, match=r"column 'zap' cannot be set: .*; did you mean 'zip'\?"):
        recognise_columns(frame, overrides={"zap": "numeric"})
    with pytest.raises(InvalidParameterError, match=r"got 'number'; did you mean 'numeric'\?"):
        recognise_columns(frame, overrides={"zip": "number"})


def test_kinds_of_a_table_apply_to_a_part() -> None:
    whole = pd.DataFrame({"x": [1.0] * 10 + [2.0] * 10, "c": ["a", "b"] * 10})
    part = whole[:10]
    assert recognise_columns(part).kinds == {"x": "constant", "c": "categorical"}
    assert recognise_columns(part, overrides=recognise_columns(whole).kinds).kinds["x"] == "numeric"


@pytest.mark.parametrize(
    ("name", "target", "kinds"),
    [
        ("adult", "income", {"numeric": 6, "categorical": 8}),
        ("credit_g", "class", {"numeric": 7, "categorical": 10, "ordinal": 3}),
        ("diamonds", "price", {"numeric": 6, "categorical": 2, "ordinal": 1}),
        ("letter", "lettr", {"numeric": 16}),
        ("mnist5k", "target", {"numeric": 663, "constant": 121}),
        ("satimage", "classes", {"numeric": 36}),
        ("spambase", "type", {"numeric": 57}),
        ("wine_quality", "quality", {"numeric": 11, "categorical": 1}),
    ],
)
def test_real_tables(name: str, target: str, kinds: dict[str, int]) -> None:
    schema = recognise_columns(read_table(DATASETS / f"{name}.csv.gz").drop(columns=target))
    found = list(schema.kinds.values())
    assert {kind: found.count(kind) for kind in set(found)} == kinds


@pytest.mark.parametrize("blanks", [["", None], ["", " ", None], [None, "\t", "  "]])
def test_a_column_of_blanks_is_missing(blanks: list[str | None]) -> None:
    frame = pd.DataFrame({"blank": blanks, "text": ["a", "", "b"][: len(blanks)]})
    schema = recognise_columns(frame)
    assert schema.kinds == {"blank": "constant", "text": "categorical"}
    assert next(iter(schema)).reason == "all values missing"
