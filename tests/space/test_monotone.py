"""Search spaces of networks that are monotone in some columns."""

from __future__ import annotations

import numpy as np
import pytest

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.space import (
    Categorical,
    Int,
    SearchSpace,
    check_monotone,
    monotone_space,
    tuned_defaults_in,
)


def test_a_space_keeps_what_can_be_monotone() -> None:
    space = SearchSpace.preset("default")
    limited = monotone_space(space)
    assert limited.names == space.names
    assert limited.domains["activation"].grid() == ["relu", "selu", "tanh"]
    assert limited.domains["normalization"] == Categorical(
        ("none",), when=space.domains["normalization"].when
    )
    for config in limited.sample(50, np.random.default_rng(0)):
        check_monotone(config)
        assert space.contains(config)
    assert monotone_space(limited) == limited
    plain = SearchSpace({"width": Int(4, 8), "activation": Categorical(("tanh",))})
    assert monotone_space(plain) == plain


def test_a_space_without_such_networks_is_refused() -> None:
    with pytest.raises(InvalidParameterError, match="search_space must offer one of none as normalization"):
        monotone_space(SearchSpace.preset("deep"))


def test_tuned_defaults_have_other_activations() -> None:
    space = SearchSpace.preset("default")
    limited = monotone_space(space)
    assert tuned_defaults_in(limited) == ()
    defaults = tuned_defaults_in(limited, monotone=True)
    assert len({limited.key(config) for config in defaults}) >= 8
    assert len(tuned_defaults_in(space)) == 10
