"""Distributions as domains: codes of values, neighbours, values of other distributions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.integrations.optuna.sampler.axes import Axis


@pytest.mark.parametrize(
    ("old", "value", "new", "fits"),
    [
        (FloatDistribution(0, 10), 3.0, FloatDistribution(0, 5), True),
        (FloatDistribution(0, 10), 7.0, FloatDistribution(0, 5), False),
        (FloatDistribution(0, 10), 3.25, FloatDistribution(0, 5, step=0.5), False),
        (FloatDistribution(0, 10), 3.5, FloatDistribution(0, 5, step=0.5), True),
        (IntDistribution(0, 10), 3, FloatDistribution(0, 5), False),
        (IntDistribution(0, 10), 3, IntDistribution(1, 9, step=2), True),
        (IntDistribution(0, 10), 4, IntDistribution(1, 9, step=2), False),
        (CategoricalDistribution("ab"), "a", CategoricalDistribution("ab"), True),
        (CategoricalDistribution("ab"), "a", CategoricalDistribution("abc"), False),
    ],
)
def test_values_of_other_distributions_are_accepted_if_they_fit(
    old: BaseDistribution, value: Any, new: BaseDistribution, fits: bool
) -> None:
    assert Axis.of("x", new).accepts(old, value) is fits


@pytest.mark.parametrize(
    "choices", [("a", None, True, 2.5), (1, 2, 4), (3, 1), (float("nan"), 1.0), (0,), (-1, True)]
)
def test_all_choices_have_codes(choices: tuple[Any, ...]) -> None:
    axis = Axis.of("x", CategoricalDistribution(choices))
    for choice in choices:
        assert axis.domain.contains(axis.encode(choice))
        assert axis.decode(axis.encode(choice)) is choice
    with pytest.raises(InvalidParameterError, match="float, int or categorical"):
        Axis.of("x", None)  # type: ignore[arg-type]


def test_increasing_choices_have_neighbours() -> None:
    rng = np.random.default_rng(0)
    near = {
        Axis.of("x", CategoricalDistribution(range(20))).domain.neighbour(10, rng, 0.02) for _ in range(50)
    }
    assert near == {9, 11}
    words = Axis.of("x", CategoricalDistribution([str(index) for index in range(20)]))
    assert len({words.domain.neighbour("10", rng, 0.02) for _ in range(200)}) == 19
