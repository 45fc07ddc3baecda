"""Submembers in a compiled loop: expand them to networks of their own, and merge the gradients.

The plain twin is :mod:`parallelmlp_search.engine.submember_network`, which also has the formulas. The blocks
of an expanded network name the block of the member that they come from. A block that is larger in the member
has one part per submember; any other block is shared.

Where categories are embedded, ``runs`` has a row for each run of inputs of the first layer: first column and
number of columns, first input and number of inputs, and start of its embedding (columns, inputs) in the
block of all embeddings, negative for columns without one. ``transposed`` (2, size of the block) holds each
embedding transposed, and the gradient alike.
"""

from __future__ import annotations

from parallelmlp_search.kernels.numba.decorators import force_inlined, inlined
from parallelmlp_search.kernels.numba.elementwise import ONE, ZERO
from parallelmlp_search.kernels.numba.layers import multiply_by
from parallelmlp_search.kernels.numba.member_memory import (
    CATEGORY,
    INPUT_ADAPTER,
    KIND,
    LAYER,
    OUTPUT_ADAPTER,
    SCALE,
    SOURCE,
    WEIGHT,
)
from parallelmlp_search.kernels.numba.products import copy
from parallelmlp_search.kernels.numba.vectors import LANES, horizontal_sum, load, multiply_add, splat


@force_inlined
def expand(p, q, k, blocks, expanded, scratch, runs, transposed):
    """Compute the parameters ``q`` of submember ``k`` from those of its member.

    Shared blocks are copied for the first submember only.

    Parameters
    ----------
    p, q, k
        Parameters of the member and of the expanded network, and number of the submember.
    blocks, expanded
        Blocks of the member and of the expanded network.
    scratch
        ``(4, I)`` for the widest layer.
    runs, transposed
        See the module.
    """
    for b in range(len(expanded.table)):
        is_embedded, n_out, n_in, is_part, start = _source(b, k, blocks, expanded, runs)
        adapter, scale, outer = _factor_starts(blocks.offsets, expanded.table[b, LAYER], k, n_out, n_in)
        to = expanded.starts[b]
        if expanded.table[b, KIND] != WEIGHT or (adapter < 0 and scale < 0 and not is_embedded):
            if is_part or k == 0:
                copy(p, start, n_out * n_in, q, to)
            continue
        factors = scratch[0, :n_in]
        _input_factors(p, adapter, scale, factors)
        if is_embedded:
            category, n_columns = blocks.offsets[-1, CATEGORY], expanded.shapes[b, 1]
            if k == 0:
                _transpose_embeddings(p, category, runs, transposed[0])
            for o in range(n_out):
                _effective_weights(p, start + o * n_in, outer, o, factors, scratch[1])
                _expand_categories(scratch[1], runs, transposed[0], q, to + o * n_columns)
            continue
        for o in range(n_out):
            row = to + o * n_in
            _effective_weights(p, start + o * n_in, outer, o, factors, q[row : row + n_in])


@force_inlined
def merge(p, g, h, k, blocks, expanded, scratch, runs, transposed):
    """Add the gradient ``h`` of submember ``k`` to the gradient ``g`` of its member; ``h`` is overwritten.

    All others as in :func:`expand`.
    """
    for b in range(len(expanded.table)):
        is_embedded, n_out, n_in, is_part, to = _source(b, k, blocks, expanded, runs)
        adapter, scale, outer = _factor_starts(blocks.offsets, expanded.table[b, LAYER], k, n_out, n_in)
        start, size = expanded.starts[b], n_out * n_in
        if is_embedded:
            factors = scratch[0, :n_in]
            _input_factors(p, adapter, scale, factors)
            transposed[1, :] = ZERO
            for o in range(n_out):
                _effective_weights(p, to + o * n_in, outer, o, factors, scratch[1])
                _merge_categories(
                    scratch[1], h, start + o * expanded.shapes[b, 1], runs, transposed, scratch[2]
                )
                copy(scratch[2], 0, n_in, h, start + o * n_in)  # over values that are no longer needed
            _merge_embeddings(transposed[1], runs, g, blocks.offsets[-1, CATEGORY], k == 0)
        if expanded.table[b, KIND] == WEIGHT and (adapter >= 0 or scale >= 0):
            factors, slopes = scratch[0, :n_in], scratch[1, :n_in]
            _input_factors(p, adapter, scale, factors)
            _merge_weights(p, g, h, to, start, outer, n_out, factors, slopes)
            if scale >= 0:
                _input_factors(p, adapter, -1, factors)
                multiply_by(factors, slopes)
                _accumulate(g[scale : scale + n_in], factors, k == 0)
            if adapter >= 0:
                _input_factors(p, -1, scale, factors)
                multiply_by(factors, slopes)
                copy(factors, 0, n_in, g, adapter)
        _accumulate(g[to : to + size], h[start : start + size], is_part or k == 0)


@force_inlined
def _source(b, k, blocks, expanded, runs):
    """Place of block ``b`` of submember ``k`` in its member.

    Returns whether it holds the weights of embedded categories; its rows and columns in the member (there the
    inputs); whether each submember has a part of its own; and the start of the part or the shared block.
    """
    source, n_out, n_in = expanded.table[b, SOURCE], expanded.shapes[b, 0], expanded.shapes[b, 1]
    is_first = expanded.table[b, KIND] == WEIGHT and expanded.table[b, LAYER] == 0
    is_embedded = runs.shape[0] > 0 and is_first
    if is_embedded:
        n_in = blocks.shapes[source, 1]
    size = n_out * n_in
    is_part = blocks.shapes[source, 0] * blocks.shapes[source, 1] > size
    return is_embedded, n_out, n_in, is_part, blocks.starts[source] + (k * size if is_part else 0)


