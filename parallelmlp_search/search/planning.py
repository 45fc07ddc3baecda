"""Plan of a search, from the budget, the size of the table and the speed of the machine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from parallelmlp_search.distribute import ShardData, run_shards, shard_tasks
from parallelmlp_search.search.finalists.baselines import baseline_reserve
from parallelmlp_search.search.finalists.reserve import end_seconds
from parallelmlp_search.search.finalists.sizes import snapshots_fit
from parallelmlp_search.search.memory_planning import MIN_CAPACITY, estimated_peak, plan_memory, state_bytes
from parallelmlp_search.search.problem.preparation import Preparation
from parallelmlp_search.search.problem.settings import SearchSettings
from parallelmlp_search.search.proposals.proposals import cheap_share
from parallelmlp_search.search.proposals.samplers import propose_cheap, propose_fresh
from parallelmlp_search.search.run.budget import (
    FEWEST_FOLDS,
    SCREENING_SHARE,
    FinalistPlan,
    SearchPlan,
    Throughput,
    default_epochs,
    default_folds,
    fewest_epochs,
    plan_finalists,
)
from parallelmlp_search.search.run.context import SearchContext
from parallelmlp_search.search.run.trial import Trial
from parallelmlp_search.search.screening.rungs import ladder, ladder_cost
from parallelmlp_search.search.screening.screening import MAX_TRIALS
from parallelmlp_search.space import MLPConfig

DEFAULT_TRIALS = 200

STATE_BYTES = 220_000_000
"""Memory for the states of members between two rungs, unless a memory limit is lower."""

N_TIMED_STEPS = 6
"""Steps of the training that measures the speed of the machine."""

N_SAMPLED = 64
"""Configurations whose mean cost stands for that of all trials."""

UNTIMED_FOLDS = 5
"""Most folds without a time limit."""

MAX_FINALIST_SHARE = 0.25
"""Share of the finalists' time above which a finalist is taken last."""

FIRST_RUNG_STEPS = 40
"""Least steps of the first rung under a time limit; without a limit it is at least one epoch."""

SAFETY = 0.85
"""Share of the available time that is planned."""

EXPECTED_FINALISTS = 8
"""Finalists for whose evaluation time is kept before their number is planned."""


@dataclass(frozen=True)
class _Sample:
    """Mean costs of a sample of configurations: steps and predicted seconds of an epoch on one core."""

    configs: list[MLPConfig]
    steps_per_epoch: float
    epoch_seconds: float

    @classmethod
    def of(cls, data: ShardData, configs: list[MLPConfig]) -> _Sample:
        n = len(configs)
        steps = sum(data.n_rows / data.batch_rows(config) for config in configs) / n
        return cls(configs, steps, sum(data.epoch_seconds(config) for config in configs) / n)


def make_plan(context: SearchContext) -> SearchPlan:
    """Plan a search.

    Without a limit of time or memory the plan depends on settings and data alone. With a time limit, a few
    networks are trained for a few steps to measure the speed of the machine.

    Raises
    ------
    InvalidParameterError
        If the memory limit is below the minimum.
    """
    settings = context.settings
    memory = plan_memory(context)
    context = context.within(memory)
    data, rng = context.data, np.random.default_rng([settings.seed, 5])

    def drawn(count: int) -> list[MLPConfig]:
        return propose_fresh(settings.space, "random", count, rng, known=[])

    propose = drawn if context.latency is None else partial(context.latency.sample, drawn)

    if settings.time_limit is None:
        sample = _Sample.of(data, propose(N_SAMPLED))
        plan = _untimed_plan(context, sample)
    else:
        n_cheap = round(N_SAMPLED * cheap_share(settings))
        cheap = propose_cheap(propose, n_cheap, data.epoch_seconds, rng)
        sample = _Sample.of(data, cheap + propose(N_SAMPLED - n_cheap))
        plan = _timed_plan(context, sample)
    if memory is not None:
        plan = replace(plan, memory=replace(memory, estimate=estimated_peak(context, plan, sample.configs)))
    return plan


