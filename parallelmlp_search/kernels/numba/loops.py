"""Compiled loops over the members of a bucket: activations, losses and optimizer steps.

They take one pass over memory where torch takes several, and agree with their twins in torch to rounding.
Import them through :mod:`parallelmlp_search.kernels.numba.dispatch`. They release the GIL.

The compiler vectorizes loops over arrays that it can tell apart. Where input and output may be the same
memory, there are therefore two functions.
"""

from __future__ import annotations

import math

import numpy as np

from parallelmlp_search.kernels.numba.decorators import entry_point, inlined
from parallelmlp_search.kernels.numba.elementwise import (
    HALF,
    ONE,
    ZERO,
    F,
    activate,
    activate_in_place,
    exp,
    log,
    slope_times,
)


@entry_point
def forward_activations(z, out, codes):
    """Activation of each row of ``z`` (P, K) by its code into ``out``, which must be other memory."""
    for p in range(z.shape[0]):
        activate(codes[p], z[p], out[p])


@entry_point
def forward_activations_in_place(z, codes):
    """Activation of each row of ``z`` (P, K) by its code in place."""
    for p in range(z.shape[0]):
        activate_in_place(codes[p], z[p])


@entry_point
def backward_activations(grad, saved, codes):
    """Multiply each row of ``grad`` (P, K) by the slope, from what the activation saves."""
    for p in range(grad.shape[0]):
        slope_times(codes[p], saved[p], grad[p])


@inlined
def binary_rows(logits, target, shares, s, grad, values):
    """Loss of each row of a member's logits (N,) times its share into ``values``, and its gradient."""
    for n in range(target.size):
        values[n] = target[n] + s * (HALF - target[n])
    for n in range(target.size):
        z = logits[n]
        e = exp(-abs(z))
        inverse = ONE / (ONE + e)
        wanted = values[n]
        grad[n] = ((inverse if z >= ZERO else e * inverse) - wanted) * shares[n]
        # log(1 + e) has the absolute precision that a sum of losses needs
        values[n] = ((ZERO if z < ZERO else z) - z * wanted + log(ONE + e)) * shares[n]


@entry_point
def binary_logits(outputs, target, shares, smoothing, gradient, losses):
    """Binary cross-entropy of logits (P, N): gradient (P, N) and losses (P,)."""
    values = np.empty(target.size, dtype=np.float32)
    for p in range(outputs.shape[0]):
        binary_rows(outputs[p], target, shares, smoothing[p], gradient[p], values)
        total = ZERO
        for n in range(target.size):
            total += values[n]
        losses[p] = total


@inlined
def cross_entropy_rows(outputs, target, shares, s, gradient, highest, total, values):
    """Loss of each row of a member's logits (C, N) times its share into ``values``, and its gradient.

    ``highest`` and ``total`` (N,) are scratch.
    """
    n_classes, n_rows = outputs.shape
    spread = s / F(n_classes)
    first = outputs[0]
    for n in range(n_rows):
        highest[n] = first[n]
        total[n] = ZERO
        values[n] = ZERO
    for c in range(1, n_classes):
        row = outputs[c]
        for n in range(n_rows):
            highest[n] = highest[n] if highest[n] > row[n] else row[n]
    for c in range(n_classes):
        row, grad = outputs[c], gradient[c]
        for n in range(n_rows):
            e = exp(row[n] - highest[n])
            grad[n] = e
            total[n] += e
            values[n] += row[n] - highest[n]
    for n in range(n_rows):
        own = outputs[target[n], n] - highest[n]
        values[n] = (ONE - s) * own + spread * values[n]
    for n in range(n_rows):
        values[n] = (log(total[n]) - values[n]) * shares[n]
        total[n] = ONE / total[n]
    for c in range(n_classes):
        grad = gradient[c]
        for n in range(n_rows):
            grad[n] = (grad[n] * total[n] - spread) * shares[n]
    for n in range(n_rows):
        gradient[target[n], n] -= (ONE - s) * shares[n]


@entry_point
def cross_entropy(outputs, target, shares, smoothing, gradient, losses):
    """Cross-entropy of logits (P, C, N): gradient (P, C, N) and losses (P,)."""
    n_rows = target.size
    highest = np.empty(n_rows, dtype=np.float32)
    total = np.empty(n_rows, dtype=np.float32)
    values = np.empty(n_rows, dtype=np.float32)
    for p in range(outputs.shape[0]):
        cross_entropy_rows(outputs[p], target, shares, smoothing[p], gradient[p], highest, total, values)
        loss = ZERO
        for n in range(n_rows):
            loss += values[n]
        losses[p] = loss


@entry_point
def optimizer_step(parameters, gradients, first, second, average, blocks, table, mixes, share, adaptive):
    """Take a step of AdamW, or of SGD with momentum, for a bucket in flat buffers.

    Parameters
    ----------
    parameters, gradients, first, second, average
        Flat buffers. SGD does not use `second`.
    blocks
        ``(blocks, 3)``: offset, size of a member's row, and 1 if weight decay applies.
    table
        ``(4, P)``: rate, keep, A and B of each member. SGD has the decay in place of keep.
    mixes
        ``(2, P)``: one minus each beta; SGD has the momentum in the first row.
    share
        Share of the new weights in their average, 0 for no update.
    adaptive
        True for AdamW.
    """
    for b in range(blocks.shape[0]):
        offset, size, decays = blocks[b, 0], blocks[b, 1], blocks[b, 2]
        for row in range(table.shape[1]):
            begin = offset + row * size
            p, g = parameters[begin : begin + size], gradients[begin : begin + size]
            m, v = first[begin : begin + size], second[begin : begin + size]
            if adaptive:
                keep = table[1, row] if decays == 1 else ONE
                scale, shift = table[2, row], table[3, row]
                mix_first, mix_second = mixes[0, row], mixes[1, row]
                for k in range(size):
                    x = g[k]
                    m_k = m[k] + mix_first * (x - m[k])
                    v_k = v[k] + mix_second * (x * x - v[k])
                    m[k] = m_k
                    v[k] = v_k
                    p[k] = p[k] * keep - m_k / (scale * math.sqrt(v_k) + shift)
            else:
                rate, momentum = table[0, row], mixes[0, row]
                decay = table[1, row] if decays == 1 else ZERO
                for k in range(size):
                    m_k = m[k] * momentum + (g[k] + decay * p[k])
                    m[k] = m_k
                    p[k] -= rate * m_k
            if share > ZERO:
                a = average[begin : begin + size]
                for k in range(size):
                    a[k] += share * (p[k] - a[k])
