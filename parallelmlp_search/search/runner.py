"""The search: screen on rungs, cross-fit the finalists, select, save."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from parallelmlp_search.distribute import ShardData, one_thread, worker_count
from parallelmlp_search.exceptions import BudgetWarning, SearchFailedError
from parallelmlp_search.kernels.numba.compilation import compiled_in_time
from parallelmlp_search.search.finalists.cross_fitting import CrossFit, cross_fit, snapshots_fit
from parallelmlp_search.search.finalists.evaluation import Verdict, judge, rank
from parallelmlp_search.search.finalists.model import TrainedModel
from parallelmlp_search.search.finalists.postprocessing import average, first_decision, treat
from parallelmlp_search.search.finalists.refit import REFIT_SHARE, refit
from parallelmlp_search.search.finalists.result import SearchResult, trials_frame
from parallelmlp_search.search.planning import (
    SearchPlan,
    affordable_first,
    make_plan,
    replan_finalists,
    training_seconds,
)
from parallelmlp_search.search.problem.devices import resolve_device
from parallelmlp_search.search.problem.preparation import Preparation, seed_of
from parallelmlp_search.search.problem.problem import Problem
from parallelmlp_search.search.problem.settings import SearchSettings
from parallelmlp_search.search.run.budget import Clock, FinalistPlan, Throughput
from parallelmlp_search.search.run.journal import Journal
from parallelmlp_search.search.run.progress import Callback
from parallelmlp_search.search.run.reporting import Reporter
from parallelmlp_search.search.run.run_directory import RunDirectory
from parallelmlp_search.search.run.trial import Trial
from parallelmlp_search.search.run.workers import Workers
from parallelmlp_search.search.screening.screening import Screener, Screening, ScreeningPlan

__all__ = ["run", "screen"]

MAX_FINALISTS = 32

SAVING_SECONDS = 0.7
"""Time under a limit that is left for saving once the ensemble has been trained anew."""


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
    """Search, rank, ensemble.

    Parameters
    ----------
    problem
        Table and target.
    settings
        What to do.
    directory
        Where to keep the run; an unfinished one is resumed.
    callbacks
        Called at every report; one that returns True ends screening early.
    n_jobs
        Workers; None for all cores. Results do not depend on it.
    started
        Reading of :func:`time.monotonic` from which the time limit counts; None for now.
    screener
        Who screens; None for this process alone.

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
            stack.enter_context(directory.status_kept(started, spent))
        clock = Clock(settings.time_limit, started, spent)
        stage = _begin(problem, settings, directory, callbacks, n_jobs, clock, stack, screener)
        return _finish(stage, settings, directory)


def screen(
    problem: Problem,
    settings: SearchSettings,
    screener: Screener,
    *,
    callbacks: Sequence[Callback] = (),
    n_jobs: int | None = None,
    started: float | None = None,
) -> int:
    """Take part in a screening and leave its finalists to others; parameters are those of :func:`run`.

    Returns
    -------
    int
        Trials of the whole screening.
    """
    with one_thread(), contextlib.ExitStack() as stack:
        clock = Clock(settings.time_limit, started)
        stage = _begin(problem, settings, None, callbacks, n_jobs, clock, stack, screener)
        stage.reporter.report("finished", stage.trials)
        return len(stage.trials)


@dataclass
class _Stage:
    """A search whose screening is done."""

    preparation: Preparation
    data: ShardData
    workers: Workers
    plan: SearchPlan
    journal: Journal
    throughput: Throughput
    reporter: Reporter
    clock: Clock
    trials: list[Trial]
    cut: list[str]


