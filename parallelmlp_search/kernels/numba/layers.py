"""Parts of the passes of one member between its matrix products, in a compiled loop.

Activations leave their slope in place of their input, so that the backward pass through dropout and
activation is one multiplication.
"""

from __future__ import annotations

import numpy as np

from parallelmlp_search.kernels.numba.decorators import force_inlined, inlined
from parallelmlp_search.kernels.numba.elementwise import ONE, TWO, ZERO, F, activate_and_slope, slope_times
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
)
from parallelmlp_search.kernels.numba.products import copy, matmul, round_up, row_products, row_sums

EPSILON = F(1e-5)
"""Epsilon of layer normalization, as in torch."""

HARDSHRINK = 10
"""Code of hardshrink in :data:`~parallelmlp_search.kernels.numba.elementwise.CODES`."""


@inlined
def multiply_by(values, factors):
    """Multiply ``values`` by ``factors`` in place."""
    for k in range(values.size):
        values[k] *= factors[k]


@inlined
def activate_layer(code, before, after):
    """Activation of ``before`` into ``after``, and its slope into ``before``."""
    if activate_and_slope(code, before, after):
        return
    if code == HARDSHRINK:
        for k in range(before.size):
            before[k] = ONE if after[k] != ZERO else ZERO
        return
    before[:] = ONE
    slope_times(code, after, before)


@force_inlined
def drop(net, values, field, rate, shift):
    """Zero the values whose uniform number in ``field`` (H, N) is below the rate, and scale up the others.

    A row uses the numbers of the row that is ``shift`` further, counted around the end of the true rows.
    """
    up = ONE / (ONE - rate)
    n_rows = net.n_rows
    n_out = values.size // n_rows
    if shift == 0:
        for o in range(n_out):
            row = field[o]
            start = o * n_rows
            for n in range(n_rows):
                values[start + n] *= up if row[n] >= rate else ZERO
        return
    split = net.n_true - shift
    for o in range(n_out):
        row, own = field[o], values[o * n_rows : o * n_rows + net.n_true]
        _drop_rows(own[:split], row[shift : net.n_true], rate, up)
        _drop_rows(own[split:], row[:shift], rate, up)


@inlined
def _drop_rows(values, row, rate, up):
    for n in range(values.size):
        values[n] *= up if row[n] >= rate else ZERO


@force_inlined
def normalize(net, memory, p, offsets, layer):
    """Apply layer normalization to the pre-activations of a layer in place."""
    n_out, n_rows, start = net.sizes[layer + 1], net.n_rows, net.starts[layer]
    z = memory.before[start : start + n_out * n_rows]
    kept = memory.normalized[start : start + n_out * n_rows]
    inverse, mean = memory.inverse[layer * n_rows : (layer + 1) * n_rows], memory.scratch[0]
    gain, shift = offsets[layer, GAIN], offsets[layer, SHIFT]
    share = ONE / F(n_out)
    mean[:] = ZERO
    inverse[:] = ZERO
    for o in range(n_out):
        row = z[o * n_rows : (o + 1) * n_rows]
        for n in range(n_rows):
            mean[n] += row[n]
    for n in range(n_rows):
        mean[n] *= share
    for o in range(n_out):
        row = z[o * n_rows : (o + 1) * n_rows]
        for n in range(n_rows):
            row[n] -= mean[n]
            inverse[n] += row[n] * row[n]
    for n in range(n_rows):
        inverse[n] = ONE / np.sqrt(inverse[n] * share + EPSILON)
    for o in range(n_out):
        row, own = z[o * n_rows : (o + 1) * n_rows], kept[o * n_rows : (o + 1) * n_rows]
        scale, offset = p[gain + o], p[shift + o]
        for n in range(n_rows):
            value = row[n] * inverse[n]
            own[n] = value
            row[n] = scale * value + offset


@force_inlined
def normalize_backward(net, memory, p, g, offsets, layer, d):
    """Turn the gradient ``d`` (H, N) by normalized values into that by their inputs.

    The gradients of gain and shift are written to ``g``.
    """
    n_out, n_rows, start = net.sizes[layer + 1], net.n_rows, net.starts[layer]
    kept = memory.normalized[start : start + n_out * n_rows]
    inverse = memory.inverse[layer * n_rows : (layer + 1) * n_rows]
    mean, slope = memory.scratch[0], memory.scratch[1]
    gain, shift = offsets[layer, GAIN], offsets[layer, SHIFT]
    for o in range(n_out):
        row_products(d, o * n_rows, 1, kept, o * n_rows, n_rows, g, gain + o)
    row_sums(d, 0, n_out, n_rows, g, shift)
    share = ONE / F(n_out)
    mean[:] = ZERO
    slope[:] = ZERO
    for o in range(n_out):
        row, own = d[o * n_rows : (o + 1) * n_rows], kept[o * n_rows : (o + 1) * n_rows]
        scale = p[gain + o]
        for n in range(n_rows):
            row[n] *= scale
            mean[n] += row[n]
            slope[n] += row[n] * own[n]
    for n in range(n_rows):
        mean[n] *= share
        slope[n] *= share
    for o in range(n_out):
        row, own = d[o * n_rows : (o + 1) * n_rows], kept[o * n_rows : (o + 1) * n_rows]
        for n in range(n_rows):
            row[n] = (row[n] - mean[n] - own[n] * slope[n]) * inverse[n]


