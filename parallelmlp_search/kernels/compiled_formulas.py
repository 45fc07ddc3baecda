"""Exponentials, activations and their slopes, one number at a time, that numba compiles into loops.

Exponential and logarithm are polynomials (Cephes, relative error below 2e-7), since only code without calls
is turned into vector instructions. Comparisons are written so that NaN passes through. A loop that is kept
on disk does not notice changes in here: remove ``__pycache__`` after making one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.ir
import numba
import numpy as np
from numba.extending import intrinsic

__all__ = [
    "HALF",
    "ONE",
    "OPTIONS",
    "TWO",
    "ZERO",
    "F",
    "exp",
    "inner",
    "log",
    "loop",
    "normal_parts",
    "sigmoid",
    "slope_elu",
    "slope_gelu",
    "slope_hardshrink",
    "slope_leaky_relu",
    "slope_mish",
    "slope_relu",
    "slope_selu",
    "slope_sigmoid",
    "slope_silu",
    "slope_tanh",
    "value_elu",
    "value_gelu",
    "value_hardshrink",
    "value_leaky_relu",
    "value_mish",
    "value_relu",
    "value_selu",
    "value_silu",
    "value_tanh",
]

# contract: fused multiply-add; nsz: no care for the sign of zero. Sums keep their order.
OPTIONS = {"fastmath": {"contract", "nsz"}, "error_model": "numpy"}


def inner(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled into whoever calls it."""
    compiled: Callable[..., Any] = numba.njit(**OPTIONS)(function)
    return compiled


def loop(function: Callable[..., Any]) -> Callable[..., Any]:
    """Called from Python; kept on disk, so that only the first use ever waits for the compiler."""
    compiled: Callable[..., Any]
    try:
        compiled = numba.njit(**OPTIONS, nogil=True, cache=True)(function)
    except RuntimeError:  # no folder that could be written to
        compiled = numba.njit(**OPTIONS, nogil=True)(function)
    return compiled


F = np.float32
ZERO, HALF, ONE, TWO = F(0.0), F(0.5), F(1.0), F(2.0)


@intrinsic  # type: ignore[untyped-decorator]
def as_float(context: Any, bits: Any) -> Any:
    """The float32 with the bits of an int32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], llvmlite.ir.FloatType())

    return numba.types.float32(numba.types.int32), generate


@intrinsic  # type: ignore[untyped-decorator]
def as_integer(context: Any, number: Any) -> Any:
    """The int32 with the bits of a float32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], llvmlite.ir.IntType(32))

    return numba.types.int32(numba.types.float32), generate


@inner
def exp(x: Any) -> Any:
    x = F(-87.0) if x < F(-87.0) else x
    x = F(88.0) if x > F(88.0) else x
    k = np.floor(x * F(1.4426950408889634) + HALF)
    r = x - k * F(0.693359375) - k * F(-2.12194440e-4)
    y = F(1.9875691500e-4)
    y = y * r + F(1.3981999507e-3)
    y = y * r + F(8.3334519073e-3)
    y = y * r + F(4.1665795894e-2)
    y = y * r + F(1.6666665459e-1)
    y = y * r + HALF
    y = y * (r * r) + r + ONE
    return y * as_float((np.int32(k) + np.int32(127)) << np.int32(23))


@inner
def log(x: Any) -> Any:
    """Logarithm of a positive normal number."""
    bits = as_integer(x)
    exponent = F((bits >> np.int32(23)) - np.int32(126))
    m = as_float((bits & np.int32(0x007FFFFF)) | np.int32(0x3F000000))  # in [0.5, 1)
    small = m < F(0.707106781186547524)
    exponent = exponent - ONE if small else exponent
    m = m + m - ONE if small else m - ONE
    z = m * m
    y = F(7.0376836292e-2)
    y = y * m + F(-1.1514610310e-1)
    y = y * m + F(1.1676998740e-1)
    y = y * m + F(-1.2420140846e-1)
    y = y * m + F(1.4249322787e-1)
    y = y * m + F(-1.6668057665e-1)
    y = y * m + F(2.0000714765e-1)
    y = y * m + F(-2.4999993993e-1)
    y = y * m + F(3.3333331174e-1)
    y = y * m * z + exponent * F(-2.12194440e-4) - HALF * z
    return m + y + exponent * F(0.693359375)


@inner
def sigmoid(z: Any) -> Any:
    return ONE / (ONE + exp(-z))


@inner
def normal_parts(z: Any) -> Any:
    """Distribution and density of the normal distribution (error function: Abramowitz, Stegun 7.1.26)."""
    x = abs(z) * F(0.7071067811865476)
    t = ONE / (ONE + F(0.3275911) * x)
    e = exp(-(x * x))
    y = F(1.061405429)
    y = y * t + F(-1.453152027)
    y = y * t + F(1.421413741)
    y = y * t + F(-0.284496736)
    y = y * t + F(0.254829592)
    tail = HALF * y * t * e
    return (tail if z < ZERO else ONE - tail), F(0.3989422804014327) * e


# Values of an activation, from its input.


@inner
def value_tanh(z: Any) -> Any:
    return ONE - TWO / (exp(TWO * z) + ONE)


@inner
def value_relu(z: Any) -> Any:
    return ZERO if z < ZERO else z


@inner
def value_leaky_relu(z: Any) -> Any:
    return F(0.01) * z if z < ZERO else z


@inner
def value_elu(z: Any) -> Any:
    return exp(z) - ONE if z < ZERO else z


SELU_SCALE = F(1.0507009873554804934193349852946)
SELU_SCALE_ALPHA = F(1.0507009873554804934193349852946 * 1.6732632423543772848170429916717)


@inner
def value_selu(z: Any) -> Any:
    return SELU_SCALE_ALPHA * (exp(z) - ONE) if z < ZERO else SELU_SCALE * z


@inner
def value_gelu(z: Any) -> Any:
    return z * normal_parts(z)[0]


@inner
def value_silu(z: Any) -> Any:
    return z * sigmoid(z)


@inner
def value_mish(z: Any) -> Any:
    e = exp(F(20.0) if z > F(20.0) else z)
    u = e * (e + TWO)
    return z * (u / (u + TWO))


@inner
def value_hardshrink(z: Any) -> Any:
    return ZERO if (z >= -HALF) and (z <= HALF) else z


# Slopes of an activation, from what its kernel saves.


@inner
def slope_sigmoid(y: Any) -> Any:
    return y * (ONE - y)


@inner
def slope_tanh(y: Any) -> Any:
    return ONE - y * y


@inner
def slope_relu(y: Any) -> Any:
    return ZERO if y <= ZERO else ONE


@inner
def slope_leaky_relu(y: Any) -> Any:
    return ONE if y > ZERO else F(0.01)


@inner
def slope_elu(y: Any) -> Any:
    return ONE if y > ZERO else y + ONE


@inner
def slope_selu(y: Any) -> Any:
    return SELU_SCALE if y > ZERO else y + SELU_SCALE_ALPHA


@inner
def slope_gelu(z: Any) -> Any:
    distribution, density = normal_parts(z)
    return distribution + z * density


@inner
def slope_silu(z: Any) -> Any:
    s = sigmoid(z)
    return s * (ONE + z * (ONE - s))


@inner
def slope_mish(z: Any) -> Any:
    e = exp(F(20.0) if z > F(20.0) else z)
    u = e * (e + TWO)
    d = ONE / (u + TWO)
    return u * d + F(4.0) * z * e * (ONE + e) * d * d


@inner
def slope_hardshrink(z: Any) -> Any:
    return ZERO if (z >= -HALF) and (z <= HALF) else ONE
