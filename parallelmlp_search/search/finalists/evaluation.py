"""Evaluation of the finalists: ensemble, honest score, leaderboard."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import stdev
from typing import Any

import torch

from parallelmlp_search.exceptions import MetricError, SearchFailedError
from parallelmlp_search.inference import TrainedModel
from parallelmlp_search.search.finalists.cross_fitting import CrossFit
from parallelmlp_search.search.finalists.latency import Latency, LimitedSelection
from parallelmlp_search.search.finalists.selection_cost import N_BOOTSTRAPS, N_ROUNDS, SelectionCost
from parallelmlp_search.search.problem.latency import LatencyMeter
from parallelmlp_search.search.problem.preparation import seed_of
from parallelmlp_search.search.run.budget import Throughput
from parallelmlp_search.search.run.journal import Journal
from parallelmlp_search.search.run.trial import Trial, TrialState
from parallelmlp_search.selection import (
    Bootstrap,
    CostLimit,
    Decision,
    Entry,
    GreedyEnsemble,
    HonestScore,
    Leaderboard,
    adjust_for_averaging,
    adjust_for_postprocessing,
    apply_temperature,
    averaging_gain,
    bias_corrected_score,
    greedy_ensemble,
    weight_classes,
)

MIN_ROUNDS = 5
"""Rounds of the selection if time is short."""

SELECTING_SHARE = 0.5
"""Share of the time before a deadline for the selection; the rest is for the correction."""

MIN_SECONDS = 0.05
"""Least seconds that the correction aims at."""


@dataclass(frozen=True)
class Evaluation:
    """Ensemble of the finalists, and its score."""

    ensemble: GreedyEnsemble
    """Weights of the finalists."""
    decision_weights: Decision | None
    """Weights of the classes by which the finalists were compared, or None."""
    corrected: HonestScore | None
    """Score of the ensemble, corrected for its selection; None for tables too small to hold rows back."""
    latency: Latency | None = None
    """Measured latency under a limit, or None."""

    @property
    def n_folds(self) -> int | None:
        """Folds whose networks the model has; None for all."""
        return None if self.latency is None else self.latency.n_folds


def evaluate(
    fit: CrossFit,
    decision_weights: Decision | None,
    *,
    n_workers: int = 1,
    deadline: float | None = None,
    journal: Journal | None = None,
    meter: LatencyMeter | None = None,
) -> Evaluation:
    """Score finalists on out-of-fold predictions, select the ensemble, and correct its score.

    The last records of the finalists get their out-of-fold errors.

    Parameters
    ----------
    fit, decision_weights
        Finalists with out-of-fold predictions; weights of the classes, tuned on other rows, or None.
    n_workers
        Threads that repeat the selection. Results do not depend on it.
    deadline
        Reading of the monotonic clock at which the result is wanted, or None. If time is short, there are
        fewer rounds, bootstrap samples and rows.
    journal
        Recalls what depends on the clock; None to compute it.
    meter
        Limit of the latency, or None.

    Returns
    -------
    Evaluation

    Raises
    ------
    SearchFailedError
        If no finalist has a finite score.
    """
    if not fit.trials:
        raise SearchFailedError(
            "every finalist failed or was stopped by the time limit: give more time or a smaller search space"
        )
    preparation, metric, rows = fit.preparation, fit.preparation.metric, fit.scored_rows
    predictions = weight_classes(fit.scored_predictions, decision_weights)
    pace = _Pace(SelectionCost.of(preparation, len(predictions)), deadline)
    errors = metric.error(predictions, rows.target, rows.weight)
    for trial, error in zip(fit.trials, errors.tolist(), strict=True):
        trial.records[-1] = replace(trial.records[-1], error=error)
    if not bool(torch.isfinite(errors).any()):
        raise SearchFailedError(
            f"no finalist has a finite {metric.name} on its out-of-fold predictions: choose another metric"
        )
    complexity = [float(trial.n_parameters) for trial in fit.trials]
    journal = journal or Journal(Throughput(n_workers))
    n_rounds = N_ROUNDS if deadline is None else journal.entry("rounds", pace.rounds)

    def select(limit: CostLimit | None = None) -> GreedyEnsemble:
        how: Any = {"n_rounds": n_rounds, "weight": rows.weight, "complexity": complexity, "limit": limit}
        return greedy_ensemble(predictions, rows.target, metric, **how)

    if meter is None:
        ensemble, latency = select(), None
    else:
        ensemble, latency = LimitedSelection(fit, meter, journal, select).run()
    if preparation.is_tiny:
        return Evaluation(ensemble, decision_weights, None, latency)

    def correct() -> dict[str, Any]:
        bootstrap = Bootstrap(
            N_BOOTSTRAPS, None, rows.groups, seed_of(preparation.settings.seed, 3), n_workers
        )
        if deadline is not None:
            bootstrap = pace.hurried(bootstrap)
        values = (predictions, rows.target, metric, ensemble)
        return asdict(
            bias_corrected_score(*values, weight=rows.weight, complexity=complexity, bootstrap=bootstrap)
        )

    corrected = correct() if deadline is None else journal.entry("corrected", correct)
    return Evaluation(ensemble, decision_weights, HonestScore(**corrected), latency)


class _Pace:
    """Extent of the selection and of the correction before a deadline, from the time of the first scores.

    Parameters
    ----------
    cost
        Predicted times, of scoring all finalists once to begin with.
    deadline
        Reading of the monotonic clock, or None.
    """

    def __init__(self, cost: SelectionCost, deadline: float | None) -> None:
        self._cost, self._deadline = cost, deadline
        self._began = time.monotonic()
        self._slowness = 1.0

    @property
    def _left(self) -> float:
        return math.inf if self._deadline is None else self._deadline - time.monotonic()

    def rounds(self) -> int:
        """Return the rounds of the selection; called once the finalists are scored."""
        took = time.monotonic() - self._began
        self._slowness = max(1.0, took / (self._cost.once + 0.02))
        share = SELECTING_SHARE * self._left / max(self._slowness * self._cost.selecting, 1e-9)
        return N_ROUNDS if share >= 1.0 else max(MIN_ROUNDS, int(N_ROUNDS * share))

    def hurried(self, bootstrap: Bootstrap) -> Bootstrap:
        """Return a bootstrap that ends at the deadline, before its standard error."""
        assert self._deadline is not None
        error = self._slowness * self._cost.error
        seconds = max(0.0, self._left - error) * bootstrap.n_workers / self._slowness
        return replace(bootstrap, seconds=max(MIN_SECONDS, seconds), deadline=self._deadline - error)


def honest_score(fit: CrossFit, evaluation: Evaluation, model: TrainedModel) -> HonestScore | None:
    """Expected score of the final model on new rows; None for tables too small to hold rows back.

    It is the score of the ensemble, corrected for its selection, plus the effects of postprocessing and of
    averaging the networks of several folds or refits.

    Parameters
    ----------
    fit, evaluation, model
        Out-of-fold predictions; ensemble and its corrected score; final model.

    Returns
    -------
    HonestScore or None
    """
    honest, ensemble = evaluation.corrected, evaluation.ensemble
    if honest is None:
        return None
    preparation, rows, predictions = fit.preparation, fit.scored_rows, fit.scored_predictions
    decision = model.decision_weights if preparation.metric.needs == "label" else None
    if model.classes is not None:
        plain = ensemble.combine(predictions).double()
        of_labels = preparation.of_labels
        plain = plain if of_labels else plain / plain.sum(dim=0, keepdim=True)
        tempered = apply_temperature(plain, model.temperature, of_labels=of_labels)
        honest = adjust_for_postprocessing(
            honest,
            weight_classes(plain, evaluation.decision_weights),
            weight_classes(tempered, decision),
            rows.target,
            preparation.metric,
            weight=rows.weight,
            bootstrap=Bootstrap(groups=rows.groups, seed=seed_of(preparation.settings.seed, 3)),
        )
    gain = averaging_gain(
        weight_classes(predictions, decision),
        rows.target,
        preparation.metric,
        ensemble.weights,
        len(model.folds),
        weight=rows.weight,
    )
    return adjust_for_averaging(honest, gain, preparation.metric.formula.score_range(predictions.shape[1]))


def make_leaderboard(trials: Sequence[Trial], fit: CrossFit, evaluation: Evaluation) -> Leaderboard:
    """Leaderboard of all trials; finalists rank before all trials of screening.

    Parameters
    ----------
    trials, fit, evaluation
        All trials; finalists; their weights and those of the classes.

    Returns
    -------
    Leaderboard
    """
    metric, weights = fit.preparation.metric, evaluation.ensemble.weights.tolist()
    weight_of = {trial.number: weight for trial, weight in zip(fit.trials, weights, strict=True)}
    numbers = (trial.number for trial in fit.trials)
    error_of = dict(zip(numbers, fold_errors(fit, evaluation.decision_weights), strict=True))
    networks = () if evaluation.latency is None else evaluation.latency.networks
    latency_of = {trial.number: seconds for trial, seconds in zip(fit.trials, networks, strict=False)}
    entries = []
    for trial in trials:
        failed = trial.state is TrialState.FAILED or not math.isfinite(trial.error)
        entries.append(
            Entry(
                trial=trial.number,
                metric=metric.name,
                error=None if failed else trial.error,
                score=None if failed else metric.to_score(trial.error),
                standard_error=None if failed else error_of.get(trial.number),
                rung=max(trial.rung, 0),
                n_parameters=trial.n_parameters,
                train_seconds=trial.seconds,
                epochs=trial.records[-1].epochs if trial.records else 0.0,
                state=str(trial.state),
                ensemble_weight=weight_of.get(trial.number, 0.0),
                latency=latency_of.get(trial.number),
                failure=trial.failure,
                config=trial.config,
            )
        )
    return Leaderboard(entries)


def fold_errors(fit: CrossFit, decision_weights: Decision | None) -> list[float | None]:
    """Return the standard error of each finalist's score over the folds.

    It is the standard deviation of the scores of the folds, divided by the root of their number; None for a
    finalist without finite scores on at least two folds.
    """
    rows, metric = fit.scored_rows, fit.preparation.metric
    folds = torch.from_numpy(fit.oof_folds[fit.preparation.oof_rows[fit.covered.numpy()]])
    predictions = weight_classes(fit.scored_predictions, decision_weights)
    scores: list[list[float]] = [[] for _ in fit.trials]
    for fold in sorted(set(folds[folds >= 0].tolist())):
        inside = (folds == fold).nonzero()[:, 0]
        weight = None if rows.weight is None else rows.weight[inside]
        if weight is not None and float(weight.sum()) <= 0:
            continue
        try:
            of_fold = metric(predictions[:, :, inside], rows.target[..., inside], weight).tolist()
        except MetricError:  # it may not be defined on these rows
            continue
        for own, score in zip(scores, of_fold, strict=True):
            own += [score] if math.isfinite(score) else []
    return [stdev(own) / math.sqrt(len(own)) if len(own) > 1 else None for own in scores]
