"""What a score gains when each network stands for several, trained on other rows, that are averaged.

Out-of-fold predictions come from one network a configuration and row; the model that is given out averages
those of all folds, and is better. How much better cannot be seen on rows that only one of them has not seen.
But how much the members of the ensemble gain by being averaged with each other can, and that tells how far
networks of the same rows lie apart.
"""

from __future__ import annotations

import math
from dataclasses import replace
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.selection.bias_correction import HonestScore
from parallelmlp_search.selection.ensemble import weighted_average
from parallelmlp_search.selection.inputs import check_inputs, finite_members
from parallelmlp_search.selection.metrics import Metric

__all__ = ["as_averaged", "averaging_gain"]

SHARED = 0.35
"""Share of what a single network gains by averaging that an ensemble of any size still gains by averaging
folds, since its members were trained on the same rows. Measured with ``benchmarks.averaging``."""

DOUBT = 0.4
"""Standard error of the gain in units of the gain, from the same measurements."""


def averaging_gain(
    predictions: Tensor,
    target: Any,
    metric: Metric,
    weights: Tensor,
    n_networks: int,
    *,
    weight: Any = None,
) -> float:
    """What the score of an ensemble gains when each member becomes the average of several networks.

    Parameters
    ----------
    predictions
        (P, C, N) out-of-fold predictions of all members that were up for choice, one network each.
    target, metric, weight
        As in :func:`~parallelmlp_search.selection.bias_corrected_score`.
    weights
        (P,) weights of the ensemble.
    n_networks
        Networks that are averaged in the place of each member, >= 1.

    Returns
    -------
    float
        In the metric's own orientation; 0 where there is nothing to learn it from: one network each, or no
        second member with a finite score.

    Raises
    ------
    InvalidParameterError
        If ``n_networks`` breaks its rule.

    Notes
    -----
    The mean of the members' losses, less the loss of their plain average, over ``1 - 1 / M``, is how far that
    mean lies above what infinitely many such networks would have in common (to second order in their
    distances). So the members' losses, weighted as in the ensemble, less what they have in common, are what a
    single network gains by averaging; a member that is much worse than the others adds nothing to it. An
    ensemble has had most of that. But its members share the rows that they were trained on, so that
    ``r + (1 - r) / M`` of it is left for folds to gain, with `r` found by measurement (:data:`SHARED`), and
    of that ``1 - 1 / n_networks``. Weights `w` count as ``M = 1 / sum(w ** 2)`` members. Where there is but
    one, the best of the others is its partner.
    """
    if isinstance(n_networks, bool) or not isinstance(n_networks, Integral) or n_networks < 1:
        raise InvalidParameterError(f"n_networks must be an integer >= 1, but got {n_networks!r}")
    if n_networks == 1:
        return 0.0
    predictions, target, weight = check_inputs(predictions, target, weight, metric.formula.target_kind)
    condensed = metric.formula.condense(predictions, target)
    scores = metric.formula.score(condensed, target, weight).tolist()
    alive = finite_members(predictions).tolist()
    found = [p for p, score in enumerate(scores) if alive[p] and math.isfinite(score)]
    found.sort(key=lambda p: -scores[p] if metric.greater_is_better else scores[p])
    members = [p for p in found if float(weights[p]) > 0]
    if len(members) == 1:
        members += [p for p in found if p not in members][:1]
    if len(members) < 2:
        return 0.0
    even = torch.full((len(members),), 1.0 / len(members), dtype=torch.float64)
    average = weighted_average(condensed[torch.tensor(members, device=condensed.device)], even)
    together = float(metric.formula.score(average[None], target, weight)[0])
    alone = sum(scores[p] for p in members) / len(members)
    in_common = alone + (together - alone) / (1.0 - 1.0 / len(members))
    shares = weights.double() / weights.double().sum()
    whole = in_common - sum(float(shares[p]) * scores[p] for p in members)
    left = SHARED + (1.0 - SHARED) * float((shares**2).sum())
    gain = whole * left * (1.0 - 1.0 / n_networks)
    better = gain > 0 if metric.greater_is_better else gain < 0
    return gain if better and math.isfinite(gain) else 0.0


def as_averaged(honest: HonestScore, gain: float) -> HonestScore:
    """A score moved by what averaging gains, and its error and interval widened by the doubt about that."""
    if gain == 0.0 or not math.isfinite(honest.score):
        return honest
    doubt = DOUBT * abs(gain)
    score = honest.score + gain
    return replace(
        honest,
        score=score,
        standard_error=math.hypot(honest.standard_error, doubt),
        low=score - math.hypot(honest.score - honest.low, 1.96 * doubt),
        high=score + math.hypot(honest.high - honest.score, 1.96 * doubt),
        averaging=honest.averaging + gain,
    )
