"""Schedule of cross-fitting before a deadline, on a clock that tests move: what trains, and how long."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from parallelmlp_search.distribute import ShardOutcome, ShardTask
from parallelmlp_search.search import Problem
from parallelmlp_search.search.finalists import schedule
from parallelmlp_search.search.finalists.fold_tasks import _tasks
from parallelmlp_search.search.finalists.schedule import MIN_EPOCH_SHARE, Schedule
from parallelmlp_search.search.run.budget import Throughput
from parallelmlp_search.search.run.context import SearchContext
from parallelmlp_search.search.run.trial import Trial
from parallelmlp_search.space import MLPConfig

Make = Callable[..., Any]
Speed = Callable[[float], float]
"""Maps a share of the planned time to measured over predicted seconds."""


class Machine(NamedTuple):
    """Tasks that a simulated worker trained, and the share of the time that they took."""

    tasks: list[ShardTask]
    used: float
    context: SearchContext
    deadline: float

    @property
    def epochs(self) -> dict[int, list[float]]:
        """Epochs of each finalist on its folds."""
        found: dict[int, list[float]] = {}
        for task in self.tasks:
            found.setdefault(task.trials[0], []).append(task.total_epochs)
        return found


@pytest.fixture
def train(
    spam: Problem, make_settings: Make, make_context: Make, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Machine]:
    """Function from a time, in groups of one finalist and two folds, to what a simulated worker does."""
    now = [1000.0]
    monkeypatch.setattr(schedule.time, "monotonic", lambda: now[0])

    def trained(
        n_groups: float,
        speed: Speed = lambda _: 1.0,
        *,
        n_finalists: int = 4,
        adapts: bool = True,
        **how: Any,
    ) -> Machine:
        context = make_context(spam, make_settings(time_limit=100.0, max_epochs=None))
        parts = context.preparation.folds(2, hold_out_validation=False)
        groups = [
            _tasks(number, [Trial(number, MLPConfig(widths=(8,), seed=number), "random", 0)], parts, 10)
            for number in range(n_finalists)
        ]
        total = n_groups * sum(task.predicted_seconds for task in groups[0])
        context.journal.throughput = throughput = Throughput(1, half_life=0.1 * total)
        began, tasks = now[0], []
        for task in Schedule(context, groups, lambda _: began + total, **how):
            tasks.append(task)
            seconds = speed((now[0] - began) / total) * task.predicted_seconds
            if adapts:
                throughput.add(ShardOutcome(task.key, [], 1, seconds, task.predicted_seconds))
            now[0] += seconds
            if task.repeat == 2:  # the last fold; then the rows of all folds are predicted
                predicting = sum(task.data.forward_seconds(config, spam.n_rows) for config in task.configs)
                now[0] += speed((now[0] - began) / total) * predicting
        return Machine(tasks, (now[0] - began) / total, context, began + total)

    return trained


def test_the_finalists_fill_the_time(train: Any) -> None:
    for n_groups in (1.3, 2.6, 3.4, 7.7):
        machine = train(n_groups, n_finalists=20, stretches=True)
        assert 0.97 < machine.used < 1.02
        assert list(machine.epochs) == list(range(round(n_groups)))
        folds = [epochs for folds in machine.epochs.values() for epochs in folds]
        assert min(folds) > 0.7 * max(folds)


@pytest.mark.parametrize(
    ("speed", "fewer"),
    [
        (lambda share: 1.0 if share < 0.3 else 3.0, True),
        (lambda share: 1.0 + 2.0 * share, True),
        (lambda share: 3.0 if 0.6 < share < 0.7 else 1.0, True),
        (lambda share: 1.0 if share < 0.3 else 0.4, False),
    ],
    ids=["load from other programs", "growing load", "a short load", "load that ends"],
)
def test_the_plan_follows_the_speed_of_the_machine(speed: Speed, fewer: bool, train: Any) -> None:
    steady, machine = train(10, n_finalists=40), train(10, speed, n_finalists=40)
    assert 0.93 < machine.used < 1.05
    assert (len(machine.epochs) < len(steady.epochs)) == fewer
    # every finalist that began has all its folds
    assert {len(folds) for folds in machine.epochs.values()} == {2}


def test_a_plan_that_does_not_measure_is_late(train: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulated machine shows what adapting prevents."""
    assert train(3.7, lambda _: 3.0).used < 1.05
    monkeypatch.setattr(schedule, "LATE", 100.0)
    assert train(3.7, lambda _: 3.0, adapts=False).used > 1.1