def _begin(
    problem: Problem,
    settings: SearchSettings,
    directory: RunDirectory | None,
    callbacks: Sequence[Callback],
    n_jobs: int | None,
    clock: Clock,
    stack: contextlib.ExitStack,
    screener: Screener | None,
) -> _Stage:
    """Prepare, plan and screen."""
    device = resolve_device(settings.device)
    left = None if settings.time_limit is None else clock.left
    compiled = stack.enter_context(compiled_in_time(device, left))
    on_gpu = device != "cpu"
    throughput = Throughput(1 if on_gpu else worker_count(n_jobs))
    preparation = Preparation(problem, settings, device)
    journal = Journal(throughput, directory, clock)
    reporter = Reporter(callbacks, preparation.metric, clock, throughput)
    reporter.report("preparing")
    data = preparation.screening().data
    workers = Workers(stack, throughput.n_workers, on_gpu=on_gpu, memory_limit=settings.memory_bytes)
    if settings.time_limit is not None:
        workers.expect(settings.time_limit)
    data = workers.share(data)

    plan = _agreed_plan(preparation, data, settings, journal, clock, throughput, screener)
    if settings.time_limit is None:
        workers.expect(training_seconds(plan, data, settings))
        data = workers.share(data)
    if directory is not None:
        directory.update(splits=_splits(preparation, plan), metric=preparation.metric.name, task=problem.task)
    reporter.start_training()
    trials, cut = _screen(data, settings, plan, journal, throughput, reporter, clock, screener)
    if not compiled:
        cut.append(
            "the compiled loops were left out, since compiling them takes most of a minute the first time: "
            "python -m parallelmlp_search.kernels.numba.compilation"
        )
    stage = (preparation, data, workers, plan, journal, throughput, reporter, clock)
    return _Stage(*stage, trials=trials, cut=cut)


def _agreed_plan(
    preparation: Preparation,
    data: ShardData,
    settings: SearchSettings,
    journal: Journal,
    clock: Clock,
    throughput: Throughput,
    screener: Screener | None,
) -> SearchPlan:
    """The plan of the search, made or remembered, with the rungs of whoever else screens."""

    def agree(plan: SearchPlan) -> SearchPlan:
        if screener is None:
            return plan
        rungs = screener.agree(preparation.problem, settings, preparation.metric, plan.rungs)
        return replace(plan, rungs=rungs)

    def make() -> dict[str, Any]:
        # those who cannot agree leave no decision behind
        return agree(make_plan(preparation, data, settings, clock, throughput)).to_dict()

    resumed = "plan" in journal
    plan = SearchPlan.from_dict(journal.entry("plan", make))
    return agree(plan) if resumed else plan


def _finish(stage: _Stage, settings: SearchSettings, directory: RunDirectory | None) -> SearchResult:
    """Cross-fit the finalists, judge, save."""
    preparation, plan, trials, cut = stage.preparation, stage.plan, stage.trials, stage.cut
    journal, throughput, reporter, clock = stage.journal, stage.throughput, stage.reporter, stage.clock
    deadline, kept = None, 0.0
    if settings.time_limit is not None:
        if settings.refit:
            kept = REFIT_SHARE * max(0.0, clock.left - plan.reserve_seconds)
        deadline = time.monotonic() + clock.for_training(plan.reserve_seconds + kept)
    finalists, last = _finalists(
        trials, plan, preparation, stage.data, settings, journal, throughput, clock, kept
    )
    hold = not snapshots_fit(preparation)
    folds = preparation.folds(last.n_folds, hold_out_validation=hold)
    parts = [replace(part, data=stage.workers.share(part.data)) for part in folds]
    fit = cross_fit(
        finalists,
        parts,
        preparation,
        max_epochs=last.max_epochs,
        rung=len(plan.rungs),
        journal=journal,
        throughput=throughput,
        reporter=reporter,
        trials=trials,
        deadline=deadline,
        required=last.n_finalists,
    )
    reporter.report("selecting", trials)
    decision = first_decision(preparation, settings, parts, fit)
    verdict = judge(
        preparation, fit, decision=decision, seconds=clock.left - 0.5 - kept, seed=seed_of(settings.seed, 3)
    )
    model, verdict = treat(preparation, settings, parts, fit, verdict, decision)
    cut += fit.cut
    if settings.refit:
        reporter.report("refitting", trials)
        model, missing = refit(
            preparation,
            model,
            fit,
            n_folds=len(parts),
            max_epochs=last.max_epochs,
            journal=journal,
            throughput=throughput,
            share=stage.workers.share,
            deadline=clock.deadline(SAVING_SECONDS),
        )
        cut += missing
    verdict = average(preparation, fit, verdict, model.decision, len(model.folds))
    result = _result(preparation, model, trials, fit, verdict, last, len(parts), throughput, clock, cut)
    reporter.report("saving", trials)
    if directory is not None:
        _save(directory, preparation, fit, result)
    for sentence in result.cut:
        warnings.warn(sentence, BudgetWarning, stacklevel=3)
    reporter.report("finished", trials)
    return result


