"""Search: prepare, plan, screen, cross-fit the finalists, evaluate, save."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from parallelmlp_search._memory import peak_bytes, resident_bytes
from parallelmlp_search.distribute import keep_no_free_memory, one_thread, worker_count
from parallelmlp_search.engine import execution_path
from parallelmlp_search.exceptions import BudgetWarning
from parallelmlp_search.kernels.numba.dispatch import PLAIN, READY, prepared_loops
from parallelmlp_search.search.finalist_choice import choose_finalists, fold_parts
from parallelmlp_search.search.finalists.baselines import baseline_reserve, beats_prior, compare_baselines
from parallelmlp_search.search.finalists.cross_fitting import CrossFit, cross_fit
from parallelmlp_search.search.finalists.evaluation import evaluate, honest_score, make_leaderboard
from parallelmlp_search.search.finalists.postprocessing import comparison_weights, postprocess
from parallelmlp_search.search.finalists.refit import REFIT_SHARE, refit
from parallelmlp_search.search.finalists.result import SearchResult, trials_frame
from parallelmlp_search.search.planning import make_plan
from parallelmlp_search.search.problem.devices import resolve_device
from parallelmlp_search.search.problem.memory_room import MIN_ROOM, check_room
from parallelmlp_search.search.problem.preparation import Preparation
from parallelmlp_search.search.problem.problem import Problem
from parallelmlp_search.search.problem.settings import SearchSettings
from parallelmlp_search.search.run.budget import SAVING_SECONDS, Clock, SearchPlan, Throughput
from parallelmlp_search.search.run.context import SearchContext
from parallelmlp_search.search.run.journal import Journal
from parallelmlp_search.search.run.phases import PhaseClock
from parallelmlp_search.search.run.progress import Callback, Reporter
from parallelmlp_search.search.run.run_directory import RunDirectory
from parallelmlp_search.search.run.trial import Trial
from parallelmlp_search.search.run.workers import Workers
from parallelmlp_search.search.screening.screening import Screener, Screening


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
    with one_thread(), contextlib.ExitStack() as stack:
        spent = 0.0
        if directory is not None:
            stack.enter_context(directory.locked())
            spent = directory.begin(problem, settings)
            stack.enter_context(directory.recording_status(started, spent))
        clock = Clock(settings.time_limit, started, spent)
        throughput = _throughput(settings, n_jobs)
        journal = Journal(throughput, directory, clock)
        phases = PhaseClock(throughput, started)
        context = _prepare(problem, settings, journal, clock, phases, callbacks, stack)
        context, plan = _plan(context, screener)
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
    return Throughput(worker_count(n_jobs) if resolve_device(settings.device) == "cpu" else 1)


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
    path = stack.enter_context(prepared_loops(device, timed=timed, recorded=recorded))
    if directory is not None and recorded is None:
        directory.update(training_path=path)
    preparation = Preparation(problem, settings, device)
    execution = execution_path(device)
    reporter = Reporter(callbacks, preparation.metric, clock, journal.throughput, execution)
    reporter.report("preparing")
    journal.log("started", path=str(execution), workers=journal.throughput.n_workers)
    data = preparation.screening().data
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
    return SearchContext(preparation, workers.share(data), journal, reporter, clock, workers, phases)


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
    settings, clock = context.settings, context.clock
    context.phases.begin("screening")
    deadline = None
    if plan.screening_seconds is not None and settings.time_limit is not None:
        end = settings.time_limit - plan.reserve_seconds
        # a search that is resumed late leaves the finalists their share
        deadline = time.monotonic() + min(plan.screening_seconds, max(0.0, 0.5 * (end - clock.elapsed)))
    context.reporter.start_training()
    plan = replace(plan, deadline=deadline)
    if screener is not None:
        return screener.screen(context, plan)
    screening = Screening(context, plan)
    trials, left_out = screening.run(), screening.left_out
    wanted = min(settings.n_trials or 0, settings.space.size())
    if deadline is not None and len(trials) < wanted and not context.reporter.stopped:
        left_out.append(f"{len(trials)} of {wanted} trials were begun in the time for screening")
    return trials, left_out


def _finish(
    context: SearchContext, plan: SearchPlan, trials: list[Trial], left_out: list[str]
) -> SearchResult:
    """Cross-fit the finalists, evaluate, refit, save."""
    reporter, clock, phases = context.reporter, context.clock, context.phases
    phases.begin("cross-fitting")
    refit_seconds, deadline = 0.0, None
    if context.settings.time_limit is not None:
        if context.settings.refit:
            refit_seconds = REFIT_SHARE * max(0.0, clock.left - plan.reserve_seconds)
        deadline = time.monotonic() + clock.for_training(plan.reserve_seconds + refit_seconds)
    finalists, finalist_plan = choose_finalists(context, plan, trials, refit_seconds)
    parts = fold_parts(context, finalist_plan.n_folds)
    fit = cross_fit(
        context, finalists, parts, finalist_plan, rung=len(plan.rungs), trials=trials, deadline=deadline
    )
    reporter.report("selecting", trials)
    phases.begin("selecting")
    weights, comparing = comparison_weights(fit), baseline_reserve(context.settings)
    left = clock.left - 0.5 - refit_seconds - comparing
    evaluation = evaluate(fit, weights, left, n_workers=context.throughput.n_workers)
    model = postprocess(fit, evaluation.ensemble)
    left_out = [*left_out, *fit.left_out]
    if context.settings.refit:
        reporter.report("refitting", trials)
        phases.begin("refitting")
        saving = clock.deadline(SAVING_SECONDS + comparing)
        model, missing = refit(context, model, fit, finalist_plan.max_epochs, saving)
        left_out += missing
    phases.begin("baselines")
    baselines = compare_baselines(context, fit, plan.training_seconds)
    phases.begin("saving")
    board = make_leaderboard(trials, fit, evaluation)
    metric = context.preparation.metric
    honest = honest_score(fit, evaluation, model)
    result = SearchResult(
        leaderboard=board,
        model=model,
        honest=honest,
        metric=metric.name,
        best_trial=board[0].trial,
        best_config=trials[board[0].trial].config,
        n_trials=len(trials),
        max_epochs=finalist_plan.max_epochs,
        n_folds=len(parts),
        member_steps=context.throughput.member_steps,
        elapsed_seconds=clock.elapsed,
        left_out=left_out,
        baselines=baselines,
        beats_prior=beats_prior(honest, baselines, greater_is_better=metric.greater_is_better),
        trials=trials_frame(trials, metric),
        oof_folds=fit.oof_folds,
        fingerprint=context.preparation.problem.fingerprint(),
    )
    reporter.report("saving", trials)
    if context.journal.directory is not None:
        _save(context.journal.directory, fit, result)
    result = replace(result, elapsed_seconds=clock.elapsed, phases=phases.to_dict())
    if context.journal.directory is not None:
        context.journal.directory.log("finished", seconds=result.elapsed_seconds)
        context.journal.directory.update(memory=_memory_used(context))
        context.journal.directory.finish(result.to_dict())
    reporter.report("finished", trials)
    return result


def _memory_used(context: SearchContext) -> dict[str, int]:
    """Measured peak of the memory, and under a limit the limit and the predicted peak."""
    peak, plan = peak_bytes(), context.memory
    measured = {} if peak is None else {"peak": peak}
    return measured if plan is None else measured | {"limit": plan.limit, "estimate": plan.estimate}


def _save(directory: RunDirectory, fit: CrossFit, result: SearchResult) -> None:
    directory.write_table("trials", result.trials)
    directory.write_table("leaderboard", result.leaderboard.to_frame())
    directory.write_table("columns", fit.preparation.problem.column_table.reset_index())
    directory.write_tensors(
        "oof",
        {
            "predictions": fit.predictions,
            "covered": fit.covered,
            "rows": torch.from_numpy(fit.preparation.oof_rows),
            "trials": torch.tensor([trial.number for trial in fit.trials]),
            "folds": torch.from_numpy(result.oof_folds[fit.preparation.oof_rows]),
        },
    )
    result.model.save(directory.path / "model")
