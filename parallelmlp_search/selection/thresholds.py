"""Which class to name, given probabilities: the most probable one is not the best answer to every metric.

A decision names the class of the largest ``w_c p_c``. For costs of mistakes the best weights follow from the
costs (Elkan, "The foundations of cost-sensitive learning", IJCAI 2001, section 2): with two classes it is a
threshold on the probability. For metrics that are no sum over rows, such as F1, and for probabilities that
are not quite calibrated, the weights are found by trying, on rows that nobody has trained on. scikit-learn's
`TunedThresholdClassifierCV` does that for two classes.

The rows that tune are few and the best cut of few rows is a matter of luck. So it is sought on bootstraps of
them, the median is taken, and what the rows outside of the bootstraps gain by it, against the standard error
of that gain, decides how far to go: with gain ``g`` and error ``e`` the logarithms of the weights are
multiplied by ``g**2 / (g**2 + (e / 2)**2)``, and by 0 without a gain (shrinkage in the manner of James and
Stein, "Estimation with quadratic loss", 1961).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.selection.bootstrap import draws, spawned, units_of
from parallelmlp_search.selection.formulas import LabelFormula
from parallelmlp_search.selection.inputs import check_inputs
from parallelmlp_search.selection.metrics import Metric

__all__ = ["Decision", "tune_decision", "weigh"]

MIN_ROWS = 30
"""With fewer rows nothing is tuned."""

MAX_CLASSES = 64
"""With more classes nothing is tuned: each weight would rest on a handful of rows."""

MAX_NUMBERS = 4_000_000
"""With many classes a bootstrap looks at so many rows that rows times classes squared stay below this."""

BOOTSTRAPS, BOOTSTRAPS_OF_MANY = 60, 24
"""Bootstraps for two classes, where all cuts of one take half a millisecond, and for more."""

DOUBT = 0.5
"""Standard errors of the gain at which weights go half of their way. In 96 made-up cases (2 and 4 classes, a
rare one of 50 to 2 %, 60 to 1,000 rows, four metrics, 16 draws each) the mean gain on new rows is 0.047, the
worst mean of a case -0.002 and the worst draw -0.034. All or nothing at half a standard error gains as much,
but loses 0.005 in its worst case; at a whole one it gains 0.038."""

PASSES = 3

GRID = torch.linspace(-4.0, 4.0, 81, dtype=torch.float64)
"""Logarithms of weights that are tried where classes are many: steps of a tenth, factors up to 55."""

ROUNDING = 1e-12


@dataclass(frozen=True)
class Decision:
    """Weights of the classes, and what they gain.

    Attributes
    ----------
    weights
        One for each class, > 0, with mean 1. With two classes, the second is named where its probability is
        above ``weights[0] / 2``.
    gain
        Mean gain of score on rows outside of the bootstraps that the weights were sought on.
    noise
        Standard error of that gain.
    """

    weights: tuple[float, ...]
    gain: float
    noise: float


def weigh(predictions: Tensor, weights: tuple[float, ...] | None) -> Tensor:
    """(..., C, N) probabilities times the weights of their classes, whose largest is the decision."""
    if weights is None:
        return predictions
    return predictions * torch.tensor(weights, dtype=predictions.dtype, device=predictions.device)[:, None]


def tune_decision(
    predictions: Tensor,
    target: Any,
    metric: Metric,
    *,
    weight: Any = None,
    groups: Any = None,
    seed: int | np.random.SeedSequence = 0,
) -> Decision | None:
    """Weights of the classes that are better than none, or None.

    Parameters
    ----------
    predictions
        (C, N) probabilities of rows that were not trained on. Their score is flattered afterwards: report
        that of other rows.
    target
        Class numbers (N,).
    metric
        What to improve; it has to look at labels.
    weight
        Row weights (N,), or None.
    groups
        (N,) labels; rows of one group are drawn together. None: each row is its own group.
    seed
        Decides every draw.

    Raises
    ------
    InvalidParameterError
        If the metric does not look at labels, or a shape breaks its rule.

    Notes
    -----
    With two classes all cuts between neighbouring rows are tried; of equally good ones the middle of the
    widest plateau, in log-odds, is taken. With more, each class in turn gets the best weight of a grid, three
    times over.
    """
    formula = metric.formula
    if metric.needs != "label" or not isinstance(formula, LabelFormula):
        raise InvalidParameterError(f"metric must look at labels to be tuned for, but got {metric.name!r}")
    checked, target, weight = check_inputs(predictions[None], target, weight, "classes")
    probabilities = checked[0].double()
    n_classes, n_rows = probabilities.shape
    units = units_of(groups, n_rows) if groups is None or len(np.unique(np.asarray(groups))) > 1 else None
    if n_rows < MIN_ROWS or n_classes > MAX_CLASSES or units is None:
        return None
    if not bool(torch.isfinite(probabilities).all()):
        return None
    sign = 1.0 if metric.greater_is_better else -1.0
    logs = probabilities.clamp_min(torch.finfo(torch.float32).tiny).log()
    search: _Search = (
        _TwoClasses(logs, target, formula, sign)
        if n_classes == 2
        else _ManyClasses(logs, target, formula, sign)
    )

    def score(log_weights: Tensor, rows: Tensor) -> float:
        weighed = (probabilities * log_weights.exp()[:, None])[None]
        return sign * float(formula.score(formula.condense(weighed, target), target, rows)[0])

    plain = torch.zeros(n_classes, dtype=torch.float64)
    found, gains, shares = [], [], []
    most = BOOTSTRAPS if n_classes == 2 else BOOTSTRAPS_OF_MANY
    for counts, share, _ in draws(units, spawned(seed)[0], most):
        drawn = torch.from_numpy(counts).to(weight)
        inside, outside = weight * drawn, weight * (drawn == 0)
        if float(outside.sum()) <= 0 or float(inside.sum()) <= 0:
            continue
        log_weights = search(inside)
        gain = score(log_weights, outside) - score(plain, outside)
        if math.isfinite(gain):
            found.append(log_weights - log_weights.mean())
            gains.append(gain)
            shares.append(share)
    if len(gains) < 2:
        return None
    # the rows outside are a share f of all: the spread is drawn in as for the honest score
    share = min(0.5, float(np.mean(shares)))
    noise = math.sqrt(share / (1.0 - share)) * float(np.std(gains, ddof=1))
    gain = float(np.mean(gains))
    if not gain > 0:
        return None
    trust = gain**2 / (gain**2 + (DOUBT * noise) ** 2)
    chosen = trust * torch.quantile(torch.stack(found), 0.5, dim=0)
    if not score(chosen, weight) > score(plain, weight) + ROUNDING:
        return None
    weights = chosen.exp() / chosen.exp().mean()
    return Decision(tuple(weights.tolist()), gain, noise)


class _Search(Protocol):
    """Finds the best logarithms of weights (C,) for rows that weigh so much (N,)."""

    def __call__(self, weight: Tensor) -> Tensor:
        """The best."""


class _TwoClasses:
    """All cuts between rows, sorted by log-odds once."""

    def __init__(self, logs: Tensor, target: Tensor, formula: LabelFormula, sign: float) -> None:
        odds = logs[1] - logs[0]
        self.order = odds.argsort()
        self.positive = target[self.order] == 1
        odds = odds[self.order]
        self.cuts = (odds[1:] > odds[:-1]).nonzero()[:, 0]  # after these rows
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
        scores = self.sign * self.formula.from_counts(actual, predicted, hits)
        first, last = widest_plateau(scores, self.low, self.high)
        threshold = 0.5 * float(self.low[first] + self.high[last])
        return torch.tensor([0.5 * threshold, -0.5 * threshold], dtype=torch.float64)


class _ManyClasses:
    """Coordinate search: one class at a time, over a grid, by counts that are shared between its points."""

    def __init__(self, logs: Tensor, target: Tensor, formula: LabelFormula, sign: float) -> None:
        self.logs, self.target, self.formula, self.sign = logs, target, formula, sign
        n_classes = len(logs)
        self.most_rows = max(MIN_ROWS, MAX_NUMBERS // n_classes**2)

    def __call__(self, weight: Tensor) -> Tensor:
        rows = (weight > 0).nonzero()[:, 0]
        # evenly spread rather than drawn: the order of rows says nothing that the bootstrap has not mixed
        rows = rows[:: max(1, -(-len(rows) // self.most_rows))]
        logs, target, weight = self.logs[:, rows], self.target[rows], weight[rows]
        chosen = torch.zeros(len(logs), dtype=torch.float64)
        for _ in range(PASSES):
            before = chosen.clone()
            for label in range(len(logs)):
                self._improve(chosen, label, logs, target, weight)
            if torch.equal(chosen, before):
                break
        return chosen

    def _improve(self, chosen: Tensor, label: int, logs: Tensor, target: Tensor, weight: Tensor) -> None:
        """Give one class the best weight of the grid, if it is better than the one that it has."""
        n_classes = len(logs)
        raised = logs + chosen[:, None]
        raised[label] = -torch.inf
        rival, other = raised.max(dim=0)
        # a row goes over to this class at the first point of the grid above the distance
        place = torch.searchsorted(GRID, rival - logs[label], right=True)
        zeros = weight.new_zeros(len(GRID) + 1, n_classes)
        mine, theirs = target == label, target == other
        predicted = zeros.clone().index_put_((place, torch.full_like(place, label)), weight, accumulate=True)
        predicted.index_put_((place, other), -weight, accumulate=True)
        hits = zeros.index_put_((place, target), weight * mine - weight * theirs, accumulate=True)
        at_first = weight.new_zeros(2, n_classes)
        at_first[0].index_add_(0, other, weight)
        at_first[1].index_add_(0, target, weight * theirs)
        actual = weight.new_zeros(n_classes).index_add_(0, target, weight)
        predicted = (predicted.cumsum(0)[:-1] + at_first[0]).clamp_min(0)
        hits = (hits.cumsum(0)[:-1] + at_first[1]).clamp_min(0)
        scores = self.sign * self.formula.from_counts(actual, predicted, hits)
        now = int((GRID - chosen[label]).abs().argmin())
        if float(scores.max()) > float(scores[now]) + ROUNDING:
            first, last = widest_plateau(scores, GRID, GRID)
            chosen[label] = 0.5 * (GRID[first] + GRID[last])


def widest_plateau(scores: Tensor, low: Tensor, high: Tensor) -> tuple[int, int]:
    """First and last of the neighbouring places (K,) with the best score that reach furthest.

    Place ``i`` reaches from ``low[i]`` to ``high[i]``.
    """
    scores = torch.where(torch.isfinite(scores), scores, -torch.inf)
    best = (scores >= scores.max() - ROUNDING).numpy()
    edges = np.flatnonzero(np.diff(np.concatenate([[False], best, [False]]).astype(np.int8)))
    firsts, lasts = edges[::2], edges[1::2] - 1
    reach = high.numpy()[lasts] - low.numpy()[firsts]
    widest = int(reach.argmax())
    return int(firsts[widest]), int(lasts[widest])
