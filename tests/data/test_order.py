"""Order of categories: scales of words, ranges of numbers and grades, and what has none."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallelmlp_search.data import TablePreprocessor, recognise_columns
from parallelmlp_search.data.cells.recognition import read_columns
from parallelmlp_search.data.order import find_order, listed_levels, set_order
from parallelmlp_search.exceptions import DataError

ORDERS = {
    "quality codes": ["Po", "Fa", "TA", "Gd", "Ex"],
    "cuts of diamonds": ["Fair", "Good", "Very Good", "Premium", "Ideal"],
    "degrees": ["low", "medium", "high"],
    "degrees with joints": ["very-low", "LOW", "med", "high", "very_high"],
    "sizes": ["XS", "S", "M", "L", "XL", "XXL"],
    "size words": ["small", "medium", "large"],
    "agreement": ["strongly disagree", "disagree", "neutral", "agree", "Strongly Agree"],
    "months": ["jan", "feb", "mar", "dec"],
    "travel classes": ["Economy", "Business", "First"],
    "ordinal numbers": ["1st", "2nd", "3rd"],
    "bounds and ranges": ["<10", "10-20", "20+"],
    "ranges with units": ["under 1 year", "1-5 years", "5 - 10 years", "more than 10 years"],
    "conditions": ["<0", "0<=X<200", ">=200"],
    "conditions without a bound below": ["<1", "1<=X<4", "4<=X<7", ">=7"],
    "ages": ["0-17", "18-25", "26-35", "36-45", "46-50", "51-55", "55+"],
    "intervals": ["(-10, 0]", "(0, 10]", "(10, 20]", "(20, 100]"],
    "grouped digits": ["up to $9,999", "$10,000 to $49,999", "$50,000 or more"],
    "thousands": ["<10k", "10k-50k", "50k-1m", "1m+"],
    "number words": ["one year", "two years", "3-5 years"],
    "grades with signs": ["F", "D", "C-", "C", "B+", "A-", "A", "A+"],
}


@pytest.mark.parametrize("levels", ORDERS.values(), ids=ORDERS)
def test_orders_are_found_in_any_sequence(levels: list[str]) -> None:
    for seed in range(3):
        shuffled = random.Random(seed).sample(levels, len(levels))
        order = find_order(shuffled)
        assert order is not None
        assert order.levels == levels
        with_another = find_order([*shuffled, "unknown"])
        assert with_another is not None
        assert with_another.levels == levels
        assert find_order([*shuffled, "unknown", "elsewhere"]) is None


NO_ORDERS = {
    "colours": ["red", "green", "blue"],
    "two levels": ["low", "high"],
    "one known word": ["medium", "rare", "raw"],
    "states": ["single", "married", "divorced"],
    "letters": ["a", "b", "c"],
    "sexes": ["m", "f", "x"],
    "numbers with units": ["10 kg", "20 kg", "30 kg"],
    "codes": ["A1", "A2", "B1"],
    "dates": ["2024-01-05", "2024-02-07", "2024-03-09"],
    "scores": ["3-1", "2-0", "1-1"],
    "phones": ["555-1234", "555-4321", "555-0000", "444-1111"],
    "nothing": [],
}


@pytest.mark.parametrize("keys", NO_ORDERS.values(), ids=NO_ORDERS)
def test_other_categories_have_no_order(keys: list[str]) -> None:
    assert find_order(keys) is None


def test_letters_are_grades_if_the_name_says_so() -> None:
    assert find_order(["C", "A", "B"], "colour") is None
    order = find_order(["C", "A", "B"], "credit_grade")
    assert order is not None
    assert order.levels == ["C", "B", "A"]
    assert find_order(["A", "B", "Q"], "grade") is None  # not one after the other


def test_a_set_order_reads_codes_too() -> None:
    order = set_order(["B2", "A10", "A9"])
    assert order is not None
    assert order.levels == ["A9", "A10", "B2"]
    assert set_order(["red", "green", "blue"]) is None
    two = set_order(["low", "high"])
    assert two is not None
    assert two.levels == ["low", "high"]


def test_many_levels_are_listed_in_part() -> None:
    assert listed_levels(["a", "b"]) == "a < b"
    assert listed_levels(list("abcdefghij")) == "a < b < c < d < e < … < j"


@given(st.lists(st.text(max_size=12), max_size=8, unique=True), st.text(max_size=6))
def test_any_texts_can_be_looked_at(keys: list[str], name: str) -> None:
    for order in (find_order(keys, name), set_order(keys)):
        if order is not None:
            assert set(order.ranks) <= set(keys)
            assert sorted(set(order.ranks.values())) == list(range(1 + max(order.ranks.values())))


@given(
    st.lists(st.integers(0, 10**6), min_size=3, max_size=9, unique=True),
    st.sampled_from(["-", " to ", "\u2013"]),
)
def test_ranges_are_ordered_by_their_numbers(edges: list[int], joint: str) -> None:
    ordered = sorted(edges)
    keys = [f"<{ordered[0]}"]
    keys += [f"{low}{joint}{high}" for low, high in pairwise(ordered)]
    keys += [f"{ordered[-1]}+"]
    order = find_order(sorted(keys))
    assert order is not None
    assert order.levels == keys


# columns of tables


def quality(n_rows: int = 200) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "kitchen": rng.choice(["Ex", "Gd", "TA", "Fa", "Po"], n_rows, p=[0.1, 0.3, 0.4, 0.15, 0.05]),
            "heat": pd.Categorical.from_codes(rng.integers(0, 3, n_rows), ["zz", "mm", "aa"], ordered=True),
            "zone": rng.choice(["north", "south", "east"], n_rows),
            "code": rng.choice(["A1", "A2", "B1"], n_rows),
        }
    )


def test_ordinal_columns_are_recognised_with_their_order() -> None:
    schema = recognise_columns(quality())
    assert schema.kinds == {
        "kitchen": "ordinal", "heat": "ordinal", "zone": "categorical", "code": "categorical",
    }  # fmt: skip
    kitchen, heat, *_ = schema
    assert kitchen.reason == "words of quality: Po < Fa < TA < Gd < Ex"
    assert heat.reason == "ordered in the table: zz < mm < aa"


def test_ranks_are_columns_beside_the_indicators() -> None:
    frame = quality()
    preprocessor = TablePreprocessor().fit(frame)
    encoded = pd.DataFrame(preprocessor.transform(frame), columns=preprocessor.get_feature_names_out())
    assert [name for name in encoded if "__" in name] == ["kitchen__rank", "heat__rank"]
    for name, levels in (("kitchen", ["Po", "Fa", "TA", "Gd", "Ex"]), ("heat", ["zz", "mm", "aa"])):
        ranks = encoded.groupby(frame[name].astype(str).to_numpy())[f"{name}__rank"]
        assert (ranks.nunique() == 1).all()
        assert np.all(np.diff(ranks.first()[levels]) > 0)
    other = preprocessor.transform(frame.head(1).assign(kitchen="unseen"))
    start = list(encoded).index("kitchen=Ex")
    assert not other[0, start : start + 6].any()
    # a fold without most levels still has the ranks of the others
    part = TablePreprocessor(column_kinds=recognise_columns(frame).kinds)
    part.fit(frame[frame["kitchen"].isin(["Ex", "TA", "Gd"])])
    assert "kitchen__rank" in part.get_feature_names_out()


def test_a_user_sets_and_removes_an_order() -> None:
    read = read_columns(quality(), {"kitchen": "categorical", "code": "ordinal"})
    assert read.schema.kinds["kitchen"] == "categorical"
    code = {column.name: column for column in read.reader.columns}["code"]
    assert (code.kind, code.reason) == ("ordinal", "set by the user, codes: A1 < A2 < B1")
    names = TablePreprocessor(column_kinds=read.schema.kinds).fit(read.frame).get_feature_names_out()
    assert "code__rank" in names
    assert "kitchen__rank" not in names
    with pytest.raises(DataError, match=r"'zone' cannot be ordinal: .* 'north'.* is not known"):
        read_columns(quality(), {"zone": "ordinal"})