def _untimed_plan(context: SearchContext, sample: _Sample) -> SearchPlan:
    settings, preparation = context.settings, context.preparation
    n_trials = settings.n_trials or DEFAULT_TRIALS
    rungs = ladder(settings.max_epochs or default_epochs(sample.steps_per_epoch), settings.reduction_factor)
    n_refined = _n_refined(n_trials, settings)
    n_finalists = settings.n_finalists or _default_finalists(n_trials)
    n_folds = settings.n_folds or min(UNTIMED_FOLDS, default_folds(preparation.n_oof))
    n_folds = preparation.allowed_folds(n_folds)
    epochs = n_trials * ladder_cost(rungs, settings.reduction_factor) + n_finalists * n_folds * int(rungs[-1])
    return SearchPlan(
        rungs=rungs,
        n_fresh=n_trials - n_refined,
        n_refined=n_refined,
        capacity=_capacity(context, sample.configs),
        n_finalists=n_finalists,
        n_folds=n_folds,
        training_seconds=sample.epoch_seconds * epochs,
    )


def _timed_plan(context: SearchContext, sample: _Sample) -> SearchPlan:
    settings, preparation, throughput = context.settings, context.preparation, context.throughput
    limit = settings.time_limit
    assert limit is not None
    _time_machine(context.data, sample.configs, throughput)
    minimum = _minimum_seconds(context, sample)
    comparing = baseline_reserve(settings)
    least = throughput.least_training
    usable = context.clock.for_training(comparing + end_seconds(context, EXPECTED_FINALISTS), least)
    finalists = _plan_finalists(context, sample, (1.0 - SCREENING_SHARE) * usable, preparation.n_oof)
    reserve = end_seconds(context, finalists.n_finalists)
    folding = folding_seconds(context, finalists.n_folds)
    usable = context.clock.for_training(comparing + reserve + folding, least)
    screening = max(least, SCREENING_SHARE * usable)
    finalists = _plan_finalists(context, sample, max(least, usable - screening), preparation.n_oof)
    first = min(1.0, FIRST_RUNG_STEPS / max(1.0, sample.steps_per_epoch))
    rungs = ladder(finalists.max_epochs, settings.reduction_factor, least=first)
    trial = sample.epoch_seconds * ladder_cost(rungs, settings.reduction_factor)
    trial_seconds = throughput.wall_seconds(trial + 1.5 * _evaluation_seconds(context, sample))
    affordable = max(2, min(MAX_TRIALS, int(SAFETY * screening / max(trial_seconds, 1e-9))))
    n_trials = min(affordable, settings.n_trials or affordable)
    n_refined = _n_refined(n_trials, settings)
    return SearchPlan(
        rungs=rungs,
        n_fresh=n_trials - n_refined,
        n_refined=n_refined,
        capacity=_capacity(context, sample.configs),
        n_finalists=min(finalists.n_finalists, n_trials),
        n_folds=preparation.allowed_folds(finalists.n_folds),
        screening_seconds=screening,
        reserve_seconds=reserve,
        minimum_seconds=minimum if minimum > limit else 0.0,
        fills_time=settings.n_trials is None and n_trials < settings.space.size(),
    )


def folding_seconds(context: SearchContext, n_folds: int) -> float:
    """Return the predicted wall-clock time of preparing the folds."""
    return n_folds * context.preparation.part_seconds / min(n_folds, context.fold_workers)


def _evaluation_seconds(context: SearchContext, sample: _Sample) -> float:
    """Mean predicted seconds of an evaluation in screening on one core."""
    return sum(context.data.evaluation_seconds(config) for config in sample.configs) / len(sample.configs)


def _minimum_seconds(context: SearchContext, sample: _Sample) -> float:
    """Predicted seconds of the smallest search: two trials, and one finalist on few folds."""
    preparation, data = context.preparation, context.data
    n_folds = preparation.allowed_folds(FEWEST_FOLDS)
    predicting = sum(data.forward_seconds(config, preparation.problem.n_rows) for config in sample.configs)
    work = 2.0 * _evaluation_seconds(context, sample) + predicting / len(sample.configs)
    training = 2.0 * context.throughput.least_training + context.throughput.wall_seconds(work)
    return context.clock.elapsed + folding_seconds(context, n_folds) + training + end_seconds(context, 1)


def screening_deadline(context: SearchContext, plan: SearchPlan) -> Callable[[], float]:
    """Return a function that plans the end of screening anew, with the speed that was measured last.

    Parameters
    ----------
    context, plan
        Context of the search, whose screening begins now, and its plan.

    Returns
    -------
    callable
        Returns a reading of :func:`time.monotonic`.
    """
    began = time.monotonic()
    folding = folding_seconds(context, plan.n_folds) + baseline_reserve(context.settings)

    def deadline() -> float:
        end = context.clock.deadline(end_seconds(context, plan.n_finalists) + folding)
        return began + max(context.throughput.least_training, SCREENING_SHARE * (end - began))

    return deadline


