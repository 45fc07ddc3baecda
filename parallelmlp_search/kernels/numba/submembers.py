"""Submembers in a compiled loop: expand them to networks of their own, and merge the gradients.

The plain twin is :mod:`parallelmlp_search.engine.submember_network`, which also has the formulas. The blocks
of an expanded network name the block of the member that they come from. A block that is larger in the member
has one part per submember; any other block is shared.

Where categories are embedded, ``runs`` has a row for each run of inputs of the first layer: first column and
number of columns, first input and number of inputs, and start of its embedding (columns, inputs) in the
block of all embeddings, negative for columns without one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from parallelmlp_search.kernels.numba.decorators import inlined
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
    block_size,
    column,
    fill,
    offset_of,
)
from parallelmlp_search.kernels.numba.products import copy
from parallelmlp_search.kernels.numba.vectors import LANES, horizontal_sum, load, multiply_add, splat


class Scratch(NamedTuple):
    """Memory of `expand` and `merge`, and the runs of inputs.

    Attributes
    ----------
    factors, slopes, result
        ``(I,)`` for the widest layer.
    runs, n_runs
        See the module.
    embeddings, embedding_grad, embedding_size
        Each embedding transposed, so that vectors run along categories, its gradient alike, and their size.
    """

    factors: Any
    slopes: Any
    result: Any
    runs: Any
    n_runs: Any
    embeddings: Any
    embedding_grad: Any
    embedding_size: Any


class _Source(NamedTuple):
    """Place of a block of a submember in its member.

    Attributes
    ----------
    is_embedded
        True if it holds the weights of embedded categories.
    n_out, n_in
        Its rows and columns in the member, there the inputs.
    is_part
        True if each submember has a part of its own.
    start
        Start of the part or of the shared block.
    adapter, scale, outer
        Starts of the input adapter, of the input scales and of the output adapter; -1 for none.
    """

    is_embedded: Any
    n_out: Any
    n_in: Any
    is_part: Any
    start: Any
    adapter: Any
    scale: Any
    outer: Any


@inlined
def expand(p, q, k, blocks, expanded, scratch):
    """Compute the parameters ``q`` of submember ``k`` from those of its member.

    Shared blocks are copied for the first submember only.

    Parameters
    ----------
    p, q, k
        Parameters of the member and of the expanded network, and number of the submember.
    blocks, expanded
        Blocks of the member and of the expanded network.
    scratch
        See `Scratch`.
    """
    factors, weights = scratch.factors, scratch.slopes
    for b in range(expanded.n):
        source = _source(b, k, blocks, expanded, scratch.n_runs)
        n_out, n_in, to = source.n_out, source.n_in, expanded.starts[b]
        has_factors = source.adapter >= 0 or source.scale >= 0 or source.is_embedded
        if column(expanded, b, KIND) != WEIGHT or not has_factors:
            if source.is_part or k == 0:
                copy(p, source.start, n_out * n_in, q, to)
            continue
        _input_factors(p, source.adapter, source.scale, factors, n_in)
        if source.is_embedded:
            n_columns = expanded.shapes[2 * b + 1]
            if k == 0:
                _transpose_embeddings(p + offset_of(blocks, blocks.n_layers, CATEGORY), scratch)
            for o in range(n_out):
                _effective_weights(p, source, o, factors, weights)
                _expand_categories(weights, scratch, q, to + o * n_columns)
            continue
        for o in range(n_out):
            _effective_weights(p, source, o, factors, q + (to + o * n_in))


@inlined
def merge(p, g, h, k, blocks, expanded, scratch):
    """Add the gradient ``h`` of submember ``k`` to the gradient ``g`` of its member; ``h`` is overwritten.

    All others as in :func:`expand`.
    """
    factors, slopes = scratch.factors, scratch.slopes
    for b in range(expanded.n):
        source = _source(b, k, blocks, expanded, scratch.n_runs)
        n_out, n_in, start = source.n_out, source.n_in, expanded.starts[b]
        if source.is_embedded:
            _input_factors(p, source.adapter, source.scale, factors, n_in)
            fill(scratch.embedding_grad, scratch.embedding_size, ZERO)
            for o in range(n_out):
                _effective_weights(p, source, o, factors, slopes)
                _merge_categories(slopes, h, start + o * expanded.shapes[2 * b + 1], scratch)
                copy(scratch.result, 0, n_in, h, start + o * n_in)  # over values that are no longer needed
            _merge_embeddings(g + offset_of(blocks, blocks.n_layers, CATEGORY), scratch, k == 0)
        if column(expanded, b, KIND) == WEIGHT and (source.adapter >= 0 or source.scale >= 0):
            _input_factors(p, source.adapter, source.scale, factors, n_in)
            _merge_weights(p, g, h, start, source, factors, slopes)
            if source.scale >= 0:
                _input_factors(p, source.adapter, -1, factors, n_in)
                multiply_by(factors, slopes, n_in)
                _accumulate(g + source.scale, factors, n_in, k == 0)
            if source.adapter >= 0:
                _input_factors(p, -1, source.scale, factors, n_in)
                multiply_by(factors, slopes, n_in)
                copy(factors, 0, n_in, g, source.adapter)
        _accumulate(g + source.start, h + start, n_out * n_in, source.is_part or k == 0)


@inlined
def _source(b, k, blocks, expanded, n_runs):
    """Place of block ``b`` of submember ``k`` in its member."""
    number, layer = column(expanded, b, SOURCE), column(expanded, b, LAYER)
    n_out, n_in = expanded.shapes[2 * b], expanded.shapes[2 * b + 1]
    is_embedded = n_runs > 0 and column(expanded, b, KIND) == WEIGHT and layer == 0
    if is_embedded:
        n_in = blocks.shapes[2 * number + 1]
    size = n_out * n_in
    is_part = block_size(blocks, number) > size
    adapter, outer = offset_of(blocks, layer, INPUT_ADAPTER), offset_of(blocks, layer, OUTPUT_ADAPTER)
    return _Source(
        is_embedded,
        n_out,
        n_in,
        is_part,
        blocks.starts[number] + (k * size if is_part else 0),
        adapter + k * n_in if adapter >= 0 else -1,
        offset_of(blocks, blocks.n_layers, SCALE) if layer == 0 else -1,
        outer + k * n_out if outer >= 0 else -1,
    )


@inlined
def _input_factors(p, adapter, scale, factors, size):
    """Product of adapter and scale of each input, of those that exist."""
    fill(factors, size, ONE)
    if adapter >= 0:
        multiply_by(factors, p + adapter, size)
    if scale >= 0:
        multiply_by(factors, p + scale, size)


@inlined
def _effective_weights(p, source, o, factors, result):
    """Weights of neuron ``o`` times the factors of its inputs and of its output."""
    factor = p[source.outer + o] if source.outer >= 0 else ONE
    values = p + (source.start + o * source.n_in)
    for i in range(source.n_in):
        result[i] = factor * values[i] * factors[i]


@inlined
def _merge_weights(p, g, h, start, source, factors, slopes):
    """Turn the gradient of effective weights, from ``start`` of ``h`` on, into that of the weights.

    The gradient of the output adapter is written to ``g``, that of the factors of inputs to ``slopes``.
    """
    n_in, outer = source.n_in, source.outer
    fill(slopes, n_in, ZERO)
    for o in range(source.n_out):
        row, to = source.start + o * n_in, start + o * n_in
        own, values = h + to, p + row
        factor = p[outer + o] if outer >= 0 else ONE
        for i in range(n_in):
            slopes[i] += factor * own[i] * values[i]
        multiply_by(own, factors, n_in)
        if outer >= 0:
            g[outer + o] = _dot(own, values, n_in)
            for i in range(n_in):
                own[i] *= factor


@inlined
def _transpose_embeddings(embeddings, scratch):
    """Transpose the embedding of each run of categories."""
    for r in range(scratch.n_runs):
        run = scratch.runs + 5 * r
        n_columns, n_inputs, at = run[1], run[3], run[4]
        if at < 0:
            continue
        for c in range(n_columns):
            for d in range(n_inputs):
                scratch.embeddings[at + d * n_columns + c] = embeddings[at + c * n_inputs + d]


@inlined
def _merge_embeddings(grad, scratch, is_first):
    """Add the transposed gradient of embeddings to ``grad``, or write it for the first submember."""
    for r in range(scratch.n_runs):
        run = scratch.runs + 5 * r
        n_columns, n_inputs, at = run[1], run[3], run[4]
        if at < 0:
            continue
        for c in range(n_columns):
            for d in range(n_inputs):
                to = at + c * n_inputs + d
                grad[to] = scratch.embedding_grad[at + d * n_columns + c] + (ZERO if is_first else grad[to])


@inlined
def _expand_categories(weights, scratch, q, to):
    """Weights of a neuron for each column, from ``to`` of ``q`` on, from its weights for each input."""
    for r in range(scratch.n_runs):
        run = scratch.runs + 5 * r
        n_columns, first, n_inputs, at = run[1], run[2], run[3], run[4]
        own = q + (to + run[0])
        if at < 0:
            copy(weights, first, n_columns, own, 0)
            continue
        fill(own, n_columns, ZERO)
        for d in range(n_inputs):
            values = scratch.embeddings + (at + d * n_columns)
            weight = weights[first + d]
            for c in range(n_columns):
                own[c] += weight * values[c]


@inlined
def _merge_categories(weights, h, start, scratch):
    """Gradient of the weights of a neuron by input from that by column, from ``start`` of ``h`` on.

    It is written to ``scratch.result``. The gradient of the embeddings is added to that of `scratch`.
    """
    for r in range(scratch.n_runs):
        run = scratch.runs + 5 * r
        n_columns, first, n_inputs, at = run[1], run[2], run[3], run[4]
        own = h + (start + run[0])
        if at < 0:
            copy(own, 0, n_columns, scratch.result, first)
            continue
        for d in range(n_inputs):
            values = scratch.embeddings + (at + d * n_columns)
            slopes = scratch.embedding_grad + (at + d * n_columns)
            weight = weights[first + d]
            for c in range(n_columns):
                slopes[c] += weight * own[c]
            scratch.result[first + d] = _dot(own, values, n_columns)


@inlined
def _accumulate(target, values, size, is_first):
    """Add values to the target, or write them for the first submember."""
    if is_first:
        copy(values, 0, size, target, 0)
    else:
        for j in range(size):
            target[j] += values[j]


@inlined
def _dot(a, b, size):
    """Scalar product of two vectors of any size."""
    s = splat(ZERO)
    for part in range(size // LANES):
        s = multiply_add(load(a, part * LANES), load(b, part * LANES), s)
    result = horizontal_sum(s)
    for k in range(size - size % LANES, size):
        result += a[k] * b[k]
    return result
