"""Activations on NumPy arrays. Each function may overwrite its argument, and returns the result."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]

_SELU_SCALE, _SELU_ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717

# rational function of Eigen's single-precision erf on [-4, 4], of the square, lowest power first
_ERF_NUMERATOR = (
    -1.60960333262415e-02, -2.95459980854025e-03, -7.34990630326855e-04, -5.69250639462346e-05,
    -2.10102402082508e-06, 2.77068142495902e-08, -2.72614225801306e-10,
)  # fmt: skip
_ERF_DENOMINATOR = (
    -1.42647390514189e-02, -7.37332916720468e-03, -1.68282697438203e-03, -2.13374055278905e-04,
    -1.45660718464996e-05,
)  # fmt: skip


def _identity(z: Floats) -> Floats:
    return z


def _sigmoid(z: Floats) -> Floats:
    np.negative(z, out=z)
    np.exp(z, out=z)
    z += 1.0
    return np.divide(1.0, z, out=z)


def _tanh(z: Floats) -> Floats:
    return np.tanh(z, out=z)


def _relu(z: Floats) -> Floats:
    return np.maximum(z, 0.0, out=z)


def _leaky_relu(z: Floats) -> Floats:
    return np.maximum(z, 0.01 * z, out=z)


def _elu(z: Floats) -> Floats:
    negative = np.minimum(z, 0.0)
    np.expm1(negative, out=negative)
    np.maximum(z, 0.0, out=z)
    z += negative
    return z


def _selu(z: Floats) -> Floats:
    negative = np.minimum(z, 0.0)
    np.expm1(negative, out=negative)
    negative *= _SELU_ALPHA
    np.maximum(z, 0.0, out=z)
    z += negative
    z *= _SELU_SCALE
    return z


def _gelu(z: Floats) -> Floats:
    factor = erf(z * math.sqrt(0.5))
    factor += 1.0
    factor *= 0.5
    z *= factor
    return z


def _silu(z: Floats) -> Floats:
    d = np.negative(z)
    np.exp(d, out=d)
    d += 1.0
    return np.divide(z, d, out=z)


def _mish(z: Floats) -> Floats:
    # tanh(softplus(z)) = t / (t + 1) with t = e + e^2 / 2 and e = exp(z); above 20 the quotient is 1
    e = np.exp(np.minimum(z, 20.0))
    t = 0.5 * e
    t += 1.0
    t *= e
    z *= t
    t += 1.0
    return np.divide(z, t, out=z)


def _hardshrink(z: Floats) -> Floats:
    z[np.abs(z) <= 0.5] = 0.0
    return z


def _softplus(z: Floats) -> Floats:
    small = np.abs(z)
    np.negative(small, out=small)
    np.exp(small, out=small)
    np.log1p(small, out=small)
    np.maximum(z, 0.0, out=z)
    z += small
    return z


def _sine(z: Floats) -> Floats:
    return np.sin(z, out=z)


def erf(x: Floats) -> Floats:
    """Return the error function in single precision, to 4e-7; NumPy has none."""
    x = np.clip(x, -4.0, 4.0)
    square = x * x
    numerator, denominator = (
        _polynomial(coefficients, square) for coefficients in (_ERF_NUMERATOR, _ERF_DENOMINATOR)
    )
    x *= numerator
    x /= denominator
    return x


def _polynomial(coefficients: tuple[float, ...], x: Floats) -> Floats:
    value = np.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        value *= x
        value += coefficient
    return value


ACTIVATION_FUNCTIONS: dict[str, Callable[[Floats], Floats]] = {
    "identity": _identity,
    "sigmoid": _sigmoid,
    "tanh": _tanh,
    "relu": _relu,
    "leaky_relu": _leaky_relu,
    "elu": _elu,
    "gelu": _gelu,
    "selu": _selu,
    "hardshrink": _hardshrink,
    "mish": _mish,
    "silu": _silu,
    "softplus": _softplus,
    "sine": _sine,
}
"""All activations by name."""
