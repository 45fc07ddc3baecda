"""Quantiles of the normal distribution with NumPy alone; importing scipy.special takes 0.2 s."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_TAIL = 0.13533528323661270  # exp(-2)
_ROOT_OF_TWO_PI = 2.50662827463100050242
# rational functions of the function ndtri of Cephes (Moshier 1989), highest power first
_CENTRE = (
    (-59.9633501014107895267, 98.0010754185999661536, -56.6762857469070293439, 13.9312609387279679503,
     -1.23916583867381258016),
    (1.0, 1.95448858338141759834, 4.67627912898881538453, 86.3602421390890590575, -225.462687854119370527,
     200.260212380060660359, -82.0372256168333339912, 15.9056225126211695515, -1.18331621121330003142),
)  # fmt: skip
_TAILS = (
    (4.05544892305962419923, 31.5251094599893866154, 57.1628192246421288162, 44.0805073893200834700,
     14.6849561928858024014, 2.18663306850790267539, -0.140256079171354495875, -0.0350424626827848203418,
     -0.000857456785154685413611),
    (1.0, 15.7799883256466749731, 45.3907635128879210584, 41.3172038254672030440, 15.0425385692907503408,
     2.50464946208309415979, -0.142182922854787788574, -0.0380806407691578277194,
     -0.000933259480895457427372),
)  # fmt: skip


def normal_quantile(levels: Floats) -> Floats:
    """Return the quantiles of the standard normal distribution, to 2e-15.

    Parameters
    ----------
    levels
        Probabilities of any shape, in [1e-13, 1 - 1e-13].

    Returns
    -------
    array of the same shape
    """
    centred = levels - 0.5
    square = centred * centred
    centre = _ROOT_OF_TWO_PI * (centred + centred * _ratio(_CENTRE, square))
    tail = np.minimum(levels, 1.0 - levels)
    x = np.sqrt(-2.0 * np.log(tail))
    x = x - np.log(x) / x - _ratio(_TAILS, 1.0 / x)
    return np.where(tail > _TAIL, centre, np.copysign(x, centred))


def _ratio(polynomials: tuple[Sequence[float], Sequence[float]], x: Floats) -> Floats:
    """Return ``x`` times the quotient of two polynomials of ``x``."""
    values = []
    for coefficients in polynomials:
        value = np.full_like(x, coefficients[0])
        for coefficient in coefficients[1:]:
            value *= x
            value += coefficient
        values.append(value)
    ratio: Floats = x * values[0] / values[1]
    return ratio
