"""Deep configurations, and deep MLPs against the networks of a population."""

from __future__ import annotations

import pytest
import torch

from parallelmlp_search.engine.initialization import initial_vector
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.packing import Architecture, DataShape
from parallelmlp_search.packing.pack import build_module, module_vector
from parallelmlp_search.parareal import deep_config, deep_mlp
from parallelmlp_search.parareal.method.blocks import counted_cost
from parallelmlp_search.space import ColumnGroups, MLPConfig


def test_deep_mlp_computes_the_function_of_a_population_member() -> None:
    config = MLPConfig(widths=(8, 8, 6), residual=True, normalization="layer", dropout=0.2)
    network = deep_mlp(config, n_inputs=5, n_outputs=2)
    assert len(network) == 4
    plain = build_module(Architecture.of(config, DataShape(5, 2)), module_vector(network), dropout=0.2)
    rows = torch.randn(9, 5)
    assert torch.equal(network.eval()(rows), plain.eval()(rows))


def test_embedding_belongs_to_the_first_block() -> None:
    # five columns, two of them numeric, become 11 inputs, so that the first layer is residual
    config = MLPConfig(widths=(11, 8), residual=True, numeric_embedding="periodic", weight_decay=0.5)
    sizes = {"n_inputs": 5, "n_outputs": 2, "n_numbers": 2}
    architecture = Architecture.of(config, DataShape(5, 2, columns=ColumnGroups(n_numbers=2)))
    vector = initial_vector(architecture, config.replace(seed=3)).float()
    network = deep_mlp(config, vector=vector, **sizes)
    assert len(network) == 3
    rows = torch.randn(9, 5)
    assert torch.equal(network(rows), build_module(architecture, vector)(rows))
    assert not torch.equal(network(rows), deep_mlp(config, **sizes)(rows))
    assert counted_cost(network[0], rows) > counted_cost(network[0][1], torch.randn(9, 11))


@pytest.mark.parametrize("factor", [1, 2, 1000])
def test_deep_config_repeats_layers(factor: int) -> None:
    config = deep_config(MLPConfig(widths=(4,), submembers=3), factor)
    assert config.depth == factor
    assert config.submembers == 1
    assert config.residual is (factor > 1)
    network = deep_mlp(config, n_inputs=3, n_outputs=1)
    assert torch.isfinite(network(torch.randn(4, 3))).all()


@pytest.mark.parametrize("factor", [0, 1001, 2.5, True])
def test_deep_config_rejects_other_factors(factor: object) -> None:
    with pytest.raises(InvalidParameterError, match="depth_factor must be"):
        deep_config(MLPConfig(), factor)  # type: ignore[arg-type]


def test_deep_config_rejects_linear_models() -> None:
    with pytest.raises(InvalidParameterError, match="linear model"):
        deep_config(MLPConfig(widths=()), 4)
