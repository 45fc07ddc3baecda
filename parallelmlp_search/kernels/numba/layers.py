"""Parts of the passes of one member between its matrix products, in a compiled loop.

Activations leave their slope in place of their input, so that the backward pass through dropout and
activation is one multiplication.
"""

from __future__ import annotations

import numpy as np

from parallelmlp_search.kernels.numba.arguments import ACTIVATION_CODES
from parallelmlp_search.kernels.numba.decorators import inlined
from parallelmlp_search.kernels.numba.elementwise import (
    ONE,
    TWO,
    ZERO,
    F,
    activate_and_slope,
    exp,
    slope_times,
)
from parallelmlp_search.kernels.numba.member_memory import (
    BIAS,
    FREQUENCY,
    GAIN,
    MIXING,
    N_WAVE_OUTPUTS,
    N_WAVES,
    OFFSET,
    PHASE,
    SCALE,
    SHIFT,
    WEIGHT,
    fill,
    offset_of,
)
from parallelmlp_search.kernels.numba.products import copy, matmul, row_products, row_sums

EPSILON = F(1e-5)
"""Epsilon of layer normalization, as in torch."""

MAX_LOG = F(20.0)
"""Largest logarithm of a prediction, as in :mod:`parallelmlp_search.packing.heads`."""

_HARDSHRINK = ACTIVATION_CODES["hardshrink"]


@inlined
def multiply_by(values, factors, size):
    """Multiply ``values`` by ``factors`` in place."""
    for k in range(size):
        values[k] *= factors[k]


@inlined
def activate_layer(code, before, after, size):
    """Activation of ``before`` into ``after``, and its slope into ``before``."""
    if activate_and_slope(code, before, after, size):
        return
    if code == _HARDSHRINK:
        for k in range(size):
            before[k] = ONE if after[k] != ZERO else ZERO
        return
    fill(before, size, ONE)
    slope_times(code, after, before, size)


@inlined
def drop(net, values, n_out, field, rate, shift):
    """Zero the values whose uniform number in ``field`` (H, N) is below the rate, and scale up the others.

    A row uses the numbers of the row that is ``shift`` further, counted around the end of the true rows.
    """
    up, split = ONE / (ONE - rate), net.n_true - shift
    for o in range(n_out):
        row, own = field + o * net.n_rows, values + o * net.n_rows
        _drop_rows(own, row + shift, split, rate, up)
        _drop_rows(own + split, row, shift, rate, up)


@inlined
def _drop_rows(values, row, size, rate, up):
    for n in range(size):
        values[n] *= up if row[n] >= rate else ZERO


@inlined
def normalize(net, memory, p, blocks, layer):
    """Apply layer normalization to the pre-activations of a layer in place."""
    n_out, n_rows, start = net.sizes[layer + 1], net.n_rows, net.starts[layer]
    z, kept = memory.before + start, memory.normalized + start
    inverse, mean = memory.inverse + layer * n_rows, memory.scratch
    gain, shift = offset_of(blocks, layer, GAIN), offset_of(blocks, layer, SHIFT)
    share = ONE / F(n_out)
    fill(mean, n_rows, ZERO)
    fill(inverse, n_rows, ZERO)
    for o in range(n_out):
        row = z + o * n_rows
        for n in range(n_rows):
            mean[n] += row[n]
    for n in range(n_rows):
        mean[n] *= share
    for o in range(n_out):
        row = z + o * n_rows
        for n in range(n_rows):
            row[n] -= mean[n]
            inverse[n] += row[n] * row[n]
    for n in range(n_rows):
        inverse[n] = ONE / np.sqrt(inverse[n] * share + EPSILON)
    for o in range(n_out):
        row, own = z + o * n_rows, kept + o * n_rows
        scale, offset = p[gain + o], p[shift + o]
        for n in range(n_rows):
            value = row[n] * inverse[n]
            own[n] = value
            row[n] = scale * value + offset


