"""A member of a population ends with the same weights as a network trained alone.

Layer normalization is tested with widths of 3 and more. Over one neuron it gives zero, and over two plus and
minus one, for any weights. Exact gradients are zero there or jump, so Adam would amplify rounding errors.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch

from parallelmlp_search.engine import Population
from parallelmlp_search.space import MLPConfig
from parallelmlp_search.space.config import ACTIVATIONS, INITIALIZATIONS, OPTIMIZERS, SCHEDULES

WIDTHS = (1, 2, 7, 8, 13, 16, 31)  # one, primes, powers of two, and the number of inputs
DEPTHS = range(5)


def _table() -> list[MLPConfig]:
    """Member for each activation, optimizer and depth; all else is drawn from a fixed seed."""
    rng = random.Random(1)
    table = []
    for activation in ACTIVATIONS:
        for optimizer in OPTIMIZERS:
            for depth in DEPTHS:
                normalization = rng.choice(["none", "layer"])
                narrowest = 3 if normalization == "layer" else 1
                allowed = [width for width in WIDTHS if width >= narrowest]
                widths = [rng.choice(allowed) for _ in range(depth)]
                if depth >= 2 and rng.random() < 0.4:
                    widths = [widths[0]] * depth  # every layer can be residual
                rate = rng.choice([1e-3, 1e-2, 3e-2]) if optimizer == "adamw" else 0.02
                table.append(
                    MLPConfig(
                        widths=tuple(widths),
                        activation=activation,
                        optimizer=optimizer,
                        learning_rate=rate,
                        weight_decay=rng.choice([0.0, 0.1]),
                        label_smoothing=rng.choice([0.0, 0.1]),
                        beta1=rng.choice([0.9, 0.8]),
                        beta2=rng.choice([0.999, 0.95]),
                        momentum=rng.choice([0.0, 0.9]),
                        schedule=rng.choice(SCHEDULES),
                        initialization=rng.choice(INITIALIZATIONS),
                        bias=rng.random() < 0.75,
                        residual=rng.random() < 0.5,
                        normalization=normalization,
                        clip_norm=rng.choice([None, 0.5]),
                        batch_size=16,
                        seed=len(table),
                    )
                )
    return table


TABLE = _table()
rows = pytest.mark.parametrize(
    ("activation", "optimizer", "depth"),
    [(a, o, d) for a in ACTIVATIONS for o in OPTIMIZERS for d in DEPTHS],
)


@pytest.fixture(scope="module")
def problem(make_problem: Callable[..., Any]) -> Any:
    return make_problem()


@pytest.fixture(scope="module")
def populations(problem: Any) -> dict[str, Population]:
    return {"merged": problem.packed(TABLE, merge=True), "exact": problem.packed(TABLE, merge=False)}


@rows
def test_fifty_steps_packed_are_fifty_steps_alone(
    problem: Any, populations: dict[str, Population], activation: str, optimizer: str, depth: int
) -> None:
    (member,) = [
        number
        for number, config in enumerate(TABLE)
        if (config.activation, config.optimizer, config.depth) == (activation, optimizer, depth)
    ]
    expected = problem.alone(TABLE[member])
    for layout, population in populations.items():
        difference = problem.difference(population, member, expected)
        assert difference < 1e-10, f"{layout}: {difference:g} with {TABLE[member]}"


def test_the_table_covers_every_edge(populations: dict[str, Population]) -> None:
    """The table contains every edge."""
    assert len(TABLE) == 13 * 2 * 5
    for optimizer in OPTIMIZERS:
        own = [config for config in TABLE if config.optimizer == optimizer]
        assert {config.depth for config in own} == set(DEPTHS)
        assert {width for config in own for width in config.widths} == set(WIDTHS)
        assert {config.schedule for config in own} == set(SCHEDULES)
        assert {config.initialization for config in own} == set(INITIALIZATIONS)
        for switch in (
            {config.bias for config in own},
            {config.residual for config in own},
            {config.normalization for config in own},
            {config.clip_norm for config in own},
            {config.weight_decay for config in own},
            {config.label_smoothing for config in own},
        ):
            assert len(switch) == 2
    assert len({config.widths for config in TABLE if config.depth > 1}) > 50
    exact, merged = populations["exact"].layout, populations["merged"].layout
    assert not any(bucket.is_padded for bucket in exact.buckets)
    padded = [bucket for bucket in merged.buckets if bucket.is_padded]
    assert len(merged.buckets) < len(exact.buckets)
    # padding occurs with everything that treats padded neurons separately
    assert any(bucket.shape.normalization == "layer" for bucket in padded)
    assert any(any(bucket.shape.residual) for bucket in padded)
    assert any(bucket.shape.clip for bucket in padded)
    assert {bucket.shape.optimizer for bucket in padded} == set(OPTIMIZERS)
    assert {bucket.shape.depth for bucket in padded} == {1, 2, 3, 4}
    in_padding = {segment.activation for bucket in padded for segment in bucket.segments}
    assert {"sigmoid", "softplus"} <= in_padding  # not zero at zero
    assert any(len(bucket.segments) > 2 for bucket in merged.buckets)


TWINS = [
    # (activation, optimizer, depth) of a row of the table, and the change of the reference
    ("tanh", "adamw", 2, {"seed": 999}),
    ("tanh", "adamw", 2, {"learning_rate": 1 + 1e-6}),
    ("tanh", "sgd", 3, {"learning_rate": 1 + 1e-6}),
    ("gelu", "adamw", 1, {"weight_decay": 0.1 + 1e-6}),
    ("gelu", "sgd", 1, {"weight_decay": 0.1 + 1e-6}),
    ("silu", "adamw", 2, {"beta1": 0.85}),
    ("silu", "adamw", 2, {"beta2": 0.99}),
    ("silu", "sgd", 2, {"momentum": 0.5}),
    ("mish", "adamw", 3, {"label_smoothing": 0.2}),
    ("mish", "sgd", 3, {"clip_norm": 0.01}),
    ("relu", "adamw", 0, {"schedule": None}),
    ("elu", "sgd", 4, {"schedule": None}),
    ("sine", "adamw", 1, {"activation": "identity"}),
    ("selu", "adamw", 2, {"optimizer": "sgd"}),
]


@pytest.mark.parametrize(("activation", "optimizer", "depth", "changes"), TWINS)
def test_a_reference_with_one_change_differs(
    problem: Any,
    populations: dict[str, Population],
    activation: str,
    optimizer: str,
    depth: int,
    changes: dict[str, Any],
) -> None:
    (member,) = [
        number
        for number, config in enumerate(TABLE)
        if (config.activation, config.optimizer, config.depth) == (activation, optimizer, depth)
    ]
    config = TABLE[member]
    changes = dict(changes)
    if "learning_rate" in changes:
        changes["learning_rate"] *= config.learning_rate
    if "schedule" in changes:
        changes["schedule"] = "linear" if config.schedule != "linear" else "cosine"
    reference = problem.alone(config.replace(**changes))
    for population in populations.values():
        assert problem.difference(population, member, reference) > 1e-9


@pytest.mark.parametrize(
    "changes", [{"bias": False}, {"residual": True}, {"normalization": "layer"}, {"widths": (7, 6)}], ids=str
)
def test_a_reference_of_another_structure_differs(problem: Any, changes: dict[str, Any]) -> None:
    config = MLPConfig(widths=(7, 7), activation="tanh", learning_rate=0.01, batch_size=16)
    other = config.replace(**changes)
    population = problem.packed([config, other], merge=True)
    own, theirs = problem.alone(config), problem.alone(other)
    assert problem.difference(population, 0, own) < 1e-10
    assert problem.difference(population, 1, theirs) < 1e-10
    if own.shape == theirs.shape:
        assert problem.difference(population, 0, theirs) > 1e-3
    else:
        assert "residual" not in changes


ACTIVE = [
    config.replace(label_smoothing=smoothing, schedule="cosine", normalization="none")
    for config, smoothing in zip(TABLE[3::11], [0.0, 0.1, 0.3] * 4, strict=True)
]


@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("loss", "n_outputs"),
    [
        ("cross_entropy", 2),
        ("cross_entropy", 10),
        ("binary_logits", 1),
        ("squared_error", 1),
        ("squared_error", 3),  # several targets at once
        ("huber:0.5", 1),
        ("quantile:0.9", 2),
        ("poisson", 1),
        ("gamma", 2),
    ],
)
def test_every_loss(
    make_problem: Callable[..., Any], loss: str, n_outputs: int, weighted: bool, merge: bool
) -> None:
    # fifty rows and batches of 16: batches reach into the next epoch
    problem = make_problem(loss, n_outputs=n_outputs, weighted=weighted, n_rows=50, n_steps=25)
    configs = ACTIVE[:6]
    population = problem.packed(configs, merge=merge)
    for member, config in enumerate(configs):
        assert problem.difference(population, member, problem.alone(config)) < 1e-10
    other = make_problem(loss, n_outputs=n_outputs, weighted=not weighted, n_rows=50, n_steps=25)
    assert problem.difference(population, 0, other.alone(configs[0])) > 1e-6


def test_dropout_by_the_shared_fields(make_problem: Callable[..., Any]) -> None:
    problem = make_problem(n_steps=30)
    rates = (0.1, 0.5, 0.25, 0.0)
    configs = [
        config.replace(dropout=rate, normalization="none", residual=residual)
        for config, rate in zip([c for c in TABLE if c.depth > 1][::6], rates * 4, strict=False)
        for residual in (False, True)
    ]
    wide = [config for config in TABLE if config.depth > 1 and min(config.widths) >= 3]
    configs += [config.replace(dropout=0.3, normalization="layer") for config in wide[::9]]
    assert len(configs) > 20
    populations = [problem.packed(configs, merge=merge) for merge in (True, False)]
    for member, config in enumerate(configs):
        expected = problem.alone(config)
        without = (
            problem.alone(config.replace(dropout=0.0)) if config.dropout > 0 and member % 3 == 0 else None
        )
        for population in populations:
            assert problem.difference(population, member, expected) < 1e-10, config
            assert without is None or problem.difference(population, member, without) > 1e-6


def test_single_precision_with_sgd(make_problem: Callable[..., Any]) -> None:
    # Adam divides rounding errors by each other where a gradient is close to zero; SGD does not
    problem = make_problem(dtype=torch.float32)
    configs = [config for config in TABLE if config.optimizer == "sgd"]
    populations = [problem.packed(configs, merge=merge) for merge in (True, False)]
    for member, config in enumerate(configs):
        expected = problem.alone(config)
        assert expected.dtype == torch.float32
        for population in populations:
            difference = problem.difference(population, member, expected)
            assert difference < 1e-5, f"{difference:g} with {config}"
    reference = problem.alone(configs[1].replace(seed=999))
    assert problem.difference(populations[0], 1, reference) > 1e-3


@pytest.mark.parametrize(
    ("configs", "n_rows", "n_inputs", "batch_size"),
    [
        pytest.param([MLPConfig(widths=(1,), learning_rate=0.01)], 100, 7, 16, id="one member of width 1"),
        pytest.param([MLPConfig(widths=())], 100, 7, 16, id="one linear member"),
        pytest.param([MLPConfig(widths=(5,))] * 3, 100, 1, 16, id="one input, equal members"),
        pytest.param([MLPConfig(widths=(5,), seed=s) for s in range(13)], 100, 7, 1, id="batches of one row"),
        pytest.param([MLPConfig(widths=(5, 3)), MLPConfig(widths=(3, 5))], 13, 7, 13, id="a batch an epoch"),
        pytest.param(
            [MLPConfig(widths=(w,), bias=False, activation="softplus") for w in range(1, 24)], 17, 3, 7,
            id="prime rows, widths 1 to 23, no bias",
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("merge", [True, False])
def test_small_and_odd_populations(
    make_problem: Callable[..., Any],
    configs: list[MLPConfig],
    n_rows: int,
    n_inputs: int,
    batch_size: int,
    merge: bool,
) -> None:
    problem = make_problem(n_rows=n_rows, n_inputs=n_inputs, batch_size=batch_size, n_steps=20)
    population = problem.packed(configs, merge=merge)
    for member, config in enumerate(configs):
        assert problem.difference(population, member, problem.alone(config)) < 1e-10
    reference = problem.alone(configs[0].replace(seed=999))
    assert problem.difference(population, 0, reference) > 1e-3
