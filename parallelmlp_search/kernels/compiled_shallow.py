"""One hidden layer, one logit: several training steps of a member while all of it lies in the nearest caches.

The population of the paper. A step has so few operations for each number it touches that fetching weights
and moments, or going over memory once per operation, costs more than the arithmetic. Here members are outer
and steps inner: weights, moments, activations and gradients of one member take 30 KB, are fetched once for
all steps of the call and touched by nobody else meanwhile. See :mod:`parallelmlp_search.kernels.compiled`.

Rows come in two forms, inputs outer for the way forward and rows outer for the gradient of the weights, so
that both products read vectors and keep their sums in registers. Rows are filled up to whole vectors with
zeros whose share of the loss is zero.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from parallelmlp_search.kernels.compiled_loops import binary_rows
from parallelmlp_search.kernels.compiled_math import (
    ONE,
    ZERO,
    F,
    activate_and_slope,
    inner,
    loop,
    slope_times,
)
from parallelmlp_search.kernels.compiled_vectors import (
    LANES,
    add,
    divide,
    load,
    multiply,
    multiply_add,
    root,
    splat,
    spread,
    store,
    subtract,
    total,
)

__all__ = ["shallow_steps"]


@inner
def _whole(size: Any) -> Any:
    """The multiple of sixteen that is not below a size."""
    return (size + LANES - 1) // LANES * LANES


@inner
def _affine(p: Any, bias: Any, width: Any, rows: Any, start: Any, n_inputs: Any, n_rows: Any, z: Any) -> None:
    """``W x + b`` into ``z`` (H, N): weights (H, D) lie first in ``p``, rows (D, N) from ``start`` on.

    Four neurons at a time: they share what is read of the rows, and their four sums hide each other's delay.
    """
    last = width - width % 4
    for part in range(n_rows // LANES):
        at = start + part * LANES
        for quarter in range(width // 4):
            h = 4 * quarter
            w0 = h * n_inputs
            w1, w2, w3 = w0 + n_inputs, w0 + 2 * n_inputs, w0 + 3 * n_inputs
            z0, z1 = spread(p, bias + h), spread(p, bias + h + 1)
            z2, z3 = spread(p, bias + h + 2), spread(p, bias + h + 3)
            for d in range(n_inputs):
                x = load(rows, at + d * n_rows)
                z0 = multiply_add(spread(p, w0 + d), x, z0)
                z1 = multiply_add(spread(p, w1 + d), x, z1)
                z2 = multiply_add(spread(p, w2 + d), x, z2)
                z3 = multiply_add(spread(p, w3 + d), x, z3)
            to = h * n_rows + part * LANES
            store(z, to, z0)
            store(z, to + n_rows, z1)
            store(z, to + 2 * n_rows, z2)
            store(z, to + 3 * n_rows, z3)
        for h in range(last, width):
            z0 = spread(p, bias + h)
            for d in range(n_inputs):
                z0 = multiply_add(spread(p, h * n_inputs + d), load(rows, at + d * n_rows), z0)
            store(z, h * n_rows + part * LANES, z0)


@inner
def _head(p: Any, head: Any, bias: Any, width: Any, a: Any, n_rows: Any, logits: Any) -> None:
    """Logits (N,) of outputs ``a`` (H, N); weights and bias of the head lie in ``p``."""
    last = width - width % 4
    for part in range(n_rows // LANES):
        at = part * LANES
        y0 = spread(p, bias)
        y1 = y2 = y3 = splat(ZERO)
        for quarter in range(width // 4):
            h = 4 * quarter
            k = at + h * n_rows
            y0 = multiply_add(spread(p, head + h), load(a, k), y0)
            y1 = multiply_add(spread(p, head + h + 1), load(a, k + n_rows), y1)
            y2 = multiply_add(spread(p, head + h + 2), load(a, k + 2 * n_rows), y2)
            y3 = multiply_add(spread(p, head + h + 3), load(a, k + 3 * n_rows), y3)
        for h in range(last, width):
            y0 = multiply_add(spread(p, head + h), load(a, at + h * n_rows), y0)
        store(logits, at, add(add(y0, y1), add(y2, y3)))


@inner
def _sum(values: Any, size: Any) -> Any:
    """Sum of so many elements, a multiple of sixteen."""
    found = splat(ZERO)
    for part in range(size // LANES):
        found = add(found, load(values, part * LANES))
    return total(found)


@inner
def _head_back(p: Any, head: Any, width: Any, a: Any, back: Any, n_rows: Any, g: Any, grad: Any) -> None:
    """Gradient of the head's weights into ``g``, and that of the layer's output into ``grad`` (H, N)."""
    for h in range(width):
        w = spread(p, head + h)
        found = splat(ZERO)
        for part in range(n_rows // LANES):
            k = h * n_rows + part * LANES
            slope = load(back, part * LANES)
            found = multiply_add(load(a, k), slope, found)
            store(grad, k, multiply(w, slope))
        g[head + h] = total(found)


@inner
def _layer_back(
    grad: Any, width: Any, columns: Any, start: Any, n_columns: Any, n_true: Any, n_rows: Any, product: Any
) -> None:
    """``grad`` (H, N) times rows (N, columns) from ``start`` on, into ``product`` (H, columns).

    Eight neurons at a time; those beyond the last one hold what there was, and so do their products.
    """
    for eighth in range((width + 7) // 8):
        at = 8 * eighth * n_rows
        to = 8 * eighth * n_columns
        for part in range(n_columns // LANES):
            s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = splat(ZERO)
            for n in range(n_true):
                x = load(columns, start + n * n_columns + part * LANES)
                k = at + n
                s0 = multiply_add(spread(grad, k), x, s0)
                s1 = multiply_add(spread(grad, k + n_rows), x, s1)
                s2 = multiply_add(spread(grad, k + 2 * n_rows), x, s2)
                s3 = multiply_add(spread(grad, k + 3 * n_rows), x, s3)
                s4 = multiply_add(spread(grad, k + 4 * n_rows), x, s4)
                s5 = multiply_add(spread(grad, k + 5 * n_rows), x, s5)
                s6 = multiply_add(spread(grad, k + 6 * n_rows), x, s6)
                s7 = multiply_add(spread(grad, k + 7 * n_rows), x, s7)
            k = to + part * LANES
            store(product, k, s0)
            store(product, k + n_columns, s1)
            store(product, k + 2 * n_columns, s2)
            store(product, k + 3 * n_columns, s3)
            store(product, k + 4 * n_columns, s4)
            store(product, k + 5 * n_columns, s5)
            store(product, k + 6 * n_columns, s6)
            store(product, k + 7 * n_columns, s7)


@inner
def _squares(values: Any, start: Any, size: Any) -> Any:
    found = ZERO
    for k in range(start, start + size):
        found += values[k] * values[k]
    return found


@inner
def _adamw(
    p: Any,
    g: Any,
    m: Any,
    v: Any,
    start: Any,
    stop: Any,
    keep: Any,
    scale: Any,
    shift: Any,
    mix_m: Any,
    mix_v: Any,
) -> None:
    """The update of :func:`~parallelmlp_search.kernels.compiled_loops.adamw`, whole vectors."""
    keeps, scales, shifts = splat(keep), splat(scale), splat(shift)
    mixes_m, mixes_v = splat(mix_m), splat(mix_v)
    for part in range(start // LANES, stop // LANES):
        k = part * LANES
        x, old_m, old_v = load(g, k), load(m, k), load(v, k)
        new_m = multiply_add(mixes_m, subtract(x, old_m), old_m)
        new_v = multiply_add(mixes_v, subtract(multiply(x, x), old_v), old_v)
        store(m, k, new_m)
        store(v, k, new_v)
        moved = divide(new_m, multiply_add(scales, root(new_v), shifts))
        store(p, k, subtract(multiply(load(p, k), keeps), moved))


@inner
def _sgd(p: Any, g: Any, m: Any, start: Any, stop: Any, rate: Any, momentum: Any, decay: Any) -> None:
    """The update of :func:`~parallelmlp_search.kernels.compiled_loops.sgd`, whole vectors."""
    rates, momenta, decays = splat(-rate), splat(momentum), splat(decay)
    for part in range(start // LANES, stop // LANES):
        k = part * LANES
        old = load(p, k)
        new_m = multiply_add(load(m, k), momenta, multiply_add(decays, old, load(g, k)))
        store(m, k, new_m)
        store(p, k, multiply_add(rates, new_m, old))


@inner
def _copy(source: Any, start: Any, target: Any, to: Any, size: Any) -> None:
    target[to : to + size] = source[start : start + size]


@inner
def _fetch(flat: Any, places: Any, member: Any, width: Any, n_inputs: Any, spots: Any, own: Any) -> None:
    """Weights, head, biases and bias of the head of a member from a flat buffer to their spots."""
    n = places[4]
    _copy(flat, places[0] + member * n * n_inputs, own, 0, width * n_inputs)
    _copy(flat, places[2] + member * n, own, spots[0], width)
    _copy(flat, places[1] + member * n, own, spots[1], width)
    own[spots[2]] = flat[places[3] + member]


@inner
def _put_back(flat: Any, places: Any, member: Any, width: Any, n_inputs: Any, spots: Any, own: Any) -> None:
    n = places[4]
    _copy(own, 0, flat, places[0] + member * n * n_inputs, width * n_inputs)
    _copy(own, spots[0], flat, places[2] + member * n, width)
    _copy(own, spots[1], flat, places[1] + member * n, width)
    flat[places[3] + member] = own[spots[2]]


@loop
def shallow_steps(
    flats: Any,
    places: Any,
    n_true: Any,
    rows: Any,
    columns: Any,
    targets: Any,
    shares: Any,
    members: Any,
    settings: Any,
    table: Any,
    averaging: Any,
    adaptive: Any,
    losses: Any,
) -> None:
    """Train every member of a bucket for some steps; the losses of each step into ``losses`` (T, P).

    Parameters
    ----------
    flats
        Parameters, first and second moments and averages, each flat; written.
    places
        Where the bucket's weights (P, H, D), biases (P, H), weights (P, H) and biases (P,) of the head begin
        in them, and ``H``.
    n_true
        Rows of a batch.
    rows, columns
        ``(T, D, N)`` and ``(T, n_true, columns)``: inputs of each step, filled up to whole vectors, N and
        columns. The column after the inputs is 1: it gives the gradient of the biases.
    targets, shares
        ``(T, N)``: classes as numbers and each row's share of the mean.
    members
        ``(P, 3)``: code of the activation, true width, 1 if alive. The dead are passed over.
    settings
        ``(P, 4)``: label smoothing, highest norm of the gradient, and what the optimiser mixes by:
        one minus each beta, or momentum and decay.
    table
        ``(T, 4, P)``: rate, keep, A and B of each member (see the optimiser).
    averaging
        ``(T,)``: share of the new weights in the average, 0 where it stays.
    adaptive
        Whether it is AdamW.
    """
    parameters, first, second, averages = flats
    n_steps, n_inputs, n_rows = rows.shape
    n_columns = columns.shape[2]
    flat_rows, flat_columns = rows.reshape(-1), columns.reshape(-1)
    n_neurons = (places[4] + 7) // 8 * 8
    before = np.zeros(n_neurons * n_rows, dtype=np.float32)
    after = np.zeros(n_neurons * n_rows, dtype=np.float32)
    grad = np.zeros(n_neurons * n_rows, dtype=np.float32)
    product = np.zeros(n_neurons * n_columns, dtype=np.float32)
    logits, back = np.zeros(n_rows, dtype=np.float32), np.zeros(n_rows, dtype=np.float32)
    values = np.zeros(n_rows, dtype=np.float32)
    # the member's own: weights, head, then what never decays; each begins with a whole vector
    own_size = n_neurons * n_inputs + n_columns + 2 * _whole(n_neurons) + 2 * LANES
    p, g = np.zeros(own_size, dtype=np.float32), np.zeros(own_size, dtype=np.float32)
    m, v = np.zeros(own_size, dtype=np.float32), np.zeros(own_size, dtype=np.float32)
    average = np.zeros(own_size, dtype=np.float32)
    averages_move = False
    for t in range(n_steps):
        averages_move |= averaging[t] > ZERO
    for member in range(members.shape[0]):
        code, width = members[member, 0], members[member, 1]
        if members[member, 2] == 0:
            losses[:, member] = ZERO
            continue
        smoothing, clip = settings[member, 0], settings[member, 1]
        mix_first, mix_second = settings[member, 2], settings[member, 3]
        used = width * n_rows
        # the last row of the product is copied with all its columns: room for them
        head = _whole(width * n_inputs + n_columns)
        bias = head + _whole(width)
        head_bias = bias + _whole(width)
        stop = head_bias + LANES
        spots = (head, bias, head_bias)
        # what fills vectors up is updated like the rest: old numbers there would fade into slow tiny ones
        for k in range(stop):
            p[k] = m[k] = v[k] = g[k] = ZERO
        _fetch(parameters, places, member, width, n_inputs, spots, p)
        _fetch(first, places, member, width, n_inputs, spots, m)
        _fetch(second, places, member, width, n_inputs, spots, v)
        if averages_move:
            _fetch(averages, places, member, width, n_inputs, spots, average)
        z, a, d = before[:used], after[:used], grad[:used]
        saved = a if code <= 6 else z  # 1 to 6 save their output: sigmoid, tanh, the rectifiers, elu and selu
        for t in range(n_steps):
            _affine(p, bias, width, flat_rows, t * n_inputs * n_rows, n_inputs, n_rows, before)
            has_slope = activate_and_slope(code, z, a)
            _head(p, head, head_bias, width, after, n_rows, logits)
            binary_rows(logits, targets[t], shares[t], smoothing, back, values)
            losses[t, member] = _sum(values, n_rows)
            g[head_bias] = _sum(back, n_rows)
            _head_back(p, head, width, after, back, n_rows, g, grad)
            if has_slope:
                for k in range(used):
                    d[k] *= z[k]
            else:
                slope_times(code, saved, d)
            begin = t * n_true * n_columns
            _layer_back(grad, width, flat_columns, begin, n_columns, n_true, n_rows, product)
            for h in range(width):
                for part in range(n_columns // LANES):
                    k = part * LANES
                    store(g, h * n_inputs + k, load(product, h * n_columns + k))
                g[bias + h] = product[h * n_columns + n_inputs]
            if clip < F(np.inf):
                squares = _squares(g, 0, width * n_inputs) + _squares(g, head, width)
                squares += _squares(g, bias, width) + _squares(g, head_bias, 1)
                factor = clip / (F(math.sqrt(squares)) + F(1e-6))
                if factor < ONE:
                    for k in range(stop):
                        g[k] *= factor
            rate, keep = table[t, 0, member], table[t, 1, member]
            if adaptive:
                scale, shift = table[t, 2, member], table[t, 3, member]
                _adamw(p, g, m, v, 0, bias, keep, scale, shift, mix_first, mix_second)
                _adamw(p, g, m, v, bias, stop, ONE, scale, shift, mix_first, mix_second)
            else:
                _sgd(p, g, m, 0, bias, rate, mix_first, mix_second)
                _sgd(p, g, m, bias, stop, rate, mix_first, ZERO)
            share = averaging[t]
            if share > ZERO:
                for k in range(stop):
                    average[k] += share * (p[k] - average[k])
        _put_back(parameters, places, member, width, n_inputs, spots, p)
        _put_back(first, places, member, width, n_inputs, spots, m)
        _put_back(second, places, member, width, n_inputs, spots, v)
        if averages_move:
            _put_back(averages, places, member, width, n_inputs, spots, average)
