"""Sources: problems from the columns of a table."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from parallelmlp_search import ParallelMLPClassifier
from parallelmlp_search.cli.source import Source, stored_table_name
from parallelmlp_search.exceptions import DataError, DataWarning


@pytest.fixture
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "a": rng.normal(size=60),
            "colour": rng.choice(["red", "green", "blue"], 60),
            "day": pd.date_range("2024-01-01", periods=60).strftime("%Y-%m-%d"),
            "weight": rng.integers(0, 4, 60),
            "sold": rng.choice(["yes", "no"], 60),
            "price": rng.normal(size=60),
        }
    )


def test_roles_follow_their_rows_if_targets_are_missing(frame: pd.DataFrame) -> None:
    frame["weight"] += 1
    frame.loc[[0, 7], "sold"] = None
    source = Source("t.csv", "sold", time_column="day", weights="weight")
    with pytest.warns(DataWarning):
        problem = source.problem(frame)
    kept = frame.drop(index=[0, 7])
    assert problem.n_rows == 58
    assert problem.weight is not None
    assert problem.time is not None
    assert list(problem.weight) == list(kept["weight"])
    assert list(problem.time.astype("datetime64[D]").astype(str)) == list(kept["day"])
    assert list(problem.target) == list(kept["sold"])
    assert not {"sold", "day", "weight"} & set(problem.frame)


def test_groups_are_the_values_of_their_column(frame: pd.DataFrame) -> None:
    problem = Source("t.csv", "sold", groups="colour").problem(frame)
    assert problem.groups is not None
    assert (pd.factorize(problem.groups)[0] == pd.factorize(frame["colour"])[0]).all()
    frame.loc[5, "colour"] = None
    with pytest.raises(DataError, match="groups column 'colour' must have a value in every row, but row 5"):
        Source("t.csv", "sold", groups="colour").problem(frame)


def test_an_infinite_target_is_refused(frame: pd.DataFrame) -> None:
    frame.loc[2, "price"] = np.inf
    with pytest.raises(DataError, match="target 'price' must hold finite numbers, but row 2 has inf"):
        Source("t.csv", "price").problem(frame)


def test_the_problem_is_that_of_the_estimator(frame: pd.DataFrame) -> None:
    """Rows of weight zero, weights and classes are treated alike in both interfaces."""
    by_column = Source("t.csv", "sold", weights="weight", class_weight="balanced").problem(frame)
    features = frame.drop(columns=["sold", "weight"])
    estimator = ParallelMLPClassifier(class_weight="balanced")
    by_value = estimator._problem(features, frame["sold"], frame["weight"])
    assert by_column.n_rows == (frame["weight"] > 0).sum() < 60
    assert by_column.fingerprint() == by_value.fingerprint()
    assert by_value.target_name == by_column.target_name == "sold"
    other = Source("t.csv", "sold", weights="weight").problem(frame)
    assert other.fingerprint() != by_column.fingerprint()


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (Source("tables/t.csv", "y"), "t.csv"),
        (Source("sales", "y", database="shop.db"), "sales (shop.db)"),
        (Source("-", "y"), "standard input"),
    ],
)
def test_a_stored_source_has_the_name_of_its_table(source: Source, name: str) -> None:
    assert stored_table_name(source.to_dict()) == source.name == name
