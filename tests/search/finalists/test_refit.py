"""Refit on all rows: training rows, conditions for skipping it, and resuming."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from parallelmlp_search.distribute import ShardTask
from parallelmlp_search.exceptions import BudgetWarning
from parallelmlp_search.packing.pack import read_member
from parallelmlp_search.search import Problem, Progress, RunDirectory, SearchResult, TrainedModel, run
from parallelmlp_search.search.finalists import refit
from parallelmlp_search.search.run import journal

Make = Callable[..., Any]


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> list[ShardTask]:
    """Shards of the refit that are trained."""
    seen: list[ShardTask] = []
    train = journal.run_shards

    def recording(work: Any, **values: Any) -> Any:
        def passed() -> Any:
            for task in work:
                if task.key.startswith("refit"):
                    seen.append(task)
                yield task

        return train(passed(), **values)

    monkeypatch.setattr(journal, "run_shards", recording)
    return seen


@pytest.fixture(scope="module")
def refitted(spam: Problem, make_settings: Make) -> SearchResult:
    return run(spam, make_settings(refit=True), n_jobs=1)


def test_a_refit_trains_on_all_rows_up_to_the_selected_epoch(
    tasks: list[ShardTask], refitted: SearchResult, spam: Problem, make_settings: Make
) -> None:
    again = run(spam, make_settings(refit=True), n_jobs=2)
    assert tasks
    trials = set(again.model.trials)
    for task in tasks:
        assert len(task.data.rows.inputs) == spam.n_rows
        assert task.data.validation_inputs is None
        assert 0 < task.until_epoch <= task.total_epochs == again.max_epochs
        assert set(task.trials) <= trials
    networks = len(again.model.folds)
    assert 1 <= networks <= again.n_folds
    # each network trains each member once, with its own initial weights and batches
    trained = [(task.repeat, trial) for task in tasks for trial in task.trials]
    assert len(trained) == len(set(trained)) == networks * len(trials)
    assert len({task.data.seed for task in tasks}) == networks
    assert min(task.repeat for task in tasks) > again.n_folds
    assert np.array_equal(again.model.predictions(spam.frame), refitted.model.predictions(spam.frame))


def test_a_refit_changes_only_the_networks(
    refitted: SearchResult, found: SearchResult, spam: Problem
) -> None:
    assert refitted.model.refitted
    assert not found.model.refitted
    assert refitted.honest is not None
    assert found.honest is not None
    plain = [honest.score - honest.averaging for honest in (refitted.honest, found.honest)]
    assert plain[0] == pytest.approx(plain[1], abs=1e-12)
    assert refitted.honest.naive == found.honest.naive
    # at most one network per fold is averaged
    assert 0.0 <= refitted.honest.averaging <= found.honest.averaging > 0.0
    assert refitted.model.trials == found.model.trials
    assert np.array_equal(refitted.model.weights, found.model.weights)
    assert refitted.model.temperature == found.model.temperature
    assert refitted.to_dict()["refitted"] == len(refitted.model.folds)
    ours, theirs = (result.model.predictions(spam.frame) for result in (refitted, found))
    assert not np.allclose(ours, theirs, atol=1e-3)
    assert np.corrcoef(ours[1], theirs[1])[0, 1] > 0.9
    vectors = [
        read_member(torch.from_numpy(fold.parameters), fold.layout, 0) for fold in refitted.model.folds
    ]
    for index, vector in enumerate(vectors):
        assert not any(torch.equal(vector, other) for other in vectors[:index])


def test_the_number_of_networks_follows_from_the_time_of_one_fold(
    tasks: list[ShardTask], spam: Problem, make_settings: Make
) -> None:
    single = run(spam, make_settings(refit=True, n_finalists=1, n_trials=3), n_jobs=1)
    # all rows cost more than the rows of a fold, so one or two networks fit into its time
    assert len(single.model.folds) <= 2
    many = run(spam, make_settings(refit=True, n_finalists=12), n_jobs=1)
    assert len(many.model.trials) < 8
    assert len(many.model.folds) > 1


def test_a_loaded_model_predicts_the_same(refitted: SearchResult, spam: Problem, tmp_path: Path) -> None:
    refitted.model.save(tmp_path)
    loaded = type(refitted.model).load(tmp_path)
    assert loaded.refitted
    assert np.array_equal(loaded.predictions(spam.frame), refitted.model.predictions(spam.frame))


def test_an_interrupted_refit_is_resumed(
    refitted: SearchResult,
    spam: Problem,
    make_settings: Make,
    tmp_path: Path,
    tasks: list[ShardTask],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(journal, "MIN_KEPT_SECONDS", 0.0)

    def interrupt(progress: Progress) -> None:
        if progress.stage == "saving":
            raise KeyboardInterrupt

    directory = RunDirectory.create(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        run(spam, make_settings(refit=True), directory=directory, callbacks=[interrupt], n_jobs=1)
    trained = len(tasks)
    assert trained > 0
    seen: list[Progress] = []
    result = run(spam, make_settings(refit=True), directory=directory, callbacks=[seen.append], n_jobs=1)
    assert len(tasks) == trained  # no shard is trained again
    assert "refitting" in [progress.stage for progress in seen]
    expected = refitted.model.predictions(spam.frame)
    assert np.array_equal(result.model.predictions(spam.frame), expected)
    assert np.array_equal(TrainedModel.load(directory.model_folder).predictions(spam.frame), expected)


def test_a_refit_keeps_the_time_limit(spam: Problem, make_settings: Make) -> None:
    result = run(spam, make_settings(refit=True, time_limit=4.0, n_trials=8), n_jobs=1)
    assert result.model.refitted
    assert result.elapsed_seconds < 4.4


def test_without_time_the_folds_are_kept_with_one_message(
    spam: Problem, make_settings: Make, monkeypatch: pytest.MonkeyPatch, tasks: list[ShardTask]
) -> None:
    monkeypatch.setattr(refit, "SAFETY", 0.0)
    with pytest.warns(BudgetWarning, match="not refitted on all rows, because no time"):
        result = run(spam, make_settings(refit=True, time_limit=4.0, n_trials=8), n_jobs=1)
    assert tasks == []
    assert not result.model.refitted
    assert len(result.model.folds) == result.n_folds
    assert any("no time was left for it" in sentence for sentence in result.left_out)


def test_networks_stopped_by_the_deadline_are_not_used(
    spam: Problem, make_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = journal.run_shards

    def stopping(work: Any, **values: Any) -> Any:
        for outcome in train(work, **values):
            outcome.cut = outcome.key.startswith("refit")
            yield outcome

    monkeypatch.setattr(journal, "run_shards", stopping)
    with pytest.warns(BudgetWarning, match="could not be refitted on all rows"):
        result = run(spam, make_settings(refit=True), n_jobs=1)
    assert not result.model.refitted


def test_rows_in_time_are_all_used_for_training(
    make_problem: Make, make_settings: Make, tasks: list[ShardTask]
) -> None:
    ordered = make_problem("spambase", 300, time=np.arange(300))
    result = run(ordered, make_settings(refit=True, n_trials=4), n_jobs=1)
    assert result.model.refitted
    assert {len(task.data.rows.inputs) for task in tasks} == {300}


def test_a_tiny_table_needs_no_refit(make_problem: Make, make_settings: Make) -> None:
    result = run(make_problem("spambase", 15), make_settings(refit=True, n_trials=2), n_jobs=1)
    assert not result.model.refitted
    assert result.left_out == []
