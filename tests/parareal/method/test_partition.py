"""Costs of blocks, and cuts that balance them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from parallelmlp_search.parareal.method.blocks import counted_cost, measured_cost, profile_model
from parallelmlp_search.parareal.method.decompose import _balanced_cuts


@pytest.mark.parametrize(
    ("costs", "slices", "extras", "cuts"),
    [
        ([1.0] * 8, 2, {}, (4,)),
        ([1.0] * 8, 8, {}, (1, 2, 3, 4, 5, 6, 7)),  # one block per slice
        ([5.0, 1.0, 1.0, 1.0, 1.0, 1.0], 2, {}, (1,)),  # one block costs more than all others
        ([1.0] * 9, 2, {}, (4,)),  # the second slice has more time
        ([1.0] * 8, 2, {"extra": 2.0}, (5,)),  # a preprocessor after the cut
        ([1.0] * 8, 2, {"message": 1.0}, (3,)),  # two messages for which the second slice does not wait
        ([1.0] * 12, 3, {"message": 0.25, "sweep": 1.0}, (3, 7)),  # 3, 4.5 and 6 units of time
        ([1.0] * 9, 3, {"message": 100.0}, (1, 2)),  # at least one block
        ([1.0] * 3, 3, {"extra": 9.0}, (1, 2)),  # costs that cannot be avoided
        ([1.0] * 5, 1, {}, ()),
    ],
)
def test_cuts_balance_the_most_expensive_slice(
    costs: list[float], slices: int, extras: dict[str, float], cuts: tuple[int, ...]
) -> None:
    assert _balanced_cuts(costs, slices, **extras) == cuts


def test_no_cut_is_better_than_the_balanced_one() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        costs = torch.rand(9, generator=generator).tolist()
        (cut,) = _balanced_cuts(costs, 2)
        best = min(max(sum(costs[:k]), sum(costs[k:])) for k in range(1, 9))
        assert max(sum(costs[:cut]), sum(costs[cut:])) == pytest.approx(best)


def test_costs_grow_with_the_work() -> None:
    rows = torch.randn(64, 32)
    small, large = nn.Linear(32, 32), nn.Linear(32, 512)
    assert counted_cost(large, rows) > 2 * counted_cost(small, rows)
    assert measured_cost(nn.Sequential(*[nn.Linear(32, 32)] * 40), rows) > measured_cost(small, rows)
    profile = profile_model(nn.Sequential(large), rows, head=0)
    (block,) = profile.blocks
    assert (block.inputs, block.outputs, block.n_parameters) == ((32,), (512,), 33 * 512)
    # the network's input needs no gradient
    assert block.cost == counted_cost(large, rows) < counted_cost(large, rows.requires_grad_())
