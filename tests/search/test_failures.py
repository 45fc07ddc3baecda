"""Networks that fail: they are named, and the search goes on without them as long as one is left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parallelmlp_search.distribute import ShardOutcome, ShardTask, shards
from parallelmlp_search.exceptions import SearchFailedError
from parallelmlp_search.search import Problem, RunDirectory, run
from parallelmlp_search.space import Categorical, Float, SearchSpace

Make = Callable[..., Any]


def _space(low: float, high: float) -> SearchSpace:
    return SearchSpace(
        {
            "width": Categorical((6, 10)),
            "depth": Categorical((2,)),
            "activation": Categorical(("relu",)),
            "optimizer": Categorical(("sgd",)),
            "learning_rate": Float(low, high, log=True),
            "batch_size": Categorical((32,)),
        }
    )


def test_diverging_networks_fail_with_a_reason_and_the_search_ends(
    spam: Problem, make_settings: Make, tmp_path: Path
) -> None:
    directory = RunDirectory.create(tmp_path / "run")
    settings = make_settings(search_space=_space(1e-3, 1e30), n_trials=40)
    result = run(spam, settings, directory=directory, n_jobs=2)
    trials = result.trials
    failed = trials[trials["state"] == "failed"]
    assert 5 < failed["trial"].nunique() < 40
    assert failed["failure"].str.contains("the loss stopped being finite at step").all()
    assert trials.loc[trials["state"] != "failed", "failure"].isna().all()
    assert failed["config_learning_rate"].median() > 1e5
    # none of them goes on, wins or has a say
    assert not set(failed["trial"]) & set(result.model.trials)
    assert failed.groupby("trial").size().max() <= len(set(trials["rung"]))
    board = result.leaderboard.to_frame()
    assert set(board["trial"][-failed["trial"].nunique() :]) == set(failed["trial"])
    assert board["failure"].notna().sum() == failed["trial"].nunique()
    assert np.isfinite(result.model.predictions(spam.frame)).all()
    assert result.honest is not None
    assert result.honest.score > 0.7
    assert set(directory.trials()["state"]) == {"failed", "pruned", "complete"}


def test_the_tame_are_the_same_beside_the_wild(spam: Problem, make_settings: Make) -> None:
    """A trial is scored alike whether its neighbours explode or not."""
    rates = (0.01, 0.02, 0.03)

    def errors(*more: float) -> dict[float, float]:
        space = SearchSpace(
            {
                "width": Categorical((8,)),
                "activation": Categorical(("relu",)),
                "optimizer": Categorical(("sgd",)),
                "learning_rate": Categorical(rates + more),
                "seed": Categorical((0,)),
                "batch_size": Categorical((32,)),
            }
        )
        trials = run(spam, make_settings(search_space=space, max_epochs=3, n_trials=9), n_jobs=1).trials
        first = trials[trials["rung"] == 0]
        return dict(zip(first["config_learning_rate"], first["error"], strict=True))

    calm, beside = errors(), errors(1e28, 1e29, 1e30)
    assert len(beside) == 6
    for rate in rates:
        assert beside[rate] == pytest.approx(calm[rate], abs=1e-6)
    assert len(set(calm.values())) == 3


def test_when_all_fail_the_search_says_why(spam: Problem, make_settings: Make, tmp_path: Path) -> None:
    directory = RunDirectory.create(tmp_path / "run")
    settings = make_settings(search_space=_space(1e28, 1e30), n_trials=12)
    with pytest.raises(
        SearchFailedError, match=r"none of \d+ configurations could be trained; the first failed because"
    ):
        run(spam, settings, directory=directory, n_jobs=1)
    assert directory.info()["status"] == "failed"


def test_networks_that_do_not_fit_into_memory_fail_alone(
    spam: Problem, make_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = shards._train_whole

    def cramped(task: ShardTask) -> ShardOutcome:
        if any(config.widths[0] > 8 for config in task.configs):
            raise MemoryError("12 GB wanted")
        return train(task)

    monkeypatch.setattr(shards, "_train_whole", cramped)
    result = run(spam, make_settings(), n_jobs=1)
    failed = result.trials[result.trials["state"] == "failed"]
    assert set(failed["config_widths"]) == {"12"}
    assert set(failed["failure"]) == {"out of memory: 12 GB wanted"}
    assert "12" not in {str(config.widths[0]) for config in result.model.configs}


def test_a_finalist_that_fails_on_a_fold_is_left_out(
    spam: Problem, make_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = shards._train_whole
    victims: set[int] = set()

    def sabotaged(task: ShardTask) -> ShardOutcome:
        outcome = train(task)
        if task.key.startswith("finalists") and task.repeat == 2:
            victim = outcome.members[0]
            victim.failure, victim.error = "sabotage", float("nan")
            victims.add(victim.trial)
        return outcome

    monkeypatch.setattr(shards, "_train_whole", sabotaged)
    result = run(spam, make_settings(n_finalists=6), n_jobs=1)
    assert victims
    assert not victims & set(result.model.trials)
    states = result.trials.groupby("trial")["state"].first()
    assert {states[victim] for victim in victims} == {"failed"}
    assert (states == "complete").sum() == 6 - len(victims)


def test_when_every_finalist_fails_the_search_says_so(
    spam: Problem, make_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = shards._train_whole

    def sabotaged(task: ShardTask) -> ShardOutcome:
        outcome = train(task)
        for member in outcome.members if task.key.startswith("finalists") else ():
            member.failure = "sabotage"
        return outcome

    monkeypatch.setattr(shards, "_train_whole", sabotaged)
    with pytest.raises(SearchFailedError, match="every finalist failed"):
        run(spam, make_settings(), n_jobs=1)
