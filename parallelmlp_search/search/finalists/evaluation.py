"""The verdict: the ensemble, its honest score, and the leaderboard."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from parallelmlp_search.exceptions import SearchFailedError
from parallelmlp_search.search.finalists.cross_fitting import CrossFit
from parallelmlp_search.search.finalists.model import FoldModel, TrainedModel
from parallelmlp_search.search.problem.preparation import Part, Preparation
from parallelmlp_search.search.run.trial import Trial, TrialState
from parallelmlp_search.selection import (
    Bootstrap,
    Entry,
    GreedyEnsemble,
    HonestScore,
    Leaderboard,
    Metric,
    bias_corrected_score,
    greedy_ensemble,
    weight_classes,
)

__all__ = ["Verdict", "build_model", "judge", "rank", "selection_seconds"]

ROUNDS = 25
BOOTSTRAPS = 30


@dataclass(frozen=True)
class Verdict:
    """What was chosen and what it is worth.

    Attributes
    ----------
    ensemble
        Weights of the finalists.
    honest
        Score of the whole choice, corrected for the choosing; None for tables too small to hold rows back.
    """

    ensemble: GreedyEnsemble
    honest: HonestScore | None


def selection_seconds(metric: Metric, n_finalists: int, n_predictions: int, n_rows: int) -> float:
    """Predicted seconds of :func:`judge` on one core; it bounds itself by about 8."""
    once = metric.formula.cost_ns * 1e-9 * n_finalists * n_predictions * n_rows
    return 0.2 + min(4.0, once * ROUNDS) + _correction_seconds(once)


def _correction_seconds(once: float) -> float:
    """Predicted seconds of correcting the score, from those of scoring all finalists once."""
    return min(6.0, once * ROUNDS * BOOTSTRAPS * 0.5)


def judge(
    preparation: Preparation,
    fit: CrossFit,
    *,
    decision: tuple[float, ...] | None = None,
    seconds: float = math.inf,
    seed: int = 0,
) -> Verdict:
    """Score finalists on out-of-fold predictions, build the ensemble, and correct its score.

    The finalists' last records get their out-of-fold errors. ``decision`` holds weights of the classes, found
    on other rows, that probabilities are multiplied by, so that metrics of labels see the classes that will
    be named; None for none. ``seconds`` is what is left for it; with less
    than needed the repetitions of the correction become fewer.

    Raises
    ------
    SearchFailedError
        If no finalist has a finite score.
    """
    if not fit.trials:
        raise SearchFailedError(
            "every finalist failed or was cut off: give more time, or a tamer search space"
        )
    rows = preparation.oof_rows[fit.covered.numpy()]
    predictions = weight_classes(fit.predictions[:, :, fit.covered], decision)
    target, weight = preparation.metric_target(rows), preparation.weights(rows)
    metric = preparation.metric
    errors = metric.error(predictions, target, weight)
    for trial, error in zip(fit.trials, errors.tolist(), strict=True):
        trial.records[-1] = replace(trial.records[-1], error=error)
    if not bool(torch.isfinite(errors).any()):
        raise SearchFailedError(
            f"no finalist has a finite {metric.name} on its out-of-fold predictions: choose another metric"
        )
    complexity = [float(trial.n_parameters) for trial in fit.trials]
    once = metric.formula.cost_ns * 1e-9 * predictions.numel()
    n_rounds = ROUNDS if seconds > 3.0 * once * ROUNDS else max(5, int(0.3 * seconds / once))
    started = time.monotonic()
    ensemble = greedy_ensemble(
        predictions, target, metric, n_rounds=n_rounds, weight=weight, complexity=complexity
    )
    if preparation.is_tiny:
        return Verdict(ensemble, None)
    n_bootstraps, max_rows = BOOTSTRAPS, None
    if math.isfinite(seconds):
        took = time.monotonic() - started
        slowness = max(1.0, took / (min(4.0, once * n_rounds) + 0.02))
        predicted = slowness * _correction_seconds(once)
        if predicted > seconds - took:
            max_rows = 1000
            n_bootstraps = max(5, min(BOOTSTRAPS, int(BOOTSTRAPS * 2.0 * (seconds - took) / predicted)))
    groups = preparation.problem.groups
    honest = bias_corrected_score(
        predictions,
        target,
        metric,
        ensemble,
        weight=weight,
        complexity=complexity,
        bootstrap=Bootstrap(n_bootstraps, max_rows, None if groups is None else groups[rows], seed),
    )
    return Verdict(ensemble, honest)


def rank(trials: Sequence[Trial], fit: CrossFit, verdict: Verdict, metric: Metric) -> Leaderboard:
    """The leaderboard of all trials; finalists stand above all rungs of screening."""
    weight_of = {
        trial.number: weight
        for trial, weight in zip(fit.trials, verdict.ensemble.weights.tolist(), strict=True)
    }
    entries = []
    for trial in trials:
        failed = trial.state is TrialState.FAILED or not math.isfinite(trial.error)
        entries.append(
            Entry(
                trial=trial.number,
                metric=metric.name,
                error=None if failed else trial.error,
                score=None if failed else metric.to_score(trial.error),
                rung=max(trial.rung, 0),
                n_parameters=trial.n_parameters,
                train_seconds=trial.seconds,
                epochs=trial.records[-1].epochs if trial.records else 0.0,
                state=str(trial.state),
                ensemble_weight=weight_of.get(trial.number, 0.0),
                failure=trial.failure,
                config=trial.config,
            )
        )
    return Leaderboard(entries)


def build_model(
    preparation: Preparation, parts: Sequence[Part], fit: CrossFit, weights: Tensor
) -> TrainedModel:
    """Pack the networks of every fold that have a weight, of (P,), into a model that predicts."""
    chosen = [index for index, weight in enumerate(weights.tolist()) if weight > 0]
    configs = tuple(fit.trials[index].config for index in chosen)
    folds = [
        FoldModel.pack(
            part.preprocessor,
            part.head,
            [part.data.architecture(config) for config in configs],
            [fit.vectors[index][fold] for index in chosen],
        )
        for fold, part in enumerate(parts)
    ]
    return TrainedModel(
        task=preparation.problem.task,
        classes=None if preparation.classes is None else preparation.classes.classes_,
        configs=configs,
        trials=tuple(fit.trials[index].number for index in chosen),
        weights=weights[chosen],
        folds=folds,
        feature_names=[str(name) for name in preparation.problem.frame.columns],
        target_name=preparation.problem.target_name,
        flat_target=preparation.problem.target.ndim == 1,
    )
