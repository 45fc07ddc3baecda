"""Places of everything that a compiled loop keeps for one member, in memory that Python passes."""

from __future__ import annotations

from typing import Any, NamedTuple

from parallelmlp_search.kernels.numba.decorators import inlined
from parallelmlp_search.kernels.numba.elementwise import ZERO
from parallelmlp_search.kernels.numba.member_memory import (
    BIAS,
    GAIN,
    KIND,
    LAYER,
    N_KINDS,
    N_WAVE_OUTPUTS,
    SCALE,
    WEIGHT,
    Blocks,
    Network,
    after,
    column,
    fill,
    offset_of,
    place_blocks,
    place_memory,
    read_member,
)
from parallelmlp_search.kernels.numba.products import copy, round_up
from parallelmlp_search.kernels.numba.submembers import Scratch


class Layout(NamedTuple):
    """Places of everything that a loop keeps for one member."""

    net: Any
    memory: Any
    blocks: Any
    expanded: Any
    scratch: Any
    room: Any
    p: Any  # parameters, gradient, first and second moments, average of the member
    g: Any
    m: Any
    v: Any
    average: Any
    q: Any  # parameters and gradient of an expanded network
    h: Any
    summed: Any  # gradient of the outputs of a periodic embedding, summed over submembers
    end: Any


@inlined
def set_sizes(blocks, sizes):
    """Set the size of each layer to the rows of its weights."""
    for b in range(blocks.n):
        if column(blocks, b, KIND) == WEIGHT:
            sizes[column(blocks, b, LAYER) + 1] = blocks.shapes[2 * b]


@inlined
def place_layout(plan, steps):
    """Place the buffers for the largest member of a bucket in ``steps.workspace``, which may be null."""
    n_layers, n_rows = plan.n_layers, steps.n_rows
    sizes = steps.integers
    starts = sizes + (n_layers + 1)
    padded = starts + (n_layers + 1)
    offsets = padded + (n_layers + 1)
    expanded_offsets = offsets + (n_layers + 1) * N_KINDS
    block_starts = expanded_offsets + (n_layers + 1) * N_KINDS
    expanded_starts = block_starts + plan.n_blocks
    shapes = expanded_starts + plan.n_expanded
    expanded_shapes = shapes + 2 * plan.n_blocks
    blocks = Blocks(plan.n_blocks, plan.blocks, shapes, block_starts, offsets, n_layers)
    expanded = Blocks(
        plan.n_expanded, plan.expanded, expanded_shapes, expanded_starts, expanded_offsets, n_layers
    )
    copy(plan.padded, 0, 2 * blocks.n, blocks.shapes, 0)
    copy(plan.expanded_padded, 0, 2 * expanded.n, expanded.shapes, 0)
    padded[0] = sizes[0] = steps.n_inputs + N_WAVE_OUTPUTS * plan.n_numbers
    starts[0] = 0
    set_sizes(expanded, padded)
    widest = 0
    for layer in range(n_layers + 1):
        widest = max(widest, padded[layer])
    room = max(round_up(widest), steps.n_columns)
    own_size, expanded_size = place_blocks(blocks, room), place_blocks(expanded, room)
    net = Network(
        n_layers,
        steps.n_inputs,
        plan.n_numbers,
        steps.n_true,
        n_rows,
        steps.n_columns,
        offset_of(blocks, 0, BIAS) >= 0,
        n_layers > 1 and offset_of(blocks, 0, GAIN) >= 0,
        offset_of(expanded, n_layers, SCALE) >= 0,
        plan.residual,
        steps.fields,
        steps.n_field_layers,
        steps.n_field_neurons,
        sizes,
        starts,
    )
    memory, p = place_memory(net, padded, room, plan.has_residual, steps.workspace)
    g = after(p, own_size)
    m = after(g, own_size)
    v = after(m, own_size)
    average = after(v, own_size)
    q = after(average, own_size)
    h = after(q, expanded_size)
    summed = after(h, expanded_size)
    factors = after(summed, N_WAVE_OUTPUTS * plan.n_numbers * n_rows)
    slopes = after(factors, room)
    result = after(slopes, room)
    embeddings = after(result, room)
    embedding_grad = after(embeddings, plan.embedding_size)
    end = after(embedding_grad, plan.embedding_size)
    scratch = Scratch(
        factors, slopes, result, plan.runs, plan.n_runs, embeddings, embedding_grad, plan.embedding_size
    )
    if not plan.is_expanded:
        q, h = p, g
    return Layout(net, memory, blocks, expanded, scratch, room, p, g, m, v, average, q, h, summed, end)


@inlined
def begin_member(plan, layout, member):
    """Set the sizes and places of a member, and read its parameters.

    Returns the sizes of the buffers of its parameters and of those of its expanded network.
    """
    blocks, expanded, net = layout.blocks, layout.expanded, layout.net
    copy(plan.shapes, 2 * blocks.n * member, 2 * blocks.n, blocks.shapes, 0)
    copy(plan.expanded_shapes, 2 * expanded.n * member, 2 * expanded.n, expanded.shapes, 0)
    stop, expanded_stop = place_blocks(blocks, layout.room), place_blocks(expanded, layout.room)
    set_sizes(expanded, net.sizes)
    for layer in range(net.n_layers):
        net.starts[layer + 1] = net.starts[layer] + net.sizes[layer + 1] * net.n_rows
    # padding is updated like the rest: values left there would decay into slow denormals
    fill(layout.p, stop, ZERO)
    fill(layout.q, expanded_stop, ZERO)
    read_member(plan.parameters, blocks, member, layout.p)
    return stop, expanded_stop
