"""Cross-fitting before a deadline: what fits, and what the last seconds are used for."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from parallelmlp_search.distribute import ShardTask
from parallelmlp_search.search import Problem
from parallelmlp_search.search.finalists import cross_fitting
from parallelmlp_search.search.finalists.cross_fitting import MIN_EPOCH_SHARE, _in_time, _tasks
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
    monkeypatch.setattr(cross_fitting.time, "monotonic", lambda: now[0])

    def begun(n_groups: float) -> tuple[list[ShardTask], float, SearchContext]:
        context = make_context(spam, make_settings(time_limit=100.0))
        parts = context.preparation.folds(2, hold_out_validation=False)
        groups = [
            _tasks(number, [Trial(number, MLPConfig(widths=(8,), seed=number), "random", 0)], parts, 10)
            for number in range(4)
        ]
        seconds = context.throughput.wall_seconds(sum(task.predicted_seconds for task in groups[0]))
        tasks = []
        for task in _in_time(context, groups, now[0] + n_groups * seconds):
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
    early = cross_fitting._until(large, context, 100.0).deadline
    assert early == pytest.approx(100.0 - context.throughput.factor * large.evaluation_seconds)
    free = replace(large, deadline=None)
    assert cross_fitting._until(free, context, None) is free


def test_a_resumed_search_shortens_as_before(begin: Any) -> None:
    tasks, _, context = begin(2.6)
    recorded = context.journal.entry("shortened-0", lambda: 0.0)
    assert recorded == pytest.approx(_epochs(tasks)[2] / 10)
