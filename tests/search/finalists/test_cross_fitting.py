"""Cross-fitting before a deadline: what fits, and what the last seconds are used for."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from parallelmlp_search.distribute import ShardTask, predict_network
from parallelmlp_search.distribute.shards import train_shard
from parallelmlp_search.search import Problem
from parallelmlp_search.search.finalists import fold_tasks
from parallelmlp_search.search.finalists.fold_tasks import (
    MIN_EPOCH_SHARE,
    _tasks,
    _timed_groups,
    tasks_in_time,
)
from parallelmlp_search.search.run.context import SearchContext
from parallelmlp_search.search.run.trial import Trial
from parallelmlp_search.space import MLPConfig

Make = Callable[..., Any]


@pytest.fixture
def begin(
    spam: Problem, make_settings: Make, make_context: Make, monkeypatch: pytest.MonkeyPatch
) -> Callable[[float], tuple[list[ShardTask], float, SearchContext]]:
    """Function from a time, in groups, to the tasks of four groups that begin and the seconds of a group."""
    now = [time.monotonic()]
    monkeypatch.setattr(fold_tasks.time, "monotonic", lambda: now[0])

    def begun(n_groups: float) -> tuple[list[ShardTask], float, SearchContext]:
        context = make_context(spam, make_settings(time_limit=100.0))
        parts = context.preparation.folds(2, hold_out_validation=False)
        groups = [
            _tasks(number, [Trial(number, MLPConfig(widths=(8,), seed=number), "random", 0)], parts, 10)
            for number in range(4)
        ]
        seconds = context.throughput.wall_seconds(sum(task.predicted_seconds for task in groups[0]))
        tasks = []
        for task in tasks_in_time(context, groups, now[0] + n_groups * seconds):
            tasks.append(task)
            now[0] += context.throughput.wall_seconds(task.predicted_seconds)
        return tasks, seconds, context

    return begun


def _epochs(tasks: list[ShardTask]) -> dict[int, float]:
    return {task.trials[0]: task.total_epochs for task in tasks}


def test_the_time_left_trains_a_finalist_for_fewer_epochs(begin: Any) -> None:
    tasks, _, _ = begin(2.6)
    epochs = _epochs(tasks)
    assert list(epochs) == [0, 1, 2]
    assert epochs[0] == epochs[1] == 10
    assert epochs[2] == pytest.approx(6.0, rel=0.02)
    last = tasks[-1]
    assert last.until_epoch == last.total_epochs
    # as many snapshots as of the others
    assert last.total_epochs / last.evaluate_every == pytest.approx(10 / tasks[0].evaluate_every)


def test_too_little_time_trains_no_other_finalist(begin: Any) -> None:
    tasks, _, _ = begin(2.0 + 0.9 * MIN_EPOCH_SHARE)
    assert list(_epochs(tasks)) == [0, 1]
    assert list(_epochs(begin(0.0)[0])) == [0]  # the first group always begins


def test_training_ends_before_the_last_evaluation(begin: Any) -> None:
    tasks, _, context = begin(9.0)
    assert _epochs(tasks) == dict.fromkeys(range(4), 10)
    small, large = tasks[0], replace(tasks[0], configs=tasks[0].configs * 5)
    assert large.evaluation_seconds == pytest.approx(5 * small.evaluation_seconds)
    early = fold_tasks._until(large, context, 100.0).deadline
    # then the rows of all folds are predicted with the selected snapshots
    n_rows = context.preparation.problem.n_rows
    seconds = large.evaluation_seconds + 5 * large.data.forward_seconds(large.configs[0], n_rows)
    assert early == pytest.approx(100.0 - context.throughput.factor * seconds, abs=1e-6)
    free = replace(large, deadline=None)
    assert fold_tasks._until(free, context, None) is free


def test_a_resumed_search_shortens_as_before(begin: Any) -> None:
    tasks, _, context = begin(2.6)
    recorded = context.journal.entry("shortened-0", lambda: 0.0)
    assert recorded == pytest.approx(_epochs(tasks)[2] / 10)


def test_finalists_with_equal_batches_share_a_group(
    make_context: Make, spam: Problem, make_settings: Make
) -> None:
    context = make_context(spam, make_settings(time_limit=100.0))
    batches = [32, 64, 32, 64, 32, 128, 32, 64, 64, 32]
    trials = [
        Trial(number, MLPConfig(widths=(8,), batch_size=batch), "random", 0)
        for number, batch in enumerate(batches)
    ]

    def groups(required: int, size: int) -> list[list[int]]:
        found = _timed_groups(trials, required, size, context.data)
        return [[trial.number for trial in group] for group in found]

    # the last two are extra ones
    assert groups(8, 4) == [[0, 2], [1, 3], [4, 6], [5], [7], [8, 9]]
    assert groups(8, 1) == [[number] for number in range(10)]
    # larger groups where there are many
    many = [replace_number(trial, 10 * copy + trial.number) for copy in range(4) for trial in trials]
    sizes = [len(group) for group in _timed_groups(many, 40, 4, context.data)]
    assert max(sizes) == 4
    assert sum(sizes) == 40


def replace_number(trial: Trial, number: int) -> Trial:
    return Trial(number, trial.config, trial.origin, trial.round)


def test_a_network_predicts_alone_what_it_predicted_in_its_shard(
    make_context: Make, spam: Problem, make_settings: Make
) -> None:
    """The rows that select a snapshot are among those that are predicted with the selected one."""
    preparation = make_context(spam, make_settings()).preparation
    part = preparation.folds(3, hold_out_validation=False)[1]
    configs = [
        MLPConfig(widths=(8, 4), seed=1),
        MLPConfig(widths=(5,), seed=2, submembers=4),
        MLPConfig(widths=(5,), seed=3, numeric_embedding="periodic"),
    ]
    trials = [Trial(number, config, "random", 0) for number, config in enumerate(configs)]
    places = torch.from_numpy(np.isin(part.predicted_rows, preparation.validation_rows))
    assert 0 < int(places.sum()) < len(places)
    for task in _tasks(0, trials, [part], 2):
        for member, config in zip(train_shard(task).members, task.configs, strict=True):
            kept = member.snapshots
            assert kept is not None
            assert len(kept.epochs) == 2
            first, last = (predict_network(part.data, config, weights) for weights in kept.weights)
            torch.testing.assert_close(last[:, places], kept.predictions[1])
            assert not torch.allclose(first[:, places], kept.predictions[1])
