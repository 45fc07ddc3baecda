"""Exponential, logarithm, activations and their slopes in float32, for compiled loops.

Exponential and logarithm are polynomials (Cephes, relative error below 2e-7), since the compiler vectorizes
only code without calls. Comparisons are written so that NaN is kept.
"""

from __future__ import annotations

import llvmlite.ir
import numba
import numpy as np
from numba.extending import intrinsic

from parallelmlp_search.kernels.numba.decorators import inlined

F = np.float32
ZERO, HALF, ONE, TWO = F(0.0), F(0.5), F(1.0), F(2.0)


@intrinsic  # type: ignore[untyped-decorator]
def _as_float(context, bits):
    """Return the float32 with the bits of an int32."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], llvmlite.ir.FloatType())

    return numba.types.float32(numba.types.int32), generate


@intrinsic  # type: ignore[untyped-decorator]
def _as_integer(context, number):
    """Return the int32 with the bits of a float32."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], llvmlite.ir.IntType(32))

    return numba.types.int32(numba.types.float32), generate


@inlined
def exp(x):
    """Return the exponential of ``x`` clipped to [-87, 88]."""
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
    return y * _as_float((np.int32(k) + np.int32(127)) << np.int32(23))


@inlined
def log(x):
    """Return the logarithm of a positive normal number."""
    bits = _as_integer(x)
    exponent = F((bits >> np.int32(23)) - np.int32(126))
    m = _as_float((bits & np.int32(0x007FFFFF)) | np.int32(0x3F000000))  # in [0.5, 1)
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


_sigmoid = inlined(lambda z: ONE / (ONE + exp(-z)))


@inlined
def _normal_parts(z):
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


SELU_SCALE = F(1.0507009873554804934193349852946)
SELU_SCALE_ALPHA = F(1.0507009873554804934193349852946 * 1.6732632423543772848170429916717)

# Values of the activations, from their input.
_tanh = inlined(lambda z: ONE - TWO / (exp(TWO * z) + ONE))
_relu = inlined(lambda z: ZERO if z < ZERO else z)
_leaky_relu = inlined(lambda z: F(0.01) * z if z < ZERO else z)
_elu = inlined(lambda z: exp(z) - ONE if z < ZERO else z)
_selu = inlined(lambda z: SELU_SCALE_ALPHA * (exp(z) - ONE) if z < ZERO else SELU_SCALE * z)
_gelu = inlined(lambda z: z * _normal_parts(z)[0])
_silu = inlined(lambda z: z * _sigmoid(z))
_hardshrink = inlined(lambda z: ZERO if (z >= -HALF) and (z <= HALF) else z)

# Slopes of the activations, from their output (y) or their input (z), whichever their kernel saves.
_sigmoid_slope = inlined(lambda y: y * (ONE - y))
_tanh_slope = inlined(lambda y: ONE - y * y)
_relu_slope = inlined(lambda y: ZERO if y <= ZERO else ONE)
_leaky_relu_slope = inlined(lambda y: ONE if y > ZERO else F(0.01))
_elu_slope = inlined(lambda y: ONE if y > ZERO else y + ONE)
_selu_slope = inlined(lambda y: SELU_SCALE if y > ZERO else y + SELU_SCALE_ALPHA)
_hardshrink_slope = inlined(lambda z: ZERO if (z >= -HALF) and (z <= HALF) else ONE)


@inlined
def _gelu_slope(z):
    distribution, density = _normal_parts(z)
    return distribution + z * density


@inlined
def _silu_slope(z):
    s = _sigmoid(z)
    return s * (ONE + z * (ONE - s))


@inlined
def _mish(z):
    e = exp(F(20.0) if z > F(20.0) else z)
    u = e * (e + TWO)
    return z * (u / (u + TWO))


@inlined
def _mish_slope(z):
    e = exp(F(20.0) if z > F(20.0) else z)
    u = e * (e + TWO)
    d = ONE / (u + TWO)
    return u * d + F(4.0) * z * e * (ONE + e) * d * d


