"""Choice of the finalists, and the parts on which they are cross-fitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from parallelmlp_search.exceptions import SearchFailedError
from parallelmlp_search.search.finalists.sizes import finalist_sizes, group_size, snapshots_fit
from parallelmlp_search.search.planning import affordable_first, folding_seconds, replan_finalists
from parallelmlp_search.search.problem.preparation import Part
from parallelmlp_search.search.run.budget import FinalistPlan, SearchPlan
from parallelmlp_search.search.run.context import SearchContext
from parallelmlp_search.search.run.trial import Trial

MAX_PLANNED, MAX_FINALISTS = 32, 128
"""Finalists under a time limit: most that are planned, and most of a small table if time is left."""

FEW_SECONDS = 1.0
"""Time of training in which only one finalist is trained."""

MAX_PREDICTIONS = 1 << 24
"""Predictions of all finalists beyond the planned ones: 64 MiB."""

N_REPLANNED = 16
"""Best configurations of screening whose mean cost plans the finalists under a time limit."""


def rank_trials(trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials with a score, best first; those of higher rungs are better.

    Raises
    ------
    SearchFailedError
        If no trial has a score.
    """
    alive = [trial for trial in trials if trial.records and trial.error < float("inf")]
    if not alive:
        failures = [trial.failure for trial in trials if trial.failure]
        reason = f"; the first failed because {failures[0]}" if failures else ""
        raise SearchFailedError(f"none of {len(trials)} configurations could be trained{reason}")
    return sorted(alive, key=lambda trial: trial.standing)


def choose_folds(context: SearchContext, plan: SearchPlan, ranked: Sequence[Trial], seconds: float) -> int:
    """Return the number of folds, under a time limit by the speed that screening measured.

    Parameters
    ----------
    context, plan
        Context and plan of the search.
    ranked
        Trials with a score, best first.
    seconds
        Time of preparing the folds and of training the finalists.

    Returns
    -------
    int
    """
    if context.settings.time_limit is None:
        return plan.n_folds

    def choose() -> int:
        if "finalists" in context.journal:  # of an older version
            recorded: dict[str, Any] = context.journal.entry("finalists", dict)
            return int(recorded["n_folds"])
        left = seconds - folding_seconds(context, plan.n_folds)
        return _replanned(context, ranked, left).n_folds

    return context.journal.entry("folds", choose)


def choose_finalists(
    context: SearchContext, plan: SearchPlan, ranked: Sequence[Trial], n_folds: int, seconds: float
) -> tuple[list[Trial], FinalistPlan]:
    """Return the best trials of screening and the plan of their cross-fitting.

    Under a time limit there are more than planned, in case there is time for them. Under a memory limit there
    are as many as fit.

    Parameters
    ----------
    context, plan
        Context and plan of the search.
    ranked
        Trials with a score, best first.
    n_folds, seconds
        Folds, and time of training the finalists.

    Returns
    -------
    (list of Trial, FinalistPlan)
    """
    if context.settings.time_limit is None:
        planned = FinalistPlan(plan.max_epochs, plan.n_finalists, plan.n_folds)
        return _within_memory(context, list(ranked[: plan.n_finalists]), planned)

    def choose() -> dict[str, Any]:
        found = _replanned(context, ranked, seconds, n_folds)
        chosen = affordable_first(context, ranked, seconds)
        chosen = chosen[: context.settings.n_finalists or _most_finalists(context)]
        chosen, found = _within_memory(context, chosen, found)
        if seconds < FEW_SECONDS:
            found = replace(found, n_finalists=1, group_size=1)
        return asdict(found) | {"trials": [trial.number for trial in chosen]}

    entry = dict(context.journal.entry("finalists", choose))
    with context.journal.reading():
        by_number = {trial.number: trial for trial in ranked}
        chosen = [by_number[number] for number in entry.pop("trials")]
        return chosen, FinalistPlan(**entry)


def _replanned(
    context: SearchContext, ranked: Sequence[Trial], seconds: float, n_folds: int | None = None
) -> FinalistPlan:
    """Plan of cross-fitting with the mean cost of the best trials."""
    best = affordable_first(context, ranked, seconds)[:N_REPLANNED]
    return replan_finalists(context, [trial.config for trial in best], seconds, n_folds)


def _most_finalists(context: SearchContext) -> int:
    """Most finalists under a time limit: more on small tables, which many of them suit."""
    n_values = context.preparation.problem.head.n_predictions * context.preparation.problem.n_rows
    return max(MAX_PLANNED, min(MAX_FINALISTS, MAX_PREDICTIONS // n_values))


def _within_memory(
    context: SearchContext, chosen: list[Trial], planned: FinalistPlan
) -> tuple[list[Trial], FinalistPlan]:
    """Finalists and size of their groups that fit into memory."""
    group = group_size(context.preparation)
    if context.memory is None:
        return chosen, replace(planned, group_size=group)
    sizes = finalist_sizes(context.preparation, planned.n_folds)
    n_parameters = [trial.n_parameters for trial in chosen]
    count, group = context.memory.fitting(n_parameters, sizes, group)
    planned = replace(planned, n_finalists=min(planned.n_finalists, count), group_size=group)
    return chosen[:count], planned


def fold_parts(context: SearchContext, n_folds: int) -> list[Part]:
    """Return the parts of cross-fitting."""
    hold_out = not snapshots_fit(context.preparation)
    n_workers = context.fold_workers
    parts = context.preparation.folds(n_folds, hold_out_validation=hold_out, n_workers=n_workers)
    return [replace(part, data=context.share(part.data)) for part in parts]
