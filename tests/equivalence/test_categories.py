"""Networks with embedded categories end with the same weights as with torch.nn.Embedding.

The reference looks rows of the embedding up; the package expands the weights of columns and merges gradients.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch

from parallelmlp_search.space import MLPConfig
from parallelmlp_search.space.config import CATEGORY_EMBEDDINGS, SHARINGS, category_dimension

N_NUMBERS = 3
CATEGORIES = ((4, 9), (13, 3), (16, 20))
"""Categories after three numbers and another column; three values are too few for an embedding."""

N_INPUTS = 37


def _problem(make_problem: Callable[..., Any], **fields: Any) -> Any:
    """Rows with one value of each category, or none for missing values."""
    problem = make_problem(
        n_inputs=N_INPUTS, n_numbers=N_NUMBERS, categories=CATEGORIES, **{"n_steps": 20, **fields}
    )
    generator = torch.Generator().manual_seed(2)
    for first, size in CATEGORIES:
        places = torch.randint(0, size + 1, (len(problem.inputs),), generator=generator)
        hot = torch.nn.functional.one_hot(places, size + 1)[:, :size]
        problem.inputs[:, first : first + size] = hot.to(problem.inputs.dtype)
    return problem


def _table() -> list[MLPConfig]:
    rng = random.Random(5)
    table = []
    for optimizer in ("adamw", "sgd"):
        for depth in range(3):
            for _ in range(5):
                tangent = rng.random() < 0.5
                config = MLPConfig(
                    widths=tuple(rng.choice([7, 16]) for _ in range(depth)),
                    activation=rng.choice(["relu", "tanh", "selu", "sigmoid"]),
                    optimizer=optimizer,
                    category_embedding=rng.choice(["learned", "learned", "none"]),
                    submembers=rng.choice([1, 1, 3]),
                    sharing=rng.choice(SHARINGS),
                    parametrization="neural_tangent" if tangent else "standard",
                    learning_rate=0.05 if tangent else 0.02,
                    weight_decay=rng.choice([0.0, 0.3]),
                    dropout=rng.choice([0.0, 0.3]),
                    schedule="cosine",
                    bias=rng.random() < 0.75,
                    input_scale_rate=rng.choice([0.0, 6.0 if optimizer == "adamw" else 0.5]),
                    residual=rng.random() < 0.5,
                    normalization=rng.choice(["none", "layer"]),
                    clip_norm=None if tangent else rng.choice([None, 0.5]),
                    initialization=rng.choice(["data_driven", "kaiming_uniform"]),
                    numeric_embedding=rng.choice(["periodic", "none"]),
                    batch_size=16,
                    seed=len(table),
                )
                narrower = tuple(width - 2 for width in config.widths)
                table += [config, config.replace(widths=narrower, activation="tanh", seed=len(table) + 1)]
    return table


TABLE = _table()


def test_steps_packed_are_steps_with_torchs_embedding(make_problem: Callable[..., Any]) -> None:
    problem = _problem(make_problem)
    populations = [problem.packed(TABLE, merge=merge) for merge in (True, False)]
    for member, config in enumerate(TABLE):
        expected = problem.alone(config)
        for population in populations:
            assert problem.difference(population, member, expected) < 1e-10, config
    embedding = [bucket for bucket in populations[0].layout.buckets if bucket.shape.categories]
    assert len(embedding) < len(populations[0].layout.buckets)
    assert any(bucket.is_padded for bucket in embedding)
    for switch in ("scaled", "n_periodic", "bias", "dropout", "depth"):
        assert {bool(getattr(bucket.shape, switch)) for bucket in embedding} == {True, False}, switch
    assert {bucket.shape.submembers for bucket in embedding} == {1, 3}
    assert {bucket.shape.sharing for bucket in embedding} == set(SHARINGS)


@pytest.mark.parametrize(("loss", "n_outputs"), [("binary_logits", 1), ("squared_error", 2)])
def test_other_losses_and_weights(make_problem: Callable[..., Any], loss: str, n_outputs: int) -> None:
    problem = _problem(make_problem, loss=loss, n_outputs=n_outputs, weighted=True)
    configs = TABLE[::7]
    population = problem.packed(configs, merge=True)
    for member, config in enumerate(configs):
        assert problem.difference(population, member, problem.alone(config)) < 1e-10, config


def test_members_without_an_embedding_differ(make_problem: Callable[..., Any]) -> None:
    problem = _problem(make_problem)
    configs = [MLPConfig(widths=(8,), category_embedding=kind, seed=1) for kind in CATEGORY_EMBEDDINGS]
    population = problem.packed(configs, merge=True)
    plain, embedded = (population.layout.architecture(member) for member in range(2))
    saved = sum(size - category_dimension(size) for size in (9, 20))
    assert plain.fan_in - embedded.fan_in == saved == 16
    assert plain.n_parameters - embedded.n_parameters == 8 * 16 - 9 * 5 - 20 * 8
