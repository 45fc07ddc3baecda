"""Decision thresholds: class weights w_c, such that the class of the largest ``w_c p_c`` is predicted.

The most probable class is not optimal for every metric. If the costs of errors are known, the weights follow
from them (Elkan, "The foundations of cost-sensitive learning", IJCAI 2001, section 2); with two classes they
are a threshold on the probability. For metrics that are no sum over rows, such as F1, and for probabilities
that are not well calibrated, the weights are tuned on rows that were not trained on, like scikit-learn's
`TunedThresholdClassifierCV` does for two classes.

These rows are few, and the best threshold of few rows is noisy. It is therefore searched on bootstrap samples
and the median is taken. With a mean gain ``g`` on the out-of-bag rows and its standard error ``e``, the
logarithms of the weights are multiplied by ``g**2 / (g**2 + (e / 2)**2)``, and by 0 without a gain (shrinkage
as in James and Stein, "Estimation with quadratic loss", 1961).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.selection.bootstrap import bootstrap_samples, sampling_units, spawn_seeds
from parallelmlp_search.selection.cost_formulas import Matrix
from parallelmlp_search.selection.formulas import ClassCounts, LabelFormula
from parallelmlp_search.selection.inputs import GroundTruth, check_inputs
from parallelmlp_search.selection.label_formulas import LabelsF1, PredictedLabelsFormula
from parallelmlp_search.selection.metrics import METRICS, Metric

MIN_ROWS = 30
"""With fewer rows nothing is tuned."""

MAX_CLASSES = 64
"""With more classes nothing is tuned: each weight would depend on a handful of rows."""

MAX_COUNTS = 4_000_000
"""Maximum of rows times squared classes that a search over several classes looks at per sample."""

N_SAMPLES_BINARY, N_SAMPLES_MULTICLASS = 60, 24
"""Bootstrap samples for two classes, where a search takes half a millisecond, and for more."""

SHRINKAGE = 0.5
"""Gain, in standard errors, at which the log-weights are halved.

