"""Clock, throughput of the machine, and the plan that a time limit affords."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallelmlp_search.distribute import ShardOutcome
from parallelmlp_search.search.run.budget import (
    Clock,
    FinalistPlan,
    Throughput,
    default_epochs,
    default_folds,
    plan_finalists,
)


class _Now:
    """Clock that a test advances."""

    def __init__(self, reading: float = 1000.0) -> None:
        self.reading = reading

    def __call__(self) -> float:
        return self.reading


class TestClock:
    def test_counts_from_now(self) -> None:
        now = _Now()
        clock = Clock(60, now=now)
        assert (clock.elapsed, clock.left) == (0, 60)
        now.reading += 25
        assert (clock.elapsed, clock.left) == (25, 35)
        now.reading += 50
        assert clock.left == -15

    def test_counts_from_the_given_start(self) -> None:
        assert Clock(60, started=990.0, now=_Now()).elapsed == 10

    def test_counts_the_time_of_an_interrupted_run(self) -> None:
        clock = Clock(60, spent=20, now=_Now())
        assert (clock.elapsed, clock.left) == (20, 40)
        assert clock.deadline(0) == 1040

    @pytest.mark.parametrize(("spent", "expected"), [(0, 55), (50, 5), (54.8, 0.3), (90, 0.3)])
    def test_some_time_is_always_left_for_training(self, spent: float, expected: float) -> None:
        assert Clock(60, spent=spent, now=_Now()).for_training(reserve=5) == pytest.approx(expected)
        assert Clock(None, now=_Now()).for_training(5) == math.inf

    def test_deadline_keeps_a_reserve(self) -> None:
        assert Clock(60, now=_Now()).deadline(reserve=5) == 1055

    def test_without_a_limit_there_is_no_deadline(self) -> None:
        clock = Clock(None, now=_Now())
        assert clock.left == math.inf
        assert clock.deadline(5) == math.inf


def _shard(seconds: float, predicted: float, *, steps: int = 10, cut: bool = False) -> ShardOutcome:
    return ShardOutcome("x", [], steps, seconds, predicted, cut)


class TestThroughput:
    def test_uses_the_cost_model_before_the_first_measurement(self) -> None:
        throughput = Throughput(2)
        assert throughput.factor == 1
        assert throughput.wall_seconds(8) == 4

    def test_learns_the_ratio_of_measured_to_predicted(self) -> None:
        throughput = Throughput(2)
        throughput.add(_shard(6, 2))
        assert throughput.factor == pytest.approx(3)
        assert throughput.wall_seconds(8) == pytest.approx(12)

    def test_follows_a_machine_that_slows_down(self) -> None:
        throughput = Throughput(1)
        for _ in range(100):
            throughput.add(_shard(1, 1))
        for _ in range(100):
            throughput.add(_shard(4, 1))
        assert 3.5 < throughput.factor <= 4

    def test_counts_steps_of_all_shards_but_times_only_complete_ones(self) -> None:
        throughput = Throughput(1)
        throughput.add(_shard(1, 1))
        throughput.add(_shard(1, 100, cut=True))
        throughput.add(_shard(1, 0))
        assert throughput.factor == pytest.approx(1)
        assert throughput.member_steps == 30


def test_small_tables_get_more_epochs_within_bounds() -> None:
    epochs = [default_epochs(steps) for steps in (0.1, 1, 10, 30, 100, 300, 1000, 10_000)]
    assert epochs == sorted(epochs, reverse=True)
    assert epochs[0] == epochs[1] <= 300
    assert 10 <= epochs[-1] == epochs[-2] < epochs[0]


def test_more_rows_need_fewer_folds() -> None:
    counts = [default_folds(n) for n in (20, 1000, 1500, 5000, 20_000, 10**6)]
    assert counts == sorted(counts, reverse=True)
    assert min(counts) >= 2


SECONDS = [0.0, 0.01, 0.1, 1, 3, 10, 30, 100, 300, 1000, 3000]


def _plans(**explicit: int | None) -> Iterator[FinalistPlan]:
    for seconds in SECONDS:
        yield plan_finalists(seconds, 0.01, 5000, 30.0, **explicit)


class TestPlanFinalists:
    def test_more_time_never_means_fewer_finalists_folds_or_less_training(self) -> None:
        plans = list(_plans())
        for before, after in itertools.pairwise(plans):
            assert after.n_folds >= before.n_folds
            work = [plan.n_finalists * plan.max_epochs * (plan.n_folds - 1) for plan in (before, after)]
            assert work[1] >= work[0]
        assert plans[0].max_epochs < plans[-1].max_epochs
        assert plans[0].n_finalists < plans[-1].n_finalists

    def test_without_time_two_finalists_train_for_one_epoch(self) -> None:
        plan = plan_finalists(0.0, 1.0, 100, 1.0)
        assert (plan.max_epochs, plan.n_finalists) == (1, 2)
        assert plan.n_folds >= 2

    def test_explicit_settings_are_kept(self) -> None:
        for plan in _plans(max_epochs=7, n_folds=3, n_finalists=5):
            assert plan == FinalistPlan(7, 5, 3)

    def test_explicit_epochs_leave_the_time_to_finalists(self) -> None:
        counts = [plan.n_finalists for plan in _plans(max_epochs=20)]
        assert counts == sorted(counts)
        assert counts[0] == 2
        assert counts[-1] > 8

    @given(
        seconds=st.floats(0, 1e5),
        epoch=st.floats(1e-6, 100),
        rows=st.integers(20, 10**6),
        steps=st.floats(1, 10_000),
    )
    def test_plans_stay_within_bounds(self, seconds: float, epoch: float, rows: int, steps: float) -> None:
        plan = plan_finalists(seconds, epoch, rows, steps)
        assert plan.max_epochs >= 1
        assert 2 <= plan.n_finalists <= 32
        assert 2 <= plan.n_folds <= 10

    @given(seconds=st.floats(1, 1e4), epoch=st.floats(1e-4, 1))
    def test_an_affordable_plan_fits_into_the_time(self, seconds: float, epoch: float) -> None:
        plan = plan_finalists(seconds, epoch, 5000, 30.0)
        if plan.max_epochs > 1:
            cost = plan.max_epochs * plan.n_finalists * (plan.n_folds - 1) * epoch
            assert cost <= seconds * 1.0001
