"""Plan of a search from its budget, table and machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from parallelmlp_search.search import Problem, SearchSettings, planning
from parallelmlp_search.search.planning import MAX_FINALIST_SHARE, affordable_first, make_plan
from parallelmlp_search.search.run.budget import SearchPlan, fewest_epochs
from parallelmlp_search.search.run.trial import Trial
from parallelmlp_search.space import MLPConfig

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def plan_of(make_context: Make) -> Make:
    """Function from a problem and settings to a plan."""
    return lambda *arguments, **values: make_plan(make_context(*arguments, **values))


def test_the_plan_follows_explicit_settings(plan_of: Make, spam: Problem, make_settings: Make) -> None:
    plan = plan_of(spam, make_settings(refinement=0.25))
    assert plan.max_epochs == 4
    assert (plan.n_fresh, plan.n_refined) == (15, 5)
    assert (plan.n_finalists, plan.n_folds) == (3, 3)
    assert plan.screening_seconds is None


def test_without_a_time_limit_the_plan_is_a_function_of_settings_and_data(
    plan_of: Make, spam: Problem, make_problem: Make
) -> None:
    settings = SearchSettings("small")
    assert plan_of(spam, settings) == plan_of(spam, settings)
    assert plan_of(make_problem("spambase", 4000), settings) != plan_of(spam, settings)


def test_defaults_are_sensible(plan_of: Make, spam: Problem) -> None:
    plan = plan_of(spam, SearchSettings("small"))
    assert plan.n_fresh + plan.n_refined >= 100
    assert plan.n_refined > plan.n_fresh >= 50
    assert 2 <= plan.n_folds <= 10
    assert 2 <= plan.n_finalists <= 32
    assert plan.rungs == tuple(sorted(plan.rungs))


def test_a_plan_round_trips_through_json(plan_of: Make, spam: Problem, make_settings: Make) -> None:
    for settings in (make_settings(), make_settings(time_limit=30.0)):
        plan = plan_of(spam, settings)
        assert SearchPlan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan


def test_a_small_space_or_a_grid_is_not_refined(plan_of: Make, spam: Problem, make_settings: Make) -> None:
    from parallelmlp_search.space import Categorical, SearchSpace

    small = SearchSpace({"width": Categorical((4, 8, 12))})
    plan = plan_of(spam, make_settings(search_space=small))
    assert plan.n_refined == 0
    assert plan_of(spam, make_settings(sampler="grid")).n_refined == 0
    assert plan_of(spam, make_settings()).n_refined > 0


def test_a_longer_time_limit_plans_more_work(plan_of: Make, spam: Problem, make_settings: Make) -> None:
    def work(limit: float) -> float:
        plan = plan_of(spam, make_settings(n_trials=None, max_epochs=None, time_limit=limit))
        return (plan.n_fresh + plan.n_refined) * plan.max_epochs

    assert work(3.0) < work(300.0)


def test_an_exceeded_time_limit_still_plans_some_trials(
    plan_of: Make, spam: Problem, make_settings: Make
) -> None:
    plan = plan_of(spam, make_settings(n_trials=None, time_limit=5.0), spent=100)
    assert plan.n_fresh + plan.n_refined >= 2
    assert plan.n_finalists >= 1
    assert plan.screening_seconds is not None
    assert 0 < plan.screening_seconds < 5
    assert 0 < plan.reserve_seconds <= 1.25  # a fifth, and a twentieth for the baselines


@pytest.mark.parametrize("n_trials", [1, 2, 7])
def test_there_are_never_more_finalists_than_trials(plan_of: Make, spam: Problem, n_trials: int) -> None:
    assert plan_of(spam, SearchSettings("small", n_trials=n_trials)).n_finalists <= n_trials


def test_the_only_trial_is_drawn_afresh(plan_of: Make, spam: Problem, make_settings: Make) -> None:
    """With one trial there are no elites that it could be proposed near."""
    plan = plan_of(spam, make_settings(n_trials=1))
    assert (plan.n_fresh, plan.n_refined) == (1, 0)
    timed = plan_of(spam, make_settings(n_trials=1, time_limit=60.0))
    assert (timed.n_fresh, timed.n_refined) == (1, 0)


def test_fewer_trials_are_planned_if_cheap_ones_are_not_preferred(
    plan_of: Make, spam: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cheap configurations are not preferred among evenly spread points."""
    monkeypatch.setattr(planning, "_time_machine", lambda *_: None)
    plans = {
        sampler: plan_of(spam, SearchSettings(time_limit=30.0, sampler=sampler, refinement=0.0))
        for sampler in ("random", "qmc")
    }
    n_random, n_even = (plan.n_fresh + plan.n_refined for plan in plans.values())
    assert n_even < 0.8 * n_random


def test_trials_with_unaffordable_training_come_last(
    spam: Problem, make_settings: Make, make_context: Make
) -> None:
    context = make_context(spam, make_settings())
    data = context.data
    widths = (512, 16, 256, 24)
    trials = [Trial(n, MLPConfig(widths=(width,) * 3), "random", 0) for n, width in enumerate(widths)]

    def order(seconds: float) -> list[int]:
        ranked = affordable_first(context, trials, seconds)
        return [trial.config.widths[0] for trial in ranked]

    config = trials[2].config
    rows = spam.n_rows
    epochs = 3 * fewest_epochs(rows / data.batch_rows(config))
    seconds = epochs * data.epoch_seconds(config) * rows / data.rows.inputs.shape[0] / MAX_FINALIST_SHARE
    assert order(1.01 * seconds) == [16, 256, 24, 512]
    assert order(0.99 * seconds) == [16, 24, 512, 256]
    assert order(1e6) == list(widths)
    assert order(1e-9) == list(widths)  # none is affordable: the best come first
