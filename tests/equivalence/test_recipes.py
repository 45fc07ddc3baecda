"""Members with input scales and separate rates end with the same weights as networks trained alone.

The reference divides weights by the root of their fan-in at every step, multiplies inputs row by row, and has
one learning rate and one decay per kind of parameter.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from parallelmlp_search.space import MLPConfig
from parallelmlp_search.space.config import SCHEDULES

N_NUMBERS = 3


def _table() -> list[MLPConfig]:
    rng = random.Random(2)
    table = []
    for optimizer in ("adamw", "sgd"):
        for parametrization in ("standard", "neural_tangent"):
            for depth in range(4):
                for _ in range(6):
                    tangent = parametrization == "neural_tangent"
                    table.append(
                        MLPConfig(
                            # 16 is what 7 columns become, of which 3 are numbers
                            widths=tuple(rng.choice([3, 7, 13, 16]) for _ in range(depth)),
                            activation=rng.choice(["relu", "tanh", "selu", "mish", "sigmoid"]),
                            optimizer=optimizer,
                            parametrization=parametrization,
                            learning_rate=0.1 if tangent else 0.02,
                            weight_decay=rng.choice([0.0, 0.3]),
                            weight_decay_schedule=rng.choice(SCHEDULES),
                            dropout=rng.choice([0.0, 0.3]),
                            dropout_schedule=rng.choice(SCHEDULES),
                            schedule=rng.choice(["cosine", "cosine_log"]),
                            bias=rng.random() < 0.75,
                            bias_rate=rng.choice([1.0, 0.1]),
                            input_scale_rate=rng.choice([0.0, 6.0]) if optimizer == "adamw" else 0.5,
                            residual=rng.random() < 0.5,
                            normalization=rng.choice(["none", "layer"]),
                            # clipping uses the norm of plain weights, which the reference does not have
                            clip_norm=None if tangent else rng.choice([None, 0.5]),
                            initialization=rng.choice(["data_driven", "kaiming_uniform"]),
                            head_initialization=rng.choice(["same", "zero"]),
                            numeric_embedding=rng.choice(["periodic", "none"]),
                            embedding_rate=rng.choice([0.1, 0.5]),
                            frequency_scale=rng.choice([0.1, 1.0]),
                            batch_size=16,
                            seed=len(table),
                        )
                    )
    return table


TABLE = _table()


@pytest.mark.parametrize("merge", [True, False])
def test_steps_packed_are_steps_alone(make_problem: Callable[..., Any], merge: bool) -> None:
    problem = make_problem(n_numbers=N_NUMBERS, n_steps=30)
    population = problem.packed(TABLE, merge=merge)
    for member, config in enumerate(TABLE):
        assert problem.difference(population, member, problem.alone(config)) < 1e-10, config
    shapes = [bucket.shape for bucket in population.layout.buckets]
    for switch in ("scaled", "n_periodic", "bias", "dropout", "clip"):
        assert {bool(getattr(shape, switch)) for shape in shapes} == {True, False}, switch
    padded = [bucket.shape for bucket in population.layout.buckets if bucket.is_padded]
    assert any(shape.n_periodic and shape.scaled for shape in padded) == merge


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize(
    "change",
    [
        {"parametrization": "standard"},
        {"bias_rate": 0.2},
        {"input_scale_rate": 0.7},
        {"embedding_rate": 0.2},
        {"frequency_scale": 0.2},
        {"head_initialization": "zero"},
        {"initialization": "lecun_normal"},
        {"weight_decay_schedule": "cosine"},
        {"dropout_schedule": "flat_cosine"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_recipes_differ(
    make_problem: Callable[..., Any], optimizer: str, change: dict[str, Any]
) -> None:
    config = MLPConfig(
        widths=(8, 5),
        activation="silu",
        optimizer=optimizer,
        parametrization="neural_tangent",
        learning_rate=0.05,
        weight_decay=0.2,
        dropout=0.2,
        input_scale_rate=0.5,
        initialization="data_driven",
        numeric_embedding="periodic",
        batch_size=16,
    )
    problem = make_problem(n_numbers=N_NUMBERS, n_steps=20, total_epochs=5)
    expected = problem.alone(config)
    assert problem.difference(problem.packed([config], merge=True), 0, expected) < 1e-10
    assert problem.difference(problem.packed([config.replace(**change)], merge=True), 0, expected) > 1e-6
