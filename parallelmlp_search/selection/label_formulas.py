"""Formulas of the metrics of several labels, each of which a row has or has not.

Predictions are the probabilities (P, L, N) of L labels, and targets are 0 and 1, float64 (L, N). A label is
predicted if its probability exceeds one half; other thresholds are factors on the probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from parallelmlp_search.selection.formulas import Formula, SquaredFormula
from parallelmlp_search.selection.inputs import GroundTruth
from parallelmlp_search.selection.roc_auc import binary_auc
from parallelmlp_search.selection.score_range import ScoreRange

LABEL_ALIASES = {
    "accuracy": "subset_accuracy", "exact_match": "subset_accuracy", "hamming": "hamming_loss",
    "micro_f1": "f1_micro", "samples_f1": "f1_samples",
}  # fmt: skip
"""Other names of metrics of labels; ``accuracy`` is what scikit-learn's function is for labels."""


@dataclass(frozen=True)
class LabelsFormula(Formula):
    """Base class of the formulas of labels, with scores from 0 to 1."""

    @property
    def target_kind(self) -> Literal["classes", "values"]:
        return "values"

    def score_range(self, n_outputs: int) -> ScoreRange:
        return ScoreRange(0.0, 1.0)


# --- probabilities -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LabelsLogLoss(LabelsFormula):
    """Mean over the labels of their binary log-loss, with probabilities clipped as by scikit-learn."""

    def project(self, predictions: Tensor, target: Tensor) -> Tensor:
        return torch.where(target > 0.5, predictions, 1.0 - predictions)

    def score(self, projected: Tensor, truth: GroundTruth) -> Tensor:
        eps = torch.finfo(projected.dtype).eps
        return -_mean(projected.clamp(eps, 1.0 - eps).log_().mean(1), truth.weight)

    def score_range(self, n_outputs: int) -> ScoreRange:
        return ScoreRange(low=0.0)


@dataclass(frozen=True)
class LabelsBrier(SquaredFormula, LabelsFormula):
    """Mean squared distance of the probabilities from the target, over rows and labels."""

    def project(self, predictions: Tensor, target: Tensor) -> Tensor:
        return predictions.double() - target

    def from_mean_squares(self, squares: Tensor, truth: GroundTruth) -> Tensor:
        return squares.mean(1)


@dataclass(frozen=True)
class LabelsRocAuc(LabelsFormula):
    """Mean AUC over the labels that some of the rows have and others have not; NaN if there is none."""

    cost_ns: ClassVar[float] = 20.0

    def score(self, projected: Tensor, truth: GroundTruth) -> Tensor:
        seen = truth.target[:, truth.weight > 0]
        varied = (seen.amin(1) < seen.amax(1)).nonzero()[:, 0].tolist()
        if not varied:
            return torch.full((len(projected),), torch.nan, dtype=torch.float64, device=projected.device)
        areas = [binary_auc(projected[:, one], truth.target[one] > 0.5, truth.weight) for one in varied]
        return torch.stack(areas).mean(0)


# --- predicted labels ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class PredictedLabelsFormula(LabelsFormula):
    """Function of the predicted labels."""

    def project(self, predictions: Tensor, target: Tensor) -> Tensor:
        return predictions - 0.5


@dataclass(frozen=True)
class HammingLoss(PredictedLabelsFormula):
    """Share of wrong labels."""

    def score(self, projected: Tensor, truth: GroundTruth) -> Tensor:
        wrong = (projected > 0) != (truth.target > 0.5)
        return _mean(wrong.double().mean(1), truth.weight)


@dataclass(frozen=True)
class SubsetAccuracy(PredictedLabelsFormula):
    """Share of rows whose labels are all right."""

    def score(self, projected: Tensor, truth: GroundTruth) -> Tensor:
        return _mean(((projected > 0) == (truth.target > 0.5)).all(1), truth.weight)


@dataclass(frozen=True)
class LabelsF1(PredictedLabelsFormula):
    """F1 score; it is 0 where labels are neither present nor predicted.

    ``average`` is ``macro`` for the mean over the labels, ``micro`` for all labels of all rows together, and
    ``samples`` for the mean over the rows.
    """

    average: Literal["macro", "micro", "samples"] = "macro"

    def score(self, projected: Tensor, truth: GroundTruth) -> Tensor:
        predicted, actual = (projected > 0).double(), truth.target
        if self.average == "samples":
            both = predicted.sum(1) + actual.sum(0)
            return _mean(_ratio(2.0 * (predicted * actual).sum(1), both), truth.weight)
        hits = ((predicted * actual) * truth.weight).sum(2)  # (P, L)
        both = (predicted * truth.weight).sum(2) + (actual * truth.weight).sum(1)
        if self.average == "micro":
            return _ratio(2.0 * hits.sum(1), both.sum(1))
        return _ratio(2.0 * hits, both).mean(1)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """Quotient, 0 where the divisor is 0."""
    return torch.where(whole > 0, part / torch.where(whole > 0, whole, 1.0), 0.0)


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean over the last axis, in float64."""
    return (values.double() * weight).sum(-1) / weight.sum()
