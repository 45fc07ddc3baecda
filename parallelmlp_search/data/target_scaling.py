"""Scaling of extreme regression targets to numbers that single precision can hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from parallelmlp_search.data.targets import numeric_target

Floats = npt.NDArray[np.float64]

MIN_SPREAD, MAX_SPREAD = 1e-30, 1e30
"""Standard deviations that need no scaling. Single precision reaches from 1e-38 to 3e38."""

MAX_OFFSET = 1e4
"""Largest distance from zero, in standard deviations, that needs no scaling. Rounding a prediction to single
precision then costs 6e-4 of a standard deviation."""

_MIN_EXPONENT = -1074  # of the smallest positive float64


@dataclass(frozen=True)
class TargetScaling:
    """Map from a target to the numbers that networks and metrics work with: ``(y - center) / unit``.

    Attributes
    ----------
    center, unit
        Numbers of each output ``(C,)``. Units are powers of two, so that scaling does not round. An output of
        ordinary size has center 0 and unit 1.
    """

    center: tuple[float, ...]
    unit: tuple[float, ...]

    @classmethod
    def fit(cls, y: Any, *, is_centred: bool = True) -> TargetScaling:
        """Fit to a target of shape (rows,) or (rows, C).

        Without a center, as amounts need it that are 0 or more, only the unit can change.

        Raises
        ------
        DataError
            If a value is missing, no number, or beyond 1e300.
        """
        values = numeric_target(y)
        scale = _center_and_unit if is_centred else _unit
        pairs = [scale(output) for output in values.reshape(len(values), -1).T]
        return cls(tuple(center for center, _ in pairs), tuple(unit for _, unit in pairs))

    @property
    def is_needed(self) -> bool:
        """False if no output changes."""
        return any(self.center) or any(unit != 1.0 for unit in self.unit)

    def apply(self, y: Floats) -> Floats:
        """Scale a target of shape (rows,) or (rows, C)."""
        if not self.is_needed:
            return y
        center, unit = (np.array(values) for values in (self.center, self.unit))
        scaled: Floats = ((y.reshape(len(y), -1) - center) / unit).reshape(y.shape)
        return scaled

    def restore(self, values: Floats) -> Floats:
        """Return predictions ``(C, n)`` of a scaled target in the units of the target."""
        if not self.is_needed:
            return values
        center, unit = (np.array(values)[:, None] for values in (self.center, self.unit))
        restored: Floats = center + unit * values
        return restored

    def to_dict(self) -> dict[str, Any] | None:
        """Return a form that JSON can hold; None if no output changes."""
        return {"center": self.center, "unit": self.unit} if self.is_needed else None

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> TargetScaling:
        """Inverse of `to_dict`."""
        return cls(tuple(state["center"]), tuple(state["unit"]))


def _center_and_unit(values: Floats) -> tuple[float, float]:
    center = float(np.median(values / 2.0)) * 2.0  # the mean of two numbers near 1e308 would overflow
    distances = np.abs(values - center)
    furthest = float(distances.max())
    # squares of numbers up to 1 cannot overflow
    relative = distances / furthest if furthest > 0 else distances
    spread = math.sqrt(float(np.mean(np.square(relative)))) * furthest
    typical = spread or abs(center)
    if typical == 0 or (MIN_SPREAD <= typical <= MAX_SPREAD and abs(center) <= MAX_OFFSET * typical):
        return 0.0, 1.0
    return center, _power_of_two(typical)


def _unit(values: Floats) -> tuple[float, float]:
    """Center 0 and a unit for values of which the mean is what matters."""
    furthest = float(np.abs(values).max())
    typical = float(np.mean(np.abs(values) / furthest)) * furthest if furthest > 0 else 0.0
    return 0.0, 1.0 if typical == 0 or MIN_SPREAD <= typical <= MAX_SPREAD else _power_of_two(typical)


def _power_of_two(size: float) -> float:
    return math.ldexp(1.0, max(round(math.log2(size)), _MIN_EXPONENT))