def affordable_first(context: SearchContext, ranked: Sequence[Trial], seconds: float) -> list[Trial]:
    """Trials in their order, but expensive ones last.

    A trial is expensive if few epochs on four folds take more than :data:`MAX_FINALIST_SHARE` of the time,
    so that the ensemble would have few other members.

    Parameters
    ----------
    context
        Context of the search.
    ranked
        Trials, best first.
    seconds
        Wall-clock time of all finalists.

    Returns
    -------
    list of Trial
    """
    data, share = context.data, _fold_rows(context.preparation)

    def is_expensive(trial: Trial) -> bool:
        epochs = 3 * fewest_epochs(data.n_rows * share / data.batch_rows(trial.config))
        epoch = context.throughput.wall_seconds(data.epoch_seconds(trial.config)) * share
        return epochs * epoch > MAX_FINALIST_SHARE * seconds

    return sorted(ranked, key=is_expensive)


def replan_finalists(
    context: SearchContext, configs: list[MLPConfig], seconds: float, n_folds: int | None = None
) -> FinalistPlan:
    """Plan of cross-fitting after screening, when the best configurations and their speed are known.

    Parameters
    ----------
    context
        Context of the search.
    configs
        Best configurations of screening.
    seconds
        Wall-clock time of all finalists.
    n_folds
        Folds, or None to choose their number too.

    Returns
    -------
    FinalistPlan
    """
    sample = _Sample.of(context.data, configs)
    finalists = _plan_finalists(context, sample, seconds, context.data.n_rows, n_folds)
    return replace(finalists, n_folds=context.preparation.allowed_folds(finalists.n_folds))


def _plan_finalists(
    context: SearchContext, sample: _Sample, seconds: float, n_rows: int, n_folds: int | None = None
) -> FinalistPlan:
    share, settings = _fold_rows(context.preparation), context.settings
    return plan_finalists(
        SAFETY * seconds,
        context.throughput.wall_seconds(sample.epoch_seconds) * share,
        n_rows,
        sample.steps_per_epoch * share,
        max_epochs=settings.max_epochs,
        n_folds=n_folds or settings.n_folds,
        n_finalists=settings.n_finalists,
    )


def _fold_rows(preparation: Preparation) -> float:
    """Rows that are divided into folds, relative to the rows of screening."""
    return preparation.problem.n_rows / preparation.n_oof if snapshots_fit(preparation) else 1.0


def _n_refined(n_trials: int, settings: SearchSettings) -> int:
    """Trials that are proposed near the elites; none in a small space, which is drawn in full."""
    if settings.space.size() <= n_trials:
        return 0
    # elites come from at least one other trial
    return min(n_trials - 1, round(settings.refined_share * n_trials))


def _default_finalists(n_trials: int) -> int:
    """Half the square root: 8 of 256, 16 of 1,000; at least 2 and at most 32."""
    return min(n_trials, max(2, min(32, round(0.5 * math.sqrt(n_trials)))))


def _capacity(context: SearchContext, sample: Sequence[MLPConfig]) -> int:
    """Most members alive at once: the states of two generations of survivors must fit into memory."""
    # under a limit, the copy counts that is written to disk
    room = STATE_BYTES if context.memory is None else min(STATE_BYTES, context.memory.rest // 2)
    factor = context.settings.reduction_factor
    return max(MIN_CAPACITY, int(room * factor / (2.0 * state_bytes(context.data, sample))))


def _time_machine(data: ShardData, sample: Sequence[MLPConfig], throughput: Throughput) -> None:
    """Train a sample for a few steps on all workers, and compare measured with predicted seconds.

    The first of two passes does not count: a process that has just started loads libraries, compiled loops
    and rows, which takes eight times as long as the steps.
    """
    configs = [config.replace(batch_size=sample[0].batch_size) for config in sample]
    epochs = N_TIMED_STEPS * data.batch_rows(configs[0]) / data.n_rows
    tasks = shard_tasks("timing", dict(enumerate(configs)), data, until_epoch=epochs, total_epochs=epochs)[
        : max(2, 2 * throughput.n_workers)
    ]
    for outcome in run_shards(tasks[: throughput.n_workers], n_workers=throughput.n_workers):
        outcome.members.clear()
    for outcome in run_shards(tasks, n_workers=throughput.n_workers):
        throughput.add(outcome)
    throughput.forget_steps()
