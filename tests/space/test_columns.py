"""Groups of columns: the columns that a configuration uses, and round trips."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

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
    config = MLPConfig(numeric_embedding="none")
    kept = ColumnGroups(n_numbers=2, categories=((3, 4), (8, 3)))
    assert GROUPS.kept_by(config, N_INPUTS) == kept
    # mean targets come last and shift nothing
    with_means = replace(GROUPS, n_means=5)
    assert with_means.kept_by(config, N_INPUTS + 5) == kept
    assert with_means.kept_by(config.replace(target_encoding=True), N_INPUTS + 5) == kept


def test_mean_targets_are_used_by_choice() -> None:
    groups = replace(GROUPS, n_means=3)
    cases: list[tuple[dict[str, Any], Any]] = [
        ({"numeric_embedding": "none"}, ((8, 19),)),
        ({"numeric_embedding": "none", "target_encoding": True}, ((8, 22),)),
        ({"numeric_scaling": "quantile", "target_encoding": True}, ((0, 8), (10, 22))),
    ]
    for changes, expected in cases:
        assert groups.seen_by(MLPConfig(**changes), 22) == expected
    assert ColumnGroups(n_means=4).seen_by(MLPConfig(), 9) == ((0, 5),)


def test_json_round_trip() -> None:
    assert ColumnGroups.from_dict(json.loads(json.dumps(GROUPS.to_dict()))) == GROUPS
