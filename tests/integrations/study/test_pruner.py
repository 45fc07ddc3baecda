"""Pruner of rungs: one in three of all trials that reported advances."""

from __future__ import annotations

import numpy as np
import optuna
import pytest

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.integrations.optuna import RungPruner


def test_one_in_three_of_all_trials_of_a_rung_advances() -> None:
    rng = np.random.default_rng(0)
    study = optuna.create_study(direction="maximize", pruner=RungPruner(3))
    scores = rng.random(30)
    advanced = []
    for start in (0, 9, 18):
        batch = [study.ask() for _ in range(9)]
        for trial in batch:
            trial.report(scores[trial.number], 1)
        advanced += [trial.number for trial in batch if not trial.should_prune()]
        seen = np.sort(scores[: start + 9])[::-1]
        assert {n for n in advanced if n >= start} == {
            n for n in range(start, start + 9) if scores[n] >= seen[len(seen) // 3 - 1]
        }
    last = study.ask()
    assert not last.should_prune()  # has not reported
    last.report(float("nan"), 1)
    assert last.should_prune()
    with pytest.raises(InvalidParameterError, match="reduction_factor must be >= 2"):
        RungPruner(1)
