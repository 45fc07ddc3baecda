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

from typing import Any

import numpy as np

from parallelmlp_search.kernels.compiled_functions import inner, loop
from parallelmlp_search.kernels.compiled_layers import (
    MIXTURES,
    WAVES,
    activate_layer,
    dots_of_rows,
    drop,
    embed,
    embed_backward,
    mix_coefficients,
    normalize,
    normalize_backward,
    scale_gradient,
    scale_weights,
    squared_error_rows,
    times,
)
from parallelmlp_search.kernels.compiled_loops import binary_rows, cross_entropy_rows
from parallelmlp_search.kernels.compiled_math import ZERO, F, activate_and_slope, slope_times
from parallelmlp_search.kernels.compiled_places import (
    BIAS,
    COEFFICIENT,
    GAIN,
    SCALE,
    SHIFT,
    WEIGHT,
    fetch,
    place_blocks,
    put_back,
    zeros,
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
from parallelmlp_search.kernels.compiled_updates import clip_gradient, follow, update_blocks
from parallelmlp_search.kernels.compiled_vectors import LANES, add, load, splat, store, total

__all__ = ["member_steps"]


@inner
def _sum(values: Any, size: Any) -> Any:
    """Sum of so many elements, whole vectors."""
    found = splat(ZERO)
    for part in range(size // LANES):
        found = add(found, load(values, part * LANES))
    return total(found)


@inner
def _compact(product: Any, n_columns: Any, n_out: Any, n_in: Any, g: Any, to: Any) -> None:
    """The first ``n_in`` columns of each row of a product, one row after the other, into ``g``."""
    for o in range(n_out):
        for part in range((n_in + LANES - 1) // LANES):
            k = part * LANES
            store(g, to + o * n_in + k, load(product, o * n_columns + k))


@inner
def _losses(
    outputs: Any,
    targets: Any,
    values: Any,
    shares: Any,
    smoothing: Any,
    regression: Any,
    slopes: Any,
    rows: Any,
) -> None:
    """What each row adds to the loss into ``rows[0]``, its gradient by the outputs (C, N) into ``slopes``."""
    n_outputs = outputs.shape[0]
    if regression:
        squared_error_rows(outputs, values, shares, slopes, rows[0])
    elif n_outputs == 1:
        binary_rows(outputs[0], targets, shares, smoothing, slopes[0], rows[0])
    else:
        cross_entropy_rows(outputs, targets, shares, smoothing, slopes, rows[1], rows[2], rows[0])


@loop
def member_steps(
    flats: Any,
    blocks: Any,
    n_true: Any,
    rows: Any,
    columns: Any,
    targets: Any,
    wanted: Any,
    shares: Any,
    members: Any,
    shapes: Any,
    settings: Any,
    tables: Any,
    averaging: Any,
    fields: Any,
    rates: Any,
    residual: Any,
    n_numbers: Any,
    adaptive: Any,
    regression: Any,
    losses: Any,
) -> None:
    """Train every member of a bucket for some steps; the losses of each step into ``losses`` (T, P).

    Parameters
    ----------
    flats
        Parameters, first and second moments and averages, each flat; written.
    blocks
        ``(blocks, 7)``, see :mod:`parallelmlp_search.kernels.compiled_places`.
    n_true
        Rows of a batch.
    rows, columns
        ``(T, D, N)`` and ``(T, n_true, columns)``: inputs of each step, filled up to whole vectors, N and
        columns.
    targets, wanted, shares
        ``(T, N)``: classes; ``(T, C, N)``: numbers of a regression; ``(T, N)``: each row's share of the mean.
    members
        ``(P, 2)``: code of the activation, 1 if alive. The dead are passed over.
    shapes
        ``(P, blocks, 2)``: true rows and columns of each block. With one output the loss is that of one
        logit.
    settings
        ``(P, 4)``: label smoothing, highest norm of the gradient, and what the optimiser mixes by:
        one minus each beta, or momentum.
    tables
        ``(groups, T, 4, P)``: rate, keep, A and B of each member (see the optimiser).
    averaging
        ``(T,)``: share of the new weights in the average, 0 where it stays.
    fields, rates
        ``(T, layers, H, N)``: uniform numbers that decide what is dropped, and ``(T, P)`` how much; without
        dropout the first has no steps.
    residual
        ``(layers,)``: whether a hidden layer adds its input.
    n_numbers
        Columns that a periodic embedding embeds, the first ones; 0 without one.
    adaptive, regression
        Whether the optimiser is AdamW, and the loss the squared error.
    """
    n_steps, n_inputs, n_rows = rows.shape
    n_columns = columns.shape[2]
    flat_rows, flat_columns = rows.reshape(-1), columns.reshape(-1)
    n_layers = residual.size + 1
    padded = np.zeros(n_layers + 1, dtype=np.int64)
    n_wide = n_inputs + MIXTURES * n_numbers
    padded[0] = n_wide
    for b in range(blocks.shape[0]):
        if blocks[b, 3] == WEIGHT:
            padded[blocks[b, 4] + 1] = blocks[b, 1]
    widest, total_width = 0, 0
    for layer in range(n_layers):
        widest = max(widest, padded[layer + 1])
        total_width += padded[layer + 1]
    room = max(whole(max(widest, n_wide)), n_columns)
    begins = np.zeros(blocks.shape[0], dtype=np.int64)
    spots = np.zeros((n_layers + 1, 10), dtype=np.int64)
    padded_shapes = blocks[:, 1:3]
    own_size = place_blocks(blocks, padded_shapes, room, begins, spots)
    has_bias, normalized = spots[0, BIAS] >= 0, n_layers > 1 and spots[0, GAIN] >= 0
    parametric, scaled = n_layers > 1 and spots[0, COEFFICIENT] >= 0, spots[n_layers, SCALE] >= 0
    dropping = fields.shape[0] > 0
    keeps_slope = parametric or dropping
    # outputs of each layer, one after the other; room for the blocks of products
    at = np.zeros(n_layers + 1, dtype=np.int64)
    size = (total_width + LANES) * n_rows
    before, after = zeros(size), zeros(size)
    gap = zeros(size if parametric else 0)
    kept = zeros(size if normalized else 0)
    inverse = zeros(n_layers * n_rows if normalized else 0)
    size = (max(widest, MIXTURES * n_numbers) + LANES) * n_rows
    grad, other = zeros(size), zeros(size)
    past = zeros(size if residual.any() else 0)
    product = zeros(max((widest + LANES) * room, (max(widest, n_wide) + LANES) * LANES))
    turned = zeros(n_rows * room)
    wide = zeros((n_wide + LANES) * n_rows if n_numbers else 0)
    waves = np.zeros((2, (WAVES + LANES) * n_rows if n_numbers else 0), dtype=np.float32)
    slopes = zeros((WAVES + LANES) * n_rows if n_numbers else 0)
    scaled_size = whole(padded[1] * n_wide) + room
    scaled_weights = zeros(scaled_size + whole(padded[1]) if scaled else 0)
    scratch = np.zeros((3, n_rows), dtype=np.float32)
    p, g = zeros(own_size), zeros(own_size)
    m, v = zeros(own_size), zeros(own_size)
    average = zeros(own_size)
    averages_move = False
    for t in range(n_steps):
        averages_move |= averaging[t] > ZERO
    sizes = np.zeros(n_layers + 1, dtype=np.int64)
    sizes[0] = n_wide
    for member in range(members.shape[0]):
        code, shape = members[member, 0], shapes[member]
        if members[member, 1] == 0:
            losses[:, member] = ZERO
            continue
        for b in range(blocks.shape[0]):
            if blocks[b, 3] == WEIGHT:
                sizes[blocks[b, 4] + 1] = shape[b, 0]
        smoothing, clip, mixes = settings[member, 0], settings[member, 1], settings[member, 2:]
        stop = place_blocks(blocks, shape, room, begins, spots)
        for layer in range(n_layers):
            at[layer + 1] = at[layer] + sizes[layer + 1] * n_rows
        n_outputs = sizes[n_layers]
        # what fills vectors up is updated like the rest: old numbers there would fade into slow tiny ones
        for k in range(stop):
            p[k] = m[k] = v[k] = g[k] = ZERO
        fetch(flats[0], blocks, shape, begins, member, p)
        fetch(flats[1], blocks, shape, begins, member, m)
        fetch(flats[2], blocks, shape, begins, member, v)
        if averages_move:
            fetch(flats[3], blocks, shape, begins, member, average)
        for t in range(n_steps):
            x, begin = flat_rows, t * n_inputs * n_rows
            if n_numbers:
                embed(p, spots[n_layers], x, begin, n_inputs, n_numbers, n_rows, wide, waves)
                x, begin = wide, 0
            for layer in range(n_layers):
                n_out, n_in, to, end = sizes[layer + 1], sizes[layer], at[layer], at[layer + 1]
                w, b = spots[layer, WEIGHT], spots[layer, BIAS]
                if layer == 0 and scaled:
                    scale = spots[n_layers, SCALE]
                    scale_weights(p, w, scale, b, n_out, n_in, scaled_weights, scaled_size)
                    offset = scaled_size if has_bias else -1
                    products(scaled_weights, 0, n_in, 1, offset, n_out, n_in, x, begin, n_rows, before, to)
                else:
                    products(p, w, n_in, 1, b, n_out, n_in, x, begin, n_rows, before, to)
                if layer == n_layers - 1:
                    break
                z, y = before[to:end], after[to:end]
                if normalized:
                    gain, shift = spots[layer, GAIN], spots[layer, SHIFT]
                    spread = inverse[layer * n_rows : (layer + 1) * n_rows]
                    normalize(z, kept[to:end], spread, scratch[0], p, gain, shift, n_out, n_rows)
                if keeps_slope:
                    if parametric:
                        gap[to:end] = z
                    activate_layer(code, z, y)
                    if parametric:
                        a = spots[layer, COEFFICIENT]
                        mix_coefficients(z, y, gap[to:end], p, a, n_out, n_rows)
                    if dropping:
                        rate = rates[t, member]
                        drop(y, fields[t, layer], rate, n_out, n_rows)
                        drop(z, fields[t, layer], rate, n_out, n_rows)
                        if parametric:
                            drop(gap[to:end], fields[t, layer], rate, n_out, n_rows)
                else:
                    activate_and_slope(code, z, y)
                if residual[layer]:
                    if not keeps_slope and code <= 6:  # the way back needs the activation as it was
                        slope = before[to:end]
                        slope[:] = F(1.0)
                        slope_times(code, y, slope)
                    for k in range(n_out * n_rows):
                        y[k] += x[begin + k]
                x, begin = after, to
            to = at[n_layers - 1]
            shape_out = (n_outputs, n_rows)
            _losses(
                before[to : to + n_outputs * n_rows].reshape(shape_out),
                targets[t],
                wanted[t],
                shares[t],
                smoothing,
                regression,
                grad[: n_outputs * n_rows].reshape(shape_out),
                scratch,
            )
            losses[t, member] = _sum(scratch[0], n_rows)
            d, free = grad, other
            for layer in range(n_layers - 1, -1, -1):
                n_out, n_in = sizes[layer + 1], sizes[layer]
                w, b = spots[layer, WEIGHT], spots[layer, BIAS]
                has_ones = False
                if layer == 0 and not n_numbers:
                    start = t * n_true * n_columns
                    weight_products(d, 0, n_out, flat_columns, start, n_columns, n_true, n_rows, product)
                    _compact(product, n_columns, n_out, n_in, g, w)
                    has_ones = n_columns > n_in  # the column after the inputs is 1
                else:
                    y, begin = (wide, 0) if layer == 0 else (after, at[layer - 1])
                    if n_out == 1:
                        dots(y, begin, n_in, d, 0, n_rows, g, w)
                    elif n_out <= LANES:
                        transposed(d, 0, n_out, n_rows, turned, LANES)
                        weight_products(y, begin, n_in, turned, 0, LANES, n_true, n_rows, product)
                        for o in range(n_out):
                            for i in range(n_in):
                                g[w + o * n_in + i] = product[i * LANES + o]
                    else:
                        width = whole(n_in)
                        transposed(y, begin, n_in, n_rows, turned, width)
                        weight_products(d, 0, n_out, turned, 0, width, n_true, n_rows, product)
                        _compact(product, width, n_out, n_in, g, w)
                if has_bias and has_ones:
                    for o in range(n_out):
                        g[b + o] = product[o * n_columns + n_in]
                elif has_bias:
                    row_sums(d, 0, n_out, n_rows, g, b)
                if layer == 0:
                    if n_numbers:
                        n_mixed = MIXTURES * n_numbers
                        if scaled:
                            products(
                                scaled_weights, n_inputs, 1, n_in, -1, n_mixed, n_out, d, 0, n_rows, free, 0
                            )
                        else:
                            products(p, w + n_inputs, 1, n_in, -1, n_mixed, n_out, d, 0, n_rows, free, 0)
                        if n_layers > 1 and residual[0]:
                            for k in range(n_mixed * n_rows):
                                free[k] += past[n_inputs * n_rows + k]
                        place = t * n_inputs * n_rows
                        embed_backward(
                            p, g, spots[n_layers], flat_rows, place, n_numbers, n_rows, free, waves, slopes
                        )
                    if scaled:
                        scale_gradient(p, g, w, spots[n_layers, SCALE], n_out, n_in)
                    break
                if n_out == 1:
                    outer(p, w, n_in, d, n_rows, free)
                else:
                    products(p, w, 1, n_in, -1, n_in, n_out, d, 0, n_rows, free, 0)
                if layer < n_layers - 1 and residual[layer]:
                    for k in range(n_in * n_rows):
                        free[k] += past[k]
                d, free = free, d
                below = layer - 1
                to, end = at[below], at[layer]
                z, slope = before[to:end], d[: end - to]
                if residual[below]:
                    past[: end - to] = slope
                if parametric:
                    dots_of_rows(d, gap[to:end], n_in, n_rows, g, spots[below, COEFFICIENT])
                # 7 to 9 (gelu, silu, mish) have left the slope itself, 1 to 6 save their output
                if keeps_slope or 7 <= code <= 9 or (residual[below] and code <= 6):
                    times(slope, z)
                else:
                    slope_times(code, after[to:end] if code <= 6 else z, slope)
                if normalized:
                    gain, shift = spots[below, GAIN], spots[below, SHIFT]
                    spread = inverse[below * n_rows : (below + 1) * n_rows]
                    normalize_backward(
                        slope, kept[to:end], spread, scratch[0], scratch[1], p, g, gain, shift, n_in, n_rows
                    )
            if clip < F(np.inf):
                clip_gradient(g, shape, begins, clip, stop)
            update_blocks(p, g, m, v, blocks, shape, begins, tables[:, t, :, member], mixes, adaptive)
            if averaging[t] > ZERO:
                follow(average, p, averaging[t], stop)
        put_back(flats[0], blocks, shape, begins, member, p)
        put_back(flats[1], blocks, shape, begins, member, m)
        put_back(flats[2], blocks, shape, begins, member, v)
        if averages_move:
            put_back(flats[3], blocks, shape, begins, member, average)
