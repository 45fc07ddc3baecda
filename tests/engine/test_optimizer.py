"""The packed optimizer against torch.optim on random gradients, member by member."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from parallelmlp_search.engine import Population
from parallelmlp_search.engine.optimizer import MAX_PIECE_ELEMENTS, PackedOptimizer
from parallelmlp_search.engine.step_coefficients import AVERAGE_EVERY, AVERAGE_POWER, average_share
from parallelmlp_search.packing import DataShape
from parallelmlp_search.packing.pack import build_module, module_vector, read_member, write_member
from parallelmlp_search.space import MLPConfig

D, C = 3, 2
CONFIGS = [
    MLPConfig(widths=(5, 4), learning_rate=0.1, seed=1),
    MLPConfig(widths=(5, 4), learning_rate=0.01, weight_decay=0.3, beta1=0.0, seed=2),
    MLPConfig(widths=(5, 4), learning_rate=0.03, weight_decay=0.01, beta1=0.5, beta2=0.0, seed=3),
    MLPConfig(widths=(3, 2), learning_rate=1e-8, beta2=0.9, normalization="layer", seed=4),
    MLPConfig(widths=(7,), weight_decay=0.1, learning_rate=0.2, normalization="layer", clip_norm=0.5, seed=5),
    MLPConfig(widths=(7,), learning_rate=0.1, normalization="layer", clip_norm=1e6, seed=6),  # never clips
    MLPConfig(widths=(), learning_rate=0.1, weight_decay=0.1, bias=False, seed=7),
    MLPConfig(widths=(5, 4), optimizer="sgd", learning_rate=0.1, momentum=0.0, weight_decay=0.2, seed=8),
    MLPConfig(widths=(5, 4), optimizer="sgd", learning_rate=0.05, momentum=0.9, seed=9),
    MLPConfig(widths=(5, 4), optimizer="sgd", momentum=0.5, weight_decay=0.1, clip_norm=0.01, seed=10),
    MLPConfig(widths=(1,), schedule="one_cycle", learning_rate=0.1, seed=11),
    # the first factor is zero, by which the packed form must not divide
    MLPConfig(widths=(1,), schedule="cosine_log", learning_rate=0.1, weight_decay=0.1, seed=12),
    MLPConfig(widths=(2,), schedule="cosine", optimizer="sgd", learning_rate=0.1, seed=13),
    MLPConfig(widths=(3, 2), learning_rate=0.05, weight_decay=0.1, seed=14),  # padded into the first bucket
    MLPConfig(widths=(2, 4), optimizer="sgd", learning_rate=0.1, weight_decay=0.1, seed=15),
]
TOTAL_STEPS = 90  # more than one table of coefficients


def _population(configs: list[MLPConfig], **options: bool) -> Population:
    return Population.create(configs, DataShape(D, C), rows=torch.zeros(1, D, dtype=torch.float64), **options)


def _gradient(config: MLPConfig, step: int, size: int) -> Tensor:
    generator = torch.Generator().manual_seed(1000 * config.seed + step)
    # of very different magnitudes, including zero
    scale = 10.0 ** (torch.rand(1, dtype=torch.float64, generator=generator) * 6 - 5)
    gradient = scale * torch.randn(size, dtype=torch.float64, generator=generator)
    gradient[::7] = 0.0
    return gradient


def _step(optimizer: PackedOptimizer, population: Population) -> None:
    for number in range(len(population.layout.buckets)):
        optimizer.clip_bucket(number)
        optimizer.step_bucket(number, population.step)
    population.step += 1


def _run(
    population: Population, n_steps: int, spoil: Callable[[int, Tensor], None] | None = None
) -> Population:
    gradients = torch.zeros_like(population.parameters)
    optimizer = PackedOptimizer(population, gradients, TOTAL_STEPS)
    while population.step < n_steps:
        gradients.zero_()
        for member, config in enumerate(population.configs):
            size = population.layout.architecture(member).n_parameters
            write_member(gradients, population.layout, member, _gradient(config, population.step, size))
        if spoil is not None:
            spoil(population.step, gradients)
        _step(optimizer, population)
    return population


def _alone(config: MLPConfig, start: Tensor, n_steps: int, factor: Callable[[float], float]) -> list[Tensor]:
    """Weights after each step of torch.optim on the same gradients."""
    architecture = _population([config]).layout.architecture(0)
    network = build_module(architecture, start)
    weights = [p for p in network.parameters() if p.ndim == 2]
    others = [p for p in network.parameters() if p.ndim != 2]
    groups = [{"params": weights, "weight_decay": config.weight_decay}]
    if others:
        groups.append({"params": others, "weight_decay": 0.0})
    optimizer: torch.optim.Optimizer
    if config.optimizer == "adamw":
        optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(config.beta1, config.beta2))
    else:
        optimizer = torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum)
    trace = []
    for step in range(n_steps):
        gradient = _gradient(config, step, architecture.n_parameters)
        offset = 0
        for parameter in network.parameters():
            size = parameter.numel()
            parameter.grad = gradient[offset : offset + size].view(parameter.shape).clone()
            offset += size
        if config.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * factor(step / TOTAL_STEPS)
        optimizer.step()
        trace.append(module_vector(network))
    return trace


def _factor(name: str) -> Callable[[float], float]:
    from parallelmlp_search.engine.schedule import schedule_factors

    return lambda t: float(schedule_factors([name], torch.tensor([t], dtype=torch.float64)))


@pytest.fixture(scope="module", params=[True, False], ids=["merged", "exact"])
def trained(request: pytest.FixtureRequest) -> tuple[Population, Population]:
    return _population(CONFIGS, merge=request.param), _run(_population(CONFIGS, merge=request.param), 80)


@pytest.mark.parametrize("member", range(len(CONFIGS)))
def test_eighty_steps_are_those_of_torch(trained: tuple[Population, Population], member: int) -> None:
    start, end = trained
    config = CONFIGS[member]
    vector = read_member(start.parameters, start.layout, member)
    trace = _alone(config, vector, 80, _factor(config.schedule))
    result = read_member(end.parameters, end.layout, member)
    torch.testing.assert_close(result, trace[-1], rtol=1e-11, atol=1e-11)
    # every step moves the weights, except one with a rate of zero
    assert not torch.allclose(result, trace[-2], rtol=1e-11, atol=1e-11)
    average = read_member(end.flats["average"], end.layout, member)
    torch.testing.assert_close(average, _polynomial_average(trace), rtol=1e-11, atol=1e-11)
    assert not torch.allclose(average, result, rtol=1e-11, atol=1e-11)


def _polynomial_average(trace: list[Tensor]) -> Tensor:
    """Average of snapshots 1, 2, ... in proportion to j (j+1) ... (j+8), a rising factorial of about j**9."""
    snapshots = [trace[0], *trace[AVERAGE_EVERY - 1 :: AVERAGE_EVERY]]
    shares = []
    for j in range(1, len(snapshots) + 1):
        share = 1.0
        for k in range(int(AVERAGE_POWER)):
            share *= j + k
        shares.append(share)
    total = torch.zeros_like(trace[0])
    for snapshot, share in zip(snapshots, shares, strict=True):
        total += snapshot * (share / sum(shares))
    return total


def test_the_last_tenth_dominates_the_average() -> None:
    shares, left = [], 1.0
    for step in range(4000 - 1, -1, -1):
        if (step + 1) % AVERAGE_EVERY and step:
            continue
        shares.append(left * average_share(step))
        left *= 1.0 - average_share(step)
    assert sum(shares) == pytest.approx(1.0)
    assert 0.6 < sum(shares[: len(shares) // 10]) < 0.7  # 1 - 0.9**10
    assert left == 0.0  # the initial weights have no share


def test_padding_stays_zero() -> None:
    population = _run(_population(CONFIGS, merge=True), 20)
    assert any(bucket.is_padded for bucket in population.layout.buckets)
    for flat in population.flats.values():
        copy = flat.clone()
        for member in range(population.n_members):
            size = population.layout.architecture(member).n_parameters
            write_member(copy, population.layout, member, torch.zeros(size, dtype=torch.float64))
        assert not copy.any()


@pytest.mark.parametrize(
    ("member", "changes"),
    [
        (0, {"learning_rate": 0.1 * (1 + 1e-9)}),
        (1, {"weight_decay": 0.3 * (1 + 1e-9)}),
        (1, {"beta1": 1e-9}),
        (3, {"beta2": 0.9 - 1e-3}),  # its learning rate is 1e-8
        (4, {"clip_norm": 0.5 * (1 + 1e-9)}),
        (8, {"momentum": 0.9 + 1e-9}),
        (10, {"schedule": "cosine"}),
    ],
)
def test_each_hyperparameter_is_read(member: int, changes: dict[str, object]) -> None:
    config = CONFIGS[member]
    before = _run(_population([config]), 10).parameters
    after = _run(_population([config.replace(**changes)]), 10).parameters
    difference = float((before - after).abs().max())
    assert 1e-13 < difference < 1.0


def test_decay_reaches_weights_only() -> None:
    config = MLPConfig(widths=(4,), normalization="layer", weight_decay=0.5, learning_rate=0.1)
    for optimizer in ("adamw", "sgd"):
        population = _population([config.replace(optimizer=optimizer)])
        before = read_member(population.parameters, population.layout, 0)
        packed = PackedOptimizer(population, torch.zeros_like(population.parameters), 10)
        _step(packed, population)
        after = read_member(population.parameters, population.layout, 0)
        offset = 0
        for _, kind, rows, columns in population.layout.architecture(0).block_shapes():
            part = slice(offset, offset + rows * columns)
            expected = before[part] * (0.95 if kind == "weight" else 1.0)
            torch.testing.assert_close(after[part], expected, rtol=1e-13, atol=1e-13)
            offset += rows * columns


def test_blocks_larger_than_a_piece() -> None:
    # a wide member has 300 x 400 elements and is a piece of its own; the narrow ones share pieces
    wide = [MLPConfig(widths=(400, 300), learning_rate=0.1, seed=s, clip_norm=1.0) for s in range(2)]
    narrow = [MLPConfig(widths=(40, 30), learning_rate=0.1, seed=s, clip_norm=1.0) for s in range(60)]
    population = _population([*wide, *narrow], merge=False)
    assert 400 * 300 > MAX_PIECE_ELEMENTS > 40 * 30
    assert MAX_PIECE_ELEMENTS < 40 * 30 * 60
    _run(population, 2)
    for member in (0, 1, 2, 29, 30, 61):
        config = population.configs[member]
        start = _population([config])
        alone = _run(start, 2)
        expected = read_member(alone.parameters, alone.layout, 0)
        result = read_member(population.parameters, population.layout, member)
        torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)


def test_clipping_is_per_member() -> None:
    population = _population(
        [MLPConfig(widths=(4,), clip_norm=norm, seed=s) for s, norm in enumerate((1, 2, 5))]
    )
    gradients = torch.zeros_like(population.parameters)
    optimizer = PackedOptimizer(population, gradients, 10)
    size = population.layout.architecture(0).n_parameters
    vectors = [torch.full((size,), value, dtype=torch.float64) for value in (100.0, 1e-3, float("nan"))]
    for member, vector in enumerate(vectors):
        write_member(gradients, population.layout, member, vector)
    optimizer.clip_bucket(0)
    clipped = [read_member(gradients, population.layout, member) for member in range(3)]
    assert float(clipped[0].norm()) == pytest.approx(1.0, rel=1e-6)
    assert torch.equal(clipped[1], vectors[1])  # below its norm: the same bits
    assert clipped[2].isnan().all()


def test_a_broken_gradient_affects_its_own_member_only() -> None:
    def spoil(step: int, gradients: Tensor) -> None:
        if step == 3:
            size = population.layout.architecture(4).n_parameters
            write_member(
                gradients, population.layout, 4, torch.full((size,), float("nan"), dtype=torch.float64)
            )

    clean = _run(_population(CONFIGS), 8)
    population = _population(CONFIGS)
    _run(population, 8, spoil)
    for name in ("parameters", "first_moment", "second_moment", "average"):
        for member in range(len(CONFIGS)):
            got = read_member(population.flats[name], population.layout, member)
            expected = read_member(clean.flats[name], clean.layout, member)
            assert torch.equal(got, expected) == (member != 4)


def test_frozen_members_stay_where_they_are() -> None:
    population = _run(_population(CONFIGS), 5)
    expected = _run(_population(CONFIGS), 9)
    gradients = torch.zeros_like(population.parameters)
    optimizer = PackedOptimizer(population, gradients, TOTAL_STEPS)
    frozen = torch.zeros(len(CONFIGS), dtype=torch.bool)
    rows = population.member_rows()
    frozen[rows[[0, 7]]] = True  # one of AdamW, one of SGD
    optimizer.freeze(frozen)
    while population.step < 9:
        gradients.zero_()
        for member, config in enumerate(CONFIGS):
            size = population.layout.architecture(member).n_parameters
            write_member(gradients, population.layout, member, _gradient(config, population.step, size))
        _step(optimizer, population)
    for member in range(len(CONFIGS)):
        got = read_member(population.parameters, population.layout, member)
        if member in (0, 7):
            assert float(got.abs().max()) < 1e-20
        else:
            assert torch.equal(got, read_member(expected.parameters, expected.layout, member))
