"""Area under the ROC curve of many members at once, ties handled exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from parallelmlp_search.selection.formulas import Formula

__all__ = ["RocAuc", "binary_auc"]


@dataclass(frozen=True)
class RocAuc(Formula):
    """AUC of class 1 for two classes; for more the mean of one-against-the-rest over the classes.

    The mean runs over the classes that have rows; with rows of one class only the AUC is NaN.
    """

    nanoseconds: ClassVar[float] = 53.0

    def condense(self, predictions: Tensor, target: Tensor) -> Tensor:
        return predictions[:, 1:] if predictions.shape[1] == 2 else predictions

    def score(self, condensed: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        if condensed.shape[1] == 1:
            return binary_auc(condensed[:, 0], target == 1, weight)
        classes = torch.unique(target[weight > 0]).tolist()
        areas = [binary_auc(condensed[:, c], target == c, weight) for c in classes]
        return torch.stack(areas).mean(0)


def binary_auc(scores: Tensor, positive: Tensor, weight: Tensor) -> Tensor:
    """Chance that a positive row scores above a negative one; half for equal scores.

    Parameters
    ----------
    scores
        (P, N), finite; equal scores are ties in their own dtype.
    positive
        (N,) bool.
    weight
        (N,) float64, >= 0.

    Returns
    -------
    Tensor
        (P,) float64; NaN where either class has no weight.
    """
    positive_weight, negative_weight = weight * positive, weight * ~positive
    pairs = positive_weight.sum() * negative_weight.sum()
    if float(pairs) <= 0:
        return torch.full((len(scores),), torch.nan, dtype=torch.float64, device=scores.device)
    order = _ascending(scores)
    ranked = scores.gather(1, order)
    negative = negative_weight.take(order)
    below = negative.cumsum(1)  # negatives at or below each row, in rank order
    _share_ties(below, negative, ranked)
    return positive_weight.take(order).mul_(below).sum(1) / pairs


def _share_ties(below: Tensor, negative: Tensor, ranked: Tensor) -> None:
    """Give rows of equal score the mean of the sums before and after their run (mid-ranks), in place."""
    same = torch.zeros_like(ranked, dtype=torch.bool)  # as the next row; never so in a member's last row
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
