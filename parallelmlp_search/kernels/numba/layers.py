"""What one member does between its products, inside a compiled loop: rows of a batch in whole vectors.

Activations leave their slope where their input was, so that the way back through dropout and
activation is one multiplication.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from parallelmlp_search.kernels.numba.decorators import inner
from parallelmlp_search.kernels.numba.elementwise import ONE, TWO, ZERO, F, activate_and_slope, slope_times
from parallelmlp_search.kernels.numba.member_memory import FREQUENCY, MIXING, OFFSET, PHASE
from parallelmlp_search.kernels.numba.products import copy, dots, products, row_sums

__all__ = [
    "activate_layer",
    "drop",
    "embed",
    "embed_backward",
    "normalize",
    "normalize_backward",
    "scale_gradient",
    "scale_weights",
    "squared_error_rows",
    "times",
]

EPSILON = F(1e-5)
"""Of layer normalisation, as in torch."""

WAVES, MIXTURES = 16, 3
"""Waves and mixtures of a number in a periodic embedding."""

HARDSHRINK = 10


@inner
def times(values: Any, factors: Any) -> None:
    """Element by element."""
    for k in range(values.size):
        values[k] *= factors[k]


@inner
def activate_layer(code: Any, before: Any, after: Any) -> None:
    """Activation of ``before`` into ``after``, and its slope over ``before``."""
    if activate_and_slope(code, before, after):
        return
    if code == HARDSHRINK:
        for k in range(before.size):
            before[k] = ONE if after[k] != ZERO else ZERO
        return
    before[:] = ONE
    slope_times(code, after, before)


@inner
def drop(values: Any, field: Any, rate: Any, n_out: Any, n_rows: Any, n_true: Any, ahead: Any) -> None:
    """Zero the values whose place in a uniform field lies below a rate, and scale the others up.

    A value's place is that of the row that is ``ahead`` by so many of the true rows, the first ones behind
    the last.
    """
    up = ONE / (ONE - rate)
    if ahead == 0:
        for o in range(n_out):
            row = field[o]
            start = o * n_rows
            for n in range(n_rows):
                values[start + n] *= up if row[n] >= rate else ZERO
        return
    behind = n_true - ahead
    for o in range(n_out):
        row, own = field[o], values[o * n_rows : o * n_rows + n_true]
        _drop_rows(own[:behind], row[ahead:n_true], rate, up)
        _drop_rows(own[behind:], row[:ahead], rate, up)


@inner
def _drop_rows(values: Any, row: Any, rate: Any, up: Any) -> None:
    for n in range(values.size):
        values[n] *= up if row[n] >= rate else ZERO


@inner
def normalize(
    z: Any, kept: Any, inverse: Any, mean: Any, p: Any, gain: Any, shift: Any, n_out: Any, n_rows: Any
) -> None:
    """Layer normalisation of ``z`` (H, N) in place; ``kept`` holds it before gain and shift.

    ``inverse`` (N,) becomes one over the deviation of each row, ``mean`` is scratch.
    """
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


@inner
def normalize_backward(
    d: Any,
    kept: Any,
    inverse: Any,
    mean: Any,
    slope: Any,
    p: Any,
    g: Any,
    gain: Any,
    shift: Any,
    n_out: Any,
    n_rows: Any,
) -> None:
    """Gradient of what was normalised over ``d`` (H, N), that of gain and shift into ``g``.

    ``mean`` and ``slope`` (N,) are scratch.
    """
    dots_of_rows(d, kept, n_out, n_rows, g, gain)
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


@inner
def dots_of_rows(a: Any, b: Any, n: Any, n_rows: Any, found: Any, to: Any) -> None:
    """Product of each of ``n`` rows of ``a`` with the same row of ``b``."""
    for o in range(n):
        dots(a, o * n_rows, 1, b, o * n_rows, n_rows, found, to + o)


@inner
def scale_weights(
    p: Any, weight: Any, scale: Any, bias: Any, n_out: Any, n_in: Any, scaled: Any, at: Any
) -> None:
    """The first layer's weights times the scales of their inputs, and from ``at`` on its biases."""
    for o in range(n_out):
        row, to = weight + o * n_in, o * n_in
        for i in range(n_in):
            scaled[to + i] = p[row + i] * p[scale + i]
        if bias >= 0:
            scaled[at + o] = p[bias + o]


@inner
def scale_gradient(p: Any, g: Any, weight: Any, scale: Any, n_out: Any, n_in: Any) -> None:
    """From the gradient of scaled weights, in the place of the weights, those of weights and scales."""
    g[scale : scale + n_in] = ZERO
    for o in range(n_out):
        row = weight + o * n_in
        for i in range(n_in):
            g[scale + i] += g[row + i] * p[row + i]
            g[row + i] *= p[scale + i]


