"""Members with submembers end with the same weights as networks trained alone.

The reference multiplies rows by adapters and has a head and a loss for each submember.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from parallelmlp_search.space import MLPConfig
from parallelmlp_search.space.config import SHARINGS

N_NUMBERS = 3


def _table() -> list[MLPConfig]:
    """Recipes drawn from a fixed seed, each also with narrower widths, which may be padded."""
    rng = random.Random(3)
    table = []
    for optimizer in ("adamw", "sgd"):
        for sharing in SHARINGS:
            for depth in range(4):
                for _ in range(3):
                    tangent = rng.random() < 0.4
                    config = MLPConfig(
                        # 16 is what 7 columns become, of which 3 are numbers
                        widths=tuple(rng.choice([7, 16, 16]) for _ in range(depth)),
                        activation=rng.choice(["relu", "tanh", "selu", "mish", "sigmoid"]),
                        optimizer=optimizer,
                        submembers=rng.choice([1, 2, 3, 5]),
                        sharing=sharing,
                        parametrization="neural_tangent" if tangent else "standard",
                        learning_rate=0.05 if tangent else 0.02,
                        weight_decay=rng.choice([0.0, 0.3]),
                        dropout=rng.choice([0.0, 0.3]),
                        dropout_schedule=rng.choice(["constant", "cosine"]),
                        label_smoothing=rng.choice([0.0, 0.1]),
                        schedule="cosine",
                        bias=rng.random() < 0.75,
                        bias_rate=rng.choice([1.0, 0.1]),
                        input_scale_rate=rng.choice([0.0, 0.0, 6.0 if optimizer == "adamw" else 0.5]),
                        residual=rng.random() < 0.7,
                        normalization=rng.choice(["none", "layer"]),
                        clip_norm=None if tangent else rng.choice([None, 0.5]),
                        initialization=rng.choice(["data_driven", "kaiming_uniform", "xavier_normal"]),
                        head_initialization=rng.choice(["same", "same", "zero"]),
                        numeric_embedding=rng.choice(["periodic", "none"]),
                        batch_size=16,
                        seed=len(table),
                    )
                    narrower = tuple(width - 2 for width in config.widths)
                    table += [config, config.replace(widths=narrower, activation="tanh", seed=len(table) + 1)]
    return table


TABLE = _table()


def test_steps_packed_are_steps_alone(make_problem: Callable[..., Any]) -> None:
    problem = make_problem(n_numbers=N_NUMBERS, n_steps=30)
    populations = [problem.packed(TABLE, merge=merge) for merge in (True, False)]
    for member, config in enumerate(TABLE):
        expected = problem.alone(config)
        for population in populations:
            assert problem.difference(population, member, expected) < 1e-10, config
    expanded = [bucket for bucket in populations[0].layout.buckets if bucket.shape.is_expanded]
    assert len(expanded) < len(populations[0].layout.buckets)
    shapes = [bucket.shape for bucket in expanded]
    for switch in ("scaled", "n_periodic", "bias", "dropout", "clip"):
        assert {bool(getattr(shape, switch)) for shape in shapes} == {True, False}, switch
    assert {shape.normalization for shape in shapes} == {"none", "layer"}
    assert any(shape.residual and shape.residual[0] for shape in shapes)
    padded = [bucket.shape for bucket in expanded if bucket.is_padded]
    assert any(shape.sharing == "full" and shape.depth > 1 for shape in padded)
    assert any(shape.sharing == "mini" and shape.scaled for shape in padded)


@pytest.mark.parametrize(
    ("loss", "n_outputs"), [("binary_logits", 1), ("squared_error", 1), ("squared_error", 3)]
)
@pytest.mark.parametrize("weighted", [False, True])
def test_other_losses(make_problem: Callable[..., Any], loss: str, n_outputs: int, weighted: bool) -> None:
    problem = make_problem(loss, n_outputs=n_outputs, weighted=weighted, n_numbers=N_NUMBERS, n_steps=20)
    configs = TABLE[::9]
    population = problem.packed(configs, merge=True)
    for member, config in enumerate(configs):
        assert problem.difference(population, member, problem.alone(config)) < 1e-10, config


@pytest.mark.parametrize(
    ("submembers", "batch_size"), [(2, 1), (5, 3), (32, 16)], ids=["one row", "rows below", "many"]
)
def test_more_submembers_than_rows(
    make_problem: Callable[..., Any], submembers: int, batch_size: int
) -> None:
    config = MLPConfig(
        widths=(6,), submembers=submembers, dropout=0.4, learning_rate=0.02, batch_size=batch_size
    )
    problem = make_problem(batch_size=batch_size, n_steps=10)
    population = problem.packed([config, config.replace(sharing="full")], merge=True)
    for member, sharing in enumerate(SHARINGS):
        reference = problem.alone(config.replace(sharing=sharing))
        assert problem.difference(population, member, reference) < 1e-10


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("sharing", SHARINGS)
@pytest.mark.parametrize(
    "change",
    [
        {"dropout": 0.0},
        {"bias_rate": 1.0},
        {"weight_decay": 0.0},
        {"input_scale_rate": 0.7},
        {"parametrization": "standard"},
        {"initialization": "data_driven"},
        {"head_initialization": "zero"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_recipes_differ(
    make_problem: Callable[..., Any], optimizer: str, sharing: str, change: dict[str, Any]
) -> None:
    config = MLPConfig(
        widths=(8, 5),
        activation="silu",
        optimizer=optimizer,
        submembers=3,
        sharing=sharing,
        parametrization="neural_tangent",
        learning_rate=0.05,
        weight_decay=0.2,
        dropout=0.2,
        bias_rate=0.5,
        input_scale_rate=0.5,
        initialization="lecun_normal",
        batch_size=16,
    )
    problem = make_problem(n_steps=20, total_epochs=5)
    expected = problem.alone(config)
    assert problem.difference(problem.packed([config], merge=True), 0, expected) < 1e-10
    assert problem.difference(problem.packed([config.replace(**change)], merge=True), 0, expected) > 1e-6


def test_numbers_of_submembers_and_sharing_differ(make_problem: Callable[..., Any]) -> None:
    """The number of submembers and sharing change the weights; a linear model has nothing to share."""
    problem = make_problem(n_steps=20)
    config = MLPConfig(widths=(8,), learning_rate=0.02, batch_size=16, submembers=2)
    shapes = {
        len(problem.alone(other))
        for other in (config, config.replace(submembers=1), config.replace(sharing="full"))
    }
    assert shapes == {
        7 * 8 + 8 + 8 * 3 + 3,
        7 * 8 + 8 + 2 * (7 + 8 * 3 + 3),
        7 * 8 + 2 * (7 + 8 + 8 + 8 * 3 + 3),
    }
    linear = config.replace(widths=())
    assert (
        problem.difference(
            problem.packed([linear], merge=True), 0, problem.alone(linear.replace(sharing="full"))
        )
        < 1e-10
    )
