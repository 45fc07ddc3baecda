"""Time budget: clock, speed of the machine, and what fits into the time."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from parallelmlp_search.distribute import ShardOutcome
from parallelmlp_search.search.run.memory import MemoryPlan

FAIR_STEPS = 1200
"""Steps of a finalist with a medium time limit. On tables of 5,000 to 9,000 rows, the error of an ensemble of
eight after 600 steps is within 2 % of that after 5,000 steps."""

MIN_STRETCH, MAX_STRETCH = 0.5, 4.0
"""Limits of a finalist's steps, relative to :data:`FAIR_STEPS`."""

BALANCED_TRAININGS = 48
"""Networks that must fit into the time for finalists of :data:`FAIR_STEPS` steps."""

_FOLDS = ((8, 80), (5, 28), (4, 16))
"""Folds, and the networks that must fit into the time for them."""

FEWEST_FOLDS = 3
"""Folds with little time."""

MIN_TRAINING = 0.3
"""Least seconds of a stage of training on a quiet machine, however long reading and starting took."""

MAX_SLOWDOWN = 3.0
"""Largest factor by which they are extended on a slow machine."""

SCREENING_SHARE = 0.25
"""Share of the training time for screening; the rest is for the finalists."""

HALF_LIFE = 20.0


class Clock:
    """Time since the start of a search, against its limit.

    Parameters
    ----------
    limit, spent
        Seconds, or None; seconds used before an interruption.
    started, now
        Reading of the monotonic clock at the start, None for now; the clock.
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

    def for_training(self, reserve: float, least: float = MIN_TRAINING) -> float:
        """Seconds for training, without a reserve for the end; infinite without a limit.

        It is at least ``least``, because networks without training are useless.
        """
        return math.inf if self.limit is None else max(least, self.left - reserve)

    def deadline(self, reserve: float) -> float:
        """Reading of the monotonic clock at which ``reserve`` seconds are left; infinite without a limit."""
        return math.inf if self.limit is None else self.started + self.limit - reserve


class Throughput:
    """Speed of the machine: ratio of measured to predicted seconds of the shards so far.

    It includes the effect of workers on each other. Old shards fade, so that a change of speed is noticed.

    Parameters
    ----------
    n_workers
        Number of workers.
    half_life
        Seconds of training by one worker after which a shard counts half.
    """

    def __init__(self, n_workers: int, half_life: float = HALF_LIFE) -> None:
        self.n_workers = n_workers
        self._half_life = half_life
        self.member_steps = 0
        self.recalled_steps = 0
        self.path_steps: Counter[str] = Counter()
        self.loop_seconds = 0.0
        self._measured = 0.0
        self._predicted = 0.0

    def add(self, outcome: ShardOutcome, *, recalled: bool = False) -> None:
        """Add a shard; ``recalled`` if it was trained before an interruption."""
        self.member_steps += outcome.member_steps
        self.recalled_steps += outcome.member_steps if recalled else 0
        self.path_steps.update(outcome.path_steps)
        self.loop_seconds += 0.0 if recalled else outcome.loop_seconds
        if outcome.predicted_seconds > 0 and not outcome.cut:
            fade = 0.5 ** (outcome.seconds / self._half_life)
            self._measured = fade * self._measured + outcome.seconds
            self._predicted = fade * self._predicted + outcome.predicted_seconds

    def forget_steps(self) -> None:
        """Count from here on; the speed stays known."""
        self.member_steps, self.loop_seconds = 0, 0.0
        self.path_steps.clear()

    def path_shares(self) -> dict[str, float]:
        """Return the share of the member-steps that each path of training took, the largest first."""
        total = self.path_steps.total()
        return {path: steps / total for path, steps in self.path_steps.most_common() if steps}

    @property
    def factor(self) -> float:
        """Measured over predicted seconds; 1 before the first measurement."""
        return self._measured / self._predicted if self._predicted else 1.0

    @property
    def least_training(self) -> float:
        """Least seconds of a stage of training."""
        return MIN_TRAINING * min(MAX_SLOWDOWN, max(1.0, self.factor))

    def wall_seconds(self, predicted: float) -> float:
        """Wall-clock seconds of work that is predicted to take this many seconds on one core."""
        return predicted * self.factor / self.n_workers


@dataclass(frozen=True)
class FinalistPlan:
    """Size of cross-fitting: epochs of full training, finalists, folds, finalists that train at once."""

    max_epochs: int
    n_finalists: int
    n_folds: int
    group_size: int = 1


@dataclass(frozen=True)
class SearchPlan:
    """Plan of a search.

    Attributes
    ----------
    rungs
        Epochs of each rung; the last is full training.
    n_fresh, n_refined
        Trials from the whole space, and near the elites.
    capacity
        Most members that are alive at once.
    n_finalists, n_folds
        Size of cross-fitting.
    screening_seconds, reserve_seconds
        Time for screening, None without a time limit; time for selecting and saving.
    minimum_seconds
        Predicted seconds of the smallest search, if they exceed the time limit; else 0.
    fills_time
        True if trials are added as long as there is time for screening.
    training_seconds
        Predicted seconds of all training on one core; 0 in journals of older versions.
    memory
        Memory of the search, or None without a limit.
    deadline
        Reading of the monotonic clock at which screening ends, or None. It is not written to disk.
    """

    rungs: tuple[float, ...]
    n_fresh: int
    n_refined: int
    capacity: int
    n_finalists: int
    n_folds: int
    screening_seconds: float | None = None
    reserve_seconds: float = 0.0
    minimum_seconds: float = 0.0
    fills_time: bool = False
    training_seconds: float = 0.0
    memory: MemoryPlan | None = None
    deadline: float | None = None

    @property
    def max_epochs(self) -> int:
        """Epochs of full training."""
        return int(self.rungs[-1])

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values."""
        values = asdict(self) | {"rungs": list(self.rungs)}
        del values["deadline"]
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> SearchPlan:
        """Plan that :meth:`to_dict` wrote."""
        memory = values.get("memory")
        memory = None if memory is None else MemoryPlan(**memory)
        return cls(**{**values, "rungs": tuple(values["rungs"]), "memory": memory})


