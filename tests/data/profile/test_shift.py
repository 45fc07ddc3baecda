"""Summaries of tables, and the difference of new rows."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ks_2samp

from parallelmlp_search._schema import conform
from parallelmlp_search.data import recognise_columns
from parallelmlp_search.data.profile.shift import (
    MAX_LEVELS,
    MIN_ROWS,
    StoredSummary,
    shifts,
    summary_of,
)


def table(n_rows: int, seed: int, *, later: bool = False) -> pd.DataFrame:
    """Columns of all kinds; later rows differ in some of them."""
    rng = np.random.default_rng(seed)
    start = "2024-06-01" if later else "2024-01-01"
    frame = pd.DataFrame(
        {
            "same": rng.normal(size=n_rows),
            "count": rng.poisson(2, n_rows),
            "moved": rng.normal(1.0 if later else 0.0, 1.0, n_rows),
            "gappy": rng.normal(size=n_rows),
            "town": rng.choice(
                ["Bern", "Genf", "Chur"], n_rows, p=[0.2, 0.1, 0.7] if later else [0.6, 0.3, 0.1]
            ),
            "fresh": rng.choice(["a", "b", "new"] if later else ["a", "b"], n_rows),
            "flag": rng.random(n_rows) < 0.3,
            "code": [f"c{value}" for value in rng.zipf(1.5, n_rows)],
            "day": (pd.Timestamp(start) + pd.to_timedelta(rng.integers(0, 90, n_rows), "D")).astype(str),
        }
    )
    frame.loc[rng.random(n_rows) < (0.4 if later else 0.05), "gappy"] = np.nan
    return frame


@pytest.fixture(scope="module")
def summary() -> StoredSummary:
    frame = table(3000, 0)
    found = json.loads(json.dumps(summary_of(frame, recognise_columns(frame))))
    conform(found, StoredSummary)
    return found


def test_rows_that_are_alike_have_no_shift(summary: StoredSummary) -> None:
    assert set(summary["columns"]) == set(table(1, 0).columns)
    for seed in range(1, 21):
        assert shifts(summary, table(50 * seed, seed), {}) == []


def test_the_worst_columns_come_first(summary: StoredSummary) -> None:
    found = shifts(summary, table(800, 5, later=True), {})
    assert {one.name for one in found} == {"day", "town", "moved", "gappy", "fresh"}
    assert found[0].name == "day"
    sizes = [one.size for one in found]
    assert sizes == sorted(sizes, reverse=True)
    by_name = {one.name: one for one in found}
    assert by_name["day"].distance == 1.0
    assert 0.28 < by_name["fresh"].unseen < 0.38
    assert by_name["gappy"].missing - by_name["gappy"].missing_before == pytest.approx(0.35, abs=0.06)


def test_distances_are_those_of_scipy(summary: StoredSummary) -> None:
    before, after = table(3000, 0), table(800, 5, later=True)
    found = {one.name: one for one in shifts(summary, after, {})}
    assert found["moved"].distance == pytest.approx(
        ks_2samp(before["moved"], after["moved"]).statistic, abs=0.02
    )
    shares = [frame["town"].value_counts(normalize=True).sort_index() for frame in (before, after)]
    assert found["town"].distance == pytest.approx(0.5 * (shares[0] - shares[1]).abs().sum())


def test_columns_of_a_reader_are_reported_under_its_name(summary: StoredSummary) -> None:
    after = table(800, 5, later=True)
    found = shifts(summary, after, {"moved": "text", "gappy": "text"})
    assert [one.name for one in found].count("text") == 1


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (["x"] * 60, "categorical"),
        ([np.nan] * 60, "numeric"),
        ([None] * 60, "categorical"),
        ([np.inf, -np.inf] * 30, "numeric"),
        ([f"k{number}" for number in range(60)], "categorical"),
    ],
    ids=["one level", "no number", "no category", "infinities", "all distinct"],
)
def test_unusual_columns(column: list[Any], kind: str) -> None:
    frame = pd.DataFrame({"c": column})
    schema = recognise_columns(frame, overrides={"c": kind})
    stored = summary_of(frame, schema)
    json.dumps(stored, allow_nan=False)
    assert shifts(stored, frame, {}) == []
    other = pd.DataFrame({"c": [1.0] * 60})
    assert [one.name for one in shifts(stored, other, {})] == ["c"] or kind == "numeric"


def test_few_rows_and_many_levels() -> None:
    frame = pd.DataFrame({"c": [f"k{number % (2 * MAX_LEVELS)}" for number in range(5000)]})
    stored = summary_of(frame, recognise_columns(frame, overrides={"c": "categorical"}))
    assert len(stored["columns"]["c"]["levels"]) == MAX_LEVELS
    assert shifts(stored, frame.sample(frac=1.0, random_state=0).head(1000), {}) == []
    new = pd.DataFrame({"c": ["other"] * 1000})
    assert [one.name for one in shifts(stored, new, {})] == ["c"]
    assert shifts(stored, new.head(MIN_ROWS - 1), {}) == []
