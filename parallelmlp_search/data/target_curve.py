"""Transformed regression targets: monotone curves from the outputs of networks to values of the target.

A network with a transformed target learns ``z = T(y)``, standardized. Its curve maps outputs back to the
target, linearly between :data:`N_KNOTS` equidistant outputs. One table thus stands for every transformation,
for training and in every format of export.

The inverse of the mean of ``z`` is not the mean of ``y``. Where a metric asks for the mean, the curve is
smeared: ``E[T^-1(z + e)]`` over the residuals ``e`` of rows that the network has not seen (Duan, "Smearing
Estimate: A Nonparametric Retransformation Method", 1983).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from parallelmlp_search.data.targets import RegressionTarget

Floats = npt.NDArray[np.float64]
Map = Callable[[Floats], Floats]

N_KNOTS = 512
"""Knots of a curve. Between those of a log-normal target with a deviation of 1.5, ``exp`` is off by 2e-4."""

N_RESIDUALS = 32
"""Points that stand for the residuals of a network."""

MAX_FIT_ROWS = 10_000
"""Most order statistics of a target to which a transformation is fitted."""

SHIFT_LEVEL = 0.05
"""Quantile of the positive values by which a logarithm is shifted."""


@dataclass(frozen=True, eq=False)
class TargetCurve:
    """Curves of the ``C`` outputs of a target.

    Attributes
    ----------
    start, step
        Output at the first knot, and distance of the knots, ``(C,)``.
    values
        Values of the target at the knots, not falling, ``(C, K)``. Beyond the last knots they are constant,
        so that predictions stay in the range of the training target.
    """

    start: Floats
    step: Floats
    values: Floats

    @classmethod
    def fit(cls, transform: str, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> Self:
        """Fit a transformation to a finite target.

        Parameters
        ----------
        transform
            ``log``, ``yeo_johnson`` or ``quantile``.
        y
            Target ``(n,)`` or ``(n, C)``.
        sample_weight
            Weights ``(n,)``, by which the transformed target is standardized, or None.

        Returns
        -------
        TargetCurve
        """
        target = np.asarray(y, dtype=np.float64)
        weight = None if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
        columns = target.reshape(len(target), -1).T
        fitted = [_fit_output(MAPS[transform], column, weight) for column in columns]
        starts, steps, values = zip(*fitted, strict=True)
        return cls(np.array(starts), np.array(steps), np.stack(values))

    @property
    def knots(self) -> Floats:
        """Outputs at the knots ``(C, K)``."""
        return self.start[:, None] + self.step[:, None] * np.arange(self.values.shape[1])

    def encode(self, y: Floats) -> Floats:
        """Transform a target ``(C, n)``.

        A value at several knots gets the middle of them, and the least and the largest value the outermost.
        """
        encoded = np.empty(y.shape)
        for own, knots, values, out in zip(y, self.knots, self.values, encoded, strict=True):
            # np.interp takes the last of equal values, and mirrored the first
            np.subtract(np.interp(own, values, knots), np.interp(-own, -values[::-1], -knots[::-1]), out=out)
            out *= 0.5
            out[own <= values[0]], out[own >= values[-1]] = knots[0], knots[-1]
        return encoded

    def decode(self, outputs: npt.NDArray[Any]) -> Floats:
        """Values of the target ``(C, n)`` at outputs of networks; NaN at NaN."""
        return np.stack(
            [np.interp(own, *curve) for own, *curve in zip(outputs, self.knots, self.values, strict=True)]
        )

    def smeared(self, residuals: Floats | None) -> TargetCurve:
        """Return the curve of the mean of the target over residuals ``(C, Q)`` of the output; None for none.

        Between equidistant knots, all values are shifted by the same number of knots.
        """
        if residuals is None:
            return self
        n_knots = self.values.shape[1]
        found = np.full_like(self.values, np.nan)
        for own, step, values, out in zip(residuals, self.step, self.values, found, strict=True):
            if not np.isfinite(own).all():
                continue  # of a network that has diverged
            shift = np.clip(own / step, -n_knots, n_knots)
            whole = np.floor(shift)
            place = np.arange(n_knots)[:, None] + whole.astype(np.intp)
            low, high = (values[np.clip(place + after, 0, n_knots - 1)] for after in (0, 1))
            np.mean(low + (shift - whole) * (high - low), axis=1, out=out)
        return TargetCurve(self.start, self.step, found)

    def to_array(self) -> Floats:
        """Array ``(C, 2 + K)`` of starts, steps and values."""
        return np.column_stack([self.start, self.step, self.values])

    @classmethod
    def from_array(cls, array: Floats) -> Self:
        """Inverse of :meth:`to_array`.

        Raises
        ------
        ValueError
            If a step is not positive.
        """
        start, step, values = array[:, 0], array[:, 1], array[:, 2:]
        if not (step > 0).all():
            raise ValueError(f"the step of a curve must be > 0, but is {step.min():g}")
        return cls(start, step, values)


def residual_points(residuals: Floats, weight: Floats | None = None) -> Floats:
    """Return points that stand for residuals: the means of the parts between equidistant quantiles.

    Parameters
    ----------
    residuals
        Transformed targets minus outputs ``(C, n)``.
    weight
        Weights of the rows ``(n,)``, or None.

    Returns
    -------
    array of shape (C, Q)
        Their mean is that of the residuals.
    """
    order = np.argsort(residuals, axis=1)
    ordered = np.take_along_axis(residuals, order, axis=1)
    weights = np.ones(ordered.shape) if weight is None else weight[order].astype(np.float64)
    weights /= weights.sum(axis=1, keepdims=True)
    edges = np.linspace(0.0, 1.0, N_RESIDUALS + 1)
    levels, sums = (
        np.pad(np.cumsum(parts, axis=1), ((0, 0), (1, 0))) for parts in (weights, weights * ordered)
    )
    below = [np.interp(edges, *pair) for pair in zip(levels, sums, strict=True)]
    return N_RESIDUALS * np.diff(below, axis=1)


def skewness(values: Floats) -> float:
    """Return the third standardized moment of values ``(n,)``; 0 for a constant."""
    size = float(np.abs(values).max(initial=0.0)) or 1.0  # so that no power overflows
    centred = values / size - np.mean(values / size)
    deviation = float(np.sqrt(np.mean(np.square(centred))))
    return float(np.mean((centred / deviation) ** 3)) if deviation > 0 else 0.0


class _Maps(NamedTuple):
    """Increasing transformation and its inverse."""

    forward: Map
    inverse: Map


IDENTITY = _Maps(lambda y: y, lambda z: z)


def _fit_output(
    fit: Callable[[Floats], _Maps], y: Floats, weight: Floats | None
) -> tuple[float, float, Floats]:
    """Start, step and values of the curve of one output."""
    ordered = np.sort(y if weight is None else y[weight > 0])
    low, high = ordered[0], ordered[-1]
    places = np.linspace(0, len(ordered) - 1, min(len(ordered), MAX_FIT_ROWS)).round().astype(np.intp)
    with np.errstate(all="ignore"):
        maps = fit(ordered[places]) if low < high else IDENTITY
        if not np.isfinite(maps.forward(ordered)).all():
            maps = IDENTITY
        scaler = RegressionTarget.fit(maps.forward(np.clip(y, low, high)), weight)
        first, last = scaler.encode(maps.forward(np.array([low, high])), np.float64)
        first, last = (first, last) if last > first else (-1.0, 1.0)
        values = maps.inverse(np.linspace(first, last, N_KNOTS) * scaler.scale_[0] + scaler.mean_[0])
    values = np.clip(np.where(np.isfinite(values), values, low), low, high)
    values[0], values[-1] = low, high
    return float(first), float(last - first) / (N_KNOTS - 1), np.maximum.accumulate(values)


def _log_maps(ordered: Floats) -> _Maps:
    """Logarithm of the target above its least value if that is negative, else above zero.

    It is shifted by a small typical value where the least value is zero, or where that leaves less skewness.
    For counts the value is 1, so that the transformation is ``log(1 + y)``.
    """
    above = ordered - min(0.0, ordered[0])
    shifts = [float(np.quantile(above[above > 0], SHIFT_LEVEL)), *([0.0] if above[0] > 0 else [])]
    best = min(shifts, key=lambda shift: abs(skewness(np.log(above + shift))))
    shift = best - min(0.0, ordered[0])
    return _Maps(lambda y: np.log(y + shift), lambda z: np.exp(z) - shift)


def _yeo_johnson_maps(ordered: Floats) -> _Maps:
    """Power of Yeo and Johnson (2000) of the target in robust units, with the most likely exponent in [0, 2].

    With other exponents one side is bounded, and the inverse is infinite beyond.
    """
    from sklearn.preprocessing import PowerTransformer

    centre, (lower, upper) = np.median(ordered), np.quantile(ordered, (0.25, 0.75))
    unit = upper - lower if upper > lower else ordered.std()
    scaled = (ordered[:, None] - centre) / unit
    if not np.isfinite(scaled).all():
        return IDENTITY
    power = PowerTransformer("yeo-johnson", standardize=False).fit(scaled)
    power.lambdas_ = np.clip(power.lambdas_, 0.0, 2.0)
    return _Maps(
        lambda y: power.transform((y[:, None] - centre) / unit)[:, 0],
        lambda z: power.inverse_transform(z[:, None])[:, 0] * unit + centre,
    )


def _quantile_maps(ordered: Floats) -> _Maps:
    """Normal scores of the mean ranks, so that neither the extremes nor many equal values are outliers."""
    from scipy.special import ndtr

    from parallelmlp_search.data.normal import normal_quantile

    n_rows = len(ordered)
    levels = (np.arange(n_rows) + 0.5) / n_rows

    def forward(y: Floats) -> Floats:
        below, upto = (np.searchsorted(ordered, y, side) for side in ("left", "right"))
        return normal_quantile(np.clip(0.5 * (below + upto) / n_rows, levels[0], levels[-1]))

    return _Maps(forward, lambda z: np.interp(ndtr(z), levels, ordered))


MAPS: dict[str, Callable[[Floats], _Maps]] = {
    "log": _log_maps,
    "yeo_johnson": _yeo_johnson_maps,
    "quantile": _quantile_maps,
}
"""Fit of each transformation, given the sorted target."""
