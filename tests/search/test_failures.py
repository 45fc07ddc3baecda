"""Failed networks: the search records them and continues with the others."""

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


def test_diverging_networks_fail_with_a_reason_and_the_search_finishes(
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
    # no failed trial advances, leads the leaderboard or enters the ensemble
    assert not set(failed["trial"]) & set(result.model.trials)
    assert failed.groupby("trial").size().max() <= len(set(trials["rung"]))
    board = result.leaderboard.to_frame()
    assert set(board["trial"][-failed["trial"].nunique() :]) == set(failed["trial"])
    assert board["failure"].notna().sum() == failed["trial"].nunique()
    assert np.isfinite(result.model.predictions(spam.frame)).all()
    assert result.honest is not None
    assert result.honest.score > 0.7
    assert set(directory.trials()["state"]) == {"failed", "pruned", "complete"}


def test_diverging_trials_do_not_change_the_errors_of_others(spam: Problem, make_settings: Make) -> None:
    """The error of a trial does not depend on diverging members of its shard."""
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

    without, beside = errors(), errors(1e28, 1e29, 1e30)
    assert len(beside) == 6
    for rate in rates:
        assert beside[rate] == pytest.approx(without[rate], abs=1e-6)
    assert len(set(without.values())) == 3


def test_a_search_whose_trials_all_fail_raises_the_first_reason(
    spam: Problem, make_settings: Make, tmp_path: Path
) -> None:
    directory = RunDirectory.create(tmp_path / "run")
    settings = make_settings(search_space=_space(1e28, 1e30), n_trials=12)
    with pytest.raises(
        SearchFailedError, match=r"none of \d+ configurations could be trained; the first failed because"
    ):
        run(spam, settings, directory=directory, n_jobs=1)
    assert directory.info()["status"] == "failed"


def test_only_networks_that_run_out_of_memory_fail(
    spam: Problem, make_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = shards._train_whole

    def out_of_memory(task: ShardTask) -> ShardOutcome:
        if any(config.widths[0] > 8 for config in task.configs):
            raise MemoryError("12 GB wanted")
        return train(task)

    monkeypatch.setattr(shards, "_train_whole", out_of_memory)
    result = run(spam, make_settings(), n_jobs=1)
    failed = result.trials[result.trials["state"] == "failed"]
    assert set(failed["config_widths"]) == {"12"}
    assert set(failed["failure"]) == {"out of memory: 12 GB wanted"}
    assert "12" not in {str(config.widths[0]) for config in result.model.configs}


def test_a_finalist_that_fails_on_a_fold_is_excluded(
    spam: Problem, make_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = shards._train_whole
    failed: set[int] = set()

    def failing(task: ShardTask) -> ShardOutcome:
        outcome = train(task)
        if task.key.startswith("finalists") and task.repeat == 2:
            member = outcome.members[0]
            member.failure, member.error = "planted failure", float("nan")
            failed.add(member.trial)
        return outcome

    monkeypatch.setattr(shards, "_train_whole", failing)
    result = run(spam, make_settings(n_finalists=6), n_jobs=1)
    assert failed
    assert not failed & set(result.model.trials)
    states = result.trials.groupby("trial")["state"].first()
    assert {states[member] for member in failed} == {"failed"}
    assert (states == "complete").sum() == 6 - len(failed)


def test_a_search_whose_finalists_all_fail_raises(
    spam: Problem, make_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = shards._train_whole

    def failing(task: ShardTask) -> ShardOutcome:
        outcome = train(task)
        for member in outcome.members if task.key.startswith("finalists") else ():
            member.failure = "planted failure"
        return outcome

    monkeypatch.setattr(shards, "_train_whole", failing)
    with pytest.raises(SearchFailedError, match="every finalist failed"):
        run(spam, make_settings(), n_jobs=1)
