"""Compiled loops over the members of a bucket: activations, losses and optimizer steps.

They take one pass over memory where torch takes several, and agree with their twins in torch to rounding.

The compiler vectorizes loops over buffers that do not overlap. Where input and output may be the same memory,
there are therefore two functions.
"""

from __future__ import annotations

import math

from parallelmlp_search.kernels.numba.arguments import ActivationRows, LossRows, OptimizerStep
from parallelmlp_search.kernels.numba.decorators import inlined
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
from parallelmlp_search.kernels.numba.pointers import as_integers, unpacker

_activation_rows, _loss_rows = unpacker(ActivationRows), unpacker(LossRows)
_optimizer_step = unpacker(OptimizerStep)


def forward_activations(arguments):
    """Activation of each row of the source by its code into the target, which must be other memory."""
    rows = _activation_rows(as_integers(arguments))
    for p in range(rows.n_members):
        at = p * rows.size
        activate(rows.codes[p], rows.source + at, rows.target + at, rows.size)
    return 0


def forward_activations_in_place(arguments):
    """Activation of each row of the target by its code in place."""
    rows = _activation_rows(as_integers(arguments))
    for p in range(rows.n_members):
        activate_in_place(rows.codes[p], rows.target + p * rows.size, rows.size)
    return 0


def backward_activations(arguments):
    """Multiply each row of the target by the slope, from what the activation saves in the source."""
    rows = _activation_rows(as_integers(arguments))
    for p in range(rows.n_members):
        at = p * rows.size
        slope_times(rows.codes[p], rows.source + at, rows.target + at, rows.size)
    return 0


@inlined
def binary_rows(logits, target, shares, s, grad, values, n_rows):
    """Loss of each row of a member's logits (N,) times its share into ``values``, and its gradient."""
    for n in range(n_rows):
        values[n] = target[n] + s * (HALF - target[n])
    for n in range(n_rows):
        z = logits[n]
        e = exp(-abs(z))
        inverse = ONE / (ONE + e)
        wanted = values[n]
        grad[n] = ((inverse if z >= ZERO else e * inverse) - wanted) * shares[n]
        # log(1 + e) has the absolute precision that a sum of losses needs
        values[n] = ((ZERO if z < ZERO else z) - z * wanted + log(ONE + e)) * shares[n]


@inlined
def _sum(values, size):
    total = ZERO
    for n in range(size):
        total += values[n]
    return total


@inlined
def label_rows(outputs, target, shares, s, gradient, scratch, n_outputs, n_rows):
    """Mean loss of the labels of each row times its share into the first row of ``scratch`` (3, N).

    The gradient by a member's logits (C, N) is written to ``gradient`` (C, N).
    """
    part, values = ONE / F(n_outputs), scratch + n_rows
    for n in range(n_rows):
        scratch[n] = ZERO
    for c in range(n_outputs):
        at = c * n_rows
        grad = gradient + at
        binary_rows(outputs + at, target + at, shares, s, grad, values, n_rows)
        for n in range(n_rows):
            scratch[n] += values[n] * part
            grad[n] *= part


def binary_logits(arguments):
    """Binary cross-entropy of logits (P, C, N), the mean over C."""
    loss = _loss_rows(as_integers(arguments))
    n_outputs, n_rows, values = loss.n_outputs, loss.n_rows, loss.scratch
    for p in range(loss.n_members):
        at, smoothing = p * n_outputs * n_rows, loss.smoothing[p]
        outputs, gradient = loss.outputs + at, loss.gradient + at
        if n_outputs == 1:
            binary_rows(outputs, loss.classes, loss.shares, smoothing, gradient, values, n_rows)
        else:
            label_rows(outputs, loss.classes, loss.shares, smoothing, gradient, values, n_outputs, n_rows)
        loss.losses[p] = _sum(values, n_rows)
    return 0


