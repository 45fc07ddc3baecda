"""The flat optimizer against the update of Adam, written out."""

from __future__ import annotations

import pytest
import torch

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.parareal import Recipe, deep_mlp
from parallelmlp_search.parareal.method.optimizer import FlatOptimizer, FlatParameters
from parallelmlp_search.space import MLPConfig


def test_embeddings_have_their_own_rate_and_phases_no_weight_decay() -> None:
    """The first step of Adam has the size of the learning rate."""
    torch.manual_seed(0)
    config = MLPConfig(widths=(8,), numeric_embedding="periodic")
    network = deep_mlp(config, n_inputs=5, n_outputs=2, n_numbers=2).double()
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    recipe = Recipe(total_steps=5, learning_rate=0.01, weight_decay=2.0, schedule="constant")
    optimizer = FlatOptimizer(FlatParameters([network]), recipe)
    network(torch.randn(9, 5).double()).square().sum().backward()
    steps = {name: -0.01 * p.grad.sign() for name, p in network.named_parameters() if p.grad is not None}
    optimizer.step()
    assert len(steps) == 4 + 4
    for name, after in network.named_parameters():
        kind = name.rpartition(".")[2]
        share = 0.1 if kind in ("frequency", "phase", "mixing", "offset") else 1.0
        keep = 1.0 - share * 0.02 if kind in ("frequency", "mixing", "weight") else 1.0
        expected = before[name] * keep + share * steps[name]
        torch.testing.assert_close(after.detach(), expected, rtol=0.0, atol=1e-5)


def test_recipe_takes_the_hyperparameters_of_a_configuration() -> None:
    config = MLPConfig(optimizer="sgd", momentum=0.7, learning_rate=0.3, clip_norm=2.0, schedule="constant")
    recipe = Recipe.of(config, 0)
    assert (recipe.total_steps, recipe.averages) == (1, True)
    for name in (
        "optimizer",
        "momentum",
        "learning_rate",
        "clip_norm",
        "schedule",
        "beta1",
        "embedding_rate",
    ):
        assert getattr(recipe, name) == getattr(config, name)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"optimizer": "adam"}, "did you mean 'adamw'"),
        ({"total_steps": 0}, "total_steps must be an integer >= 1"),
    ],
)
def test_recipe_rejects_other_values(values: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidParameterError, match=words):
        Recipe(**({"total_steps": 5} | values))  # type: ignore[arg-type]