@inlined
def activate(code, source, target, size):
    """Activation of ``source`` into ``target``, which must be other memory."""
    if code == 0:
        for k in range(size):
            target[k] = source[k]
    elif code == 1:
        for k in range(size):
            target[k] = _sigmoid(source[k])
    elif code == 2:
        for k in range(size):
            target[k] = _tanh(source[k])
    elif code == 3:
        for k in range(size):
            target[k] = _relu(source[k])
    elif code == 4:
        for k in range(size):
            target[k] = _leaky_relu(source[k])
    elif code == 5:
        for k in range(size):
            target[k] = _elu(source[k])
    elif code == 6:
        for k in range(size):
            target[k] = _selu(source[k])
    elif code == 7:
        for k in range(size):
            target[k] = _gelu(source[k])
    elif code == 8:
        for k in range(size):
            target[k] = _silu(source[k])
    elif code == 9:
        for k in range(size):
            target[k] = _mish(source[k])
    elif code == 10:
        for k in range(size):
            target[k] = _hardshrink(source[k])


@inlined
def activate_and_slope(code, source, target, size) -> bool:
    """Activate, and replace ``source`` by the slope if value and slope share an exponential.

    Returns True if ``source`` holds the slope.
    """
    if code == 7:
        for k in range(size):
            z = source[k]
            distribution, density = _normal_parts(z)
            target[k] = z * distribution
            source[k] = distribution + z * density
    elif code == 8:
        for k in range(size):
            z = source[k]
            s = _sigmoid(z)
            target[k] = z * s
            source[k] = s * (ONE + z * (ONE - s))
    elif code == 9:
        for k in range(size):
            z = source[k]
            e = exp(F(20.0) if z > F(20.0) else z)
            u = e * (e + TWO)
            d = ONE / (u + TWO)
            target[k] = z * (u * d)
            source[k] = u * d + F(4.0) * z * e * (ONE + e) * d * d
    else:
        activate(code, source, target, size)
        return False
    return True


@inlined
def slope_times(code, source, target, size):
    """Multiply ``target`` by the slope, from what the activation saves."""
    if code == 1:
        for k in range(size):
            target[k] *= _sigmoid_slope(source[k])
    elif code == 2:
        for k in range(size):
            target[k] *= _tanh_slope(source[k])
    elif code == 3:
        for k in range(size):
            target[k] *= _relu_slope(source[k])
    elif code == 4:
        for k in range(size):
            target[k] *= _leaky_relu_slope(source[k])
    elif code == 5:
        for k in range(size):
            target[k] *= _elu_slope(source[k])
    elif code == 6:
        for k in range(size):
            target[k] *= _selu_slope(source[k])
    elif code == 7:
        for k in range(size):
            target[k] *= _gelu_slope(source[k])
    elif code == 8:
        for k in range(size):
            target[k] *= _silu_slope(source[k])
    elif code == 9:
        for k in range(size):
            target[k] *= _mish_slope(source[k])
    elif code == 10:
        for k in range(size):
            target[k] *= _hardshrink_slope(source[k])


@inlined
def activate_in_place(code, values, size):
    """Activation of ``values`` in place."""
    if code == 1:
        for k in range(size):
            values[k] = _sigmoid(values[k])
    elif code == 2:
        for k in range(size):
            values[k] = _tanh(values[k])
    elif code == 3:
        for k in range(size):
            values[k] = _relu(values[k])
    elif code == 4:
        for k in range(size):
            values[k] = _leaky_relu(values[k])
    elif code == 5:
        for k in range(size):
            values[k] = _elu(values[k])
    elif code == 6:
        for k in range(size):
            values[k] = _selu(values[k])
    elif code == 7:
        for k in range(size):
            values[k] = _gelu(values[k])
    elif code == 8:
        for k in range(size):
            values[k] = _silu(values[k])
    elif code == 9:
        for k in range(size):
            values[k] = _mish(values[k])
    elif code == 10:
        for k in range(size):
            values[k] = _hardshrink(values[k])
