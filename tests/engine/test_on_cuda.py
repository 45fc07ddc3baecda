"""Training on a CUDA device: graphs, launches, precision."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from parallelmlp_search.engine import BatchStream, History, Population, TrainingRows, TrainingSettings, train
from parallelmlp_search.engine.acceleration import choose_acceleration
from parallelmlp_search.packing import DataShape
from parallelmlp_search.space import MLPConfig

pytestmark = pytest.mark.cuda

D, C, N_ROWS = 20, 4, 2000
CONFIGS = [
    MLPConfig(widths=(width,), activation=activation, learning_rate=0.01, batch_size=64, seed=width)
    for width in (5, 16, 40, 100, 128)
    for activation in ("relu", "tanh", "mish")
] + [
    MLPConfig(widths=(40, 24), learning_rate=0.01, batch_size=64),
    MLPConfig(widths=(40, 24), learning_rate=0.01, batch_size=64, dropout=0.2),
    MLPConfig(widths=(300, 300), learning_rate=0.003, batch_size=64, normalization="layer"),
]


def _rows(device: str) -> TrainingRows:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(N_ROWS, D, generator=generator)
    scores = torch.tanh(inputs @ torch.randn(D, 8, generator=generator)) @ torch.randn(
        8, C, generator=generator
    )
    return TrainingRows(inputs.to(device), scores.argmax(dim=1).to(device))


def _train(device: str, acceleration: str) -> tuple[Population, History]:
    rows = _rows(device)
    population = Population.create(CONFIGS, DataShape(D, C), rows=rows.inputs)
    history = train(
        population,
        rows,
        TrainingSettings(
            stream=BatchStream(N_ROWS, 64, 5),
            loss="cross_entropy",
            until_epoch=4,
            total_epochs=4,
            evaluate_every=1,
            acceleration=acceleration,
        ),
    )
    return population, history


def _losses(population: Population, history: History) -> Tensor:
    """Mean loss of each member over the last epoch, in member order."""
    return history.train_losses[-1][population.member_rows()]


def test_a_gpu_trains_to_the_losses_of_a_cpu() -> None:
    expected = _losses(*_train("cpu", "none"))
    start = 1.3
    assert bool((expected < start).all())
    for acceleration in ("none", "graph", "persistent", "auto"):
        got = _losses(*_train("cuda", acceleration))
        # Adam amplifies rounding errors and dropout has other noise, so losses agree, but weights do not
        torch.testing.assert_close(got, expected, rtol=0.1, atol=0.02)


def test_auto_uses_kernel_and_graph() -> None:
    population = Population.create(CONFIGS, DataShape(D, C), rows=_rows("cuda").inputs)
    plan = choose_acceleration(
        population.layout,
        population.row_configs(),
        loss="cross_entropy",
        dtype=torch.float32,
        device="cuda",
    )
    assert plan.graph
    assert plan.persistent


@pytest.mark.parametrize("acceleration", ["graph", "persistent"])
def test_the_same_search_gives_the_same_bits(acceleration: str) -> None:
    one, other = (_train("cuda", acceleration)[0] for _ in range(2))
    assert torch.equal(one.parameters, other.parameters)


def test_tf32_can_be_chosen() -> None:
    before = torch.get_float32_matmul_precision()
    exact = _train("cuda", "persistent")
    try:
        torch.set_float32_matmul_precision("high")
        rounded = _train("cuda", "persistent")
    finally:
        torch.set_float32_matmul_precision(before)
    assert not torch.equal(exact[0].parameters, rounded[0].parameters)
    torch.testing.assert_close(_losses(*rounded), _losses(*exact), rtol=0.1, atol=0.02)
