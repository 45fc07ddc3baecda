"""Area under the ROC curve of many members at once, with exact treatment of ties."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from parallelmlp_search.kernels.numba.arguments import N_DIGIT_COUNTS, RankedRows, pack
from parallelmlp_search.kernels.numba.dispatch import is_ready
from parallelmlp_search.kernels.numba.library import loops
from parallelmlp_search.selection.formulas import Formula
from parallelmlp_search.selection.inputs import GroundTruth
from parallelmlp_search.selection.score_range import ScoreRange

MIN_COMPILED = 1 << 12
"""Scores below which tensor operations are as fast as a compiled loop."""


@dataclass(frozen=True)
class RocAuc(Formula):
    """AUC of class 1 for two classes; for more the mean one-vs-rest AUC over the classes that have rows.

    The AUC is NaN if all rows are of one class.
    """

    cost_ns: ClassVar[float] = 20.0
    """Between the compiled loop, about 6, and tensor operations, 53: the plan is the same with both."""

    def project(self, predictions: Tensor, target: Tensor) -> Tensor:
        return predictions[:, 1:] if predictions.shape[1] == 2 else predictions

    def score(self, projected: Tensor, truth: GroundTruth) -> Tensor:
        target, weight = truth.target, truth.weight
        if projected.shape[1] == 1:
            return binary_auc(projected[:, 0], target == 1, weight)
        classes = torch.unique(target[weight > 0]).tolist()
        return torch.stack([binary_auc(projected[:, c], target == c, weight) for c in classes]).mean(0)

    def score_range(self, n_outputs: int) -> ScoreRange:
        return ScoreRange(0.0, 1.0)


def binary_auc(scores: Tensor, positive: Tensor, weight: Tensor) -> Tensor:
    """Probability that a positive row scores above a negative one; ties count one half.

    Parameters
    ----------
    scores
        (P, N), finite. Scores are tied if they are equal in their own dtype.
    positive
        (N,) bool.
    weight
        (N,) float64, >= 0.

    Returns
    -------
    Tensor
        (P,) float64; NaN if either class has no weight.
    """
    positive_weight, negative_weight = weight * positive, weight * ~positive
    pairs = positive_weight.sum() * negative_weight.sum()
    if float(pairs) <= 0:
        return torch.full((len(scores),), torch.nan, dtype=torch.float64, device=scores.device)
    if scores.numel() >= MIN_COMPILED and is_ready(scores.dtype, scores.device):
        return _compiled_areas(scores, positive_weight - negative_weight) / pairs
    order = _ascending(scores)
    ranked = scores.gather(1, order)
    negative = negative_weight.take(order)
    below = negative.cumsum(1)  # negatives up to each row, in rank order
    _average_ties(below, negative, ranked)
    return positive_weight.take(order).mul_(below).sum(1) / pairs


def _compiled_areas(scores: Tensor, signed_weight: Tensor) -> Tensor:
    """Weight (P,) of the pairs that are in the right order, by a compiled radix sort."""
    n_members, n_rows = scores.shape
    areas = np.empty(n_members)
    scratch = np.empty(2 * n_rows + N_DIGIT_COUNTS, dtype=np.int64)
    weights = signed_weight.contiguous().numpy()
    rows = RankedRows(scores.contiguous().numpy(), weights, areas, scratch, n_members, n_rows)
    loops().run("ranked_areas", pack(rows))
    return torch.from_numpy(areas)


def _average_ties(below: Tensor, negative: Tensor, ranked: Tensor) -> None:
    """Give tied rows the mean of the sums before and after their run (mid-ranks), in place."""
    same = torch.zeros_like(ranked, dtype=torch.bool)  # score equals that of the next row; False in the last
    torch.eq(ranked[:, 1:], ranked[:, :-1], out=same[:, :-1])
    tied = same.flatten().nonzero()[:, 0]
    if len(tied) == 0:
        return
    breaks = torch.ones(len(tied) + 1, dtype=torch.bool, device=tied.device)
    torch.ne(tied[1:], tied[:-1] + 1, out=breaks[1:-1])
    first, last = tied[breaks[:-1]], tied[breaks[1:]] + 1
    flat_below, flat_negative = below.view(-1), negative.view(-1)
    middle = (flat_below[first] - flat_negative[first] + flat_below[last]) / 2
    lengths = last - first + 1
    run = torch.repeat_interleave(torch.arange(len(first), device=tied.device), lengths)
    offset = torch.arange(len(run), device=tied.device) - (lengths.cumsum(0) - lengths)[run]
    flat_below[first[run] + offset] = middle[run]


def _ascending(scores: Tensor) -> Tensor:
    if scores.device.type == "cpu":
        # NumPy sorts with vector instructions: 48 against 83 ms for 32 x 36,000 float32 on one core.
        return torch.from_numpy(np.argsort(scores.numpy(), axis=-1))
    return scores.argsort(dim=-1)
