"""Groups of columns: the columns that a configuration uses, and round trips."""

from __future__ import annotations

import json

import pytest

from parallelmlp_search.space import NO_GROUPS, ColumnGroups, MLPConfig

GROUPS = ColumnGroups(n_quantiles=2, n_pieces=6, n_numbers=2, categories=((11, 4), (16, 3)))
"""Two numbers in three encodings, and two one-hot encoded categories with a plain column before each."""

N_INPUTS = 19


@pytest.mark.parametrize(
    ("scaling", "embedding", "expected"),
    [
        ("common", "none", ((8, 19),)),
        ("common", "periodic", ((8, 19),)),
        ("common", "piecewise", ((2, 19),)),
        ("quantile", "none", ((0, 2), (10, 19))),
        ("quantile", "piecewise", ((0, 8), (10, 19))),
    ],
)
def test_columns_that_a_configuration_uses(
    scaling: str, embedding: str, expected: tuple[tuple[int, int], ...]
) -> None:
    config = MLPConfig(numeric_scaling=scaling, numeric_embedding=embedding)
    assert GROUPS.seen_by(config, N_INPUTS) == expected


def test_without_groups_all_columns_are_used() -> None:
    config = MLPConfig(numeric_scaling="quantile", numeric_embedding="piecewise")
    assert NO_GROUPS.seen_by(config, 5) == ((0, 5),)
    assert ColumnGroups(n_numbers=5).seen_by(config, 5) == ((0, 5),)


def test_a_table_of_numbers_leaves_no_empty_range() -> None:
    scores = ColumnGroups(n_quantiles=3, n_numbers=3)
    assert scores.seen_by(MLPConfig(numeric_scaling="quantile"), 6) == ((0, 3),)


def test_dropped_columns_shift_the_categories() -> None:
    assert GROUPS.without(8) == ColumnGroups(n_numbers=2, categories=((3, 4), (8, 3)))


def test_json_round_trip() -> None:
    assert ColumnGroups.from_dict(json.loads(json.dumps(GROUPS.to_dict()))) == GROUPS
