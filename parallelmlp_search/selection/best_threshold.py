"""Two classes at each member's own best cut: what a metric of labels is worth once the decision is tuned.

Where one class is rare, networks that know a lot may still never find it the more probable one. Then their F1
is 0 for all of them, and the best of them is any. Compared at its best cut, each shows what it knows. A best
cut of the very rows that are scored flatters, all members about alike: it compares, and is not for reporting.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from parallelmlp_search.selection.formulas import Accuracy, Formula, LabelFormula
from parallelmlp_search.selection.metrics import Metric

__all__ = ["AtBestCut", "at_best_cut"]


def at_best_cut(metric: Metric, n_classes: int | None) -> Metric:
    """The same metric at each member's best cut; itself where that does not apply.

    It applies to two classes and metrics of labels. The accuracy is left out: it is never the same for all
    members, and calibrated probabilities have nothing to gain.
    """
    formula = metric.formula
    if n_classes != 2 or not isinstance(formula, LabelFormula) or isinstance(formula, Accuracy):
        return metric
    return replace(metric, formula=AtBestCut(formula, metric.greater_is_better))


@dataclass(frozen=True)
class AtBestCut(Formula):
    """A formula of labels for two classes at the best of all cuts between rows."""

    nanoseconds: ClassVar[float] = 150.0

    formula: LabelFormula
    greater_is_better: bool = True

    def condense(self, predictions: Tensor, target: Tensor) -> Tensor:
        return self.formula.condense(predictions, target)

    def score(self, condensed: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        values, order = condensed[:, 0].sort(dim=1)  # (P, N)
        weights = weight[order]
        positive = weights * (target[order] == 1)
        below, missed = weights.cumsum(1), positive.cumsum(1)
        total, found = below[:, -1:], missed[:, -1:]
        # named negative: all rows up to this one
        predicted = torch.stack([below, total - below], dim=2).flatten(0, 1)
        hits = torch.stack([below - missed, found - missed], dim=2).flatten(0, 1)
        of_positive = (weight * (target == 1)).sum()
        actual = torch.stack([weight.sum() - of_positive, of_positive])
        scores = self.formula.from_counts(actual, predicted, hits).view(values.shape)
        # a cut lies between different values; above the last one everything is negative
        cuts = torch.ones_like(values, dtype=torch.bool)
        cuts[:, :-1] = values[:, 1:] > values[:, :-1]
        worst = -torch.inf if self.greater_is_better else torch.inf
        scores = torch.where(cuts, scores, worst)
        return scores.amax(1) if self.greater_is_better else scores.amin(1)