def default_epochs(steps_per_epoch: float) -> int:
    """Epochs of full training without a time limit: about 2,000 steps, between 27 and 120 epochs."""
    return max(27, min(120, round(2000 / max(1.0, steps_per_epoch))))


def default_folds(n_rows: int) -> int:
    """Folds, unless time is short: more where rows are few, since a fold does not train on its share."""
    return 8 if n_rows < 10_000 else 5 if n_rows < 50_000 else 4


def fewest_epochs(steps_per_epoch: float) -> float:
    """Epochs of a finalist with a short time limit."""
    return MIN_STRETCH * _fair_epochs(steps_per_epoch)


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
    """Divide the time of cross-fitting between finalists, folds and epochs.

    About 1,200 steps train a network fairly well. More networks, folds and steps improve the ensemble with
    falling returns, so all three grow together: steps with the square root of the time, between half that
    number and four times as many; folds up to :func:`default_folds`; then up to 32 finalists.

    Parameters
    ----------
    seconds, epoch_seconds
        Wall-clock seconds of cross-fitting, and of one epoch of one member on all rows with all workers busy.
    n_rows, steps_per_epoch
        Size of the table and of its epochs.
    max_epochs, n_folds, n_finalists
        Numbers that the settings fix, or None.

    Returns
    -------
    FinalistPlan
    """
    units = max(seconds, 0.0) / max(epoch_seconds, 1e-9)
    wanted = _fair_epochs(steps_per_epoch)
    stretch = math.sqrt(units / wanted / BALANCED_TRAININGS)
    stretch = min(max(stretch, MIN_STRETCH), MAX_STRETCH)
    epochs = float(max_epochs) if max_epochs else max(1.0, wanted * stretch)
    trainings = units / epochs
    most = default_folds(n_rows)
    folds = n_folds or next(
        (count for count, least in _FOLDS if trainings >= least and count <= most), FEWEST_FOLDS
    )
    per_fold = trainings / (folds - 1)
    count = n_finalists or max(2, min(32, round(per_fold)))
    if max_epochs:
        return FinalistPlan(max_epochs, count, folds)
    affordable = epochs * per_fold / count
    return FinalistPlan(max(1, int(min(MAX_STRETCH * wanted, affordable))), count, folds)
