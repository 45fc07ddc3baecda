"""Deviances of counts and amounts: mean deviance of Tweedie's distributions, and its explained share.

The power is 1 for Poisson, 2 for gamma, and between them for amounts that can be zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.selection.formulas import Formula
from parallelmlp_search.selection.inputs import GroundTruth
from parallelmlp_search.selection.score_range import ScoreRange

LEAST_SHARE = 1e-9
"""Least prediction relative to the mean of the target: the deviance of a prediction of 0 is infinite."""


def check_amounts(target: NDArray[Any], subject: str, power: float) -> None:
    """Check that a target can have a deviance.

    Parameters
    ----------
    target
        Values ``(n,)`` or ``(n, C)``.
    subject
        Start of the message, such as ``loss 'poisson'``.
    power
        Power in [1, 2]: values must be >= 0, and > 0 for a power of 2.

    Raises
    ------
    InvalidParameterError
        If a value breaks the rule.
    """
    values = np.asarray(target, dtype=np.float64)
    wrong = values <= 0 if power == 2 else values < 0
    if wrong.any():
        row = int(np.argwhere(wrong)[0][0])
        rule, value = "> 0" if power == 2 else ">= 0", float(values[wrong][0])
        hint = ": use poisson or tweedie" if power == 2 and value == 0 else ""
        raise InvalidParameterError(f"{subject} needs a target {rule}, but row {row} has {value:g}{hint}")


@dataclass(frozen=True)
class Deviance(Formula):
    """Mean deviance of Tweedie's distribution, averaged over the outputs.

    Attributes
    ----------
    power
        Power in [1, 2].
    is_explained
        True for its explained share (D2): 1 - deviance / deviance of the mean target. An output without a
        deviance of its mean scores 1 if it is predicted exactly, else 0.
    center, unit
        Numbers of each output ``(C,)`` that restore scaled values; empty for none.
    """

    cost_ns: ClassVar[float] = 30.0

    power: float = 1.0
    is_explained: bool = False
    center: tuple[float, ...] = ()
    unit: tuple[float, ...] = ()

    @property
    def target_kind(self) -> Literal["classes", "values"]:
        return "values"

    def project(self, predictions: Tensor, target: Tensor) -> Tensor:
        return self._restored(predictions.double())

    def score(self, projected: Tensor, truth: GroundTruth) -> Tensor:
        target, weight = self._restored(truth.target), truth.weight / truth.weight.sum()
        mean = (target * weight).sum(-1, keepdim=True)
        least = (LEAST_SHARE * mean).clamp_min(torch.finfo(torch.float64).tiny)
        found = (self._of_rows(torch.maximum(projected, least), target) * weight).sum(-1)  # (P, C)
        if self.is_explained:
            whole = (self._of_rows(torch.maximum(mean, least).expand_as(target), target) * weight).sum(-1)
            constant = whole <= 0
            found = torch.where(
                constant, (found <= 0).double(), 1.0 - found / torch.where(constant, 1.0, whole)
            )
        return found.mean(1)

    def in_units(self, units: Sequence[float], center: Sequence[float] = ()) -> Formula:
        return replace(self, unit=tuple(units), center=tuple(center) or (0.0,) * len(units))

    def score_range(self, n_outputs: int) -> ScoreRange:
        return ScoreRange(high=1.0) if self.is_explained else ScoreRange(low=0.0)

    def check_target(self, target: NDArray[Any], name: str) -> None:
        check_amounts(target * np.array(self.unit or 1.0) + np.array(self.center or 0.0), name, self.power)

    def _of_rows(self, mean: Tensor, target: Tensor) -> Tensor:
        """Unit deviances, >= 0 but for rounding, of predicted means > 0."""
        up, down = 2.0 - self.power, 1.0 - self.power
        if down == 0:
            return 2.0 * (torch.xlogy(target, target / mean) - target + mean)
        if up == 0:
            ratio = target / mean
            return 2.0 * (ratio - 1.0 - ratio.log())
        saturated = target**up / (down * up)
        return 2.0 * (saturated - target * mean**down / down + mean**up / up)

    def _restored(self, values: Tensor) -> Tensor:
        """Values ``(..., C, N)`` in the units of the target."""
        if not self.unit:
            return values
        unit, center = (
            torch.tensor(part, dtype=torch.float64, device=values.device)[:, None]
            for part in (self.unit, self.center)
        )
        return center + unit * values
