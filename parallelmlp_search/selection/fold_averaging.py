"""Expected gain in score from averaging the networks of all folds.

An out-of-fold prediction comes from a single network per configuration. The final model averages the networks
of all folds and is better. No row shows by how much, because only one of these networks has not seen it. The
gain is estimated from another one that the rows do show: that of averaging the members of the ensemble.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from parallelmlp_search._checks import check_integer
from parallelmlp_search.selection.bias_correction import HonestScore
from parallelmlp_search.selection.ensemble import weighted_average
from parallelmlp_search.selection.inputs import check_inputs, finite_members
from parallelmlp_search.selection.metrics import Metric
from parallelmlp_search.selection.score_range import ScoreRange

REMAINING_GAIN = 0.35
"""Share of a single network's gain that is left for an infinitely large ensemble, whose members were trained
on the same rows. Measured with ``benchmarks.averaging``."""

RELATIVE_ERROR = 0.4
"""Standard error of the gain relative to the gain, from the same measurements."""


def averaging_gain(
    predictions: Tensor,
    target: Any,
    metric: Metric,
    weights: Tensor,
    n_networks: int,
    *,
    weight: Any = None,
) -> float:
    """Estimate the gain in score if each member becomes the average of several networks.

    Parameters
    ----------
    predictions
        (P, C, N) out-of-fold predictions of all members that were candidates, one network each.
    target, metric, weight
        As in :func:`~parallelmlp_search.selection.bias_corrected_score`.
    weights
        (P,) weights of the ensemble.
    n_networks
        Number of networks averaged per member, >= 1.

    Returns
    -------
    float
        Gain in the metric's own orientation. 0 for one network, or without a second member that has a finite
        score.

    Notes
    -----
    Averaging infinitely many networks would reach a limit. To second order in the distances between networks,
    the average of k networks has 1 / k of a single network's distance to it. The mean score of k members and
    the score of their average give ``limit = mean + (average - mean) / (1 - 1 / k)``, on the scale of
    :mod:`parallelmlp_search.selection.score_range`, so that it is in the range. A single network gains
    ``limit - sum(w * score)`` by averaging.

    An ensemble with weights ``w`` counts as ``M = 1 / sum(w ** 2)`` members. Averaging folds can still gain
    the share ``r + (1 - r) / M`` of that, with ``r`` = :data:`REMAINING_GAIN`, and ``n_networks`` networks
    reach ``1 - 1 / n_networks`` of it. An ensemble of one member is compared with the best other member.
    """
    if check_integer("n_networks", n_networks, 1) == 1:
        return 0.0
    predictions, truth = check_inputs(predictions, target, weight, metric.formula.target_kind)
    projected = metric.formula.project(predictions, truth.target)
    scores = metric.formula.score(projected, truth).tolist()
    finite = finite_members(predictions).tolist()
    ranked = [p for p, score in enumerate(scores) if finite[p] and math.isfinite(score)]
    ranked.sort(key=lambda p: -scores[p] if metric.greater_is_better else scores[p])
    members = [p for p in ranked if float(weights[p]) > 0]
    if len(members) == 1:
        members += [p for p in ranked if p not in members][:1]
    if len(members) < 2:
        return 0.0
    equal = torch.full((len(members),), 1.0 / len(members), dtype=torch.float64)
    average = weighted_average(projected[torch.tensor(members, device=projected.device)], equal)
    average_score = float(metric.formula.score(average[None], truth)[0])
    mean_score = sum(scores[p] for p in members) / len(members)
    bounds = metric.formula.score_range(predictions.shape[1])
    limit = bounds.at(mean_score, bounds.distance(mean_score, average_score) / (1.0 - 1.0 / len(members)))
    shares = weights.double() / weights.double().sum()
    single_gain = limit - sum(float(shares[p]) * scores[p] for p in members)
    remaining = REMAINING_GAIN + (1.0 - REMAINING_GAIN) * float((shares**2).sum())
    gain = single_gain * remaining * (1.0 - 1.0 / n_networks)
    better = gain > 0 if metric.greater_is_better else gain < 0
    return gain if better and math.isfinite(gain) else 0.0


def adjust_for_averaging(honest: HonestScore, gain: float, bounds: ScoreRange) -> HonestScore:
    """Add the gain of averaging to an honest score, and its uncertainty to the error and the interval.

    Parameters
    ----------
    honest, gain
        Score, and gain of :func:`averaging_gain`.
    bounds
        Range of the metric.

    Returns
    -------
    HonestScore
        All of its scores are in the range.
    """
    if gain == 0.0 or not math.isfinite(honest.score):
        return honest
    error = RELATIVE_ERROR * abs(gain)
    score = bounds.shift(honest.score, gain)

    def widened(end: float, change: float) -> float:
        own = bounds.distance(honest.score, end)
        added = bounds.distance(score, bounds.shift(score, change))
        return bounds.at(score, math.copysign(math.hypot(own, added), change))

    return replace(
        honest,
        score=score,
        standard_error=math.hypot(honest.standard_error, error),
        low=widened(honest.low, -1.96 * error),
        high=widened(honest.high, 1.96 * error),
        averaging=honest.averaging + score - honest.score,
    )
