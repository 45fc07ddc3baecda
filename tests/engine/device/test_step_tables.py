"""Tables of steps against the optimizer of the host; statistics of dropout fields."""

from __future__ import annotations

import pytest
import torch

from parallelmlp_search.engine import BatchStream, Population
from parallelmlp_search.engine.device.dropout_fields import uniform_field
from parallelmlp_search.engine.device.step_tables import step_tables
from parallelmlp_search.engine.optimizer import PackedOptimizer
from parallelmlp_search.engine.step_coefficients import StepCoefficients
from parallelmlp_search.packing import DataShape
from parallelmlp_search.space import SCHEDULES, MLPConfig

CONFIGS = [
    MLPConfig(
        widths=(3,),
        schedule=name,
        weight_decay_schedule=SCHEDULES[-1 - i],
        optimizer=("adamw", "sgd")[i // 2 % 2],
        learning_rate=0.01 * (i + 1),
        weight_decay=0.1 * i,
        beta1=0.9 - 0.1 * i,
    )
    for i, name in enumerate(SCHEDULES)
]


def test_coefficients_are_those_of_the_optimizer() -> None:
    population = Population.create(CONFIGS, DataShape(2, 1))
    optimizer = PackedOptimizer(population, torch.zeros_like(population.parameters), 90)
    frozen = torch.zeros(len(CONFIGS), dtype=torch.bool)
    frozen[1] = True
    optimizer.freeze(frozen)
    table = StepCoefficients(population.row_configs(), 90, "cpu").table(range(3, 83), frozen).float()
    for step in (3, 40, 82):
        tables = [optimizer.compiled_steps(b, range(step, step + 1))[0] for b in range(len(optimizer.groups))]
        expected = torch.cat([torch.as_tensor(own[0, 0]) for own in tables], dim=1)
        torch.testing.assert_close(table[step - 3], expected, rtol=1e-6, atol=0.0)
    assert bool((table[:, 0, 1] == 0).all())


@pytest.mark.parametrize(("first", "count"), [(0, 1), (0, 9), (2, 5), (7, 0), (40, 3)])
def test_the_order_is_that_of_the_batches(first: int, count: int) -> None:
    stream = BatchStream(17, 5, seed=4)
    expected = [row for step in range(first, first + count) for row in stream.rows(step).tolist()]
    assert stream.consecutive_rows(range(first, first + count)).tolist() == expected


def test_averages_are_updated_every_fourth_step() -> None:
    frozen = torch.zeros(len(CONFIGS), dtype=torch.bool)
    tables = step_tables(
        StepCoefficients(CONFIGS, 90, "cpu"),
        BatchStream(17, 5, 4),
        range(9),
        frozen=frozen,
        dtype=torch.float32,
    )
    assert tables.n_steps == 9
    assert tables.shares.nonzero().view(-1).tolist() == [0, 3, 7]
    assert float(tables.shares[0]) == 1.0


def _field(seed: int = 0, step: int = 0, layer: int = 0, width: int = 300, n_rows: int = 200) -> torch.Tensor:
    return uniform_field(seed, torch.tensor([step]), layer, width, n_rows)


def test_fields_are_uniform_and_independent() -> None:
    field = _field()
    assert field.dtype == torch.float32
    assert float(field.min()) >= 0.0
    assert float(field.max()) < 1.0
    counts = torch.histc(field, bins=20, min=0.0, max=1.0)
    expected = field.numel() / 20
    # 19 degrees of freedom: above 50 once in 10,000
    assert float(((counts - expected) ** 2 / expected).sum()) < 50
    # neighbours in a row, in a column, and in the next step
    for one, other in (
        (field[:, 1:], field[:, :-1]),
        (field[1:], field[:-1]),
        (field, _field(step=1)),
        (field, _field(layer=1)),
        (field, _field(seed=1)),
    ):
        correlation = torch.corrcoef(torch.stack([one.reshape(-1), other.reshape(-1)]))[0, 1]
        assert abs(float(correlation)) < 0.02
    # a narrow field is the start of a wide one
    assert torch.equal(_field(width=7), field[:7])
    assert torch.equal(_field(), field)
