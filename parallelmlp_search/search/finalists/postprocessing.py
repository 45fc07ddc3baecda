"""Postprocessing of the ensemble's predictions: a temperature and decision thresholds.

Both are fitted on the validation rows, from predictions of networks that have not seen them: out-of-fold
predictions where validation rows train, otherwise the average of the networks of all folds. The other
out-of-fold rows are not used, so their score includes the effect of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from parallelmlp_search.search.finalists.cross_fitting import CrossFit
from parallelmlp_search.search.finalists.model import FoldModel, TrainedModel
from parallelmlp_search.search.problem.preparation import Part, Preparation, ScoredRows, seed_of
from parallelmlp_search.selection import (
    GreedyEnsemble,
    apply_temperature,
    fit_temperature,
    tune_thresholds,
)

__all__ = ["build_model", "comparison_weights", "postprocess"]

MAX_PREDICTING = 4
"""Finalists whose average tunes the first class weights where validation rows are held out."""


def comparison_weights(
    preparation: Preparation, parts: Sequence[Part], fit: CrossFit
) -> tuple[float, ...] | None:
    """Class weights tuned for the average of all finalists, by which the finalists are compared.

    Without them, all finalists that never predict a rare class have the same score.

    Parameters
    ----------
    preparation
        Target, metric and settings.
    parts
        One per fold.
    fit
        Out-of-fold predictions and networks.

    Returns
    -------
    tuple of float, or None
        None where no thresholds are tuned.
    """
    if not _tunes_thresholds(preparation) or not fit.trials:
        return None
    finite = torch.isfinite(fit.predictions[:, :, fit.covered]).flatten(1).all(1).double()
    if fit.validation_predictions is None:
        # these finalists have to predict the validation rows first; the best of screening suffice
        finite[MAX_PREDICTING:] = 0.0
    if not bool(finite.any()):
        return None
    rows, probabilities = _validation(preparation, parts, fit, finite / finite.sum())
    return _tuned_weights(preparation, rows, probabilities)


def postprocess(
    preparation: Preparation, parts: Sequence[Part], fit: CrossFit, ensemble: GreedyEnsemble
) -> TrainedModel:
    """Model of the ensemble, with temperature and class weights fitted on the validation rows.

    In tiny tables, which have no validation rows of their own, nothing is fitted.

    Parameters
    ----------
    preparation
        Target, metric and settings.
    parts
        One per fold.
    fit
        Out-of-fold predictions and networks.
    ensemble
        Weights of the finalists.

    Returns
    -------
    TrainedModel
    """
    model = build_model(preparation, parts, fit, ensemble.weights)
    calibrates = preparation.settings.calibration != "none" and model.classes is not None
    tunes = _tunes_thresholds(preparation)
    if preparation.is_tiny or not (tunes or calibrates):
        return model
    rows, probabilities = _validation(preparation, parts, fit, ensemble.weights)
    if calibrates and len(rows.target):
        model = replace(model, temperature=fit_temperature(probabilities, rows.target, weight=rows.weight))
    if tunes:
        probabilities = apply_temperature(probabilities, model.temperature)
        model = replace(model, decision_weights=_tuned_weights(preparation, rows, probabilities))
    return model


def build_model(
    preparation: Preparation, parts: Sequence[Part], fit: CrossFit, weights: Tensor
) -> TrainedModel:
    """Model of the networks of every fold, without postprocessing.

    Parameters
    ----------
    preparation
        Target and classes.
    parts
        One per fold.
    fit
        Networks.
    weights
        Weights of the finalists ``(P,)``; those of weight 0 are left out.

    Returns
    -------
    TrainedModel
    """
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


def _tunes_thresholds(preparation: Preparation) -> bool:
    is_wanted = preparation.settings.tune_thresholds and not preparation.is_tiny
    return is_wanted and preparation.metric.needs == "label"


def _validation(
    preparation: Preparation, parts: Sequence[Part], fit: CrossFit, weights: Tensor
) -> tuple[ScoredRows, Tensor]:
    """Validation rows with their probabilities (C, n) by finalists with these weights (P,)."""
    rows = preparation.validation_rows
    if fit.validation_predictions is None or fit.validation_covered is None:
        model = build_model(preparation, parts, fit, weights)
        probabilities = torch.from_numpy(model.predictions(preparation.problem.frame.iloc[rows]))
        return preparation.scored_rows(rows), probabilities
    covered = fit.validation_covered
    mixed = GreedyEnsemble(weights, (), ()).combine(fit.validation_predictions[:, :, covered]).double()
    return preparation.scored_rows(rows[covered.numpy()]), mixed / mixed.sum(dim=0, keepdim=True)


def _tuned_weights(
    preparation: Preparation, rows: ScoredRows, probabilities: Tensor
) -> tuple[float, ...] | None:
    if not len(rows.target):
        return None
    found = tune_thresholds(
        probabilities,
        rows.target,
        preparation.metric,
        weight=rows.weight,
        groups=rows.groups,
        seed=seed_of(preparation.settings.seed, 6),
    )
    return None if found is None else found.weights
