"""Training of monotone networks: compiled loops against the general way, and weights within their bounds."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from parallelmlp_search.engine import (
    BatchStream,
    Evaluation,
    Population,
    TrainingRows,
    TrainingSettings,
    train,
)
from parallelmlp_search.engine.acceleration import choose_acceleration
from parallelmlp_search.packing import DataShape
from parallelmlp_search.packing.monotone import violations
from parallelmlp_search.packing.pack import read_member
from parallelmlp_search.space import ColumnGroups, MLPConfig
from parallelmlp_search.space.monotone import MONOTONE_CHOICES

COLUMNS = ColumnGroups(n_numbers=4, categories=((5, 9),), signs=((0, 2, 1), (2, 3, -1)))
DATA = DataShape(14, 1, COLUMNS)
ACTIVATIONS = MONOTONE_CHOICES["activation"]
CONFIGS = [
    MLPConfig(
        widths=((8,), (11, 8), (5, 5, 5), (), (14, 14), (1,))[seed % 6],
        activation=ACTIVATIONS[seed % len(ACTIVATIONS)],
        optimizer=("adamw", "sgd")[seed // 6 % 2],
        learning_rate=0.03,
        weight_decay=0.1 * (seed % 2),
        dropout=(0.0, 0.25)[seed // 2 % 2],
        residual=seed % 4 == 0,
        bias=seed % 7 != 3,
        input_scale_rate=(0.0, 2.0)[seed // 3 % 2],
        parametrization=("standard", "neural_tangent")[seed // 5 % 2],
        initialization=("kaiming_uniform", "data_driven")[seed // 4 % 2],
        category_embedding=("none", "learned")[seed // 3 % 2],
        submembers=(1, 1, 3)[seed % 3],
        sharing=("mini", "full")[seed // 3 % 2],
        clip_norm=(None, 0.5)[seed % 2],
        batch_size=16,
        seed=seed,
    )
    for seed in range(36)
] + [MLPConfig(widths=pair, learning_rate=0.03, batch_size=16, seed=9) for pair in ((5, 7), (8, 8), (6, 8))]


def trained(data: DataShape = DATA, dtype: torch.dtype = torch.float32, **options: object) -> Population:
    """Population after three epochs on a target against the signs, so that training strains at the bounds."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(96, 14, generator=generator).to(dtype)
    target = (2.0 * inputs[:, 2:3] - inputs[:, :1] + inputs[:, 4:5].sin()).T.contiguous()
    population = Population.create(CONFIGS, data, rows=inputs)
    settings = TrainingSettings(
        stream=BatchStream(96, 16, 3),
        loss="squared_error",
        until_epoch=3,
        total_epochs=6,
        evaluation=Evaluation(inputs, lambda outputs: (outputs - target).square().mean((1, 2))),
        evaluate_every=1,
    )
    train(population, TrainingRows(inputs, target), replace(settings, **options))
    return population


def beyond(population: Population, name: str, data: DataShape = DATA) -> int:
    """Weights of all members beyond the bounds of the data."""
    shapes = Population.create(CONFIGS, data, rows=torch.zeros(1, 14)).layout
    return sum(
        violations(
            read_member(population.flats[name], population.layout, member).numpy(),
            shapes.architecture(member),
        )
        for member in range(population.n_members)
    )


@pytest.fixture(scope="module")
def compiled() -> Population:
    pytest.importorskip("numba")
    return trained(compiled=True)


def test_compiled_loops_keep_the_bounds(compiled: Population) -> None:
    assert any(bucket.is_padded for bucket in compiled.layout.buckets)
    for name in ("parameters", "average", "best"):
        assert beyond(compiled, name) == 0
    at_zero = read_member(compiled.parameters, compiled.layout, 0) == 0
    assert 0 < int(at_zero.sum()) < len(at_zero)


def test_compiled_loops_agree_with_the_general_way(compiled: Population) -> None:
    plain = trained(compiled=False)
    for name in ("parameters", "average"):
        assert beyond(plain, name) == 0
        for member in range(plain.n_members):
            got, expected = (read_member(one.flats[name], one.layout, member) for one in (compiled, plain))
            assert torch.allclose(got, expected, rtol=1e-3, atol=1e-4), CONFIGS[member]


def test_graphs_agree_with_the_general_way() -> None:
    plain = trained(dtype=torch.float64)
    graphed = trained(dtype=torch.float64, acceleration="graph", capture=lambda step: step)
    assert beyond(graphed, "parameters") == 0
    for member, config in enumerate(CONFIGS):
        if not config.dropout:  # whose noise differs
            got, expected = (read_member(one.parameters, one.layout, member) for one in (graphed, plain))
            assert torch.allclose(got, expected, rtol=1e-9, atol=1e-11)


def test_without_signs_training_crosses_the_bounds() -> None:
    free = replace(DATA, columns=replace(COLUMNS, signs=()))
    population = trained(free, compiled=False)
    assert beyond(population, "parameters") > 100


def test_the_persistent_kernel_leaves_them_to_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parallelmlp_search.engine.acceleration.runs_on", lambda _: True)
    configs = [MLPConfig(widths=(16,), batch_size=16)]
    for data, reason in ((DATA, "the kernel does not support bounds of weights"), (DataShape(14, 1), None)):
        population = Population.create(configs, data)
        found = choose_acceleration(
            population.layout,
            configs,
            loss="squared_error",
            dtype=torch.float32,
            device="cpu",
            acceleration="persistent",
        )
        assert found.obstacles.get(0) == reason
        assert found.graph == (() if reason is None else (0,))
