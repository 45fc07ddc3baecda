"""Formulas of costs of errors between classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from parallelmlp_search.selection.formulas import Formula, LabelFormula, predicted_labels
from parallelmlp_search.selection.inputs import GroundTruth
from parallelmlp_search.selection.score_range import ScoreRange

Matrix = tuple[tuple[float, ...], ...]
"""Numbers ``(C, C)`` of true classes (rows) and predicted classes (columns)."""


@dataclass(frozen=True)
class CostFormula(LabelFormula):
    """Function of the costs of the predicted classes.

    Attributes
    ----------
    costs
        Costs ``(C, C)``; empty for the number of steps between classes in their sorted order.
    """

    cost_ns: ClassVar[float] = 8.0

    costs: Matrix = ()

    def table(self, n_classes: int, like: Tensor) -> Tensor:
        """Costs ``(C, C)`` as a tensor on the device of another one."""
        if self.costs:
            return torch.tensor(self.costs, dtype=torch.float64, device=like.device)
        steps = torch.arange(n_classes, dtype=torch.float64, device=like.device)
        return (steps[:, None] - steps).abs()


@dataclass(frozen=True)
class ExpectedCost(CostFormula):
    """Mean cost of the predicted classes."""

    def score(self, projected: Tensor, truth: GroundTruth) -> Tensor:
        label, n_classes = predicted_labels(projected)
        costs = self.table(n_classes, label)[truth.target.expand_as(label), label]
        return (costs * truth.weight).sum(1) / truth.weight.sum()

    def score_range(self, n_outputs: int) -> ScoreRange:
        table = self.table(n_outputs, torch.empty(0))
        return ScoreRange(float(table.min()), float(table.max()))


@dataclass(frozen=True)
class QuadraticKappa(CostFormula):
    """Cohen's kappa with squared costs as weights; 0 if true and predicted class are constant.

    It is 1 - cost / cost of independent labels of the same frequencies.
    """

    def score(self, projected: Tensor, truth: GroundTruth) -> Tensor:
        label, n_classes = predicted_labels(projected)
        table, share = self.table(n_classes, label).square(), truth.weight / truth.weight.sum()
        observed = (table[truth.target.expand_as(label), label] * share).sum(1)
        actual = share.new_zeros(n_classes).scatter_add_(0, truth.target, share)
        predicted = share.new_zeros(len(label), n_classes).scatter_add_(1, label, share.expand(label.shape))
        expected = predicted @ (actual @ table)
        kappa = 1.0 - observed / torch.where(expected > 0, expected, 1.0)
        return torch.where(expected > 0, kappa, 0.0)

    def score_range(self, n_outputs: int) -> ScoreRange:
        return ScoreRange(-1.0, 1.0)


@dataclass(frozen=True)
class Decided(Formula):
    """Formula of labels that a decision matrix ``(C, C)`` makes of probabilities."""

    formula: Formula
    decision: Matrix

    def project(self, predictions: Tensor, target: Tensor) -> Tensor:
        matrix = torch.tensor(self.decision, dtype=predictions.dtype, device=predictions.device)
        return self.formula.project(matrix.T @ predictions, target)

    def score(self, projected: Tensor, truth: GroundTruth) -> Tensor:
        return self.formula.score(projected, truth)

    def score_range(self, n_outputs: int) -> ScoreRange:
        return self.formula.score_range(n_outputs)

    def seconds(self, n_numbers: int, n_members: int) -> float:
        return self.formula.seconds(n_numbers, n_members)
