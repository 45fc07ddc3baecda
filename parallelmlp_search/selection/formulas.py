"""Formulas of the metrics, computed for all members at once.

A formula works in two steps. `Formula.project` maps the predictions to the K numbers per row that the metric
needs: the probability of the true class for the log-loss, the residual for RMSE, the probability of class 1
for a binary AUC. The map is affine, so the projection of an average of members is the average of their
projections. Ensemble selection and bootstraps work on these small arrays, never on the full predictions.
`Formula.score` computes one number per member from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor

from parallelmlp_search.selection.inputs import GroundTruth
from parallelmlp_search.selection.score_range import ScoreRange


@dataclass(frozen=True)
class Formula:
    """Base class of the formulas.

    ``cost_ns`` is the time of `score` in nanoseconds per projected number, measured on one core with 32
    members and 36,000 rows. Ensemble selection and bootstraps limit their work by it. It is a constant, so
    results do not depend on the machine. ``call_ns`` is the time that each member takes in addition; it is 0
    where all members are scored by one call.
    """

    cost_ns: ClassVar[float] = 4.0
    call_ns: ClassVar[float] = 0.0

    def seconds(self, n_numbers: int, n_members: int) -> float:
        """Return the predicted seconds of scoring members with so many projected numbers in all."""
        return 1e-9 * (self.cost_ns * n_numbers + self.call_ns * n_members)

    @property
    def target_kind(self) -> Literal["classes", "values"]:
        """``"classes"`` for an int64 target (N,), ``"values"`` for a float64 target (C, N)."""
        return "classes"

    def project(self, predictions: Tensor, target: Tensor) -> Tensor:
        """Map predictions (P, C, N) to (P, K, N); affine in the predictions."""
        return predictions

    def score(self, projected: Tensor, truth: GroundTruth) -> Tensor:
        """Compute float64 scores (P,) of projected, finite predictions (P, K, N)."""
        raise NotImplementedError

    def in_units(self, units: Sequence[float], center: Sequence[float] = ()) -> Formula:
        """Return the formula for values that are given in these units (C,), with scores in units of 1.

        ``center`` (C,) is the value that each output's zero stands for.
        """
        return self

    def score_range(self, n_outputs: int) -> ScoreRange:
        """Return the range of the scores for a number of classes or outputs."""
        return ScoreRange()

    def check_target(self, target: NDArray[Any], name: str) -> None:
        """Raise an InvalidParameterError, which begins with a name, if a target has no score."""


# --- probabilities -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LogLoss(Formula):
    """Mean of -log of the probability of the true class, clipped to [eps, 1 - eps] of the dtype."""

    def project(self, predictions: Tensor, target: Tensor) -> Tensor:
        n_members, _, n_rows = predictions.shape
        return predictions.gather(1, target.expand(n_members, 1, n_rows))

    def score(self, projected: Tensor, truth: GroundTruth) -> Tensor:
        eps = torch.finfo(projected.dtype).eps
        logs = projected[:, 0].clamp(eps, 1.0 - eps).log_()
        return -_mean(logs, truth.weight)

    def score_range(self, n_outputs: int) -> ScoreRange:
        return ScoreRange(low=0.0)


@dataclass(frozen=True)
class SquaredFormula(Formula):
    """Function of the mean squared residual of each projected output.

    It is quadratic in the members' weights, so ensemble selection needs only the members' Gram matrices.
    """

    def score(self, projected: Tensor, truth: GroundTruth) -> Tensor:
        squares = [_mean(output.square(), truth.weight) for output in projected.unbind(1)]
        return self.from_mean_squares(torch.stack(squares, dim=1), truth)

    def from_mean_squares(self, squares: Tensor, truth: GroundTruth) -> Tensor:
        """Compute scores (P,) from mean squared residuals (P, K)."""
        raise NotImplementedError


@dataclass(frozen=True)
class Brier(SquaredFormula):
    """Squared distance of the probabilities from the true class; halved for two classes."""

    def project(self, predictions: Tensor, target: Tensor) -> Tensor:
        residuals = predictions.double() if predictions.dtype != torch.float64 else predictions.clone()
        n_members, _, n_rows = predictions.shape
        ones = residuals.new_ones(()).expand(n_members, 1, n_rows)
        return residuals.scatter_add_(1, target.expand(n_members, 1, n_rows), -ones)

    def from_mean_squares(self, squares: Tensor, truth: GroundTruth) -> Tensor:
        return squares.sum(1) * (0.5 if squares.shape[1] == 2 else 1.0)

    def score_range(self, n_outputs: int) -> ScoreRange:
        return ScoreRange(0.0, 1.0 if n_outputs == 2 else 2.0)


# --- labels --------------------------------------------------------------------------------------------


class ClassCounts(NamedTuple):
    """Summed weights of rows per class.

    Attributes
    ----------
    actual
        (C,) rows of each class.
    predicted
        (P, C) rows for which each member predicts the class.
    hits
        (P, C) rows for which the prediction is right.
    """

    actual: Tensor
    predicted: Tensor
    hits: Tensor


@dataclass(frozen=True)
class LabelFormula(Formula):
    """Function of the predicted class: the one of the highest probability, the first in case of a tie."""

    def project(self, predictions: Tensor, target: Tensor) -> Tensor:
        if predictions.shape[1] == 2:
            return predictions[:, 1:] - predictions[:, :1]
        return predictions

    def score(self, projected: Tensor, truth: GroundTruth) -> Tensor:
        label, n_classes = predicted_labels(projected)
        weight = truth.weight

        def per_class(index: Tensor, values: Tensor) -> Tensor:
            zeros = torch.zeros(len(index), n_classes, dtype=torch.float64, device=index.device)
            return zeros.scatter_add_(1, index, values)

        actual = per_class(truth.target[None], weight[None])[0]
        predicted = per_class(label, weight.expand(label.shape))
        hits = per_class(label, (label == truth.target) * weight)
        return self.from_counts(ClassCounts(actual, predicted, hits))

    def from_counts(self, counts: ClassCounts) -> Tensor:
        """Compute scores (P,) from summed weights per class."""
        raise NotImplementedError

    def score_range(self, n_outputs: int) -> ScoreRange:
        return ScoreRange(0.0, 1.0)


def predicted_labels(projected: Tensor) -> tuple[Tensor, int]:
    """Return the predicted classes (P, N) and the number of classes, given projections of label formulas."""
    if projected.shape[1] == 1:
        return (projected[:, 0] > 0).long(), 2
    # max is three times as fast as argmax over a strided axis (27 against 80 ms, 32 x 26 x 15,000).
    return projected.max(dim=1).indices, projected.shape[1]


@dataclass(frozen=True)
class Accuracy(LabelFormula):
    """Share of rows whose predicted class is right."""

    def score(self, projected: Tensor, truth: GroundTruth) -> Tensor:
        label, _ = predicted_labels(projected)
        return ((label == truth.target) * truth.weight).sum(1) / truth.weight.sum()

    def from_counts(self, counts: ClassCounts) -> Tensor:
        return counts.hits.sum(1) / counts.actual.sum()


@dataclass(frozen=True)
class BalancedAccuracy(LabelFormula):
    """Mean recall over the classes that have rows."""

    def from_counts(self, counts: ClassCounts) -> Tensor:
        present = counts.actual > 0
        return (counts.hits[:, present] / counts.actual[present]).mean(1)


@dataclass(frozen=True)
class F1(LabelFormula):
    """F1 of class 1 for two classes unless ``macro`` is True, else the mean F1 over the classes.

    The mean runs over the classes that have rows or that the member predicts; the F1 of others is 0.
    """

    macro: bool = False

    def from_counts(self, counts: ClassCounts) -> Tensor:
        both = counts.actual + counts.predicted
        f1 = torch.where(both > 0, 2 * counts.hits / torch.where(both > 0, both, 1.0), 0.0)
        if len(counts.actual) == 2 and not self.macro:
            return f1[:, 1]
        return f1.sum(1) / (both > 0).sum(1)


@dataclass(frozen=True)
class Matthews(LabelFormula):
    """Matthews correlation of predicted and actual class; 0 if either is constant."""

    def from_counts(self, counts: ClassCounts) -> Tensor:
        total = counts.actual.sum()
        actual, predicted = counts.actual / total, counts.predicted / total
        covariance = counts.hits.sum(1) / total - (predicted * actual).sum(1)
        # A sum of products is exactly 0 for a single class; 1 - sum of squares is not.
        variances = (predicted * _others(predicted)).sum(1) * (actual * _others(actual)).sum()
        root = torch.where(variances > 0, variances, 1.0).sqrt()
        return torch.where(variances > 0, covariance / root, 0.0)

    def score_range(self, n_outputs: int) -> ScoreRange:
        return ScoreRange(-1.0, 1.0)


def _others(shares: Tensor) -> Tensor:
    """Summed share of all other classes, for each class, without cancellation."""
    below = shares.cumsum(-1) - shares
    above = shares.flip(-1).cumsum(-1).flip(-1) - shares
    return below + above


# --- values --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Residual(Formula):
    """Function of the residuals of each output.

    ``ratios`` (C,) and ``unit`` convert residuals from the units of each output to a common one, and scores
    to units of 1. Squares of the residuals then neither overflow nor vanish.
    """

    ratios: tuple[float, ...] = field(default=(), kw_only=True)
    unit: float = field(default=1.0, kw_only=True)

    @property
    def target_kind(self) -> Literal["classes", "values"]:
        return "values"

    def project(self, predictions: Tensor, target: Tensor) -> Tensor:
        residuals = target - predictions.double()
        if self.ratios:
            residuals *= torch.tensor(self.ratios, dtype=torch.float64, device=residuals.device)[:, None]
        return residuals

    def in_units(self, units: Sequence[float], center: Sequence[float] = ()) -> Formula:
        unit = max(units)
        ratios = tuple(one / unit for one in units)
        return replace(self, ratios=() if set(ratios) == {1.0} else ratios, unit=unit)

    def score_range(self, n_outputs: int) -> ScoreRange:
        return ScoreRange(low=0.0)


@dataclass(frozen=True)
class AbsoluteError(_Residual):
    """Mean absolute error, averaged over the outputs."""

    def score(self, projected: Tensor, truth: GroundTruth) -> Tensor:
        return _mean(projected.abs().mean(1), truth.weight) * self.unit


@dataclass(frozen=True)
class Pinball(_Residual):
    """Mean quantile loss: ``alpha`` times the residual if it is positive, else ``alpha`` - 1 times."""

    alpha: float = 0.5

    def score(self, projected: Tensor, truth: GroundTruth) -> Tensor:
        loss = torch.maximum(self.alpha * projected, (self.alpha - 1.0) * projected)
        return _mean(loss.mean(1), truth.weight) * self.unit


@dataclass(frozen=True)
class RootSquaredError(SquaredFormula, _Residual):
    """Root mean squared error of each output, averaged over the outputs."""

    def from_mean_squares(self, squares: Tensor, truth: GroundTruth) -> Tensor:
        return squares.sqrt().mean(1) * self.unit


@dataclass(frozen=True)
class RSquared(SquaredFormula, _Residual):
    """1 - mean squared error / variance, averaged over the outputs.

    An output without variance scores 1 if it is predicted exactly, else 0.
    """

    def in_units(self, units: Sequence[float], center: Sequence[float] = ()) -> Formula:
        return self

    def score_range(self, n_outputs: int) -> ScoreRange:
        return ScoreRange(high=1.0)

    def from_mean_squares(self, squares: Tensor, truth: GroundTruth) -> Tensor:
        mean = _mean(truth.target, truth.weight)  # (K,)
        variance = _mean((truth.target - mean[:, None]).square(), truth.weight)
        constant = variance == 0
        r2 = 1.0 - squares / torch.where(constant, 1.0, variance)
        return torch.where(constant, (squares == 0).double(), r2).mean(1)


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean over the last axis, in float64."""
    return (values.double() * weight).sum(-1) / weight.sum()
