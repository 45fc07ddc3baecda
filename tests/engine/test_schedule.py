"""Schedules against their closed forms and against torch's schedulers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from parallelmlp_search.engine.schedule import SCHEDULE_FUNCTIONS, schedule_factors
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.space.config import SCHEDULES


def _factor(name: str, t: float) -> float:
    return float(schedule_factors([name], torch.tensor([t], dtype=torch.float64)))


def test_every_schedule_has_a_function() -> None:
    assert set(SCHEDULE_FUNCTIONS) == set(SCHEDULES)


@pytest.mark.parametrize(
    ("name", "points"),
    [
        ("constant", {0.0: 1.0, 0.3: 1.0, 1.0: 1.0}),
        ("linear", {0.0: 1.0, 0.25: 0.75, 1.0: 0.0}),
        ("cosine", {0.0: 1.0, 1 / 3: 0.75, 0.5: 0.5, 2 / 3: 0.25, 1.0: 0.0}),
        ("flat_cosine", {0.0: 1.0, 0.5: 1.0, 0.75: 0.5, 1.0: 0.0}),
        # four cycles that end where 1 + 15 t is a power of two, each from 0 over 1 to 0
        ("cosine_log", {0.0: 0.0, 1 / 15: 0.0, 3 / 15: 0.0, 7 / 15: 0.0, 1.0: 0.0, (2**3.5 - 1) / 15: 1.0}),
        ("one_cycle", {0.0: 0.04, 0.15: 0.52, 0.3: 1.0, 0.65: 0.5, 1.0: 0.0}),
    ],
)
def test_points_known_by_hand(name: str, points: dict[float, float]) -> None:
    for t, expected in points.items():
        assert _factor(name, t) == pytest.approx(expected, abs=1e-12), t


@pytest.mark.parametrize("steps", [1, 7, 50])
def test_cosine_is_that_of_torch(steps: int) -> None:
    parameter = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = torch.optim.SGD([parameter], lr=0.5)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    for step in range(steps + 1):
        assert 0.5 * _factor("cosine", step / steps) == pytest.approx(
            optimizer.param_groups[0]["lr"], abs=1e-12
        )
        optimizer.step()
        scheduler.step()


def test_linear_is_that_of_torch() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=10)
    for step in range(11):
        assert _factor("linear", step / 10) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        scheduler.step()


@given(st.sampled_from(SCHEDULES), st.floats(0.0, 1.0))
def test_factors_lie_between_zero_and_one(name: str, t: float) -> None:
    assert -1e-15 <= _factor(name, t) <= 1.0 + 1e-15


@pytest.mark.parametrize("name", SCHEDULES)
def test_progress_is_clamped_and_no_schedule_jumps(name: str) -> None:
    assert _factor(name, 1.7) == _factor(name, 1.0)
    assert _factor(name, -0.5) == _factor(name, 0.0)
    fine = schedule_factors([name], torch.linspace(0, 1, 20_001, dtype=torch.float64))
    # cosine_log is the steepest, with 15 pi / log(2) at the start
    assert float(fine.diff(dim=0).abs().max()) < 15 * math.pi / math.log(2) / 20_000 * 1.01


def test_columns_follow_the_members() -> None:
    progress = torch.linspace(0, 1, 5, dtype=torch.float64)
    names = ["linear", "cosine", "linear", "constant"]
    factors = schedule_factors(names, progress)
    assert factors.shape == (5, 4)
    assert torch.equal(factors[:, 0], factors[:, 2])
    assert not torch.equal(factors[:, 0], factors[:, 1])
    for column, name in enumerate(names):
        assert torch.equal(factors[:, column], schedule_factors([name], progress)[:, 0])


def test_an_unknown_schedule_names_the_near_miss() -> None:
    with pytest.raises(InvalidParameterError, match="but got 'cosin'; did you mean 'cosine'"):
        schedule_factors(["cosin"], torch.zeros(1))