@inlined
def normalize_backward(net, memory, p, g, blocks, layer, d):
    """Turn the gradient ``d`` (H, N) by normalized values into that by their inputs.

    The gradients of gain and shift are written to ``g``.
    """
    n_out, n_rows, start = net.sizes[layer + 1], net.n_rows, net.starts[layer]
    kept, inverse = memory.normalized + start, memory.inverse + layer * n_rows
    mean, slope = memory.scratch, memory.scratch + n_rows
    gain, shift = offset_of(blocks, layer, GAIN), offset_of(blocks, layer, SHIFT)
    for o in range(n_out):
        row_products(d, o * n_rows, 1, kept, o * n_rows, n_rows, g, gain + o)
    row_sums(d, 0, n_out, n_rows, g, shift)
    share = ONE / F(n_out)
    fill(mean, n_rows, ZERO)
    fill(slope, n_rows, ZERO)
    for o in range(n_out):
        row, own = d + o * n_rows, kept + o * n_rows
        scale = p[gain + o]
        for n in range(n_rows):
            row[n] *= scale
            mean[n] += row[n]
            slope[n] += row[n] * own[n]
    for n in range(n_rows):
        mean[n] *= share
        slope[n] *= share
    for o in range(n_out):
        row, own = d + o * n_rows, kept + o * n_rows
        for n in range(n_rows):
            row[n] = (row[n] - mean[n] - own[n] * slope[n]) * inverse[n]


@inlined
def scale_weights(net, memory, p, blocks):
    """Weights of the first layer times the input scales, and behind them its biases, into ``memory.scaled``.

    Returns the place of the biases, or -1 if there are none.
    """
    n_out, n_in, scaled, start = net.sizes[1], net.sizes[0], memory.scaled, memory.scaled_bias
    weight, bias = offset_of(blocks, 0, WEIGHT), offset_of(blocks, 0, BIAS)
    scales = p + offset_of(blocks, net.n_layers, SCALE)
    for o in range(n_out):
        row, to = p + (weight + o * n_in), scaled + o * n_in
        for i in range(n_in):
            to[i] = row[i] * scales[i]
        if bias >= 0:
            scaled[start + o] = p[bias + o]
    return start if bias >= 0 else -1


@inlined
def scale_gradient(net, p, g, blocks):
    """Turn the gradient of scaled weights in ``g`` into those of weights and scales."""
    n_out, n_in = net.sizes[1], net.sizes[0]
    weight, scale = offset_of(blocks, 0, WEIGHT), offset_of(blocks, net.n_layers, SCALE)
    scales, slopes = p + scale, g + scale
    fill(slopes, n_in, ZERO)
    for o in range(n_out):
        row = weight + o * n_in
        values, own = p + row, g + row
        for i in range(n_in):
            slopes[i] += own[i] * values[i]
            own[i] *= scales[i]


@inlined
def squared_error_rows(outputs, target, shares, gradient, values, n_outputs, n_rows):
    """Part of each row of outputs (C, N) in the mean squared error into ``values``, and its gradient."""
    share = ONE / F(n_outputs)
    fill(values, n_rows, ZERO)
    for c in range(n_outputs):
        row, wanted, slope = outputs + c * n_rows, target + c * n_rows, gradient + c * n_rows
        for n in range(n_rows):
            residual = row[n] - wanted[n]
            values[n] += residual * residual * share * shares[n]
            slope[n] = TWO * residual * share * shares[n]


@inlined
def log_link_rows(outputs, target, shares, power, gradient, values, n_outputs, n_rows):
    """Part of each row of outputs (C, N) in a Tweedie loss with log link into ``values``, and its gradient.

    The plain twin is :func:`parallelmlp_search.kernels.losses._log_link`.
    """
    share, up, down = ONE / F(n_outputs), TWO - power, ONE - power
    # of a power of 1 or 2, one of both terms is a line
    up_line, down_line = ONE if up == ZERO else ZERO, ONE if down == ZERO else ZERO
    up_factor = ZERO if up == ZERO else ONE / up
    down_factor = ZERO if down == ZERO else ONE / down
    fill(values, n_rows, ZERO)
    for c in range(n_outputs):
        row, wanted, slope = outputs + c * n_rows, target + c * n_rows, gradient + c * n_rows
        for n in range(n_rows):
            z, t = row[n], wanted[n]
            held = -MAX_LOG if z < -MAX_LOG else z
            held = MAX_LOG if held > MAX_LOG else held
            rising, falling = exp(up * held), exp(down * held) * t
            steep = rising - falling
            value = rising * up_factor - falling * down_factor + held * (up_line - t * down_line)
            values[n] += (value + steep * (z - held)) * share * shares[n]
            slope[n] = steep * share * shares[n]


