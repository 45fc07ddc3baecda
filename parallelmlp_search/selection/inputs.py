"""Predictions, target and row weights in the form that this package computes with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from parallelmlp_search.exceptions import InvalidParameterError


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """Target and weight of the rows that predictions are scored on.

    Parameters
    ----------
    target
        int64 (N,) class numbers, or float64 (C, N) values.
    weight
        float64 (N,), >= 0, with a positive sum. A row of weight 0 counts as absent.
    """

    target: Tensor
    weight: Tensor

    def take(self, rows: Tensor) -> GroundTruth:
        """Return the ground truth of some rows, given by their numbers."""
        return GroundTruth(self.target[..., rows], self.weight[rows])

    def reweight(self, weight: Tensor) -> GroundTruth:
        """Return the same target with other row weights (N,)."""
        return replace(self, weight=weight)


def check_inputs(
    predictions: Tensor, target: Any, weight: Any, kind: Literal["classes", "values"]
) -> tuple[Tensor, GroundTruth]:
    """Check predictions, target and row weights, and bring them to one device.

    Parameters
    ----------
    predictions
        (P, C, N) float. Half precision is widened to float32.
    target
        For ``"classes"`` integers (N,) in [0, C); for ``"values"`` finite numbers (N,) or (C, N).
    weight
        (N,) finite and >= 0 with a positive sum, or None for equal weights.
    kind
        ``"classes"`` or ``"values"``.

    Returns
    -------
    (predictions, truth)
        Predictions, and target and weight as :class:`GroundTruth`.

    Raises
    ------
    InvalidParameterError
        If a shape, type or value breaks its rule.
    """
    if not isinstance(predictions, Tensor) or not predictions.is_floating_point() or predictions.ndim != 3:
        raise InvalidParameterError(
            f"predictions must be a floating-point tensor (P, C, N), but got {_described(predictions)}"
        )
    _, n_outputs, n_rows = predictions.shape
    if min(predictions.shape) < 1:
        raise InvalidParameterError(
            "predictions must have at least one member, output and row, "
            f"but got shape {tuple(predictions.shape)}"
        )
    if predictions.dtype in (torch.float16, torch.bfloat16):
        predictions = predictions.float()
    predictions = predictions.detach()
    target = torch.as_tensor(target, device=predictions.device)
    if kind == "classes":
        target = _checked_classes(target, n_outputs, n_rows)
    else:
        target = _checked_values(target, n_outputs, n_rows)
    return predictions, GroundTruth(target, _checked_weight(weight, n_rows, predictions.device))


def finite_members(predictions: Tensor) -> Tensor:
    """(P,) bool, True for members without an infinite or missing value in their (C, N) predictions."""
    # Minimum and maximum are NaN if any value is. This needs no boolean copy of the predictions.
    ends = torch.aminmax(predictions.flatten(1), dim=1)
    return torch.isfinite(ends.min) & torch.isfinite(ends.max)


def _checked_classes(target: Tensor, n_classes: int, n_rows: int) -> Tensor:
    if n_classes < 2:
        raise InvalidParameterError(
            "predictions (P, C, N) of class probabilities must have at least 2 classes, "
            f"but got C = {n_classes}"
        )
    if target.is_floating_point() or target.is_complex() or tuple(target.shape) != (n_rows,):
        raise InvalidParameterError(
            f"target must be class numbers, integers of shape ({n_rows},), but got {_described(target)}"
        )
    target = target.long()
    low, high = int(target.min()), int(target.max())
    if low < 0 or high >= n_classes:
        raise InvalidParameterError(
            f"target must be class numbers from 0 to {n_classes - 1}, but got {low if low < 0 else high}"
        )
    return target


def _checked_values(target: Tensor, n_outputs: int, n_rows: int) -> Tensor:
    if target.ndim == 1:
        target = target[None]
    if target.is_complex() or tuple(target.shape) != (n_outputs, n_rows):
        raise InvalidParameterError(
            f"target must be numbers of shape ({n_outputs}, {n_rows}), but got {_described(target)}"
        )
    target = target.double()
    if not bool(torch.isfinite(target).all()):
        raise InvalidParameterError("target must be finite, but got a missing or infinite value")
    return target


def _checked_weight(weight: Any, n_rows: int, device: torch.device) -> Tensor:
    if weight is None:
        return torch.ones(n_rows, dtype=torch.float64, device=device)
    given: Tensor = torch.as_tensor(weight, device=device).double()
    if tuple(given.shape) != (n_rows,):
        raise InvalidParameterError(
            f"weight must have one value per row, shape ({n_rows},), but got shape {tuple(given.shape)}"
        )
    invalid = given[~torch.isfinite(given) | (given < 0)]
    if len(invalid):
        raise InvalidParameterError(
            f"weight must be finite and >= 0 in every row, but got {float(invalid[0])}"
        )
    if float(given.sum()) <= 0:
        raise InvalidParameterError("weight must be > 0 in at least one row, but all rows have weight 0")
    return given


def _described(value: object) -> str:
    if isinstance(value, Tensor):
        return f"shape {tuple(value.shape)} of {str(value.dtype).removeprefix('torch.')}"
    return type(value).__name__