def test_all_finalists_train_longer_if_time_is_left(train: Any) -> None:
    machine = train(6, n_finalists=4, stretches=True)
    assert 0.97 < machine.used < 1.01
    assert all(14 < epochs < 16 for folds in machine.epochs.values() for epochs in folds)
    last = machine.tasks[-1]
    assert last.until_epoch == last.total_epochs
    assert last.total_epochs / last.evaluate_every == pytest.approx(10.0)  # as many snapshots as planned


def test_epochs_that_are_asked_for_are_not_exceeded(train: Any) -> None:
    machine = train(6, n_finalists=4)
    assert machine.epochs == {number: [10, 10] for number in range(4)}
    assert machine.used == pytest.approx(4 / 6, rel=0.02)


def test_too_little_time_trains_no_other_finalist(train: Any) -> None:
    """The first group trains in any case, with few epochs and one evaluation."""
    assert list(train(0.8 * MIN_EPOCH_SHARE).epochs) == [0]
    machine = train(1e-6)
    assert list(machine.epochs) == [0]
    assert {task.evaluate_every for task in machine.tasks} == {None}
    assert max(machine.epochs[0]) < 1


def test_expensive_finalists_are_skipped_if_cheaper_ones_fit(
    train: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = itertools.count()
    real = schedule._Group.of.__func__  # type: ignore[attr-defined]

    def expensive_second(cls: Any, tasks: Any, n_rows: int) -> Any:
        group = real(cls, tasks, n_rows)
        factor = 50.0 if next(place) == 1 else 1.0
        return group._replace(together=group.together.scaled(factor))

    monkeypatch.setattr(schedule._Group, "of", classmethod(expensive_second))
    assert list(train(3).epochs) == [0, 2, 3]


def test_a_task_has_a_deadline_that_leaves_time_for_its_last_evaluation(train: Any) -> None:
    machine = train(2.0)
    n_rows = machine.context.preparation.problem.n_rows
    for task in machine.tasks:
        # and for predicting the rows of all folds
        seconds = task.evaluation_seconds + task.data.forward_seconds(task.configs[0], n_rows)
        assert seconds > 0
        assert task.deadline + seconds == pytest.approx(machine.deadline, abs=1e-6)


def test_with_many_workers_the_longest_fold_ends_in_time(
    spam: Problem, make_settings: Make, make_context: Make
) -> None:
    """Sixteen workers cannot train two folds in a sixteenth of their time."""
    context = make_context(spam, make_settings(time_limit=100.0, max_epochs=None))
    context.journal.throughput = Throughput(16)
    parts = context.preparation.folds(2, hold_out_validation=False)
    groups = [_tasks(0, [Trial(0, MLPConfig(widths=(8,)), "random", 0)], parts, 10)]
    longest = max(task.predicted_seconds for task in groups[0])
    deadline = schedule.time.monotonic() + 0.5 * longest
    tasks = list(Schedule(context, groups, lambda _: deadline))
    assert max(task.predicted_seconds for task in tasks) <= 0.51 * longest


def test_a_resumed_search_trains_the_same(train: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = train(5, lambda share: 1.0 if share < 0.5 else 3.0, n_finalists=20)
    assert any(key.startswith("late") for key in first.context.journal._entries)
    # the folds that were trained are on disk
    monkeypatch.setattr(first.context.journal, "is_kept", lambda key: True)

    def resumed() -> Iterator[ShardTask]:
        parts = first.context.preparation.folds(2, hold_out_validation=False)
        groups = [
            _tasks(number, [Trial(number, MLPConfig(widths=(8,), seed=number), "random", 0)], parts, 10)
            for number in range(20)
        ]
        return iter(Schedule(first.context, groups, lambda _: 0.0))

    found = [(task.key, task.total_epochs) for task in resumed()]
    assert found == [(task.key, task.total_epochs) for task in first.tasks]
