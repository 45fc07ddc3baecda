"""What the ensemble's predictions go through before they are given out: a temperature, and a decision.

Both are fitted on the choosing rows, by predictions of networks that have not seen them: out-of-fold ones
where the choosing rows train, else the average of all folds' networks. The reporting rows have no say in
either, so they tell what both are worth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parallelmlp_search.search.finalists.cross_fitting import CrossFit
from parallelmlp_search.search.finalists.evaluation import Verdict, build_model
from parallelmlp_search.search.finalists.model import TrainedModel
from parallelmlp_search.search.problem.preparation import Part, Preparation, seed_of
from parallelmlp_search.search.problem.settings import SearchSettings
from parallelmlp_search.selection import (
    Bootstrap,
    GreedyEnsemble,
    adjust_for_averaging,
    adjust_for_postprocessing,
    apply_temperature,
    averaging_gain,
    fit_temperature,
    tune_thresholds,
    weight_classes,
)

__all__ = ["average", "first_decision", "treat"]

MAX_PREDICTING = 4
"""Finalists whose average is looked at first where the choosing rows are held out."""


def first_decision(
    preparation: Preparation, settings: SearchSettings, parts: Sequence[Part], fit: CrossFit
) -> tuple[float, ...] | None:
    """Weights of the classes that suit the average of all finalists, so that they can be compared by them.

    Without it all finalists that never name a rare class would look alike. None where nothing is tuned.
    """
    if not _tunes(preparation, settings) or not fit.trials:
        return None
    finite = torch.isfinite(fit.predictions[:, :, fit.covered]).flatten(1).all(1).double()
    if not bool(finite.any()):
        return None
    if fit.choosing is None:
        # they have to predict the choosing rows first; those that led the screening are enough
        finite[MAX_PREDICTING:] = 0.0
        if not bool(finite.any()):
            return None
    shares = finite / finite.sum()
    rows, probabilities = _choosing(preparation, parts, fit, shares)
    return _decision(preparation, settings, rows, probabilities)


def treat(
    preparation: Preparation,
    settings: SearchSettings,
    parts: Sequence[Part],
    fit: CrossFit,
    verdict: Verdict,
    first: tuple[float, ...] | None,
) -> tuple[TrainedModel, Verdict]:
    """The model of the chosen ensemble, with what was asked for fitted on the choosing rows.

    The honest score, which was that of decisions by ``first``, becomes that of what is given out. Without
    choosing rows of their own, as in tiny tables, nothing is fitted.
    """
    weights = verdict.ensemble.weights
    model = build_model(preparation, parts, fit, weights)
    calibrate = settings.calibration != "none" and model.classes is not None
    tune = _tunes(preparation, settings)
    if preparation.is_tiny or not (tune or calibrate):
        return model, verdict
    rows, probabilities = _choosing(preparation, parts, fit, weights)
    temperature = 1.0
    if calibrate and len(rows):
        temperature = fit_temperature(
            probabilities, preparation.metric_target(rows), weight=preparation.weights(rows)
        )
    decision = None
    if tune:
        decision = _decision(preparation, settings, rows, apply_temperature(probabilities, temperature))
    model = replace(model, temperature=temperature, decision=decision)
    if verdict.honest is None:
        return model, verdict
    rows = preparation.oof_rows[fit.covered.numpy()]
    plain = _normal(verdict.ensemble.combine(fit.predictions[:, :, fit.covered]))
    groups = preparation.problem.groups
    honest = adjust_for_postprocessing(
        verdict.honest,
        weight_classes(plain, first),
        weight_classes(apply_temperature(plain, temperature), decision),
        preparation.metric_target(rows),
        preparation.metric,
        weight=preparation.weights(rows),
        bootstrap=Bootstrap(groups=None if groups is None else groups[rows], seed=seed_of(settings.seed, 3)),
    )
    return model, replace(verdict, honest=honest)


def average(
    preparation: Preparation,
    fit: CrossFit,
    verdict: Verdict,
    decision: tuple[float, ...] | None,
    n_networks: int,
) -> Verdict:
    """The honest score, so far that of one network a configuration, becomes that of so many averaged."""
    if verdict.honest is None:
        return verdict
    rows = preparation.oof_rows[fit.covered.numpy()]
    gain = averaging_gain(
        weight_classes(fit.predictions[:, :, fit.covered], decision),
        preparation.metric_target(rows),
        preparation.metric,
        verdict.ensemble.weights,
        n_networks,
        weight=preparation.weights(rows),
    )
    return replace(verdict, honest=adjust_for_averaging(verdict.honest, gain))


def _tunes(preparation: Preparation, settings: SearchSettings) -> bool:
    return settings.tune_thresholds and preparation.metric.needs == "label" and not preparation.is_tiny


def _choosing(
    preparation: Preparation, parts: Sequence[Part], fit: CrossFit, weights: Tensor
) -> tuple[NDArray[np.intp], Tensor]:
    """Choosing rows that somebody predicts without having seen them, and their probabilities (C, n) by the
    finalists with these weights (P,)."""
    rows = preparation.validation_rows
    if fit.choosing is None or fit.validation_covered is None:
        frame = preparation.problem.frame.iloc[rows]
        return rows, torch.from_numpy(build_model(preparation, parts, fit, weights).predictions(frame))
    mixed = GreedyEnsemble(weights, (), ()).combine(fit.choosing[:, :, fit.validation_covered])
    return rows[fit.validation_covered.numpy()], _normal(mixed)


def _decision(
    preparation: Preparation, settings: SearchSettings, rows: NDArray[np.intp], probabilities: Tensor
) -> tuple[float, ...] | None:
    """Tuned weights of the classes, or None."""
    if not len(rows):
        return None
    groups = preparation.problem.groups
    found = tune_thresholds(
        probabilities,
        preparation.metric_target(rows),
        preparation.metric,
        weight=preparation.weights(rows),
        groups=None if groups is None else groups[rows],
        seed=seed_of(settings.seed, 6),
    )
    return None if found is None else found.weights


def _normal(probabilities: Tensor) -> Tensor:
    """(C, N) float64 with sums of 1, as a model gives them out."""
    values = probabilities.double()
    return values / values.sum(dim=0, keepdim=True)
