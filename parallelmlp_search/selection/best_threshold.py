"""Metrics of labels for two classes, computed at each member's best decision threshold.

If one class is rare, even a good network may never predict it. F1 is then 0 for all members, and ranking them
is arbitrary. At its best threshold each member shows how well it separates the classes. The best threshold of
the scored rows is optimistic for all members alike: such scores compare members but are not reported.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from parallelmlp_search.selection.formulas import F1, Accuracy, ClassCounts, Formula, LabelFormula
from parallelmlp_search.selection.inputs import GroundTruth
from parallelmlp_search.selection.label_formulas import LabelsF1, PredictedLabelsFormula
from parallelmlp_search.selection.metrics import Metric


def at_best_threshold(metric: Metric, n_classes: int | None) -> Metric:
    """Return the metric at each member's best threshold, or the metric itself if that does not apply.

    It applies to two classes and metrics of labels, and to the F1 score of several labels, alone or all
    together. Accuracy is left out: it is never the same for all members, and a threshold does not improve it
    if the probabilities are calibrated.
    """
    formula = metric.formula
    if isinstance(formula, LabelsF1) and formula.average != "samples":
        return replace(metric, formula=LabelsBestThreshold(formula.average == "micro"))
    if n_classes != 2 or not isinstance(formula, LabelFormula) or isinstance(formula, Accuracy):
        return metric
    return replace(metric, formula=BestThreshold(formula, metric.greater_is_better))


@dataclass(frozen=True)
class BestThreshold(Formula):
    """Formula of labels for two classes, at the best of all thresholds between rows."""

    cost_ns: ClassVar[float] = 150.0

    formula: LabelFormula
    greater_is_better: bool = True

    def project(self, predictions: Tensor, target: Tensor) -> Tensor:
        return self.formula.project(predictions, target)

    def score(self, projected: Tensor, truth: GroundTruth) -> Tensor:
        values, order = projected[:, 0].sort(dim=1)  # (P, N)
        weights = truth.weight[order]
        positive = weights * (truth.target[order] == 1)
        # A threshold after a row predicts class 0 for all rows up to this one.
        below, missed = weights.cumsum(1), positive.cumsum(1)
        total, found = below[:, -1:], missed[:, -1:]
        predicted = torch.stack([below, total - below], dim=2).flatten(0, 1)
        hits = torch.stack([below - missed, found - missed], dim=2).flatten(0, 1)
        n_positive = (truth.weight * (truth.target == 1)).sum()
        actual = torch.stack([truth.weight.sum() - n_positive, n_positive])
        scores = self.formula.from_counts(ClassCounts(actual, predicted, hits)).view(values.shape)
        # A threshold lies between different values, or above the last one.
        valid = torch.ones_like(values, dtype=torch.bool)
        valid[:, :-1] = values[:, 1:] > values[:, :-1]
        scores = torch.where(valid, scores, -torch.inf if self.greater_is_better else torch.inf)
        return scores.amax(1) if self.greater_is_better else scores.amin(1)


@dataclass(frozen=True)
class LabelsBestThreshold(PredictedLabelsFormula):
    """F1 score of several labels at the best threshold of each, or at one for all of them ``together``."""

    cost_ns: ClassVar[float] = 150.0

    together: bool = False

    def score(self, projected: Tensor, truth: GroundTruth) -> Tensor:
        binary, actual = BestThreshold(F1()), truth.target.long()
        n_members, n_labels, _ = projected.shape
        if self.together:
            rows = GroundTruth(actual.flatten(), truth.weight.repeat(n_labels))
            return binary.score(projected.reshape(n_members, 1, -1), rows)
        scores = [
            binary.score(projected[:, one : one + 1], GroundTruth(actual[one], truth.weight))
            for one in range(n_labels)
        ]
        return torch.stack(scores).mean(0)
