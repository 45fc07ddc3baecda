"""Probabilities that mean what they say: one temperature for all of them.

Source: Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", ICML 2017, section 4.2:
probabilities ``p`` become proportional to ``p ** (1 / T)``, which is dividing the logits by ``T``. The order
of the classes of a row stays as it is.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from parallelmlp_search.selection.inputs import check_inputs

__all__ = ["fit_temperature", "tempered"]

PRIOR_SPREAD = 0.2
"""Standard deviation of the logarithm of temperatures that is believed in beforehand: networks that are
stopped at their best moment and averaged are about calibrated."""

WIDEST = 1.5
"""Temperatures lie between exp(-WIDEST) and exp(WIDEST)."""

TINIEST = 1e-12


def tempered(probabilities: Tensor, temperature: float) -> Tensor:
    """(..., C, N) probabilities at a temperature: flatter above 1, sharper below, themselves at 1."""
    if temperature == 1.0:
        return probabilities
    logs = probabilities.clamp_min(TINIEST).log() / temperature
    return logs.softmax(dim=-2)


def fit_temperature(
    predictions: Tensor, target: Any, *, weight: Any = None, spread: float = PRIOR_SPREAD
) -> float:
    """Temperature with the least log-loss, drawn towards 1 where rows are few or say little.

    Parameters
    ----------
    predictions
        (C, N) probabilities of rows that were not trained on.
    target
        Class numbers (N,).
    weight
        Row weights (N,), or None; only their ratios count.
    spread
        Standard deviation of a normal prior of log T round 0. The prior weighs as much as some hundred rows.

    Returns
    -------
    float
        1.0 exactly where the likelihood of the rows gains less than one unit (of its logarithm), or where a
        prediction is missing or infinite. With a gain of G units, log T goes 1 - 1 / G of its way.

    Raises
    ------
    InvalidParameterError
        If a shape or value breaks its rule.
    """
    checked, target, weight = check_inputs(predictions[None], target, weight, "classes")
    if not bool(torch.isfinite(checked).all()):
        return 1.0
    logs = checked[0].double().clamp_min(TINIEST).log()
    shares = weight / weight.sum()
    # so many equally weighted rows would know as much (Kish, "Survey sampling", 1965)
    n_rows = 1.0 / float(shares.square().sum())

    def loss(log_temperature: float) -> float:
        scaled = logs / math.exp(log_temperature)
        right = scaled.gather(0, target[None])[0] - scaled.logsumexp(dim=0)
        return -n_rows * float((shares * right).sum())

    def believed(log_temperature: float) -> float:
        return loss(log_temperature) + 0.5 * (log_temperature / spread) ** 2

    found = minimize_scalar(believed, bounds=(-WIDEST, WIDEST), method="bounded", options={"xatol": 1e-4})
    log_temperature = float(found.x)
    gain = loss(0.0) - loss(log_temperature)
    # one parameter gains half a unit by chance alone and loses as much on new rows (Akaike, 1974)
    trust = max(0.0, 1.0 - 1.0 / gain) if gain > 0 else 0.0
    return math.exp(trust * log_temperature)
