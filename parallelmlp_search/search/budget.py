"""Time: how much is left, how fast this machine is, and what can be afforded."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from parallelmlp_search.distribute import ShardOutcome

__all__ = ["Clock", "FinalistPlan", "Throughput", "default_epochs", "default_folds", "plan_finalists"]

WELL_TRAINED_STEPS = 4000

SCREENING_SHARE = 0.42
"""Share of the training time that screening may take; the rest belongs to the finalists."""


class Clock:
    """Time since the start of a search, against its limit.

    Parameters
    ----------
    limit
        Seconds, or None.
    started
        Reading of :func:`time.monotonic` at the start; None for now.
    spent
        Seconds that an interrupted predecessor had used.
    """

    def __init__(
        self,
        limit: float | None,
        started: float | None = None,
        spent: float = 0.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._now = now
        self.limit = limit
        self.started = (now() if started is None else started) - spent

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self._now() - self.started

    @property
    def left(self) -> float:
        """Seconds until the limit; infinite without one."""
        return math.inf if self.limit is None else self.limit - self.elapsed

    def deadline(self, reserve: float) -> float | None:
        """Reading of the monotonic clock at which only ``reserve`` seconds are left; None without a limit."""
        return None if self.limit is None else self.started + self.limit - reserve


class Throughput:
    """Ratio of measured to predicted training time, learned from finished shards.

    The cost model of a plan knows how shapes compare; this knows how fast the machine is, workers beside each
    other included. Old shards fade, so that a machine that slows down is noticed.
    """

    def __init__(self, n_workers: int) -> None:
        self.n_workers = n_workers
        self.member_steps = 0
        self.remembered_steps = 0
        self._measured = 0.0
        self._predicted = 0.0

    def add(self, outcome: ShardOutcome, *, remembered: bool = False) -> None:
        """Learn from a shard; ``remembered`` if it was trained before an interruption."""
        self.member_steps += outcome.member_steps
        self.remembered_steps += outcome.member_steps if remembered else 0
        if outcome.predicted_seconds > 0 and not outcome.cut:
            fade = 0.97
            self._measured = fade * self._measured + outcome.seconds
            self._predicted = fade * self._predicted + outcome.predicted_seconds

    @property
    def factor(self) -> float:
        """Measured over predicted seconds; 1 before anything was measured."""
        return self._measured / self._predicted if self._predicted else 1.0

    def wall_seconds(self, predicted: float) -> float:
        """Wall-clock seconds of work that the cost model puts at ``predicted`` seconds of one core."""
        return predicted * self.factor / self.n_workers


@dataclass(frozen=True)
class FinalistPlan:
    """What a time limit affords: epochs of full training, finalists, folds."""

    max_epochs: int
    n_finalists: int
    n_folds: int


def default_epochs(steps_per_epoch: float) -> int:
    """Epochs of full training without a time limit: some 2,000 steps, between 27 and 120 epochs."""
    return max(27, min(120, round(2000 / max(1.0, steps_per_epoch))))


def default_folds(n_rows: int) -> int:
    """Folds, unless time is short: more where rows are few."""
    return 5 if n_rows < 20_000 else 4


def plan_finalists(
    seconds: float,
    epoch_seconds: float,
    n_rows: int,
    steps_per_epoch: float,
    *,
    max_epochs: int | None = None,
    n_folds: int | None = None,
    n_finalists: int | None = None,
) -> FinalistPlan:
    """Share ``seconds`` of cross-fitting out between finalists, folds and epochs.

    Parameters
    ----------
    seconds
        Wall-clock time of cross-fitting.
    epoch_seconds
        Wall-clock seconds of one epoch of one member on all rows, all workers at work.
    n_rows, steps_per_epoch
        Size of the table and of its epochs.
    max_epochs, n_folds, n_finalists
        What is settled already.

    Notes
    -----
    Some 4,000 steps train a network well. Up to twelve finalists share what a fold affords with that many;
    beyond, a third of the surplus goes into more finalists, up to 32, and the rest into longer training, up
    to four times as long. With too little for four, training is cut short instead.
    """
    units = seconds / max(epoch_seconds, 1e-9)
    folds = n_folds or (default_folds(n_rows) if units >= 800 else 4 if units >= 300 else 3)
    per_fold = max(1.0, units / (folds - 1))
    wanted = max(6.0, WELL_TRAINED_STEPS / max(1.0, steps_per_epoch))
    wanted = float(max_epochs) if max_epochs else min(wanted, 600.0)
    fitting = per_fold / wanted
    if n_finalists is None:
        n_finalists = round(max(2.0, min(fitting, 4.0)) if fitting < 4 else fitting)
        if fitting > 12:
            n_finalists = min(32, round(12 + (fitting - 12) / 3))
        if fitting < 4 and max_epochs is None:
            n_finalists = max(2, min(4, int(per_fold / 2)))
    epochs = max_epochs or max(1, int(min(4 * wanted, per_fold / n_finalists)))
    return FinalistPlan(max_epochs=epochs, n_finalists=n_finalists, n_folds=folds)
