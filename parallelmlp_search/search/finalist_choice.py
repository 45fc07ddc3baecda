"""Choice of the finalists, and the parts on which they are cross-fitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from parallelmlp_search.exceptions import SearchFailedError
from parallelmlp_search.search.finalists.sizes import finalist_sizes, group_size, snapshots_fit
from parallelmlp_search.search.planning import affordable_first, replan_finalists
from parallelmlp_search.search.problem.preparation import Part
from parallelmlp_search.search.run.budget import FinalistPlan, SearchPlan
from parallelmlp_search.search.run.context import SearchContext
from parallelmlp_search.search.run.trial import Trial

MAX_FINALISTS = 32

N_REPLANNED = 16
"""Best configurations of screening whose mean cost plans the finalists under a time limit."""


def choose_finalists(
    context: SearchContext, plan: SearchPlan, trials: Sequence[Trial], refit_seconds: float
) -> tuple[list[Trial], FinalistPlan]:
    """Return the best trials of screening, higher rungs first, and the plan of their cross-fitting.

    Under a time limit there are more than planned, in case there is time for them. Under a memory limit there
    are as many as fit.

    Parameters
    ----------
    context, plan
        Context and plan of the search.
    trials
        All trials.
    refit_seconds
        Time that is kept for the refit.

    Returns
    -------
    (list of Trial, FinalistPlan)

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
    ranked = sorted(alive, key=lambda trial: trial.standing)
    if context.settings.time_limit is None:
        planned = FinalistPlan(plan.max_epochs, plan.n_finalists, plan.n_folds)
        return _within_memory(context, ranked[: plan.n_finalists], planned)

    def choose() -> dict[str, Any]:
        left = context.clock.for_training(plan.reserve_seconds + refit_seconds)
        best = affordable_first(context, ranked, left)
        found = replan_finalists(context, [trial.config for trial in best[:N_REPLANNED]], left)
        chosen = best[: context.settings.n_finalists or MAX_FINALISTS]
        chosen, found = _within_memory(context, chosen, found)
        return asdict(found) | {"trials": [trial.number for trial in chosen]}

    entry = dict(context.journal.entry("finalists", choose))
    with context.journal.reading():
        chosen = [trials[number] for number in entry.pop("trials")]
        return chosen, FinalistPlan(**entry)


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
    # threads hold the columns of several folds at once, which a memory limit does not plan for
    n_workers = 1 if context.memory is not None else context.throughput.n_workers
    parts = context.preparation.folds(n_folds, hold_out_validation=hold_out, n_workers=n_workers)
    return [replace(part, data=context.share(part.data)) for part in parts]
