"""Several training steps of one member after the other, while all of it lies in the nearest caches.

A step of a small network has so few operations for each number it touches that fetching weights and moments,
going over memory once per operation, and calling a library for products of 64 columns cost as much as the
arithmetic. Here members are outer and steps inner: weights, moments, activations and gradients of a member
are fetched once for all steps of the call, and nothing is padded to the shape of a neighbour. See
:mod:`parallelmlp_search.kernels.numba.dispatch`.

Layers are numbered from 0; the last one is the head. Rows are filled up to whole vectors with zeros whose
share of the loss is zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from parallelmlp_search.kernels.numba.decorators import inner, loop
from parallelmlp_search.kernels.numba.elementwise import ONE, ZERO, F
from parallelmlp_search.kernels.numba.layers import MIXTURES, embed, embed_backward, squared_error_rows
from parallelmlp_search.kernels.numba.loops import binary_rows, cross_entropy_rows
from parallelmlp_search.kernels.numba.member_memory import (
    BIAS,
    GAIN,
    N_KINDS,
    SCALE,
    WEIGHT,
    fetch,
    place_blocks,
    put_back,
    zeros,
)
from parallelmlp_search.kernels.numba.optimizer_steps import clip_gradient, follow, update_blocks
from parallelmlp_search.kernels.numba.passes import Network, backward_pass, forward_pass, memory_of
from parallelmlp_search.kernels.numba.products import whole
from parallelmlp_search.kernels.numba.submembers import fold, unfold
from parallelmlp_search.kernels.numba.vectors import LANES, add, load, splat, total

__all__ = ["member_steps"]


@inner
def _sum(values: Any, size: Any) -> Any:
    """Sum of so many elements, whole vectors."""
    found = splat(ZERO)
    for part in range(size // LANES):
        found = add(found, load(values, part * LANES))
    return total(found)


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
    plain: Any,
    n_submembers: Any,
    runs: Any,
    n_true: Any,
    rows: Any,
    columns: Any,
    targets: Any,
    wanted: Any,
    shares: Any,
    members: Any,
    shapes: Any,
    plain_shapes: Any,
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
        ``(blocks, 7)``, see :mod:`parallelmlp_search.kernels.numba.member_memory`.
    plain, n_submembers
        ``(plain blocks, 5)``, see :mod:`parallelmlp_search.kernels.numba.submembers`, and how many plain
        networks a member stands for; without lines it is one itself.
    runs
        ``(runs, 5)``, see there as well: inputs of the first layer, where categories are embedded.
    n_true
        Rows of a batch.
    rows, columns
        ``(T, D, N)`` and ``(T, n_true, columns)``: inputs of each step, filled up to whole vectors, N and
        columns.
    targets, wanted, shares
        ``(T, N)``: classes; ``(T, C, N)``: numbers of a regression; ``(T, N)``: each row's share of the mean.
    members
        ``(P, 2)``: code of the activation, 1 if alive. The dead are passed over.
    shapes, plain_shapes
        ``(P, blocks, 2)`` and ``(P, plain blocks, 2)``: true rows and columns of each block. With one output
        the loss is that of one logit.
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
    folded = plain.shape[0] > 0
    single, single_shapes = (plain, plain_shapes) if folded else (blocks, shapes)
    padded = np.zeros(n_layers + 1, dtype=np.int64)
    padded[0] = n_inputs + MIXTURES * n_numbers
    for b in range(single.shape[0]):
        if single[b, 3] == WEIGHT:
            padded[single[b, 4] + 1] = single[b, 1]
    room = max(whole(padded.max()), n_columns)
    begins, single_begins = np.zeros(len(blocks), np.int64), np.zeros(len(single), np.int64)
    spots, single_spots = (
        np.zeros((n_layers + 1, N_KINDS), np.int64),
        np.zeros((n_layers + 1, N_KINDS), np.int64),
    )
    own_size = place_blocks(blocks, blocks[:, 1:3], room, begins, spots)
    single_size = place_blocks(single, single[:, 1:3], room, single_begins, single_spots)
    dropping = fields.shape[0] > 0
    net = Network(
        n_layers,
        n_inputs,
        n_numbers,
        n_true,
        n_rows,
        n_columns,
        spots[0, BIAS] >= 0,
        n_layers > 1 and spots[0, GAIN] >= 0,
        single_spots[n_layers, SCALE] >= 0,
        dropping,
    )
    memory = memory_of(net, padded, room, residual)
    mixed = zeros(MIXTURES * n_numbers * n_rows if folded else 0)
    factors = np.zeros((4, room if folded else 0), dtype=np.float32)
    turned_categories = np.zeros((2, np.sum(runs[:, 1] * runs[:, 3])), dtype=np.float32)
    p, g = zeros(own_size), zeros(own_size)
    m, v = zeros(own_size), zeros(own_size)
    average = zeros(own_size)
    # a plain network's parameters and their gradient
    q, h = p, g
    if folded:
        q, h = zeros(single_size), zeros(single_size)
    averages_move = False
    for t in range(n_steps):
        averages_move |= averaging[t] > ZERO
    sizes, at = np.zeros(n_layers + 1, np.int64), np.zeros(n_layers + 1, np.int64)
    sizes[0] = padded[0]
    part = ONE / F(n_submembers)
    for member in range(members.shape[0]):
        code, shape, single_shape = members[member, 0], shapes[member], single_shapes[member]
        if members[member, 1] == 0:
            losses[:, member] = ZERO
            continue
        for b in range(single.shape[0]):
            if single[b, 3] == WEIGHT:
                sizes[single[b, 4] + 1] = single_shape[b, 0]
        smoothing, clip, mixes = settings[member, 0], settings[member, 1], settings[member, 2:]
        stop = place_blocks(blocks, shape, room, begins, spots)
        single_stop = place_blocks(single, single_shape, room, single_begins, single_spots)
        for layer in range(n_layers):
            at[layer + 1] = at[layer] + sizes[layer + 1] * n_rows
        shape_out = (sizes[n_layers], n_rows)
        first_out, size_out = at[n_layers - 1], sizes[n_layers] * n_rows
        # what fills vectors up is updated like the rest: old numbers there would fade into slow tiny ones
        for k in range(stop):
            p[k] = m[k] = v[k] = g[k] = ZERO
        for k in range(single_stop):
            q[k] = h[k] = ZERO
        fetch(flats[0], blocks, shape, begins, member, p)
        fetch(flats[1], blocks, shape, begins, member, m)
        fetch(flats[2], blocks, shape, begins, member, v)
        if averages_move:
            fetch(flats[3], blocks, shape, begins, member, average)
        for t in range(n_steps):
            x, begin = flat_rows, t * n_inputs * n_rows
            if n_numbers:
                embed(p, spots[n_layers], x, begin, n_inputs, n_numbers, n_rows, memory.wide, memory.waves)
                x, begin = memory.wide, 0
            loss = ZERO
            for k in range(n_submembers):
                if folded:
                    unfold(
                        p,
                        q,
                        k,
                        begins,
                        spots,
                        shape,
                        plain,
                        single_begins,
                        single_shape,
                        factors,
                        runs,
                        turned_categories,
                    )
                rate, ahead = rates[t, member], k * n_true // n_submembers
                forward_pass(
                    net,
                    memory,
                    q,
                    single_spots,
                    sizes,
                    at,
                    code,
                    x,
                    begin,
                    residual,
                    fields,
                    t,
                    rate,
                    ahead,
                )
                gradient = memory.grad[:size_out]
                _losses(
                    memory.before[first_out : first_out + size_out].reshape(shape_out),
                    targets[t],
                    wanted[t],
                    shares[t],
                    smoothing,
                    regression,
                    gradient.reshape(shape_out),
                    memory.scratch,
                )
                loss += _sum(memory.scratch[0], n_rows)
                if n_submembers > 1:
                    for j in range(size_out):
                        gradient[j] *= part
                start = t * n_true * n_columns
                in_grad = backward_pass(
                    net, memory, q, h, single_spots, sizes, at, code, flat_columns, start, residual
                )
                if folded:
                    fold(
                        p,
                        g,
                        h,
                        k,
                        begins,
                        spots,
                        shape,
                        plain,
                        single_begins,
                        single_shape,
                        factors,
                        runs,
                        turned_categories,
                    )
                if not n_numbers:
                    continue
                free = memory.grad if in_grad else memory.other
                # the embedding lies before all submembers: its gradient comes from the sum of theirs
                if folded:
                    for j in range(mixed.size):
                        mixed[j] = free[j] + (mixed[j] if k > 0 else ZERO)
                if k == n_submembers - 1:
                    embed_backward(
                        p,
                        g,
                        spots[n_layers],
                        flat_rows,
                        t * n_inputs * n_rows,
                        n_numbers,
                        n_rows,
                        mixed if folded else free,
                        memory.waves,
                        memory.slopes,
                    )
            losses[t, member] = loss * part
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
