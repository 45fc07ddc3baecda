"""Several training steps of one member after the other, while its data are in the L1 and L2 caches.

A step of a small network has few operations per number that it touches. Loading weights and moments, one pass
over memory per operation, and library calls for products of 64 columns cost as much as the arithmetic. Here
the outer loop runs over members and the inner one over steps: the weights, moments, activations and gradients
of a member are loaded once per call, and nothing is padded to the shape of another member.
"""

from __future__ import annotations

import numpy as np

from parallelmlp_search.kernels.numba.decorators import allocating, entry_point, force_inlined, inlined
from parallelmlp_search.kernels.numba.elementwise import ONE, ZERO, F
from parallelmlp_search.kernels.numba.layers import embed, embed_backward, squared_error_rows
from parallelmlp_search.kernels.numba.loops import binary_rows, cross_entropy_rows
from parallelmlp_search.kernels.numba.member_memory import (
    BIAS,
    BLOCK_ROWS,
    GAIN,
    KIND,
    LAYER,
    N_WAVE_OUTPUTS,
    SCALE,
    WEIGHT,
    Blocks,
    Network,
    allocate_memory,
    blocks_of,
    place_blocks,
    read_member,
    write_member,
    zeros,
)
from parallelmlp_search.kernels.numba.optimizer_steps import clip_gradient, update_average, update_blocks
from parallelmlp_search.kernels.numba.passes import backward_pass, forward_pass
from parallelmlp_search.kernels.numba.products import round_up
from parallelmlp_search.kernels.numba.submembers import expand, merge
from parallelmlp_search.kernels.numba.vectors import LANES, add, horizontal_sum, load, splat


@allocating
def _network(plan, batches, fields, blocks, expanded):
    """Return the properties that the networks of a bucket share, from its placed blocks."""
    n_layers = plan.residual.size + 1
    return Network(
        n_layers,
        batches.rows.shape[1],
        plan.n_numbers,
        batches.columns.shape[1],
        batches.rows.shape[2],
        batches.columns.shape[2],
        blocks.offsets[0, BIAS] >= 0,
        n_layers > 1 and blocks.offsets[0, GAIN] >= 0,
        expanded.offsets[n_layers, SCALE] >= 0,
        fields.shape[0] > 0,
        plan.residual,
        fields,
        np.zeros(n_layers + 1, np.int64),
        np.zeros(n_layers + 1, np.int64),
    )


@inlined
def _set_sizes(table, shapes, sizes):
    """Set the size of each layer to the rows of its weights."""
    for b in range(len(table)):
        if table[b, KIND] == WEIGHT:
            sizes[table[b, LAYER] + 1] = shapes[b, 0]


