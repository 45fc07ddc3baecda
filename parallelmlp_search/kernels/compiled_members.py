"""Several training steps of one member after the other, while all of it lies in the nearest caches.

A step of a small network has so few operations for each number it touches that fetching weights and moments,
going over memory once per operation, and calling a library for products of 64 columns cost as much as the
arithmetic. Here members are outer and steps inner: weights, moments, activations and gradients of a member
are fetched once for all steps of the call, and nothing is padded to the shape of a neighbour. See
:mod:`parallelmlp_search.kernels.compiled`.

Layers are numbered from 0; the last one is the head. Rows are filled up to whole vectors with zeros whose
share of the loss is zero.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from parallelmlp_search.kernels.compiled_functions import inner, loop
from parallelmlp_search.kernels.compiled_loops import binary_rows, cross_entropy_rows
from parallelmlp_search.kernels.compiled_math import (
    ONE,
    ZERO,
    F,
    activate_and_slope,
    slope_times,
)
from parallelmlp_search.kernels.compiled_products import (
    dots,
    outer,
    products,
    row_sums,
    transposed,
    weight_products,
    whole,
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
    store,
    subtract,
    total,
)

__all__ = ["member_steps"]

LINE = 16


@inner
def _zeros(size: Any) -> Any:
    """So many zeros that begin with a cache line: vectors across two lines take twice as long."""
    memory = np.zeros(size + LINE, dtype=np.float32)
    start = (-(memory.ctypes.data // 4)) % LINE
    return memory[start : start + size]


@inner
def _sum(values: Any, size: Any) -> Any:
    """Sum of so many elements, whole vectors."""
    found = splat(ZERO)
    for part in range(size // LANES):
        found = add(found, load(values, part * LANES))
    return total(found)


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
def _fetch(flat: Any, places: Any, member: Any, sizes: Any, spots: Any, own: Any) -> None:
    """Weights and biases of a member from a flat buffer to their spots."""
    for layer in range(places.shape[0]):
        n_out, n_in = sizes[layer + 1], sizes[layer]
        start = places[layer, 0] + member * places[layer, 2] * places[layer, 3]
        if n_in == places[layer, 3]:
            own[spots[layer, 0] : spots[layer, 0] + n_out * n_in] = flat[start : start + n_out * n_in]
        else:
            for o in range(n_out):
                to, row = spots[layer, 0] + o * n_in, start + o * places[layer, 3]
                own[to : to + n_in] = flat[row : row + n_in]
        if places[layer, 1] >= 0:
            start, to = places[layer, 1] + member * places[layer, 2], spots[layer, 1]
            own[to : to + n_out] = flat[start : start + n_out]


@inner
def _put_back(flat: Any, places: Any, member: Any, sizes: Any, spots: Any, own: Any) -> None:
    for layer in range(places.shape[0]):
        n_out, n_in = sizes[layer + 1], sizes[layer]
        start = places[layer, 0] + member * places[layer, 2] * places[layer, 3]
        if n_in == places[layer, 3]:
            flat[start : start + n_out * n_in] = own[spots[layer, 0] : spots[layer, 0] + n_out * n_in]
        else:
            for o in range(n_out):
                to, row = spots[layer, 0] + o * n_in, start + o * places[layer, 3]
                flat[row : row + n_in] = own[to : to + n_in]
        if places[layer, 1] >= 0:
            start, to = places[layer, 1] + member * places[layer, 2], spots[layer, 1]
            flat[start : start + n_out] = own[to : to + n_out]


@inner
def _spots(sizes: Any, has_bias: Any, room: Any, spots: Any) -> Any:
    """Where weights and biases of each layer begin in a member's own buffer, and where what decays ends.

    ``spots`` (layers, 2) is written; weights first, each with room for a row of columns.
    """
    place = 0
    for layer in range(spots.shape[0]):
        spots[layer, 0] = place
        place += whole(sizes[layer + 1] * sizes[layer]) + room
    decaying = place
    for layer in range(spots.shape[0]):
        spots[layer, 1] = place if has_bias else -1
        place += whole(sizes[layer + 1])
    return decaying, place


@inner
def _compact(product: Any, n_columns: Any, n_out: Any, n_in: Any, g: Any, to: Any) -> None:
    """The first ``n_in`` columns of each row of a product, one row after the other, into ``g``."""
    for o in range(n_out):
        for part in range((n_in + LANES - 1) // LANES):
            k = part * LANES
            store(g, to + o * n_in + k, load(product, o * n_columns + k))


@loop
def member_steps(
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
        ``(layers, 4)``: where the bucket's weights (P, O, I) and biases (P, O) of a layer begin in them, the
        latter below zero for none, and its padded outputs and inputs.
    n_true
        Rows of a batch.
    rows, columns
        ``(T, D, N)`` and ``(T, n_true, columns)``: inputs of each step, filled up to whole vectors, N and
        columns.
    targets, shares
        ``(T, N)``: classes and each row's share of the mean.
    members
        ``(P, layers + 3)``: code of the activation, 1 if alive, inputs, and outputs of each layer. The dead
        are passed over. With one output the loss is that of one logit.
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
    n_layers, n_columns = places.shape[0], columns.shape[2]
    flat_rows, flat_columns = rows.reshape(-1), columns.reshape(-1)
    has_bias = places[0, 1] >= 0
    padded = np.empty(n_layers + 1, dtype=np.int64)
    padded[0] = n_inputs
    padded[1:] = places[:, 2]
    widest = 0
    for layer in range(n_layers):
        widest = max(widest, padded[layer + 1])
    room = max(whole(widest), n_columns)
    spots = np.empty((n_layers, 2), dtype=np.int64)
    _, own_size = _spots(padded, has_bias, room, spots)
    # outputs of each layer, one after the other; room for the blocks of products
    at = np.zeros(n_layers + 1, dtype=np.int64)
    size = (padded[1:].sum() + LANES) * n_rows
    before, after = _zeros(size), _zeros(size)
    size = (widest + LANES) * n_rows
    grad, other = _zeros(size), _zeros(size)
    product = _zeros((widest + LANES) * room)
    turned = _zeros(n_rows * room)
    values, highest = _zeros(n_rows), _zeros(n_rows)
    sums = _zeros(n_rows)
    p, g = _zeros(own_size), _zeros(own_size)
    m, v = _zeros(own_size), _zeros(own_size)
    average = _zeros(own_size)
    averages_move = False
    for t in range(n_steps):
        averages_move |= averaging[t] > ZERO
    for member in range(members.shape[0]):
        code, sizes = members[member, 0], members[member, 2:]
        if members[member, 1] == 0:
            losses[:, member] = ZERO
            continue
        smoothing, clip = settings[member, 0], settings[member, 1]
        mix_first, mix_second = settings[member, 2], settings[member, 3]
        decaying, stop = _spots(sizes, has_bias, room, spots)
        for layer in range(n_layers):
            at[layer + 1] = at[layer] + sizes[layer + 1] * n_rows
        n_outputs = sizes[n_layers]
        # what fills vectors up is updated like the rest: old numbers there would fade into slow tiny ones
        for k in range(stop):
            p[k] = m[k] = v[k] = g[k] = ZERO
        _fetch(parameters, places, member, sizes, spots, p)
        _fetch(first, places, member, sizes, spots, m)
        _fetch(second, places, member, sizes, spots, v)
        if averages_move:
            _fetch(averages, places, member, sizes, spots, average)
        for t in range(n_steps):
            x, begin = flat_rows, t * n_inputs * n_rows
            for layer in range(n_layers):
                n_out, n_in, to = sizes[layer + 1], sizes[layer], at[layer]
                w, b = spots[layer]
                products(p, w, n_in, 1, b, n_out, n_in, x, begin, n_rows, before, to)
                if layer < n_layers - 1:
                    activate_and_slope(code, before[to : at[layer + 1]], after[to : at[layer + 1]])
                    x, begin = after, to
            to = at[n_layers - 1]
            logits = before[to : to + n_outputs * n_rows]
            slopes = grad[: n_outputs * n_rows]
            if n_outputs == 1:
                binary_rows(logits, targets[t], shares[t], smoothing, slopes, values)
            else:
                shape = (n_outputs, n_rows)
                cross_entropy_rows(
                    logits.reshape(shape),
                    targets[t],
                    shares[t],
                    smoothing,
                    slopes.reshape(shape),
                    highest,
                    sums,
                    values,
                )
            losses[t, member] = _sum(values, n_rows)
            d, free = grad, other
            for layer in range(n_layers - 1, -1, -1):
                n_out, n_in = sizes[layer + 1], sizes[layer]
                w, b = spots[layer]
                if layer == 0:
                    start = t * n_true * n_columns
                    weight_products(d, 0, n_out, flat_columns, start, n_columns, n_true, n_rows, product)
                    _compact(product, n_columns, n_out, n_in, g, w)
                elif n_out == 1:
                    dots(after, at[layer - 1], n_in, d, 0, n_rows, g, w)
                elif n_out <= LANES:
                    transposed(d, 0, n_out, n_rows, turned, LANES)
                    weight_products(after, at[layer - 1], n_in, turned, 0, LANES, n_true, n_rows, product)
                    for o in range(n_out):
                        for i in range(n_in):
                            g[w + o * n_in + i] = product[i * LANES + o]
                else:
                    width = whole(n_in)
                    transposed(after, at[layer - 1], n_in, n_rows, turned, width)
                    weight_products(d, 0, n_out, turned, 0, width, n_true, n_rows, product)
                    _compact(product, width, n_out, n_in, g, w)
                if has_bias and layer == 0 and n_columns > n_in:  # the column after the inputs is 1
                    for o in range(n_out):
                        g[b + o] = product[o * n_columns + n_in]
                elif has_bias:
                    row_sums(d, 0, n_out, n_rows, g, b)
                if layer > 0:
                    if n_out == 1:
                        outer(p, w, n_in, d, n_rows, free)
                    else:
                        products(p, w, 1, n_in, -1, n_in, n_out, d, 0, n_rows, free, 0)
                    d, free = free, d
                    # 7 to 9 (gelu, silu, mish) have left the slope itself, 1 to 6 save their output
                    z = before[at[layer - 1] : at[layer]]
                    slope = d[: z.size]
                    if 7 <= code <= 9:
                        for k in range(z.size):
                            slope[k] *= z[k]
                    else:
                        slope_times(code, after[at[layer - 1] : at[layer]] if code <= 6 else z, slope)
            if clip < F(np.inf):
                squares = ZERO
                for layer in range(n_layers):
                    n_out = sizes[layer + 1]
                    squares += _squares(g, spots[layer, 0], n_out * sizes[layer])
                    if has_bias:
                        squares += _squares(g, spots[layer, 1], n_out)
                factor = clip / (F(math.sqrt(squares)) + F(1e-6))
                if factor < ONE:
                    for k in range(stop):
                        g[k] *= factor
            rate, keep = table[t, 0, member], table[t, 1, member]
            if adaptive:
                scale, shift = table[t, 2, member], table[t, 3, member]
                _adamw(p, g, m, v, 0, decaying, keep, scale, shift, mix_first, mix_second)
                _adamw(p, g, m, v, decaying, stop, ONE, scale, shift, mix_first, mix_second)
            else:
                _sgd(p, g, m, 0, decaying, rate, mix_first, mix_second)
                _sgd(p, g, m, decaying, stop, rate, mix_first, ZERO)
            share = averaging[t]
            if share > ZERO:
                for k in range(stop):
                    average[k] += share * (p[k] - average[k])
        _put_back(parameters, places, member, sizes, spots, p)
        _put_back(first, places, member, sizes, spots, m)
        _put_back(second, places, member, sizes, spots, v)
        if averages_move:
            _put_back(averages, places, member, sizes, spots, average)
