"""Schedule of cross-fitting: which groups of finalists train, and for how many epochs, before a deadline.

It is planned anew before each group, with the speed that was measured last. The epochs of all groups that fit
are stretched or shortened a little, so that the last one ends at the deadline. If a fold takes longer than
planned, the other folds of its group are shortened.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from parallelmlp_search.distribute import ShardTask
from parallelmlp_search.search.run.budget import Throughput
from parallelmlp_search.search.run.context import SearchContext

MIN_EPOCH_SHARE = 0.3
"""Least share of its epochs with which a finalist is trained in the time that is left."""

MAX_EPOCH_SHARE = 4.0
"""Largest one, if there is time for more than all finalists."""

LATE = 1.15
"""Predicted time of the remaining folds, relative to the time left, from which they are shortened."""

MIN_LATE_SHARE = 0.05
"""Least share of the epochs of such a fold."""

N_AHEAD = 32
"""Groups that are planned together; further ones wait."""

Deadline = Callable[[int], float]
"""Maps a number of finalists to the reading of the monotonic clock at which their training ends.

The more finalists there are, the longer their evaluation takes.
"""


class Schedule:
    """Tasks of groups of finalists, those of the next group when a worker is free.

    Parameters
    ----------
    context
        Context of the search.
    groups
        Tasks of each group on every fold, the best finalists first. The first group always trains.
    deadline
        End of training, or None for all groups with all epochs.
    stretches
        True if finalists may train for more epochs than planned.
    """

    def __init__(
        self,
        context: SearchContext,
        groups: Iterable[Sequence[ShardTask]],
        deadline: Deadline | None,
        *,
        stretches: bool = False,
    ) -> None:
        self._context = context
        self._groups = iter(groups)
        self._deadline = deadline
        self._most = MAX_EPOCH_SHARE if stretches else 1.0
        self._waiting: list[_Group] = []
        self._begun = 0

    def __iter__(self) -> Iterator[ShardTask]:
        if self._deadline is None:
            for tasks in self._groups:
                yield from tasks
            return
        entry, number = self._context.journal.entry, 0
        while self._look_ahead():
            planned = entry(f"group-{number}", self._next)
            if planned is None:
                return
            group = self._waiting.pop(planned["place"])
            self._begun += group.n_finalists
            yield from self._folds(group, planned["share"])
            number += 1

    # ------------------------------------------------------------------ groups

    def _look_ahead(self) -> bool:
        """Let groups wait for the plan of the next one; False if there are none."""
        n_rows = self._context.preparation.problem.n_rows
        for tasks in itertools.islice(self._groups, N_AHEAD - len(self._waiting)):
            self._waiting.append(_Group.of(tasks, n_rows))
        return bool(self._waiting)

    def _next(self) -> dict[str, Any] | None:
        """Place of the next group among those that wait, and its share of the epochs; None for the end."""
        throughput = self._context.throughput
        costs = [group.cost(throughput) for group in self._waiting]
        fitting, total, finalists = [], _Cost(0.0, 0.0), self._begun
        for place, (group, cost) in enumerate(zip(self._waiting, costs, strict=True)):
            count = finalists + group.n_finalists
            # a group of which half fits is trained, and all are shortened a little
            if total.seconds + 0.5 * cost.seconds <= self._left(count):
                fitting.append(place)
                total, finalists = total + cost, count
        if not fitting:
            cheapest = min(range(len(costs)), key=lambda place: costs[place].seconds)
            fitting = [cheapest if self._begun else 0]
            total, finalists = costs[fitting[0]], self._begun + self._waiting[fitting[0]].n_finalists
        place, left = fitting[0], self._left(finalists)
        # a group does not end before its longest task, with any number of workers
        longest = self._waiting[place].longest.scaled(throughput.factor)
        most = self._most if len(self._waiting) < N_AHEAD else 1.0
        share = min(most, total.share(left), longest.share(left))
        if share < MIN_EPOCH_SHARE and self._begun:
            return None
        return {"place": place, "share": max(MIN_LATE_SHARE, share)}

    def _left(self, n_finalists: int) -> float:
        assert self._deadline is not None
        return max(0.0, self._deadline(n_finalists) - time.monotonic())

    # ------------------------------------------------------------------ folds of one group

    def _folds(self, group: _Group, share: float) -> Iterator[ShardTask]:
        """Tasks of a group, from the first on with this share of the epochs, and with a deadline."""
        journal, factor = self._context.journal, self._context.throughput.factor
        assert self._deadline is not None
        for place, task in enumerate(group.tasks):
            key = f"late-{task.key}"
            if key in journal:
                share = journal.entry(key, float)
            # a fold that an interrupted search has trained keeps its epochs
            elif place > 0 and not journal.is_kept(task.key):
                corrected = self._corrected(group, place, share)
                if corrected < share:
                    share = journal.entry(key, partial(float, corrected))
            evaluating = factor * (task.evaluation_seconds + group.predicting)
            yield replace(_with_share(task, share), deadline=self._deadline(self._begun) - evaluating)

    def _corrected(self, group: _Group, place: int, share: float) -> float:
        """Share of the epochs with which the folds from a place on end in time."""
        throughput = self._context.throughput
        costs = [_Cost.of(task).scaled(throughput.wall_seconds(1.0)) for task in group.tasks[place:]]
        cost = sum(costs, start=_Cost(0.0, throughput.factor * group.predicting))
        # half of each fold that other workers are training
        left = self._left(self._begun) - 0.5 * (throughput.n_workers - 1) * costs[0].at(share)
        if cost.at(share) <= LATE * left:
            return share
        return max(min(share, MIN_LATE_SHARE), cost.share(left))


class _Cost(NamedTuple):
    """Seconds of training all epochs, and of evaluations, of which any share of the epochs has as many."""

    training: float
    evaluating: float

    @classmethod
    def of(cls, task: ShardTask) -> _Cost:
        """Predicted seconds of a task on one core."""
        evaluating = task.n_evaluations * task.evaluation_seconds
        return cls(task.predicted_seconds - evaluating, evaluating)

    def __add__(self, other: _Cost) -> _Cost:  # type: ignore[override]
        return _Cost(self.training + other.training, self.evaluating + other.evaluating)

    def scaled(self, factor: float) -> _Cost:
        """Cost times a factor."""
        return _Cost(factor * self.training, factor * self.evaluating)

    @property
    def seconds(self) -> float:
        """Seconds with all epochs."""
        return self.at(1.0)

    def at(self, share: float) -> float:
        """Seconds with a share of the epochs."""
        return share * self.training + self.evaluating

    def share(self, seconds: float) -> float:
        """Share of the epochs that takes these seconds."""
        return max(0.0, seconds - self.evaluating) / max(self.training, 1e-9)


class _Group(NamedTuple):
    """Finalists that train together, with predicted seconds on one core."""

    tasks: Sequence[ShardTask]
    n_finalists: int
    together: _Cost
    """Cost of all tasks."""
    longest: _Cost
    """Cost of the longest task."""
    predicting: float
    """Seconds of predicting all rows once the folds are trained, by this process alone."""

    @classmethod
    def of(cls, tasks: Sequence[ShardTask], n_rows: int) -> _Group:
        costs = [_Cost.of(task) for task in tasks]
        configs = {
            trial: config for task in tasks for trial, config in zip(task.trials, task.configs, strict=True)
        }
        data, predicting = tasks[0].data, 0.0
        if data.snapshot_inputs is not None:
            predicting = sum(data.forward_seconds(config, n_rows) for config in configs.values())
        longest = max(costs, key=lambda cost: cost.seconds)
        return cls(tasks, len(configs), sum(costs, start=_Cost(0.0, 0.0)), longest, predicting)

    def cost(self, throughput: Throughput) -> _Cost:
        """Wall-clock time while other groups keep the other workers busy."""
        predicting = _Cost(0.0, throughput.factor * self.predicting)
        return self.together.scaled(throughput.wall_seconds(1.0)) + predicting


def _with_share(task: ShardTask, share: float) -> ShardTask:
    """The task with a share of its epochs and as many evaluations; with few epochs, one at the end."""
    if share == 1.0:
        return task
    epochs, every = share * task.total_epochs, None
    if task.evaluate_every is not None and share >= MIN_EPOCH_SHARE:
        every = share * task.evaluate_every
    return replace(task, until_epoch=epochs, total_epochs=epochs, evaluate_every=every)