@force_inlined
def scale_weights(net, memory, p, offsets):
    """Weights of the first layer times the input scales, into ``memory.scaled``.

    The biases follow them; the result is their start, or -1 for none.
    """
    n_out, n_in, scaled = net.sizes[1], net.sizes[0], memory.scaled
    weight, bias, scale = offsets[0, WEIGHT], offsets[0, BIAS], offsets[net.n_layers, SCALE]
    start = scaled.size - round_up(n_out)
    for o in range(n_out):
        row, to = weight + o * n_in, o * n_in
        for i in range(n_in):
            scaled[to + i] = p[row + i] * p[scale + i]
        if bias >= 0:
            scaled[start + o] = p[bias + o]
    return start if bias >= 0 else -1


@force_inlined
def scale_gradient(net, p, g, offsets):
    """Turn the gradient of scaled weights in ``g`` into those of weights and scales."""
    n_out, n_in = net.sizes[1], net.sizes[0]
    weight, scale = offsets[0, WEIGHT], offsets[net.n_layers, SCALE]
    g[scale : scale + n_in] = ZERO
    for o in range(n_out):
        row = weight + o * n_in
        for i in range(n_in):
            g[scale + i] += g[row + i] * p[row + i]
            g[row + i] *= p[scale + i]


@inlined
def squared_error_rows(outputs, target, shares, gradient, values):
    """Part of each row of outputs (C, N) in the mean squared error into ``values``, and its gradient."""
    n_outputs, n_rows = outputs.shape
    share = ONE / F(n_outputs)
    values[:] = ZERO
    for c in range(n_outputs):
        row, wanted, slope = outputs[c], target[c], gradient[c]
        for n in range(n_rows):
            residual = row[n] - wanted[n]
            values[n] += residual * residual * share * shares[n]
            slope[n] = TWO * residual * share * shares[n]


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


@force_inlined
def _compute_waves(net, memory, p, offsets, x, begin, j):
    """Cosines and sines of ``2 pi f x + b`` of number ``j`` into ``memory.waves``, (16, N) each.

    Angles are reduced to half a turn in both directions, which is exact for any frequency.
    """
    n_rows = net.n_rows
    frequency, phase = offsets[net.n_layers, FREQUENCY], offsets[net.n_layers, PHASE]
    numbers = x[begin + j * n_rows : begin + (j + 1) * n_rows]
    for k in range(N_WAVES):
        f, b = p[frequency + j * N_WAVES + k], p[phase + j * N_WAVES + k] * TURN
        cosine = memory.waves[0, k * n_rows : (k + 1) * n_rows]
        sine = memory.waves[1, k * n_rows : (k + 1) * n_rows]
        for n in range(n_rows):
            turns = f * numbers[n] + b
            r = turns - np.floor(turns + F(0.5))
            size = r if r >= ZERO else -r
            cosine[n] = _sine(F(0.25) - size)
            reflected = F(0.5) - size if size > F(0.25) else size
            sine[n] = _sine(reflected if r >= ZERO else -reflected)


@force_inlined
def embed(net, memory, p, offsets, x, begin):
    """Inputs (D, N) from ``begin`` of ``x`` on, and the outputs of their waves, into ``memory.embedded``."""
    n_rows, waves = net.n_rows, memory.waves[0]
    copy(x, begin, net.n_inputs * n_rows, memory.embedded, 0)
    for j in range(net.n_numbers):
        _compute_waves(net, memory, p, offsets, x, begin, j)
        mixing = offsets[net.n_layers, MIXING] + j * N_WAVE_OUTPUTS * N_WAVES
        offset = offsets[net.n_layers, OFFSET] + j * N_WAVE_OUTPUTS
        to = (net.n_inputs + j * N_WAVE_OUTPUTS) * n_rows
        matmul(p, mixing, N_WAVES, 1, offset, N_WAVE_OUTPUTS, N_WAVES, waves, 0, n_rows, memory.embedded, to)


@force_inlined
def embed_backward(net, memory, p, g, offsets, x, begin, d):
    """Gradient of a periodic embedding into ``g``, from that of its outputs ``d`` (3 n_numbers, N).

    Waves are computed again: 16 rows stay in the L1 cache, those of all numbers would not.
    """
    n_rows, slopes = net.n_rows, memory.wave_slopes
    for j in range(net.n_numbers):
        _compute_waves(net, memory, p, offsets, x, begin, j)
        f, b = offsets[net.n_layers, FREQUENCY] + j * N_WAVES, offsets[net.n_layers, PHASE] + j * N_WAVES
        mixing = offsets[net.n_layers, MIXING] + j * N_WAVE_OUTPUTS * N_WAVES
        offset, at = offsets[net.n_layers, OFFSET] + j * N_WAVE_OUTPUTS, j * N_WAVE_OUTPUTS * n_rows
        row_sums(d, at, N_WAVE_OUTPUTS, n_rows, g, offset)
        for o in range(N_WAVE_OUTPUTS):
            row_products(memory.waves[0], 0, N_WAVES, d, at + o * n_rows, n_rows, g, mixing + o * N_WAVES)
        matmul(p, mixing, 1, N_WAVES, -1, N_WAVES, N_WAVE_OUTPUTS, d, at, n_rows, slopes, 0)
        multiply_by(slopes[: N_WAVES * n_rows], memory.waves[1])
        row_sums(slopes, 0, N_WAVES, n_rows, g, b)
        row_products(slopes, 0, N_WAVES, x, begin + j * n_rows, n_rows, g, f)
        for k in range(N_WAVES):
            g[b + k] = -g[b + k]
            g[f + k] *= F(-2.0 * np.pi)