@inlined
def _sum(values, size):
    """Sum of the first ``size`` elements, whole vectors."""
    result = splat(ZERO)
    for part in range(size // LANES):
        result = add(result, load(values, part * LANES))
    return horizontal_sum(result)


@force_inlined
def _loss(net, memory, batches, t, smoothing):
    """Loss of the outputs in ``memory.before``; its gradient is written to ``memory.grad``."""
    n_outputs, start = net.sizes[net.n_layers], net.starts[net.n_layers - 1]
    shape, size = (n_outputs, net.n_rows), n_outputs * net.n_rows
    outputs, gradient = memory.before[start : start + size].reshape(shape), memory.grad[:size].reshape(shape)
    rows, shares = memory.scratch, batches.shares[t]
    if batches.is_regression:
        squared_error_rows(outputs, batches.values[t], shares, gradient, rows[0])
    elif n_outputs == 1:
        binary_rows(outputs[0], batches.classes[t], shares, smoothing, gradient[0], rows[0])
    else:
        cross_entropy_rows(
            outputs, batches.classes[t], shares, smoothing, gradient, rows[1], rows[2], rows[0]
        )
    return _sum(rows[0], net.n_rows)


@entry_point
def member_steps(flats, plan, batches, tables, averaging, fields, rates, alive, losses):
    """Train every member of a bucket for some steps.

    Parameters
    ----------
    flats
        Flat buffers of parameters, first and second moments and averages; updated in place.
    plan, batches
        See :class:`~parallelmlp_search.kernels.numba.compiled_members.TrainingPlan` and
        :class:`~parallelmlp_search.kernels.numba.compiled_members.StepBatches`.
    tables
        ``(groups, T, 4, P)``: rate, keep, A and B of each member (see the optimizer).
    averaging
        ``(T,)``: share of the new weights in the average, 0 for no update.
    fields, rates
        ``(T, layers, H, N)`` and ``(T, P)``: uniform numbers and rates of dropout. `fields` is empty without
        dropout.
    alive
        ``(P,)``: false for members that are skipped.
    losses
        ``(T, P)``: written; 0 for members that are skipped.
    """
    n_steps, n_inputs, n_rows = batches.rows.shape
    flat_rows, flat_columns = batches.rows.reshape(-1), batches.columns.reshape(-1)
    is_expanded, n_networks = plan.expanded.shape[0] > 0, plan.n_networks
    if is_expanded:
        expanded_table, expanded_shapes = plan.expanded, plan.expanded_shapes
    else:
        expanded_table, expanded_shapes = plan.blocks, plan.shapes
    n_layers = plan.residual.size + 1
    padded = np.zeros(n_layers + 1, dtype=np.int64)
    padded[0] = n_inputs + N_WAVE_OUTPUTS * plan.n_numbers
    _set_sizes(expanded_table, expanded_table[:, BLOCK_ROWS:], padded)
    room = max(round_up(padded.max()), batches.columns.shape[2])
    all_blocks, all_expanded = blocks_of(plan.blocks, n_layers), blocks_of(expanded_table, n_layers)
    own_size, expanded_size = place_blocks(all_blocks, room), place_blocks(all_expanded, room)
    net = _network(plan, batches, fields, all_blocks, all_expanded)
    net.sizes[0] = padded[0]
    memory = allocate_memory(net, padded, room)
    summed = zeros(N_WAVE_OUTPUTS * plan.n_numbers * n_rows if is_expanded else 0)
    factors = np.zeros((4, room if is_expanded else 0), dtype=np.float32)
    embeddings = np.zeros((2, np.sum(plan.runs[:, 1] * plan.runs[:, 3])), dtype=np.float32)
    p, g = zeros(own_size), zeros(own_size)
    m, v = zeros(own_size), zeros(own_size)
    average = zeros(own_size)
    # parameters of an expanded network and their gradient
    q, h = p, g
    if is_expanded:
        q, h = zeros(expanded_size), zeros(expanded_size)
    updates_average = False
    for t in range(n_steps):
        updates_average |= averaging[t] > ZERO
    part = ONE / F(n_networks)
    for member in range(len(plan.codes)):
        if not alive[member]:
            losses[:, member] = ZERO
            continue
        code, smoothing, clip = plan.codes[member], plan.settings[member, 0], plan.settings[member, 1]
        mixes = plan.settings[member, 2:]
        blocks = Blocks(plan.blocks, plan.shapes[member], all_blocks.starts, all_blocks.offsets)
        expanded = Blocks(expanded_table, expanded_shapes[member], all_expanded.starts, all_expanded.offsets)
        stop, expanded_stop = place_blocks(blocks, room), place_blocks(expanded, room)
        _set_sizes(expanded_table, expanded.shapes, net.sizes)
        for layer in range(n_layers):
            net.starts[layer + 1] = net.starts[layer] + net.sizes[layer + 1] * n_rows
        # padding is updated like the rest: values left there would decay into slow denormals
        for k in range(stop):
            p[k] = m[k] = v[k] = g[k] = ZERO
        for k in range(expanded_stop):
            q[k] = h[k] = ZERO
        read_member(flats[0], blocks, member, p)
        read_member(flats[1], blocks, member, m)
        read_member(flats[2], blocks, member, v)
        if updates_average:
            read_member(flats[3], blocks, member, average)
        for t in range(n_steps):
            x, begin = flat_rows, t * n_inputs * n_rows
            if net.n_numbers:
                embed(net, memory, p, blocks.offsets, x, begin)
                x, begin = memory.embedded, 0
            loss = ZERO
            for k in range(n_networks):
                if is_expanded:
                    expand(p, q, k, blocks, expanded, factors, plan.runs, embeddings)
                shift = k * net.n_true // n_networks
                forward_pass(net, memory, q, expanded.offsets, code, x, begin, t, rates[t, member], shift)
                loss += _loss(net, memory, batches, t, smoothing)
                if n_networks > 1:
                    for j in range(net.sizes[n_layers] * n_rows):
                        memory.grad[j] *= part
                start = t * net.n_true * net.n_columns
                in_grad = backward_pass(net, memory, q, h, expanded.offsets, code, flat_columns, start)
                if is_expanded:
                    merge(p, g, h, k, blocks, expanded, factors, plan.runs, embeddings)
                if not net.n_numbers:
                    continue
                d = memory.grad if in_grad else memory.other
                # submembers share the embedding: its gradient comes from the sum of theirs
                if is_expanded:
                    for j in range(summed.size):
                        summed[j] = d[j] + (summed[j] if k > 0 else ZERO)
                    d = summed
                if k == n_networks - 1:
                    embed_backward(net, memory, p, g, blocks.offsets, flat_rows, t * n_inputs * n_rows, d)
            losses[t, member] = loss * part
            if clip < F(np.inf):
                clip_gradient(g, blocks, clip, stop)
            update_blocks(p, g, m, v, blocks, tables[:, t, :, member], mixes, plan.adaptive)
            if averaging[t] > ZERO:
                update_average(average, p, averaging[t], stop)
        write_member(flats[0], blocks, member, p)
        write_member(flats[1], blocks, member, m)
        write_member(flats[2], blocks, member, v)
        if updates_average:
            write_member(flats[3], blocks, member, average)
