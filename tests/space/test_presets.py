"""Presets and tuned defaults."""

from __future__ import annotations

import numpy as np
import pytest

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.space import ACTIVATIONS, NUMERIC_EMBEDDINGS, PRESETS, MLPConfig, SearchSpace


def test_paper_holds_the_ten_thousand_networks_of_the_paper() -> None:
    space = SearchSpace.preset("paper")
    grid = space.grid()
    assert space.size() == len(grid) == 10_000
    expected = {
        MLPConfig(widths=(width,), activation=activation, seed=seed)
        for width in range(1, 101)
        for activation in ACTIVATIONS[:10]
        for seed in range(10)
    }
    assert set(grid) == expected
    assert sum(config.widths[0] for config in grid) == 505_000  # hidden neurons, as in the paper
    assert set(space.sample(20_000, np.random.default_rng(0))) == expected


def test_default_covers_its_ranges() -> None:
    configs = SearchSpace.preset("default").sample(3_000, np.random.default_rng(0))
    assert {config.depth for config in configs} == {1, 2, 3}
    assert {config.activation for config in configs} == {"relu", "silu", "gelu", "selu", "mish", "tanh"}
    assert {config.batch_size for config in configs} == {128, 256}
    assert all(len(set(config.widths)) == 1 for config in configs)
    assert all(5e-3 <= config.learning_rate <= 0.2 for config in configs)
    assert {config.numeric_embedding for config in configs} == set(NUMERIC_EMBEDDINGS)
    waves = [config for config in configs if config.numeric_embedding == "periodic"]
    assert len({config.frequency_scale for config in waves}) == len(waves)
    assert {config.frequency_scale for config in configs if config not in waves} == {0.1}
    shallow = [config for config in configs if config.depth == 1]
    assert not any(config.residual or config.normalization == "layer" for config in shallow)
    assert any(config.residual and config.normalization == "layer" for config in configs)


def test_deep_is_deep_and_small_is_small() -> None:
    rng = np.random.default_rng(0)
    deep = SearchSpace.preset("deep").sample(500, rng)
    assert {config.depth for config in deep} == set(range(4, 13))
    assert all(config.residual and config.normalization == "layer" for config in deep)
    assert not any(config.label_smoothing for config in deep)
    small = SearchSpace.preset("small").sample(500, rng)
    assert max(config.n_parameters(20, 2) for config in small) < 6_000
    assert {config.depth for config in small} == {1, 2}


def test_unknown_presets_are_refused_with_a_hint() -> None:
    assert set(PRESETS) == {"paper", "small", "default", "deep"}
    with pytest.raises(InvalidParameterError, match="but got 'defautl'; did you mean 'default'"):
        SearchSpace.preset("defautl")
