"""Forecast of the duration of a search without a time limit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from parallelmlp_search.search.finalists.baselines import untimed_seconds
from parallelmlp_search.search.finalists.reserve import closing_seconds
from parallelmlp_search.search.finalists.selection_cost import SelectionCost
from parallelmlp_search.search.finalists.sizes import snapshots_fit
from parallelmlp_search.search.run.budget import SearchPlan
from parallelmlp_search.search.run.context import SearchContext
from parallelmlp_search.search.run.trial import Trial
from parallelmlp_search.search.screening.rungs import ladder_cost

MIN_SHARDS = 3
"""Shards of each worker before the first forecast, unless the first rung ends before."""


class Forecast:
    """Forecast of the seconds that are left, from the speed so far and the work that is left.

    Work is counted in predicted seconds on one core, and the speed is work per elapsed second, so everything
    that slows a search down is in it. It shows the time only; nothing in a search depends on it.

    Parameters
    ----------
    context, plan
        Context and plan of the search.
    """

    def __init__(self, context: SearchContext, plan: SearchPlan) -> None:
        self._context, self._plan = context, plan
        self._costs: dict[int, float] = {}
        self._screened: tuple[float, float] | None = None  # elapsed seconds and work at the end of screening
        self._started = context.clock.elapsed
        self._n_trials = plan.n_fresh + plan.n_refined

    def seconds_left(self, stage: str, trials: Sequence[Trial], values: dict[str, Any]) -> float | None:
        """Return the predicted seconds until the end of the search, or None if it is too early to tell.

        Parameters
        ----------
        stage, values
            Stage and fields of the report.
        trials
            All trials.

        Returns
        -------
        float or None
        """
        throughput = self._context.throughput
        # rounds that a resumed search recalls took their time before it was interrupted
        elapsed = self._context.clock.elapsed - (0.0 if throughput.recalled_steps else self._started)
        if stage == "screening":
            done, total = self._screening(trials)
            self._screened = elapsed, done
            is_early = values.get("round", 0) == 0 and not values.get("rung_completed")
            if not done or (is_early and values.get("done", 0) < MIN_SHARDS * throughput.n_workers):
                return None
            left = (max(0.0, total - done) + self._finalists(trials)) * elapsed / done
            comparing = throughput.factor * untimed_seconds(self._plan.training_seconds)
        elif stage == "cross-fitting" and self._screened is not None:
            screening, done = self._screened
            # shards that are being trained are half done
            training = min(throughput.n_workers, values["total"] - values["done"])
            share = max(0.5, values["done"] + 0.5 * training) / values["total"]
            spent = elapsed - screening
            predicted = max(0.0, self._finalists(trials) * screening / done - spent)
            # the mean of `predicted` and of `spent * (1 / share - 1)`, whose weight is the share
            left = (1.0 - share) * (spent + predicted)
            comparing = 0.0  # the baselines come first
        else:
            return None
        cost = SelectionCost.of(self._context.preparation, self._plan.n_finalists)
        after = cost.selecting + cost.correcting / throughput.n_workers
        after += closing_seconds(self._context, self._plan.n_finalists)
        return left + after + (comparing if self._context.settings.baselines else 0.0)

    def _screening(self, trials: Sequence[Trial]) -> tuple[float, float]:
        """Work that is done, and that of the whole screening."""
        plan = self._plan
        trained = [(self._cost(trial), trial.records[-1].epochs) for trial in trials if trial.records]
        done = sum(cost * epochs for cost, epochs in trained)
        per_epoch = done / max(1e-9, sum(epochs for _, epochs in trained))
        factor = self._context.settings.reduction_factor
        return done, self._n_trials * ladder_cost(plan.rungs, factor) * per_epoch

    def _finalists(self, trials: Sequence[Trial]) -> float:
        """Work of cross-fitting the best trials so far."""
        plan, preparation = self._plan, self._context.preparation
        best = sorted((trial for trial in trials if trial.records), key=lambda trial: trial.standing)
        best = best[: plan.n_finalists]
        mean = sum(map(self._cost, best)) / max(1, len(best))
        rows = preparation.problem.n_rows if snapshots_fit(preparation) else preparation.n_oof
        share = rows / self._context.data.n_rows * (plan.n_folds - 1) / plan.n_folds
        return mean * plan.n_finalists * plan.n_folds * plan.max_epochs * share

    def _cost(self, trial: Trial) -> float:
        if trial.number not in self._costs:
            self._costs[trial.number] = self._context.data.epoch_seconds(trial.config)
        return self._costs[trial.number]
