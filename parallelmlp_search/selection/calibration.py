"""Temperature scaling of probabilities.

Source: Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", ICML 2017, section 4.2,
equation 9: the logits are divided by a temperature T, so probabilities p become proportional to p ** (1 / T).
The order of the classes within a row does not change.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from parallelmlp_search.selection.inputs import check_inputs

PRIOR_STD = 0.2
"""Standard deviation of the prior of log T. Networks that are stopped early and averaged are nearly
calibrated."""

MAX_LOG_TEMPERATURE = 1.5
"""Limit of the absolute logarithm of the temperature."""

MIN_PROBABILITY = 1e-12


def apply_temperature(probabilities: Tensor, temperature: float, *, of_labels: bool = False) -> Tensor:
    """Scale probabilities: flatter for temperatures above 1, sharper below, unchanged at 1.

    Parameters
    ----------
    probabilities
        (..., C, N).
    temperature
        Temperature.
    of_labels
        True for probabilities of several labels, whose log-odds are divided; False for those of classes.

    Returns
    -------
    Tensor of shape (..., C, N)
    """
    if temperature == 1.0:
        return probabilities
    if of_labels:
        return (labels_log_odds(probabilities) / temperature).sigmoid()
    logits = probabilities.clamp_min(MIN_PROBABILITY).log() / temperature
    return logits.softmax(dim=-2)


def labels_log_odds(probabilities: Tensor) -> Tensor:
    """Return the log-odds of the probabilities of labels."""
    present, absent = (p.clamp_min(MIN_PROBABILITY).log() for p in (probabilities, 1.0 - probabilities))
    return present - absent


def fit_label_temperature(predictions: Tensor, target: Tensor, *, weight: Any = None) -> float:
    """Fit one temperature for several labels, each of which counts as an observation of two classes.

    Parameters
    ----------
    predictions
        (L, N) probabilities of rows that were not trained on.
    target
        (L, N) 0 and 1.
    weight
        Row weights (N,), or None.

    Returns
    -------
    float
        Temperature, see `fit_temperature`.
    """
    both = torch.stack([1.0 - predictions, predictions]).flatten(1)
    weights = None if weight is None else torch.as_tensor(weight).repeat(len(target))
    return fit_temperature(both, target.flatten().long(), weight=weights)


def fit_temperature(
    predictions: Tensor, target: Any, *, weight: Any = None, prior_std: float = PRIOR_STD
) -> float:
    """Fit the temperature with the smallest log-loss, shrunk towards 1 if the rows are few.

    Parameters
    ----------
    predictions
        (C, N) probabilities of rows that were not trained on.
    target
        Class numbers (N,).
    weight
        Row weights (N,), or None. Only their ratios matter.
    prior_std
        Standard deviation of the normal prior of log T, whose mean is 0.

    Returns
    -------
    float
        Temperature. With a log-likelihood gain of G, log T is multiplied by 1 - 1 / G. It is exactly 1.0 for
        a gain below 1, or if a prediction is missing or infinite.

    Raises
    ------
    InvalidParameterError
        If a shape or value breaks its rule.
    """
    checked, truth = check_inputs(predictions[None], target, weight, "classes")
    if not bool(torch.isfinite(checked).all()):
        return 1.0
    logits = checked[0].double().clamp_min(MIN_PROBABILITY).log()
    shares = truth.weight / truth.weight.sum()
    n_rows = 1.0 / float(shares.square().sum())  # effective sample size (Kish, "Survey sampling", 1965)

    def loss(log_temperature: float) -> float:
        scaled = logits / math.exp(log_temperature)
        log_likelihood = scaled.gather(0, truth.target[None])[0] - scaled.logsumexp(dim=0)
        return -n_rows * float((shares * log_likelihood).sum())

    def penalized_loss(log_temperature: float) -> float:
        return loss(log_temperature) + 0.5 * (log_temperature / prior_std) ** 2

    bounds = (-MAX_LOG_TEMPERATURE, MAX_LOG_TEMPERATURE)
    found = minimize_scalar(penalized_loss, bounds=bounds, method="bounded", options={"xatol": 1e-4})
    log_temperature = float(found.x)
    gain = loss(0.0) - loss(log_temperature)
    # One parameter gains half a unit by chance, and loses as much on new rows (Akaike, 1974).
    shrinkage = max(0.0, 1.0 - 1.0 / gain) if gain > 0 else 0.0
    return math.exp(shrinkage * log_temperature)
