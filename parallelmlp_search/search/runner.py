"""Search: prepare, plan, screen, cross-fit the finalists, evaluate, save."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from parallelmlp_search._memory import resident_bytes
from parallelmlp_search.distribute import keep_no_free_memory, one_thread, worker_count
from parallelmlp_search.engine import execution_path
from parallelmlp_search.exceptions import BudgetWarning
from parallelmlp_search.kernels.numba.dispatch import PLAIN, READY, needs_compilation, prepared_loops
from parallelmlp_search.search.finalist_choice import (
    choose_finalists,
    choose_folds,
    fold_parts,
    rank_trials,
)
from parallelmlp_search.search.finalists.baselines import (
    Baseline,
    baseline_reserve,
    beats_prior,
    compare_baselines,
)
from parallelmlp_search.search.finalists.cross_fitting import CrossFit, cross_fit
from parallelmlp_search.search.finalists.evaluation import evaluate, honest_score, make_leaderboard
from parallelmlp_search.search.finalists.latency import missed_limit
from parallelmlp_search.search.finalists.postprocessing import comparison_weights, postprocess
from parallelmlp_search.search.finalists.refit import REFIT_SHARE, refit
from parallelmlp_search.search.finalists.reserve import closing_seconds, end_seconds
from parallelmlp_search.search.finalists.result import SearchResult, save_result, trials_frame
from parallelmlp_search.search.finalists.uncertainty import with_uncertainty
from parallelmlp_search.search.forecast import Forecast
from parallelmlp_search.search.messages import log_plan, log_result, log_start
from parallelmlp_search.search.planning import make_plan, screening_deadline
from parallelmlp_search.search.problem.devices import resolve_device
from parallelmlp_search.search.problem.latency import LatencyMeter
from parallelmlp_search.search.problem.memory_room import MIN_ROOM, check_room
from parallelmlp_search.search.problem.preparation import Preparation
from parallelmlp_search.search.problem.problem import Problem
from parallelmlp_search.search.problem.settings import SearchSettings
from parallelmlp_search.search.run.budget import Clock, SearchPlan, Throughput
from parallelmlp_search.search.run.context import SearchContext
from parallelmlp_search.search.run.journal import Journal
from parallelmlp_search.search.run.phases import PhaseClock
from parallelmlp_search.search.run.progress import Callback, Reporter
from parallelmlp_search.search.run.run_directory import RunDirectory
from parallelmlp_search.search.run.trial import Trial
from parallelmlp_search.search.run.workers import Workers
from parallelmlp_search.search.screening.screening import Screener, Screening

HALF_LIFE_SHARE = 0.1
"""Share of a time limit after which the measured speed of a shard counts half."""


def run(
    problem: Problem,
    settings: SearchSettings,
    *,
    directory: RunDirectory | None = None,
    callbacks: Sequence[Callback] = (),
    n_jobs: int | None = None,
    started: float | None = None,
    screener: Screener | None = None,
) -> SearchResult:
    """Search for the best networks and combine them into an ensemble.

    Parameters
    ----------
    problem
        Table and target.
    settings
        Settings of the search.
    directory
        Run directory, or None. An unfinished run is resumed.
    callbacks
        Called with every report. A callback that returns True ends screening.
    n_jobs
        Number of workers; None for all cores. Results do not depend on it.
    started
        Reading of :func:`time.monotonic` from which the time limit counts; None for now.
    screener
        Screening together with other processes; None for this process alone.

    Returns
    -------
    SearchResult

    Raises
    ------
    SearchFailedError
        If no network could be trained.
    RunDirectoryError
        If the directory is in use, finished, or belongs to other data or settings.
    DataError, InvalidParameterError
        If the problem or the settings cannot be used.
    """
    started = time.monotonic() if started is None else started
    settings = settings.suited_to(problem.target, problem.task)
    with one_thread(), contextlib.ExitStack() as stack:
        spent = 0.0
        if directory is not None:
            stack.enter_context(directory.locked())
            spent = directory.begin(problem, settings)
            stack.enter_context(directory.recording_status(started, spent))
        clock, throughput = Clock(settings.time_limit, started, spent), _throughput(settings, n_jobs)
        journal, phases = Journal(throughput, directory, clock), PhaseClock(throughput, started)
        context = _prepare(problem, settings, journal, clock, phases, callbacks, stack)
        context, plan = _plan(context, screener)
        if settings.time_limit is None and screener is None:
            context.reporter.forecast = Forecast(context, plan).seconds_left
            context.reporter.n_planned = plan.n_fresh + plan.n_refined
        trials, late = _screen(context, plan, screener)
        result = _finish(context, plan, trials, late)
    for sentence in result.left_out:
        warnings.warn(sentence, BudgetWarning, stacklevel=2)
    return result


def screen(
    problem: Problem,
    settings: SearchSettings,
    screener: Screener,
    *,
    callbacks: Sequence[Callback] = (),
    n_jobs: int | None = None,
    started: float | None = None,
) -> int:
    """Take part in a screening, without finalists.

    Parameters
    ----------
    problem, settings, screener, callbacks, n_jobs, started
        As of :func:`run`.

    Returns
    -------
    int
        Trials of the whole screening.
    """
    settings = settings.suited_to(problem.target, problem.task)
    with one_thread(), contextlib.ExitStack() as stack:
        clock = Clock(settings.time_limit, started)
        journal = Journal(_throughput(settings, n_jobs), None, clock)
        phases = PhaseClock(journal.throughput, started)
        context = _prepare(problem, settings, journal, clock, phases, callbacks, stack)
        context, plan = _plan(context, screener)
        trials, _ = _screen(context, plan, screener)
        context.reporter.report("finished", trials)
        return len(trials)


def _throughput(settings: SearchSettings, n_jobs: int | None) -> Throughput:
    n_workers = worker_count(n_jobs) if resolve_device(settings.device) == "cpu" else 1
    if settings.time_limit is None:
        return Throughput(n_workers)
    return Throughput(n_workers, half_life=max(1.0, HALF_LIFE_SHARE * settings.time_limit))


def _prepare(
    problem: Problem,
    settings: SearchSettings,
    journal: Journal,
    clock: Clock,
    phases: PhaseClock,
    callbacks: Sequence[Callback],
    stack: contextlib.ExitStack,
) -> SearchContext:
    """Prepare the data, and processes if a time limit is long enough."""
    device = resolve_device(settings.device)
    timed = settings.time_limit is not None
    if settings.memory_bytes is not None:
        keep_no_free_memory()
        check_room(settings.memory_bytes)
    phases.begin("preparing")
    directory = journal.directory
    recorded = None if directory is None else directory.info().get("training_path")
    preparation = Preparation(problem, settings, device)
    reporter = Reporter(callbacks, preparation.metric, clock, journal.throughput)
    if not timed and needs_compilation(device):
        reporter.report("preparing", detail="compiling the training loops, once on this machine")
    path = stack.enter_context(prepared_loops(device, timed=timed, recorded=recorded))
    if directory is not None and recorded is None:
        directory.update(training_path=path)
    reporter.path = execution = execution_path(device)
    reporter.report("preparing")
    journal.log("started", path=str(execution), workers=journal.throughput.n_workers)
    log_start(preparation, execution, journal.throughput.n_workers)
    part = preparation.screening()
    workers = Workers(
        stack,
        journal.throughput.n_workers,
        on_gpu=device != "cpu",
        memory_limit=settings.memory_bytes,
        # results of a search with a time limit depend on the clock in any case
        path=READY if timed and path != PLAIN else path,
    )
    if settings.time_limit is not None:
        workers.expect(settings.time_limit, (resident_bytes() or 0) + MIN_ROOM)
    latency = LatencyMeter.of(preparation, part)
    data = workers.share(part.data)
    return SearchContext(preparation, data, journal, reporter, clock, workers, phases, latency=latency)


def _plan(context: SearchContext, screener: Screener | None) -> tuple[SearchContext, SearchPlan]:
    """Plan of the search, from the journal if it is resumed, with the rungs of the other processes."""

    def agree(plan: SearchPlan) -> SearchPlan:
        return plan if screener is None else replace(plan, rungs=screener.agree(context, plan.rungs))

    def make() -> dict[str, Any]:
        # processes that cannot agree leave no entry in the journal
        return agree(make_plan(context)).to_dict()

    context.phases.begin("planning")
    resumed = "plan" in context.journal
    entry = context.journal.entry("plan", make)
    with context.journal.reading():
        plan = SearchPlan.from_dict(entry)
    plan = agree(plan) if resumed else plan
    log_plan(plan)
    context = context.within(plan.memory)
    if context.settings.time_limit is None:
        context.workers.expect(plan.training_seconds, 0 if plan.memory is None else plan.memory.estimate)
        context = replace(context, data=context.share(context.data))
    preparation, directory = context.preparation, context.journal.directory
    if directory is not None:
        splits = {
            "rows": preparation.problem.n_rows,
            "out_of_fold": preparation.n_oof,
            "validation": len(preparation.validation_rows),
            "folds": plan.n_folds,
        }
        directory.update(splits=splits, metric=preparation.metric.name, task=preparation.problem.task)
    return context, plan


def _screen(
    context: SearchContext, plan: SearchPlan, screener: Screener | None
) -> tuple[list[Trial], list[str]]:
    """Trials of screening, and sentences on what its deadline left out."""
    settings = context.settings
    context.phases.begin("screening")
    timed = plan.screening_seconds is not None and settings.time_limit is not None
    deadline = screening_deadline(context, plan) if timed else None
    context.reporter.start_training()
    plan = replace(plan, deadline=None if deadline is None else deadline())
    if screener is not None:
        return screener.screen(context, plan)
    screening = Screening(context, plan, deadline)
    trials, left_out = screening.run(), screening.left_out
    wanted = min(settings.n_trials or 0, settings.space.size())
    if deadline is not None and len(trials) < wanted and not context.reporter.stopped:
        left_out.append(f"{len(trials)} of {wanted} trials were begun in the time for screening")
    return trials, left_out


class _Finalists(NamedTuple):
    """Cross-fitted finalists, the epochs of their training, and the baselines on the same folds."""

    fit: CrossFit
    max_epochs: int
    baselines: list[Baseline]


def _cross_fit(
    context: SearchContext, plan: SearchPlan, trials: list[Trial], refit_seconds: float
) -> _Finalists:
    """Choose the folds and compare the baselines on them, then use all time that is left for finalists."""
    clock, phases, settings = context.clock, context.phases, context.settings
    phases.begin("cross-fitting")
    ranked = rank_trials(trials)
    earliest = time.monotonic() + context.throughput.least_training

    def deadline(n_finalists: int) -> float:
        return max(earliest, clock.deadline(end_seconds(context, n_finalists) + refit_seconds))

    def left() -> float:
        return deadline(plan.n_finalists) - time.monotonic()

    parts = fold_parts(context, choose_folds(context, plan, ranked, left() - baseline_reserve(settings)))
    phases.begin("baselines")
    baselines = compare_baselines(context, parts, plan.training_seconds, left())
    phases.begin("cross-fitting")
    finalists, finalist_plan = choose_finalists(context, plan, ranked, len(parts), left())
    fit = cross_fit(
        context,
        finalists,
        parts,
        finalist_plan,
        rung=len(plan.rungs),
        trials=trials,
        deadline=None if settings.time_limit is None else deadline,
    )
    return _Finalists(fit, finalist_plan.max_epochs, baselines)


def _finish(
    context: SearchContext, plan: SearchPlan, trials: list[Trial], left_out: list[str]
) -> SearchResult:
    """Cross-fit the finalists, evaluate, refit, save."""
    settings, clock, phases, reporter = context.settings, context.clock, context.phases, context.reporter
    limit, spare = settings.time_limit, max(0.0, clock.left - plan.reserve_seconds)
    refit_seconds = REFIT_SHARE * spare if limit is not None and settings.refit else 0.0
    fit, max_epochs, baselines = _cross_fit(context, plan, trials, refit_seconds)
    reporter.report("selecting", trials)
    phases.begin("selecting")
    closing = closing_seconds(context, len(fit.trials))
    evaluation = evaluate(
        fit,
        comparison_weights(fit),
        n_workers=context.throughput.n_workers,
        deadline=None if limit is None else clock.deadline(closing + refit_seconds),
        journal=context.journal,
        meter=context.latency,
    )
    model = postprocess(fit, evaluation.ensemble, evaluation.n_folds)
    left_out = [*left_out, *fit.left_out, *missed_limit(evaluation.latency)]
    if settings.refit:
        reporter.report("refitting", trials)
        phases.begin("refitting")
        end = None if limit is None else clock.deadline(closing)
        model, missing = refit(context, model, fit, max_epochs, end)
        left_out += missing
    model, uncertainty = with_uncertainty(context, fit, evaluation.ensemble, model)
    phases.begin("saving")
    metric, board = context.preparation.metric, make_leaderboard(trials, fit, evaluation)
    honest = honest_score(fit, evaluation, model)
    result = SearchResult(
        leaderboard=board,
        model=model,
        honest=honest,
        metric=metric.name,
        best_trial=board[0].trial,
        best_config=trials[board[0].trial].config,
        n_trials=len(trials),
        max_epochs=max_epochs,
        n_folds=len(fit.parts),
        member_steps=context.throughput.member_steps,
        path_shares=context.throughput.path_shares(),
        elapsed_seconds=clock.elapsed,
        left_out=left_out + _below_minimum(context, plan),
        latency=evaluation.latency,
        baselines=baselines,
        beats_prior=beats_prior(honest, baselines, greater_is_better=metric.greater_is_better),
        trials=trials_frame(trials, metric),
        oof_folds=fit.oof_folds,
        uncertainty=uncertainty,
        fingerprint=context.preparation.problem.fingerprint(),
    )
    reporter.report("saving", trials)
    if context.journal.directory is not None:
        save_result(context.journal.directory, fit, result)
    result = replace(result, elapsed_seconds=clock.elapsed, phases=phases.to_dict())
    if context.journal.directory is not None:
        context.journal.directory.log("finished", seconds=result.elapsed_seconds)
        context.journal.directory.update(memory=context.memory_used)
        context.journal.directory.finish(result.to_dict())
    reporter.report("finished", trials)
    log_result(result)
    return result


def _below_minimum(context: SearchContext, plan: SearchPlan) -> list[str]:
    """Sentence that names the minimum of a time limit that was below it."""
    limit, clock = context.settings.time_limit, context.clock
    seconds = clock.elapsed + closing_seconds(context, 1)
    if limit is None or plan.minimum_seconds <= limit or seconds <= 1.02 * limit:
        return []
    phases = context.phases.to_dict()
    reading = sum(phases[name]["seconds"] for name in ("reading", "preparing") if name in phases)
    return [
        f"the time limit of {limit:g} s is below the minimum of {seconds:.1f} s for this table: starting and "
        f"reading took {reading:.1f} s, and the smallest search the rest"
    ]