In 96 simulated cases (2 and 4 classes, a rare class of 50 to 2 %, 60 to 1,000 rows, four metrics, 16 repeats)
the mean gain on new rows is 0.047, the worst mean of a case -0.002 and the worst repeat -0.034. All or
nothing at half a standard error gains as much, but loses 0.005 in its worst case; at one standard error it
gains 0.038."""

N_PASSES = 3

GRID = torch.linspace(-4.0, 4.0, 81, dtype=torch.float64)
"""Log-weights that are tried with more than two classes: steps of 0.1, factors up to 55."""

ROUNDING = 1e-12

Decision = tuple[float, ...] | Matrix
"""Decision weights of the classes, or a decision matrix; see :mod:`parallelmlp_search.selection.costs`."""


@dataclass(frozen=True)
class DecisionWeights:
    """Tuned class weights and their gain.

    Attributes
    ----------
    weights
        One per class, > 0, with mean 1. With two classes the second is predicted if its probability exceeds
        ``weights[0] / 2``. One of several labels is predicted if its probability times its weight exceeds
        0.5.
    gain
        Mean gain in score on out-of-bag rows.
    standard_error
        Standard error of the gain.
    """

    weights: tuple[float, ...]
    gain: float
    standard_error: float


def weight_classes(predictions: Tensor, weights: Decision | None) -> Tensor:
    """Multiply probabilities (..., C, N) by a decision; the largest product is the predicted class."""
    if weights is None:
        return predictions
    factors = torch.tensor(weights, dtype=predictions.dtype, device=predictions.device)
    return factors.T @ predictions if factors.ndim == 2 else predictions * factors[:, None]


def tune_thresholds(
    predictions: Tensor,
    target: Any,
    metric: Metric,
    *,
    weight: Any = None,
    groups: Any = None,
    seed: int | np.random.SeedSequence = 0,
) -> DecisionWeights | None:
    """Tune class weights for a metric of labels.

    Parameters
    ----------
    predictions
        (C, N) probabilities of rows that were not trained on. The tuned score of these rows is optimistic;
        report that of other rows.
    target
        Class numbers (N,), or 0 and 1 of several labels (C, N).
    metric
        Metric of labels to improve.
    weight
        Row weights (N,), or None.
    groups
        (N,) labels; rows of one group are drawn together. None: each row is a unit of its own.
    seed
        Seed of the bootstrap samples.

    Returns
    -------
    DecisionWeights or None
        None if no weights improve the metric, or the data are too few to tune.

    Raises
    ------
    InvalidParameterError
        If the metric does not depend on labels, or a shape breaks its rule.

    Notes
    -----
    With two classes all thresholds between neighbouring rows are tried; the result is the middle of the
    widest plateau of best ones, in log-odds. With more classes, each class in turn gets the best weight of a
    grid, in up to three passes. Each of several labels is tuned like two classes: for its F1 score or, for
    the hamming loss and the subset accuracy, its accuracy. For the F1 score of all labels or of the rows, the
    labels share a threshold (Lipton, Elkan and Naryanaswamy, "Optimal thresholding of classifiers to maximize
    F1 measure", ECML 2014).
    """
    formula = metric.formula
    if isinstance(formula, PredictedLabelsFormula):
        return _label_weights(predictions, target, metric, weight=weight, groups=groups, seed=seed)
    if metric.needs != "label" or not isinstance(formula, LabelFormula):
        raise InvalidParameterError(f"metric must depend on labels to be tuned for, but got {metric.name!r}")
    checked, truth = check_inputs(predictions[None], target, weight, "classes")
    probabilities = checked[0].double()
    n_classes, n_rows = probabilities.shape
    if n_rows < MIN_ROWS or n_classes > MAX_CLASSES or not bool(torch.isfinite(probabilities).all()):
        return None
    if groups is not None and len(np.unique(np.asarray(groups))) < 2:
        return None
    sign = 1.0 if metric.greater_is_better else -1.0

    def score(log_weights: Tensor, row_weight: Tensor) -> float:
        weighted = (probabilities * log_weights.exp()[:, None])[None]
        rows = truth.reweight(row_weight)
        return sign * float(formula.score(formula.project(weighted, rows.target), rows)[0])

    logs = probabilities.clamp_min(torch.finfo(torch.float32).tiny).log()
    tuner_of = _BinaryTuner if n_classes == 2 else _MulticlassTuner
    tuner = tuner_of(logs, truth.target, formula, sign)
    neutral = torch.zeros(n_classes, dtype=torch.float64)
    candidates, gains, shares = [], [], []
    n_samples = N_SAMPLES_BINARY if n_classes == 2 else N_SAMPLES_MULTICLASS
    for sample in bootstrap_samples(sampling_units(groups, n_rows), spawn_seeds(seed)[0], n_samples):
        counts = torch.from_numpy(sample.counts).to(truth.weight)
        drawn, out_of_bag = truth.weight * counts, truth.weight * (counts == 0)
        if float(out_of_bag.sum()) <= 0 or float(drawn.sum()) <= 0:
            continue
        log_weights = tuner(drawn)
        gain = score(log_weights, out_of_bag) - score(neutral, out_of_bag)
        if math.isfinite(gain):
            candidates.append(log_weights - log_weights.mean())
            gains.append(gain)
            shares.append(sample.out_of_bag)
    if len(gains) < 2:
        return None
    # delete-d jackknife, as for the honest score
    share = min(0.5, float(np.mean(shares)))
    error = math.sqrt(share / (1.0 - share)) * float(np.std(gains, ddof=1))
    gain = float(np.mean(gains))
    if not gain > 0:
        return None
    shrinkage = gain**2 / (gain**2 + (SHRINKAGE * error) ** 2)
    tuned = shrinkage * torch.quantile(torch.stack(candidates), 0.5, dim=0)
    if not score(tuned, truth.weight) > score(neutral, truth.weight) + ROUNDING:
        return None
    weights = tuned.exp() / tuned.exp().mean()
    return DecisionWeights(tuple(weights.tolist()), gain, error)


def _label_weights(
    predictions: Tensor,
    target: Any,
    metric: Metric,
    *,
    weight: Any,
    groups: Any,
    seed: int | np.random.SeedSequence,
) -> DecisionWeights | None:
    """Weight of each of several labels, from thresholds of two classes: present or not."""
    checked, truth = check_inputs(predictions[None], target, weight, "values")
    probabilities, actual = checked[0], truth.target
    n_labels, n_rows = probabilities.shape
    if n_labels > MAX_CLASSES or not bool(torch.isfinite(probabilities).all()):
        return None
    is_f1 = isinstance(metric.formula, LabelsF1)
    binary = METRICS["f1" if is_f1 else "accuracy"]
    together = isinstance(metric.formula, LabelsF1) and metric.formula.average != "macro"
    units = np.arange(n_rows) if groups is None and together else groups
    parts = [slice(None)] if together else [slice(one, one + 1) for one in range(n_labels)]
    found = []
    for part in parts:
        mine, count = probabilities[part].flatten(), len(probabilities[part])
        found.append(
            tune_thresholds(
                torch.stack([1.0 - mine, mine]),
                actual[part].flatten().long(),
                binary,
                weight=truth.weight.repeat(count),
                groups=None if units is None else np.tile(np.asarray(units), count),
                seed=seed,
            )
        )
    weights = tuple(1.0 if one is None else 1.0 / one.weights[0] for one in found)
    weights = weights * n_labels if together else weights
    scores = metric.error(
        torch.stack([probabilities, weight_classes(probabilities, weights)]), actual, truth.weight
    )
    gain = float(scores[0] - scores[1])
    if not gain > ROUNDING:
        return None
    return DecisionWeights(weights, gain, max(one.standard_error for one in found if one is not None))


class _BinaryTuner:
    """Search for the best log-weights (2,) over all thresholds between rows, given row weights (N,)."""

    def __init__(self, logs: Tensor, target: Tensor, formula: LabelFormula, sign: float) -> None:
        odds = logs[1] - logs[0]
        self.order = odds.argsort()
        self.positive = target[self.order] == 1
        odds = odds[self.order]
        self.cuts = (odds[1:] > odds[:-1]).nonzero()[:, 0]  # rows before a threshold
        self.low, self.high = odds[self.cuts], odds[self.cuts + 1]
        self.formula, self.sign = formula, sign

    def __call__(self, weight: Tensor) -> Tensor:
        if not len(self.cuts):
            return torch.zeros(2, dtype=torch.float64)
        weight = weight[self.order]
        positive = torch.where(self.positive, weight, 0.0)
        actual = torch.stack([weight.sum() - positive.sum(), positive.sum()])
        below, missed = weight.cumsum(0)[self.cuts], positive.cumsum(0)[self.cuts]
        predicted = torch.stack([below, weight.sum() - below], dim=1)
        hits = torch.stack([below - missed, actual[1] - missed], dim=1)
        scores = self.sign * self.formula.from_counts(ClassCounts(actual, predicted, hits))
        first, last = _widest_plateau(scores, self.low, self.high)
        threshold = 0.5 * float(self.low[first] + self.high[last])
        return torch.tensor([0.5 * threshold, -0.5 * threshold], dtype=torch.float64)


class _MulticlassTuner:
    """Search for the best log-weights (C,) over a grid, one class at a time, given row weights (N,)."""

    def __init__(self, logs: Tensor, target: Tensor, formula: LabelFormula, sign: float) -> None:
        self.logs, self.target, self.formula, self.sign = logs, target, formula, sign
        self.max_rows = max(MIN_ROWS, MAX_COUNTS // len(logs) ** 2)

    def __call__(self, weight: Tensor) -> Tensor:
        rows = (weight > 0).nonzero()[:, 0]
        # The bootstrap has shuffled the rows, so an evenly spaced subset is as good as a random one.
        rows = rows[:: max(1, -(-len(rows) // self.max_rows))]
        logs, truth = self.logs[:, rows], GroundTruth(self.target[rows], weight[rows])
        log_weights = torch.zeros(len(logs), dtype=torch.float64)
        for _ in range(N_PASSES):
            before = log_weights.clone()
            for label in range(len(logs)):
                self._improve(log_weights, label, logs, truth)
            if torch.equal(log_weights, before):
                break
        return log_weights

    def _improve(self, log_weights: Tensor, label: int, logs: Tensor, truth: GroundTruth) -> None:
        """Give one class the best weight of the grid, if it is better than its current one."""
        target, weight = truth.target, truth.weight
        n_classes = len(logs)
        others = logs + log_weights[:, None]
        others[label] = -torch.inf
        rival, other = others.max(dim=0)
        # The prediction of a row changes to this class at the first grid point above the distance.
        place = torch.searchsorted(GRID, rival - logs[label], right=True)
        zeros = weight.new_zeros(len(GRID) + 1, n_classes)
        hit_by_label, hit_by_other = target == label, target == other
        predicted = zeros.clone().index_put_((place, torch.full_like(place, label)), weight, accumulate=True)
        predicted.index_put_((place, other), -weight, accumulate=True)
        change = weight * hit_by_label - weight * hit_by_other
        hits = zeros.index_put_((place, target), change, accumulate=True)
        initial = weight.new_zeros(2, n_classes)  # predictions and hits if no row is given this class
        initial[0].index_add_(0, other, weight)
        initial[1].index_add_(0, target, weight * hit_by_other)
        actual = weight.new_zeros(n_classes).index_add_(0, target, weight)
        predicted = (predicted.cumsum(0)[:-1] + initial[0]).clamp_min(0)
        hits = (hits.cumsum(0)[:-1] + initial[1]).clamp_min(0)
        scores = self.sign * self.formula.from_counts(ClassCounts(actual, predicted, hits))
        current = int((GRID - log_weights[label]).abs().argmin())
        if float(scores.max()) > float(scores[current]) + ROUNDING:
            first, last = _widest_plateau(scores, GRID, GRID)
            log_weights[label] = 0.5 * (GRID[first] + GRID[last])


def _widest_plateau(scores: Tensor, low: Tensor, high: Tensor) -> tuple[int, int]:
    """First and last index of the widest run of best scores (K,); interval i is from low[i] to high[i]."""
    scores = torch.where(torch.isfinite(scores), scores, -torch.inf)
    best = (scores >= scores.max() - ROUNDING).numpy()
    edges = np.flatnonzero(np.diff(np.concatenate([[False], best, [False]]).astype(np.int8)))
    firsts, lasts = edges[::2], edges[1::2] - 1
    widest = int((high.numpy()[lasts] - low.numpy()[firsts]).argmax())
    return int(firsts[widest]), int(lasts[widest])
