"""Postprocessing of the ensemble's predictions: a temperature and decision thresholds.

Both are fitted on the validation rows, from predictions of networks that have not seen them: out-of-fold
predictions where validation rows train, otherwise the average of the networks of all folds. The other
out-of-fold rows are not used, so their score includes the effect of both.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from parallelmlp_search.inference import TrainedModel
from parallelmlp_search.search.finalists.cross_fitting import CrossFit
from parallelmlp_search.search.finalists.model import ensemble_model
from parallelmlp_search.search.problem.preparation import Preparation, ScoredRows, seed_of
from parallelmlp_search.selection import (
    Decision,
    GreedyEnsemble,
    apply_temperature,
    fit_label_temperature,
    fit_temperature,
    tune_thresholds,
)

MAX_PREDICTING = 4
"""Finalists whose average tunes the first decision weights where validation rows are held out."""


def comparison_weights(fit: CrossFit) -> Decision | None:
    """Decision weights tuned for the average of all finalists, or those of the costs; None without either.

    Finalists are compared by them: otherwise all that never predict a rare class would have the same score.
    """
    if fit.preparation.decision is not None:
        return fit.preparation.decision if fit.preparation.metric.needs == "label" else None
    if not _tunes_thresholds(fit.preparation) or not fit.trials:
        return None
    finite = torch.isfinite(fit.scored_predictions).flatten(1).all(1).double()
    if fit.validation_predictions is None:
        # these finalists have to predict the validation rows first; the best of screening suffice
        finite[MAX_PREDICTING:] = 0.0
    if not bool(finite.any()):
        return None
    return _tuned_weights(fit.preparation, *_validation(fit, finite / finite.sum()))


def postprocess(fit: CrossFit, ensemble: GreedyEnsemble, n_folds: int | None = None) -> TrainedModel:
    """Model of the ensemble, with temperature and decision weights fitted on the validation rows.

    In tiny tables, which have no validation rows of their own, nothing is fitted.

    Parameters
    ----------
    fit, ensemble
        Finalists and their weights.
    n_folds
        Folds whose networks predict; None for all.

    Returns
    -------
    TrainedModel
    """
    preparation = fit.preparation
    model = ensemble_model(fit, ensemble.weights, n_folds)
    calibrates = preparation.settings.calibration != "none" and model.classes is not None
    tunes = _tunes_thresholds(preparation)
    if preparation.is_tiny or not (tunes or calibrates):
        return model
    rows, probabilities = _validation(fit, ensemble.weights)
    if calibrates and rows.target.shape[-1]:
        fitted = fit_label_temperature if preparation.of_labels else fit_temperature
        model = replace(model, temperature=fitted(probabilities, rows.target, weight=rows.weight))
    if tunes:
        probabilities = apply_temperature(probabilities, model.temperature, of_labels=preparation.of_labels)
        model = replace(model, decision_weights=_tuned_weights(preparation, rows, probabilities))
    return model


def _tunes_thresholds(preparation: Preparation) -> bool:
    is_wanted = preparation.settings.tune_thresholds and not preparation.is_tiny
    return is_wanted and preparation.metric.needs == "label" and preparation.decision is None


def _validation(fit: CrossFit, weights: Tensor) -> tuple[ScoredRows, Tensor]:
    """Validation rows with their probabilities (C, n) by finalists with these weights (P,)."""
    preparation, rows = fit.preparation, fit.preparation.validation_rows
    if fit.validation_predictions is None or fit.validation_covered is None:
        probabilities = ensemble_model(fit, weights).predictions(preparation.problem.frame.iloc[rows])
        return preparation.scored_rows(rows), torch.from_numpy(probabilities)
    covered = fit.validation_covered
    mixed = GreedyEnsemble(weights, (), ()).combine(fit.validation_predictions[:, :, covered]).double()
    if not preparation.of_labels:
        mixed = mixed / mixed.sum(dim=0, keepdim=True)
    return preparation.scored_rows(rows[covered.numpy()]), mixed


def _tuned_weights(
    preparation: Preparation, rows: ScoredRows, probabilities: Tensor
) -> tuple[float, ...] | None:
    if not rows.target.shape[-1]:
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