@inner
def squared_error_rows(outputs: Any, target: Any, shares: Any, gradient: Any, values: Any) -> None:
    """What each row of one member's outputs (C, N) adds to the mean square, into ``values``, and its
    gradient."""
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
# Taylor's series of sin(2 pi s), exact to rounding for a quarter of a turn either way
S1, S3, S5, S7, S9, S11, S13 = (
    F((-1.0) ** k * (2.0 * np.pi) ** (2 * k + 1) / np.prod(np.arange(1.0, 2 * k + 2))) for k in range(7)
)


@inner
def _sine(s: Any) -> Any:
    """``sin(2 pi s)`` for ``s`` within a quarter."""
    x = s * s
    y = S11 + x * S13
    y = S9 + x * y
    y = S7 + x * y
    y = S5 + x * y
    y = S3 + x * y
    return s * (S1 + x * y)


@inner
def _waves(x: Any, spot: Any, n_rows: Any, frequency: Any, phase: Any, cosines: Any, sines: Any) -> None:
    """Cosine and sine of ``2 pi f x + b`` for the sixteen waves of one number, (16, N) each.

    Angles are counted in turns, of which only what lies within half of one is left: exact for any frequency.
    """
    numbers = x[spot : spot + n_rows]
    for k in range(WAVES):
        f, b = frequency[k], phase[k] * TURN
        cosine, sine = cosines[k * n_rows : (k + 1) * n_rows], sines[k * n_rows : (k + 1) * n_rows]
        for n in range(n_rows):
            turns = f * numbers[n] + b
            r = turns - np.floor(turns + F(0.5))
            size = r if r >= ZERO else -r
            cosine[n] = _sine(F(0.25) - size)
            folded = F(0.5) - size if size > F(0.25) else size
            sine[n] = _sine(folded if r >= ZERO else -folded)


@inner
def embed(
    p: Any, spots: Any, x: Any, begin: Any, n_columns: Any, n_numbers: Any, n_rows: Any, wide: Any, waves: Any
) -> None:
    """Columns (D, N) of ``x`` from ``begin`` on, and then the mixtures of their numbers, into ``wide``.

    ``spots`` says where the embedding lies in ``p``, ``waves`` (2, 16 N) is scratch.
    """
    copy(x, begin, n_columns * n_rows, wide, 0)
    for j in range(n_numbers):
        f, b = spots[FREQUENCY] + j * WAVES, spots[PHASE] + j * WAVES
        _waves(x, begin + j * n_rows, n_rows, p[f : f + WAVES], p[b : b + WAVES], waves[0], waves[1])
        mixing, offset = spots[MIXING] + j * MIXTURES * WAVES, spots[OFFSET] + j * MIXTURES
        to = (n_columns + j * MIXTURES) * n_rows
        products(p, mixing, WAVES, 1, offset, MIXTURES, WAVES, waves[0], 0, n_rows, wide, to)


@inner
def embed_backward(
    p: Any,
    g: Any,
    spots: Any,
    x: Any,
    begin: Any,
    n_numbers: Any,
    n_rows: Any,
    d: Any,
    waves: Any,
    slopes: Any,
) -> None:
    """Gradient of an embedding into ``g``, from ``d`` (3 n, N), that of its mixtures.

    ``waves`` (2, 16 N) and ``slopes`` (16 N,) are scratch. Waves are computed once more: 16 rows stay in the
    nearest cache, those of all numbers would not.
    """
    for j in range(n_numbers):
        f, b = spots[FREQUENCY] + j * WAVES, spots[PHASE] + j * WAVES
        _waves(x, begin + j * n_rows, n_rows, p[f : f + WAVES], p[b : b + WAVES], waves[0], waves[1])
        mixing, offset, at = (
            spots[MIXING] + j * MIXTURES * WAVES,
            spots[OFFSET] + j * MIXTURES,
            j * MIXTURES * n_rows,
        )
        row_sums(d, at, MIXTURES, n_rows, g, offset)
        for o in range(MIXTURES):
            dots(waves[0], 0, WAVES, d, at + o * n_rows, n_rows, g, mixing + o * WAVES)
        products(p, mixing, 1, WAVES, -1, WAVES, MIXTURES, d, at, n_rows, slopes, 0)
        times(slopes[: WAVES * n_rows], waves[1])
        row_sums(slopes, 0, WAVES, n_rows, g, b)
        dots(slopes, 0, WAVES, x, begin + j * n_rows, n_rows, g, f)
        for k in range(WAVES):
            g[b + k] = -g[b + k]
            g[f + k] *= F(-2.0 * np.pi)
