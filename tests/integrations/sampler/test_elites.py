"""Ranking of trials: values, pruned trials, constraints, nondominated fronts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from optuna.distributions import FloatDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from parallelmlp_search.integrations.optuna.sampler.elites import Elites

X = FloatDistribution(0.0, 1.0)
DOWN, UP = StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE


def _frozen(value: float | None = None, x: float = 0.5, **options: Any) -> FrozenTrial:
    values = options.pop("values", None)
    return create_trial(params={"x": x}, distributions={"x": X}, value=value, values=values, **options)


def _pruned(reports: dict[int, float], **options: Any) -> FrozenTrial:
    return _frozen(state=TrialState.PRUNED, intermediate_values=reports, **options)


def _order(trials: Sequence[FrozenTrial], *directions: StudyDirection, max_elites: int = 12) -> list[int]:
    elites = Elites(directions, max_elites)
    for number, trial in enumerate(trials):
        trial.number = number
        elites.add(trial)
    return [trial.number for trial in elites.best(np.random.default_rng(0))]


def test_complete_trials_come_before_pruned_ones_with_more_steps_first() -> None:
    trials = [
        _pruned({1: 0.1}),
        _frozen(3.0),
        _pruned({1: 0.0, 3: 9.0}),
        _frozen(1.0),
        _frozen(state=TrialState.FAIL),
        _pruned({1: 0.05}),
        _pruned({}),  # no report
        _frozen(math.inf),
        _frozen(-math.inf),
        _pruned({5: math.nan}),
        _frozen(state=TrialState.RUNNING),
        _frozen(2.0),
    ]
    assert _order(trials, DOWN) == [3, 11, 1, 2, 5, 0]
    assert _order(trials, UP) == [1, 11, 3, 2, 0, 5]
    assert _order(trials, DOWN, max_elites=2) == [3, 11]


def test_feasible_trials_come_first() -> None:
    def limited(value: float, *constraints: float) -> FrozenTrial:
        trial = _frozen(value)
        trial.system_attrs = {"constraints": constraints}
        return trial

    trials = [limited(0.0, 2.0), limited(5.0, -1.0, 0.0), limited(1.0, 0.5, 0.5), _frozen(6.0)]
    assert _order(trials, DOWN) == [1, 3, 2, 0]
    for trial in trials:
        trial.values = [trial.values[0], 0.0]
    assert _order(trials, DOWN, DOWN) == [1, 3, 2, 0]


@pytest.mark.parametrize("n_objectives", [2, 3])
def test_fronts_equal_those_of_optuna(n_objectives: int) -> None:
    from optuna.study._multi_objective import _fast_non_domination_rank

    rng = np.random.default_rng(n_objectives)
    values = rng.integers(0, 12, size=(150, n_objectives)).astype(float)
    directions = [UP] + [DOWN] * (n_objectives - 1)
    ranks = _fast_non_domination_rank(values * np.array([-1.0] + [1.0] * (n_objectives - 1)))
    for n_seen in (1, 2, 10, 60, 150):
        expected = _fast_non_domination_rank(values[:n_seen] * np.array([-1.0] + [1.0] * (n_objectives - 1)))
        chosen = _order([_frozen(values=list(row)) for row in values[:n_seen]], *directions, max_elites=20)
        assert len(chosen) == len(set(chosen)) == min(20, n_seen)
        assert sorted(expected[chosen]) == sorted(expected)[:20]
        assert list(expected[chosen]) == sorted(expected[chosen])
    assert len(set(ranks)) > 3