@inlined
def _factor_starts(offsets, layer, k, n_out, n_in):
    """Starts of the input adapter and output adapter of a submember and of the input scales; -1 for none."""
    adapter, outer = offsets[layer, INPUT_ADAPTER], offsets[layer, OUTPUT_ADAPTER]
    return (
        adapter + k * n_in if adapter >= 0 else -1,
        offsets[-1, SCALE] if layer == 0 else -1,
        outer + k * n_out if outer >= 0 else -1,
    )


@inlined
def _input_factors(p, adapter, scale, factors):
    """Product of adapter and scale of each input, of those that exist."""
    factors[:] = ONE
    if adapter >= 0:
        multiply_by(factors, p[adapter : adapter + factors.size])
    if scale >= 0:
        multiply_by(factors, p[scale : scale + factors.size])


@inlined
def _effective_weights(p, row, outer, o, factors, result):
    """Weights of neuron ``o`` times the factors of its inputs and of its output."""
    factor = p[outer + o] if outer >= 0 else ONE
    values = p[row : row + factors.size]
    for i in range(factors.size):
        result[i] = factor * values[i] * factors[i]


@inlined
def _merge_weights(p, g, h, weight, start, outer, n_out, factors, slopes):
    """Turn the gradient of effective weights, from ``start`` of ``h`` on, into that of the weights.

    The gradient of the output adapter is written to ``g``, that of the factors of inputs to ``slopes``.
    """
    n_in = factors.size
    slopes[:] = ZERO
    for o in range(n_out):
        row, to = weight + o * n_in, start + o * n_in
        own, values = h[to : to + n_in], p[row : row + n_in]
        factor = p[outer + o] if outer >= 0 else ONE
        for i in range(n_in):
            slopes[i] += factor * own[i] * values[i]
        multiply_by(own, factors)
        if outer >= 0:
            g[outer + o] = _dot(h, to, p, row, n_in)
            for i in range(n_in):
                own[i] *= factor


@inlined
def _transpose_embeddings(p, category, runs, transposed):
    """Embeddings with a row for each dimension, so that vectors run along categories."""
    for r in range(runs.shape[0]):
        n_columns, n_inputs, at = runs[r, 1], runs[r, 3], runs[r, 4]
        if at < 0:
            continue
        for c in range(n_columns):
            for d in range(n_inputs):
                transposed[at + d * n_columns + c] = p[category + at + c * n_inputs + d]


@inlined
def _merge_embeddings(transposed, runs, g, category, is_first):
    """Add the transposed gradient of embeddings to ``g``, or write it for the first submember."""
    for r in range(runs.shape[0]):
        n_columns, n_inputs, at = runs[r, 1], runs[r, 3], runs[r, 4]
        if at < 0:
            continue
        for c in range(n_columns):
            for d in range(n_inputs):
                to = category + at + c * n_inputs + d
                g[to] = transposed[at + d * n_columns + c] + (ZERO if is_first else g[to])


@inlined
def _expand_categories(weights, runs, transposed, q, to):
    """Weights of a neuron for each column, from ``to`` of ``q`` on, from its weights for each input."""
    for r in range(runs.shape[0]):
        column, n_columns, first, n_inputs, at = runs[r, 0], runs[r, 1], runs[r, 2], runs[r, 3], runs[r, 4]
        if at < 0:
            copy(weights, first, n_columns, q, to + column)
            continue
        own = q[to + column : to + column + n_columns]
        own[:] = ZERO
        for d in range(n_inputs):
            values = transposed[at + d * n_columns : at + (d + 1) * n_columns]
            for c in range(n_columns):
                own[c] += weights[first + d] * values[c]


@inlined
def _merge_categories(weights, h, start, runs, transposed, result):
    """Gradient of the weights of a neuron by input from that by column, from ``start`` of ``h`` on.

    The gradient of the embeddings is added to ``transposed[1]``.
    """
    for r in range(runs.shape[0]):
        column, n_columns, first, n_inputs, at = runs[r, 0], runs[r, 1], runs[r, 2], runs[r, 3], runs[r, 4]
        if at < 0:
            copy(h, start + column, n_columns, result, first)
            continue
        own = h[start + column : start + column + n_columns]
        for d in range(n_inputs):
            values = transposed[0, at + d * n_columns : at + (d + 1) * n_columns]
            slopes = transposed[1, at + d * n_columns : at + (d + 1) * n_columns]
            for c in range(n_columns):
                slopes[c] += weights[first + d] * own[c]
            result[first + d] = _dot(own, 0, values, 0, n_columns)


@inlined
def _accumulate(target, values, is_first):
    """Add values to the target, or write them for the first submember."""
    if is_first:
        copy(values, 0, values.size, target, 0)
    else:
        for j in range(target.size):
            target[j] += values[j]


@inlined
def _dot(a, a_start, b, b_start, size):
    """Scalar product of two vectors of any size."""
    s = splat(ZERO)
    for part in range(size // LANES):
        s = multiply_add(load(a, a_start + part * LANES), load(b, b_start + part * LANES), s)
    result = horizontal_sum(s)
    for k in range(size - size % LANES, size):
        result += a[a_start + k] * b[b_start + k]
    return result
