"""How much to do: from the user's budget, the size of the table and the speed of the machine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from parallelmlp_search.distribute import ShardData, run_shards, shard_tasks
from parallelmlp_search.search.finalists.cross_fitting import snapshots_fit
from parallelmlp_search.search.finalists.evaluation import selection_seconds
from parallelmlp_search.search.problem.preparation import Preparation
from parallelmlp_search.search.problem.settings import SearchSettings
from parallelmlp_search.search.proposals.proposals import thrifty_share
from parallelmlp_search.search.proposals.samplers import draw_fresh, draw_thriftily
from parallelmlp_search.search.run.budget import (
    SCREENING_SHARE,
    Clock,
    FinalistPlan,
    Throughput,
    default_epochs,
    default_folds,
    fewest_epochs,
    plan_finalists,
)
from parallelmlp_search.search.run.trial import Trial
from parallelmlp_search.search.screening.rungs import ladder, ladder_cost
from parallelmlp_search.search.screening.screening import MAX_TRIALS
from parallelmlp_search.space import MLPConfig

__all__ = ["SearchPlan", "affordable_first", "make_plan", "replan_finalists", "training_seconds"]

DEFAULT_TRIALS = 200

STATE_BYTES = 220_000_000
"""Memory for the states of members between two rungs, unless a memory limit says less."""

TIMED_STEPS = 6

N_SAMPLED = 64
"""Configurations whose mean cost stands for that of all that will be drawn."""

UNTIMED_FOLDS = 5
"""Most folds where no time limit says what they may cost."""

MAX_OF_ONE = 0.25
"""Most of the finalists' time that one of them may take if others are to be found."""

FIRST_RUNG_STEPS = 40
"""Under a time limit, steps before the first judgement at least; without one it is an epoch at least."""


