"""Members with a periodic embedding end with the same weights as networks trained alone."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from parallelmlp_search.space import MLPConfig

N_NUMBERS = 3


def _table() -> list[MLPConfig]:
    rng = random.Random(1)
    table = []
    for optimizer in ("adamw", "sgd"):
        for depth in range(4):
            for _ in range(3):
                table.append(
                    MLPConfig(
                        # 16 is what 7 columns become, of which 3 are numbers
                        widths=tuple(rng.choice([3, 8, 13, 16]) for _ in range(depth)),
                        activation=rng.choice(["relu", "tanh", "gelu", "softplus"]),
                        optimizer=optimizer,
                        learning_rate=0.02,
                        weight_decay=rng.choice([0.0, 0.1]),
                        dropout=rng.choice([0.0, 0.2]),
                        schedule=rng.choice(["cosine", "constant"]),
                        bias=rng.random() < 0.75,
                        residual=rng.random() < 0.7,
                        normalization=rng.choice(["none", "layer"]),
                        clip_norm=rng.choice([None, 0.5]),
                        numeric_embedding=rng.choice(["periodic", "periodic", "none"]),
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
    buckets = [bucket.shape for bucket in population.layout.buckets if bucket.shape.n_periodic]
    assert len(buckets) < len(population.layout.buckets)
    assert any(shape.residual and shape.residual[0] for shape in buckets)
    assert {shape.depth for shape in buckets} == {0, 1, 2, 3}
    assert any(bucket.is_padded and bucket.shape.n_periodic for bucket in population.layout.buckets) == merge


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_other_rates_and_numbers_differ(make_problem: Callable[..., Any], optimizer: str) -> None:
    config = MLPConfig(
        widths=(8,), numeric_embedding="periodic", optimizer=optimizer, learning_rate=0.02, batch_size=16
    )
    problem = make_problem(n_numbers=N_NUMBERS, n_steps=10)
    expected = problem.alone(config)
    assert problem.difference(problem.packed([config], merge=True), 0, expected) < 1e-10
    faster = config.replace(embedding_rate=0.2)
    assert problem.difference(problem.packed([faster], merge=True), 0, expected) > 1e-6
    fewer = make_problem(n_numbers=N_NUMBERS - 1, n_steps=10)
    assert fewer.alone(config).shape != expected.shape
