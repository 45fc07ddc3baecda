"""What the ensemble's predictions go through before they are given out: a temperature, and a decision.

Both are fitted on the choosing rows, by predictions of networks that have not seen them: out-of-fold ones
where the choosing rows train, else the average of all folds' networks. The reporting rows have no say in
either, so they tell what both are worth.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from parallelmlp_search.search.finalists import CrossFit
from parallelmlp_search.search.model import TrainedModel
from parallelmlp_search.search.preparation import Preparation, seed_of
from parallelmlp_search.search.settings import SearchSettings
from parallelmlp_search.search.verdict import Verdict
from parallelmlp_search.selection import as_predicted, fit_temperature, tempered, tune_decision, weigh

__all__ = ["treat", "treated"]


def treated(probabilities: Tensor, temperature: float, decision: tuple[float, ...] | None) -> Tensor:
    """(C, N) probabilities as metrics of labels see them: at a temperature, times the classes' weights."""
    return weigh(tempered(probabilities, temperature), decision)


def treat(
    preparation: Preparation, settings: SearchSettings, fit: CrossFit, verdict: Verdict, model: TrainedModel
) -> tuple[TrainedModel, Verdict]:
    """Fit what was asked for on the choosing rows; the honest score is then that of what is given out.

    Without choosing rows of their own, as in tiny tables, nothing is fitted.
    """
    tune = settings.tune_decision and preparation.metric.needs == "label"
    calibrate = settings.calibration == "temperature"
    if model.classes is None or preparation.is_tiny or not (tune or calibrate):
        return model, verdict
    rows = preparation.choosing_rows
    if fit.choosing is None or fit.choosing_covered is None:
        # the model is not treated yet: these are plain averages over folds
        probabilities = torch.from_numpy(model.predictions(preparation.problem.frame.iloc[rows]))
    else:
        rows = rows[fit.choosing_covered.numpy()]
        probabilities = _normal(verdict.ensemble.combine(fit.choosing[:, :, fit.choosing_covered]))
    if not len(rows):
        return model, verdict
    target, weight = preparation.metric_target(rows), preparation.weights(rows)
    groups = preparation.problem.groups
    temperature = fit_temperature(probabilities, target, weight=weight) if calibrate else 1.0
    decision = None
    if tune:
        found = tune_decision(
            tempered(probabilities, temperature),
            target,
            preparation.metric,
            weight=weight,
            groups=None if groups is None else groups[rows],
            seed=seed_of(settings.seed, 6),
        )
        decision = None if found is None else found.weights
    model = replace(model, temperature=temperature, decision=decision)
    if verdict.honest is None:
        return model, verdict
    rows = preparation.reporting_rows[fit.covered.numpy()]
    plain = _normal(verdict.ensemble.combine(fit.predictions[:, :, fit.covered]))
    honest = as_predicted(
        verdict.honest,
        plain,
        treated(plain, temperature, decision if preparation.metric.needs == "label" else None),
        preparation.metric_target(rows),
        preparation.metric,
        weight=preparation.weights(rows),
        groups=None if groups is None else groups[rows],
        seed=seed_of(settings.seed, 3),
    )
    return model, replace(verdict, honest=honest)


def _normal(probabilities: Tensor) -> Tensor:
    """(C, N) float64 with sums of 1, as a model gives them out."""
    values = probabilities.double()
    return values / values.sum(dim=0, keepdim=True)
