"""The arithmetic of the metrics, for all members at once.

A formula works in two steps. `Formula.condense` keeps what the metric needs of the predictions: the
probability of the true class for the log-loss, the residual for an RMSE, the positive row for a binary AUC.
It is affine, so that the condensed form of an average of members is the average of their condensed forms;
greedy ensembles and bootstraps work on these small arrays and never on the full predictions.
`Formula.score` turns condensed predictions into one number a member.

Weights are float64 (N,), >= 0, with a positive sum; a row of weight 0 counts as absent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

__all__ = [
    "F1",
    "AbsoluteError",
    "Accuracy",
    "BalancedAccuracy",
    "Brier",
    "Formula",
    "LabelFormula",
    "LogLoss",
    "Matthews",
    "Pinball",
    "RSquared",
    "RootSquaredError",
    "SquaredFormula",
]


@dataclass(frozen=True)
class Formula:
    """Base of all formulas.

    ``nanoseconds`` is what `score` takes for each condensed number on one core, measured with 32 members and
    36,000 rows; greedy selection and bootstraps bound their work by it, alike on every machine.
    """

    nanoseconds: ClassVar[float] = 4.0

    @property
    def target_kind(self) -> Literal["classes", "values"]:
        """``"classes"`` for an int64 target (N,), ``"values"`` for a float64 target (C, N)."""
        return "classes"

    def condense(self, predictions: Tensor, target: Tensor) -> Tensor:
        """(P, C, N) predictions -> (P, K, N), affine in the predictions."""
        return predictions

    def score(self, condensed: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """(P, K, N) condensed, finite predictions -> (P,) float64 scores."""
        raise NotImplementedError


# --- probabilities -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LogLoss(Formula):
    """Mean of -log of the true class's probability, clipped to [eps, 1 - eps] of the dtype."""

    def condense(self, predictions: Tensor, target: Tensor) -> Tensor:
        n_members, _, n_rows = predictions.shape
        return predictions.gather(1, target.expand(n_members, 1, n_rows))

    def score(self, condensed: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        eps = torch.finfo(condensed.dtype).eps
        logs = condensed[:, 0].clamp(eps, 1.0 - eps).log_()
        return -_mean(logs, weight)


@dataclass(frozen=True)
class SquaredFormula(Formula):
    """A function of the mean squared residual of each condensed row; quadratic in the members' weights.

    An ensemble of such a metric needs only the members' Gram matrices, not their predictions.
    """

    def score(self, condensed: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        squares = torch.stack([_mean(row.square(), weight) for row in condensed.unbind(1)], dim=1)
        return self.finish(squares, target, weight)

    def finish(self, squares: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """(P, K) mean squared residuals -> (P,) scores."""
        raise NotImplementedError


@dataclass(frozen=True)
class Brier(SquaredFormula):
    """Squared distance of the probabilities from the true class; halved for two classes."""

    def condense(self, predictions: Tensor, target: Tensor) -> Tensor:
        residuals = predictions.double() if predictions.dtype != torch.float64 else predictions.clone()
        n_members, _, n_rows = predictions.shape
        ones = residuals.new_ones(()).expand(n_members, 1, n_rows)
        return residuals.scatter_add_(1, target.expand(n_members, 1, n_rows), -ones)

    def finish(self, squares: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        return squares.sum(1) * (0.5 if squares.shape[1] == 2 else 1.0)


# --- labels --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LabelFormula(Formula):
    """Needs only the class with the highest probability; the first of them where several tie."""

    def condense(self, predictions: Tensor, target: Tensor) -> Tensor:
        if predictions.shape[1] == 2:
            return predictions[:, 1:] - predictions[:, :1]
        return predictions

    def score(self, condensed: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        n_members, n_condensed, n_rows = condensed.shape
        if n_condensed == 1:
            label, n_classes = (condensed[:, 0] > 0).long(), 2
        else:
            # max is three times as fast as argmax over a strided axis (27 against 80 ms, 32 x 26 x 15,000).
            label, n_classes = condensed.max(dim=1).indices, n_condensed
        hit_weight = (label == target) * weight  # (P, N)
        total = weight.sum()
        if not self.needs_counts:
            return hit_weight.sum(1) / total

        def per_class(index: Tensor, values: Tensor) -> Tensor:
            zeros = torch.zeros(len(index), n_classes, dtype=torch.float64, device=index.device)
            return zeros.scatter_add_(1, index, values)

        actual = per_class(target[None], weight[None])[0]
        predicted = per_class(label, weight.expand(n_members, n_rows))
        hits = per_class(label, hit_weight)
        return self.from_counts(actual, predicted, hits)

    @property
    def needs_counts(self) -> bool:
        return True

    def from_counts(self, actual: Tensor, predicted: Tensor, hits: Tensor) -> Tensor:
        """Weights of rows per class: actual (C,), predicted (P, C), correctly predicted (P, C) -> (P,)."""
        raise NotImplementedError


@dataclass(frozen=True)
class Accuracy(LabelFormula):
    """Share of rows whose label is right."""

    @property
    def needs_counts(self) -> bool:
        return False

    def from_counts(self, actual: Tensor, predicted: Tensor, hits: Tensor) -> Tensor:
        return hits.sum(1) / actual.sum()


@dataclass(frozen=True)
class BalancedAccuracy(LabelFormula):
    """Mean recall over the classes that have rows."""

    def from_counts(self, actual: Tensor, predicted: Tensor, hits: Tensor) -> Tensor:
        seen = actual > 0
        return (hits[:, seen] / actual[seen]).mean(1)


@dataclass(frozen=True)
class F1(LabelFormula):
    """F1 of class 1 where there are two classes and ``macro`` is off, else the mean F1 over the classes.

    The mean runs over the classes that a row has or the member predicts; without either F1 is 0.
    """

    macro: bool = False

    def from_counts(self, actual: Tensor, predicted: Tensor, hits: Tensor) -> Tensor:
        both = actual + predicted
        f1 = torch.where(both > 0, 2 * hits / torch.where(both > 0, both, 1.0), 0.0)
        if len(actual) == 2 and not self.macro:
            return f1[:, 1]
        return f1.sum(1) / (both > 0).sum(1)


@dataclass(frozen=True)
class Matthews(LabelFormula):
    """Matthews correlation of predicted and actual class; 0 where either is constant."""

    def from_counts(self, actual: Tensor, predicted: Tensor, hits: Tensor) -> Tensor:
        total = actual.sum()
        # Spread as a sum of products of shares, which unlike 1 - sum of squares is exactly 0 for one class.
        actual, predicted, right = actual / total, predicted / total, hits.sum(1) / total
        together = right - (predicted * actual).sum(1)
        spread = (predicted * _others(predicted)).sum(1) * (actual * _others(actual)).sum()
        return torch.where(spread > 0, together / torch.where(spread > 0, spread, 1.0).sqrt(), 0.0)


def _others(shares: Tensor) -> Tensor:
    """For each class the summed share of all other classes, without cancellation."""
    below = shares.cumsum(-1) - shares
    above = shares.flip(-1).cumsum(-1).flip(-1) - shares
    return below + above


# --- values --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Residual(Formula):
    @property
    def target_kind(self) -> Literal["classes", "values"]:
        return "values"

    def condense(self, predictions: Tensor, target: Tensor) -> Tensor:
        return target - predictions.double()


@dataclass(frozen=True)
class AbsoluteError(_Residual):
    """Mean absolute error, averaged over the outputs."""

    def score(self, condensed: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        return _mean(condensed.abs().mean(1), weight)


@dataclass(frozen=True)
class Pinball(_Residual):
    """Mean quantile loss: ``alpha`` times what was predicted too low, 1 - ``alpha`` times too high."""

    alpha: float = 0.5

    def score(self, condensed: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        loss = torch.maximum(self.alpha * condensed, (self.alpha - 1.0) * condensed)
        return _mean(loss.mean(1), weight)


@dataclass(frozen=True)
class RootSquaredError(SquaredFormula, _Residual):
    """Root of the mean squared error of each output, averaged over the outputs."""

    def finish(self, squares: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        return squares.sqrt().mean(1)


@dataclass(frozen=True)
class RSquared(SquaredFormula, _Residual):
    """1 - squared error / variance, averaged over the outputs.

    An output without variance counts 1 where it is predicted exactly and 0 elsewhere.
    """

    def finish(self, squares: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        mean = _mean(target, weight)  # (K,)
        variance = _mean((target - mean[:, None]).square(), weight)
        constant = variance == 0
        r2 = 1.0 - squares / torch.where(constant, 1.0, variance)
        return torch.where(constant, (squares == 0).double(), r2).mean(1)


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    """(..., N) -> (...) weighted mean in float64."""
    return (values.double() * weight).sum(-1) / weight.sum()