@dataclass(frozen=True)
class SearchPlan:
    """What a search is going to do.

    Attributes
    ----------
    rungs
        Epochs of each rung; the last is full training.
    n_fresh, n_refined
        Trials drawn from the whole space, and near the leaders.
    capacity
        Members alive at once.
    n_finalists, n_folds
        Size of cross-fitting.
    screening_seconds
        Time for screening, None without a time limit.
    reserve_seconds
        Time that selecting and saving will take.
    fills_time
        Whether more trials are drawn as long as there is time for screening.
    """

    rungs: tuple[float, ...]
    n_fresh: int
    n_refined: int
    capacity: int
    n_finalists: int
    n_folds: int
    screening_seconds: float | None = None
    reserve_seconds: float = 0.0
    fills_time: bool = False

    @property
    def max_epochs(self) -> int:
        """Epochs of full training."""
        return int(self.rungs[-1])

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values."""
        return asdict(self) | {"rungs": list(self.rungs)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> SearchPlan:
        """The plan that :meth:`to_dict` wrote."""
        return cls(**{**values, "rungs": tuple(values["rungs"])})


def make_plan(
    preparation: Preparation,
    data: ShardData,
    settings: SearchSettings,
    clock: Clock,
    throughput: Throughput,
) -> SearchPlan:
    """Plan a search.

    Without a time limit the plan is a function of settings and data alone. With one, a few networks are
    trained for a few steps first, to see how fast the machine is.
    """
    rng = np.random.default_rng([settings.seed, 5])
    sample = draw_fresh(settings.space, "random", N_SAMPLED, rng, known=[])
    steps_per_epoch = sum(data.rows.inputs.shape[0] / data.batch_rows(config) for config in sample) / len(
        sample
    )
    capacity = _capacity(data, sample, settings)
    size = settings.space.size()
    if settings.time_limit is None:
        n_trials = settings.n_trials or DEFAULT_TRIALS
        epochs = settings.max_epochs or default_epochs(steps_per_epoch)
        n_refined = _refined(n_trials, settings, size)
        n_folds = settings.n_folds or min(UNTIMED_FOLDS, default_folds(preparation.n_oof))
        return SearchPlan(
            rungs=ladder(epochs, settings.reduction_factor),
            n_fresh=n_trials - n_refined,
            n_refined=n_refined,
            capacity=capacity,
            n_finalists=settings.n_finalists or _default_finalists(n_trials),
            n_folds=preparation.allowed_folds(n_folds),
        )
    sample = _drawn_in_time(settings, data, rng)
    _time_machine(data, sample, throughput)
    epoch = throughput.wall_seconds(_epoch_seconds(data, sample))
    n_predictions = preparation.problem.head.n_predictions
    reserve = min(
        0.2 * settings.time_limit,
        0.7 + selection_seconds(preparation.metric, 16, n_predictions, preparation.n_oof),
    )
    usable = clock.for_training(reserve)
    screening = SCREENING_SHARE * usable
    finalists = plan_finalists(
        0.85 * (usable - screening),
        epoch * _fold_rows(preparation),
        preparation.n_oof,
        steps_per_epoch * _fold_rows(preparation),
        max_epochs=settings.max_epochs,
        n_folds=settings.n_folds,
        n_finalists=settings.n_finalists,
    )
    least = min(1.0, FIRST_RUNG_STEPS / max(1.0, steps_per_epoch))
    rungs = ladder(finalists.max_epochs, settings.reduction_factor, least=least)
    judging = throughput.wall_seconds(sum(data.evaluation_seconds(config) for config in sample) / len(sample))
    each = epoch * ladder_cost(rungs, settings.reduction_factor) + 1.5 * judging
    affordable = max(2, min(MAX_TRIALS, int(0.85 * screening / max(each, 1e-9))))
    n_trials = min(affordable, settings.n_trials or affordable)
    n_refined = _refined(n_trials, settings, size)
    return SearchPlan(
        rungs=rungs,
        n_fresh=n_trials - n_refined,
        n_refined=n_refined,
        capacity=capacity,
        n_finalists=min(finalists.n_finalists, n_trials),
        n_folds=preparation.allowed_folds(finalists.n_folds),
        screening_seconds=screening,
        reserve_seconds=reserve,
        fills_time=settings.n_trials is None and n_trials < size,
    )


def _drawn_in_time(settings: SearchSettings, data: ShardData, rng: np.random.Generator) -> list[MLPConfig]:
    """Configurations as a search under a time limit draws them, as many cheap ones as it will prefer."""

    def draw(count: int) -> list[MLPConfig]:
        return draw_fresh(settings.space, "random", count, rng, known=[])

    n_thrifty = round(N_SAMPLED * thrifty_share(settings))
    return draw_thriftily(draw, n_thrifty, data.epoch_seconds, rng) + draw(N_SAMPLED - n_thrifty)


def affordable_first(
    ranked: Sequence[Trial],
    preparation: Preparation,
    data: ShardData,
    throughput: Throughput,
    seconds: float,
) -> list[Trial]:
    """Trials in their order, but behind all others those that would take too much of the finalists' time.

    A network that would take more than :data:`MAX_OF_ONE` of the ``seconds`` for few epochs on four folds
    leaves the ensemble without company.
    """
    n_rows = data.rows.inputs.shape[0] * _fold_rows(preparation)

    def is_dear(trial: Trial) -> bool:
        epochs = 3 * fewest_epochs(n_rows / data.batch_rows(trial.config))
        epoch = throughput.wall_seconds(data.epoch_seconds(trial.config)) * _fold_rows(preparation)
        return epochs * epoch > MAX_OF_ONE * seconds

    return sorted(ranked, key=is_dear)


def replan_finalists(
    plan: SearchPlan,
    leaders: Sequence[MLPConfig],
    preparation: Preparation,
    data: ShardData,
    settings: SearchSettings,
    throughput: Throughput,
    seconds: float,
) -> FinalistPlan:
    """What the time that is left after screening affords, now that the leaders and their speed are known."""
    epoch = throughput.wall_seconds(_epoch_seconds(data, leaders))
    n_rows = data.rows.inputs.shape[0]
    steps_per_epoch = sum(n_rows / data.batch_rows(config) for config in leaders) / len(leaders)
    finalists = plan_finalists(
        0.85 * seconds,
        epoch * _fold_rows(preparation),
        n_rows,
        steps_per_epoch * _fold_rows(preparation),
        max_epochs=settings.max_epochs,
        n_folds=settings.n_folds,
        n_finalists=settings.n_finalists,
    )
    return replace(finalists, n_folds=preparation.allowed_folds(finalists.n_folds))


def training_seconds(plan: SearchPlan, data: ShardData, settings: SearchSettings) -> float:
    """Predicted seconds of all training on one core."""
    sample = draw_fresh(settings.space, "random", 64, np.random.default_rng([settings.seed, 5]), known=[])
    screening = (plan.n_fresh + plan.n_refined) * ladder_cost(plan.rungs, settings.reduction_factor)
    return _epoch_seconds(data, sample) * (screening + plan.n_finalists * plan.n_folds * plan.max_epochs)


def _fold_rows(preparation: Preparation) -> float:
    """Rows that are divided into folds, over those that screening trains on."""
    return preparation.problem.n_rows / preparation.n_oof if snapshots_fit(preparation) else 1.0


def _epoch_seconds(data: ShardData, configs: Sequence[MLPConfig]) -> float:
    """Predicted seconds of an epoch of one of these on one core; the outer calls of its bucket are shared."""
    return sum(data.epoch_seconds(config) for config in configs) / len(configs)


def _refined(n_trials: int, settings: SearchSettings, size: float) -> int:
    """How many of the trials are drawn near the leaders; a small space is simply drawn in full."""
    return 0 if size <= n_trials else round(settings.refined_share * n_trials)


def _default_finalists(n_trials: int) -> int:
    """Half the square root: 8 of 256, 16 of 1,000; at least 2 and at most 32."""
    return min(n_trials, max(2, min(32, round(0.5 * math.sqrt(n_trials)))))


def _capacity(data: ShardData, sample: Sequence[MLPConfig], settings: SearchSettings) -> int:
    """Members that may be alive at once: the states of two generations of survivors must fit."""
    mean = sum(data.architecture(config).n_parameters for config in sample) / len(sample)
    state = 4 * 4 * mean
    limit = settings.memory_bytes
    room = STATE_BYTES if limit is None else min(STATE_BYTES, 0.4 * limit)
    return max(4, int(room * settings.reduction_factor / (2.0 * state)))


def _time_machine(data: ShardData, sample: Sequence[MLPConfig], throughput: Throughput) -> None:
    """Train a sample for a few steps on all workers, and compare measured with predicted seconds.

    The first of two passes does not count: a process that has just started loads libraries, compiled loops
    and rows, which takes eight times as long as the steps.
    """
    configs = [config.replace(batch_size=sample[0].batch_size) for config in sample]
    epochs = TIMED_STEPS * data.batch_rows(configs[0]) / data.n_rows
    tasks = shard_tasks("timing", dict(enumerate(configs)), data, until_epoch=epochs, total_epochs=epochs)[
        : max(2, 2 * throughput.n_workers)
    ]
    for outcome in run_shards(tasks, n_workers=throughput.n_workers):
        outcome.members.clear()
    for outcome in run_shards(tasks, n_workers=throughput.n_workers):
        throughput.add(outcome)
    throughput.member_steps = 0