def _screen(
    data: ShardData,
    settings: SearchSettings,
    plan: SearchPlan,
    journal: Journal,
    throughput: Throughput,
    reporter: Reporter,
    clock: Clock,
    screener: Screener | None,
) -> tuple[list[Trial], list[str]]:
    deadline = None
    if plan.screening_seconds is not None and settings.time_limit is not None:
        end = settings.time_limit - plan.reserve_seconds
        # whoever resumes late still leaves the finalists their share
        deadline = time.monotonic() + min(plan.screening_seconds, max(0.0, 0.5 * (end - clock.elapsed)))
    amount = ScreeningPlan(plan.rungs, plan.n_fresh, plan.n_refined, plan.capacity, deadline, plan.fills_time)
    if screener is not None:
        return screener.screen(data, settings, amount, throughput, reporter)
    screening = Screening(data, settings, amount, journal, throughput, reporter)
    trials = screening.run()
    wanted = min(settings.n_trials or 0, settings.space.size())
    if deadline is not None and len(trials) < wanted and not reporter.stopped:
        screening.cut.append(f"{len(trials)} of {wanted} trials were begun in the time for screening")
    return trials, screening.cut


def _finalists(
    trials: Sequence[Trial],
    plan: SearchPlan,
    preparation: Preparation,
    data: ShardData,
    settings: SearchSettings,
    journal: Journal,
    throughput: Throughput,
    clock: Clock,
    kept: float,
) -> tuple[list[Trial], FinalistPlan]:
    """The best of screening, higher rungs first, then lower errors; and how they are to be cross-fitted.

    Under a time limit more are named than planned, in case there is time for them; ``kept`` seconds are not
    theirs.
    """
    alive = [trial for trial in trials if trial.records and trial.error < float("inf")]
    if not alive:
        failures = [trial.failure for trial in trials if trial.failure]
        reason = f"; the first failed because {failures[0]}" if failures else ""
        raise SearchFailedError(f"none of {len(trials)} configurations could be trained{reason}")
    ranked = sorted(alive, key=lambda trial: trial.standing)
    if settings.time_limit is None:
        return ranked[: plan.n_finalists], FinalistPlan(plan.max_epochs, plan.n_finalists, plan.n_folds)

    def choose() -> dict[str, Any]:
        left = clock.for_training(plan.reserve_seconds + kept)
        leaders = affordable_first(ranked, preparation, data, throughput, left)
        configs = [trial.config for trial in leaders[:16]]
        last = replan_finalists(plan, configs, preparation, data, settings, throughput, left)
        named = leaders[: settings.n_finalists or MAX_FINALISTS]
        return asdict(last) | {"trials": [trial.number for trial in named]}

    decision = dict(journal.entry("finalists", choose))
    chosen = [trials[number] for number in decision.pop("trials")]
    return chosen, FinalistPlan(**decision)


def _result(
    preparation: Preparation,
    model: TrainedModel,
    trials: list[Trial],
    fit: CrossFit,
    verdict: Verdict,
    last: FinalistPlan,
    n_folds: int,
    throughput: Throughput,
    clock: Clock,
    cut: list[str],
) -> SearchResult:
    board = rank(trials, fit, verdict, preparation.metric)
    best = board[0].trial
    return SearchResult(
        leaderboard=board,
        model=model,
        honest=verdict.honest,
        metric=preparation.metric.name,
        best_trial=best,
        best_config=trials[best].config,
        n_trials=len(trials),
        max_epochs=last.max_epochs,
        n_folds=n_folds,
        member_steps=throughput.member_steps,
        elapsed_seconds=clock.elapsed,
        cut=cut,
        trials=trials_frame(trials, preparation.metric),
    )


def _save(directory: RunDirectory, preparation: Preparation, fit: CrossFit, result: SearchResult) -> None:
    directory.write_table("trials", result.trials)
    directory.write_table("leaderboard", result.leaderboard.to_frame())
    directory.write_tensors(
        "oof",
        {
            "predictions": fit.predictions,
            "covered": fit.covered,
            "rows": torch.from_numpy(preparation.oof_rows),
            "trials": torch.tensor([trial.number for trial in fit.trials]),
        },
    )
    result.model.save(directory.path / "model")
    directory.log("finished", seconds=result.elapsed_seconds)
    directory.finish(result.to_dict())


def _splits(preparation: Preparation, plan: SearchPlan) -> dict[str, Any]:
    return {
        "rows": preparation.problem.n_rows,
        "reporting": preparation.n_oof,
        "choosing": len(preparation.validation_rows),
        "folds": plan.n_folds,
    }
