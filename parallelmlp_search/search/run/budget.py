"""Time: how much is left, how fast this machine is, and what can be afforded."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from parallelmlp_search.distribute import ShardOutcome

__all__ = [
    "Clock",
    "FinalistPlan",
    "Throughput",
    "default_epochs",
    "default_folds",
    "fewest_epochs",
    "plan_finalists",
]

FAIR_STEPS = 1200
"""Steps of a finalist where time is neither short nor plenty. On tables of 5,000 to 9,000 rows an ensemble
of eight after 600 steps comes within 2 % of the error that it has after 5,000, if it is not better."""

SHORTEST, LONGEST = 0.5, 4.0
"""Least and most of these steps that finalists take as time goes."""

BALANCED_TRAININGS = 48
"""With time for so many networks of :data:`FAIR_STEPS` steps, finalists take that many."""

_FOLDS = ((8, 80), (5, 28), (4, 16))
"""Folds, and the networks that there must be time for."""

MIN_SHARE = 0.05
"""Share of a time limit that training gets even where reading and starting have left nothing."""

SCREENING_SHARE = 0.25
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

    def for_training(self, reserve: float) -> float:
        """Seconds for training if ``reserve`` are kept for the end; infinite without a limit.

        At least :data:`MIN_SHARE` of the limit: better a little late than with networks that have learned
        nothing.
        """
        return math.inf if self.limit is None else max(MIN_SHARE * self.limit, self.left - reserve)

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
        self.recalled_steps = 0
        self._measured = 0.0
        self._predicted = 0.0

    def add(self, outcome: ShardOutcome, *, recalled: bool = False) -> None:
        """Learn from a shard; ``recalled`` if it was trained before an interruption."""
        self.member_steps += outcome.member_steps
        self.recalled_steps += outcome.member_steps if recalled else 0
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
    """Folds, unless time is short: more where rows are few, since each fold costs its networks a share."""
    return 8 if n_rows < 10_000 else 5 if n_rows < 50_000 else 4


def fewest_epochs(steps_per_epoch: float) -> float:
    """Epochs of a finalist where time is short."""
    return SHORTEST * _fair_epochs(steps_per_epoch)


def _fair_epochs(steps_per_epoch: float) -> float:
    return max(6.0, min(FAIR_STEPS / max(1.0, steps_per_epoch), 400.0))


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
    Some 1,200 steps train a network fairly well, and more networks, folds and steps each make the ensemble
    better by a little less than the last. So all three grow together: steps with the square root of the
    time, from half that number to four times as many, and what is left goes into folds first, up to
    :func:`default_folds`, then into up to 32 finalists.
    """
    units = max(seconds, 0.0) / max(epoch_seconds, 1e-9)
    wanted = _fair_epochs(steps_per_epoch)
    stretch = math.sqrt(units / wanted / BALANCED_TRAININGS)
    epochs = float(max_epochs) if max_epochs else max(1.0, wanted * min(max(stretch, SHORTEST), LONGEST))
    trainings = units / epochs
    most = default_folds(n_rows)
    folds = n_folds or next((count for count, least in _FOLDS if trainings >= least and count <= most), 3)
    per_fold = trainings / (folds - 1)
    count = n_finalists or max(2, min(32, round(per_fold)))
    if max_epochs:
        return FinalistPlan(max_epochs, count, folds)
    affordable = epochs * per_fold / count
    return FinalistPlan(max(1, int(min(LONGEST * wanted, affordable))), count, folds)
