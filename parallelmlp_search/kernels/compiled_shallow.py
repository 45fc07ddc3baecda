"""One hidden layer, one logit, few inputs: forward, loss and backward of a member while it lies in L1.

The population of the paper. Its products have so few operations for each number they touch that going over
memory once per operation, for all members together, costs more than the arithmetic. Here members are outer:
what lies between the weights and the gradient of the hidden layer stays in the nearest cache. The gradient
of the first layer's weights is left to the library's product. See :mod:`parallelmlp_search.kernels.compiled`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from parallelmlp_search.kernels.compiled_loops import binary_rows
from parallelmlp_search.kernels.compiled_math import (
    OPTIONS,
    ZERO,
    activate_and_slope,
    inner,
    loop,
    slope_times,
)

__all__ = ["shallow_step"]


def _summing(function: Callable[..., Any]) -> Callable[..., Any]:
    """As ``inner``, but sums may be taken in the order of the vector lanes."""
    options = OPTIONS | {"fastmath": {"contract", "nsz", "reassoc"}}
    compiled: Callable[..., Any] = numba.njit(**options)(function)
    return compiled


@_summing
def _head_back(head: Any, back: Any, a: Any, width: Any, grad: Any, head_grad: Any) -> None:
    """Gradients of a head of one logit: of its weights (H,), and ``grad`` (H, N) of the layer's output."""
    for h in range(width):
        w = head[h]
        total = ZERO
        for n in range(back.size):
            total += a[h, n] * back[n]
            grad[h, n] = w * back[n]
        head_grad[h] = total


@inner
def _head(head: Any, bias: Any, a: Any, width: Any, logits: Any) -> None:
    """Logits (N,) of outputs ``a`` (H, N), four neurons at a time."""
    for n in range(logits.size):
        logits[n] = bias
    for quarter in range(width // 4):
        h = 4 * quarter
        w0, w1, w2, w3 = head[h], head[h + 1], head[h + 2], head[h + 3]
        for n in range(logits.size):
            logits[n] += w0 * a[h, n] + w1 * a[h + 1, n] + w2 * a[h + 2, n] + w3 * a[h + 3, n]
    for h in range(width - width % 4, width):
        w0 = head[h]
        for n in range(logits.size):
            logits[n] += w0 * a[h, n]


@inner
def _affine(w: Any, bias: Any, rows: Any, out: Any) -> None:
    """``W x + b`` of one member: ``w`` (H, D), ``bias`` (H,), ``rows`` (D, N), ``out`` (H, N).

    Eight inputs in one expression: a pass over the row of the result costs as much as two of the products.
    """
    n_inputs, n_rows = rows.shape
    for h in range(bias.size):
        start = bias[h]
        d = 0
        if n_inputs >= 8:
            w0, w1, w2, w3 = w[h, 0], w[h, 1], w[h, 2], w[h, 3]
            w4, w5, w6, w7 = w[h, 4], w[h, 5], w[h, 6], w[h, 7]
            for n in range(n_rows):
                out[h, n] = (
                    start
                    + (w0 * rows[0, n] + w1 * rows[1, n] + w2 * rows[2, n] + w3 * rows[3, n])
                    + (w4 * rows[4, n] + w5 * rows[5, n] + w6 * rows[6, n] + w7 * rows[7, n])
                )
            d = 8
        elif n_inputs >= 4:
            w0, w1, w2, w3 = w[h, 0], w[h, 1], w[h, 2], w[h, 3]
            for n in range(n_rows):
                out[h, n] = start + w0 * rows[0, n] + w1 * rows[1, n] + w2 * rows[2, n] + w3 * rows[3, n]
            d = 4
        else:
            for n in range(n_rows):
                out[h, n] = start
        while d + 4 <= n_inputs:
            w0, w1, w2, w3 = w[h, d], w[h, d + 1], w[h, d + 2], w[h, d + 3]
            for n in range(n_rows):
                out[h, n] += w0 * rows[d, n] + w1 * rows[d + 1, n] + w2 * rows[d + 2, n] + w3 * rows[d + 3, n]
            d += 4
        if d + 2 <= n_inputs:
            w0, w1 = w[h, d], w[h, d + 1]
            for n in range(n_rows):
                out[h, n] += w0 * rows[d, n] + w1 * rows[d + 1, n]
            d += 2
        if d < n_inputs:
            w0 = w[h, d]
            for n in range(n_rows):
                out[h, n] += w0 * rows[d, n]


@inner
def _times(factor: Any, out: Any) -> None:
    for k in range(out.size):
        out[k] *= factor[k]


@loop
def shallow_step(
    weight: Any,
    bias: Any,
    head: Any,
    head_bias: Any,
    rows: Any,
    target: Any,
    shares: Any,
    smoothing: Any,
    codes: Any,
    widths: Any,
    grad: Any,
    head_grad: Any,
    head_bias_grad: Any,
    losses: Any,
) -> None:
    """Losses (P,) and gradients of every member but those of its first layer's weights.

    ``weight`` (P, H, D), ``bias`` (P, H), ``head`` (P, H), ``head_bias`` (P,), ``rows`` (D, N); ``codes`` and
    true ``widths`` (P,). Written are ``grad`` (P, H * N) by the values before the activation, zero in padded
    neurons, ``head_grad`` (P, H), ``head_bias_grad`` (P,) and ``losses`` (P,).
    """
    n_rows = rows.shape[1]
    size = weight.shape[1] * n_rows
    flat_before, flat_after = np.empty(size, dtype=np.float32), np.empty(size, dtype=np.float32)
    before, after = flat_before.reshape(-1, n_rows), flat_after.reshape(-1, n_rows)
    logits, back = np.empty(n_rows, dtype=np.float32), np.empty(n_rows, dtype=np.float32)
    values = np.empty(n_rows, dtype=np.float32)
    for p in range(weight.shape[0]):
        width, code = widths[p], codes[p]
        used = width * n_rows
        _affine(weight[p], bias[p, :width], rows, before)
        has_slope = activate_and_slope(code, flat_before[:used], flat_after[:used])
        _head(head[p], head_bias[p], after, width, logits)
        losses[p] = binary_rows(logits, target, shares, smoothing[p], back, values)
        total = ZERO
        for n in range(n_rows):
            total += back[n]
        head_bias_grad[p] = total
        g = grad[p]
        _head_back(head[p], back, after, width, g.reshape(-1, n_rows), head_grad[p])
        # 1, 2, 3, 4, 5 and 6 save their output: sigmoid, tanh, the rectifiers, elu and selu
        if has_slope:
            _times(flat_before[:used], g[:used])
        else:
            slope_times(code, flat_after[:used] if code <= 6 else flat_before[:used], g[:used])
        g[used:] = ZERO
        head_grad[p, width:] = ZERO