@inlined
def cross_entropy_rows(outputs, target, shares, s, gradient, scratch, n_classes, n_rows):
    """Loss of each row of a member's logits (C, N) times its share into the first row of ``scratch`` (3, N).

    The gradient is written to ``gradient`` (C, N).
    """
    values, highest, total = scratch, scratch + n_rows, scratch + 2 * n_rows
    spread = s / F(n_classes)
    for n in range(n_rows):
        highest[n] = outputs[n]
        total[n] = ZERO
        values[n] = ZERO
    for c in range(1, n_classes):
        row = outputs + c * n_rows
        for n in range(n_rows):
            highest[n] = highest[n] if highest[n] > row[n] else row[n]
    for c in range(n_classes):
        row, grad = outputs + c * n_rows, gradient + c * n_rows
        for n in range(n_rows):
            e = exp(row[n] - highest[n])
            grad[n] = e
            total[n] += e
            values[n] += row[n] - highest[n]
    for n in range(n_rows):
        own = outputs[target[n] * n_rows + n] - highest[n]
        values[n] = (ONE - s) * own + spread * values[n]
    for n in range(n_rows):
        values[n] = (log(total[n]) - values[n]) * shares[n]
        total[n] = ONE / total[n]
    for c in range(n_classes):
        grad = gradient + c * n_rows
        for n in range(n_rows):
            grad[n] = (grad[n] * total[n] - spread) * shares[n]
    for n in range(n_rows):
        gradient[target[n] * n_rows + n] -= (ONE - s) * shares[n]


def cross_entropy(arguments):
    """Cross-entropy of logits (P, C, N)."""
    loss = _loss_rows(as_integers(arguments))
    n_outputs, n_rows = loss.n_outputs, loss.n_rows
    for p in range(loss.n_members):
        at = p * n_outputs * n_rows
        outputs, gradient = loss.outputs + at, loss.gradient + at
        cross_entropy_rows(
            outputs, loss.classes, loss.shares, loss.smoothing[p], gradient, loss.scratch, n_outputs, n_rows
        )
        loss.losses[p] = _sum(loss.scratch, n_rows)
    return 0


@inlined
def _adamw_row(p, g, m, v, size, coefficients, mixes):
    """Update ``size`` elements with the coefficients keep, A and B, and one minus each beta."""
    keep, scale, shift = coefficients
    mix_first, mix_second = mixes
    for k in range(size):
        x = g[k]
        m_k = m[k] + mix_first * (x - m[k])
        v_k = v[k] + mix_second * (x * x - v[k])
        m[k] = m_k
        v[k] = v_k
        p[k] = p[k] * keep - m_k / (scale * math.sqrt(v_k) + shift)


@inlined
def _sgd_row(p, g, m, size, rate, momentum, decay):
    for k in range(size):
        m_k = m[k] * momentum + (g[k] + decay * p[k])
        m[k] = m_k
        p[k] -= rate * m_k


def optimizer_step(arguments):
    """Take a step of AdamW, or of SGD with momentum, for a bucket in flat buffers."""
    step = _optimizer_step(as_integers(arguments))
    table, mixes, n_members = step.table, step.mixes, step.n_members
    for b in range(step.n_blocks):
        offset, size, decays = step.blocks[3 * b], step.blocks[3 * b + 1], step.blocks[3 * b + 2] == 1
        for row in range(n_members):
            begin = offset + row * size
            p, g, m = step.parameters + begin, step.gradients + begin, step.first + begin
            if step.adaptive:
                keep = table[n_members + row] if decays else ONE
                coefficients = keep, table[2 * n_members + row], table[3 * n_members + row]
                own_mixes = mixes[row], mixes[n_members + row]
                _adamw_row(p, g, m, step.second + begin, size, coefficients, own_mixes)
            else:
                decay = table[n_members + row] if decays else ZERO
                _sgd_row(p, g, m, size, table[row], mixes[row], decay)
            if step.share > ZERO:
                average = step.average + begin
                for k in range(size):
                    average[k] += step.share * (p[k] - average[k])
    return 0