TURN = F(1.0 / (2.0 * np.pi))
# Taylor series of sin(2 pi s), exact to rounding for a quarter of a turn in both directions
S1, S3, S5, S7, S9, S11, S13 = (
    F((-1.0) ** k * (2.0 * np.pi) ** (2 * k + 1) / np.prod(np.arange(1.0, 2 * k + 2))) for k in range(7)
)


@inlined
def _sine(s):
    """``sin(2 pi s)`` for ``s`` in [-0.25, 0.25]."""
    x = s * s
    y = S11 + x * S13
    y = S9 + x * y
    y = S7 + x * y
    y = S5 + x * y
    y = S3 + x * y
    return s * (S1 + x * y)


@inlined
def _compute_waves(net, memory, p, blocks, x, j):
    """Cosines and sines of ``2 pi f x + b`` of number ``j`` of the inputs ``x`` (D, N), (16, N) each.

    Angles are reduced to half a turn in both directions, which is exact for any frequency.
    """
    n_rows, numbers = net.n_rows, x + j * net.n_rows
    frequencies = p + (offset_of(blocks, net.n_layers, FREQUENCY) + j * N_WAVES)
    phases = p + (offset_of(blocks, net.n_layers, PHASE) + j * N_WAVES)
    for k in range(N_WAVES):
        f, b = frequencies[k], phases[k] * TURN
        cosine, sine = memory.cosines + k * n_rows, memory.sines + k * n_rows
        for n in range(n_rows):
            turns = f * numbers[n] + b
            r = turns - np.floor(turns + F(0.5))
            size = r if r >= ZERO else -r
            cosine[n] = _sine(F(0.25) - size)
            reflected = F(0.5) - size if size > F(0.25) else size
            sine[n] = _sine(reflected if r >= ZERO else -reflected)


@inlined
def embed(net, memory, p, blocks, x):
    """Inputs ``x`` (D, N), and the outputs of their waves, into ``memory.embedded``."""
    n_rows = net.n_rows
    copy(x, 0, net.n_inputs * n_rows, memory.embedded, 0)
    for j in range(net.n_numbers):
        _compute_waves(net, memory, p, blocks, x, j)
        mixing = offset_of(blocks, net.n_layers, MIXING) + j * N_WAVE_OUTPUTS * N_WAVES
        offset = offset_of(blocks, net.n_layers, OFFSET) + j * N_WAVE_OUTPUTS
        to = (net.n_inputs + j * N_WAVE_OUTPUTS) * n_rows
        matmul(
            p,
            mixing,
            N_WAVES,
            1,
            offset,
            N_WAVE_OUTPUTS,
            N_WAVES,
            memory.cosines,
            0,
            n_rows,
            memory.embedded,
            to,
        )


@inlined
def embed_backward(net, memory, p, g, blocks, x, d):
    """Gradient of a periodic embedding into ``g``, from that of its outputs ``d`` (3 n_numbers, N).

    Waves are computed again: 16 rows stay in the L1 cache, those of all numbers would not.
    """
    n_rows, slopes, cosines, last = net.n_rows, memory.wave_slopes, memory.cosines, net.n_layers
    for j in range(net.n_numbers):
        _compute_waves(net, memory, p, blocks, x, j)
        f, b = offset_of(blocks, last, FREQUENCY) + j * N_WAVES, offset_of(blocks, last, PHASE) + j * N_WAVES
        mixing = offset_of(blocks, last, MIXING) + j * N_WAVE_OUTPUTS * N_WAVES
        offset, at = offset_of(blocks, last, OFFSET) + j * N_WAVE_OUTPUTS, j * N_WAVE_OUTPUTS * n_rows
        row_sums(d, at, N_WAVE_OUTPUTS, n_rows, g, offset)
        for o in range(N_WAVE_OUTPUTS):
            row_products(cosines, 0, N_WAVES, d, at + o * n_rows, n_rows, g, mixing + o * N_WAVES)
        matmul(p, mixing, 1, N_WAVES, -1, N_WAVES, N_WAVE_OUTPUTS, d, at, n_rows, slopes, 0)
        multiply_by(slopes, memory.sines, N_WAVES * n_rows)
        row_sums(slopes, 0, N_WAVES, n_rows, g, b)
        row_products(slopes, 0, N_WAVES, x, j * n_rows, n_rows, g, f)
        for k in range(N_WAVES):
            g[b + k] = -g[b + k]
            g[f + k] *= F(-2.0 * np.pi)
