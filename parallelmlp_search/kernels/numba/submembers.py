"""A member of submembers inside a compiled loop: the plain network of each, and the gradient back from it.

What a plain network's weights are made of, and how its gradient is divided up, is told in
:mod:`parallelmlp_search.engine.submember_network`, the twin. ``plain`` has a line for each block of a plain
network: the number of the member's block that it comes from, its padded rows and columns, its kind and its
layer, as in :mod:`parallelmlp_search.kernels.numba.member_memory`. A block that is larger in the member has a
part for each submember, one behind the other; any other is shared.

Where categories are embedded, ``runs`` has a line for each run of inputs of the first layer: first column of
the rows and how many, first input and how many, and where the run's embedding (columns, inputs) begins in the
block of all, below zero for columns that are no categories. ``turned`` (2, size of the block) holds each
embedding with lines for columns, and the gradient like it.
"""

from __future__ import annotations

from typing import Any

from parallelmlp_search.kernels.numba.decorators import inner
from parallelmlp_search.kernels.numba.elementwise import ONE, ZERO
from parallelmlp_search.kernels.numba.layers import times
from parallelmlp_search.kernels.numba.member_memory import (
    CATEGORY,
    INPUT_ADAPTER,
    OUTPUT_ADAPTER,
    SCALE,
    WEIGHT,
)
from parallelmlp_search.kernels.numba.products import copy
from parallelmlp_search.kernels.numba.vectors import LANES, load, multiply_add, splat, total

__all__ = ["fold", "unfold"]


@inner
def _places(spots: Any, layer: Any, k: Any, n_out: Any, n_in: Any) -> Any:
    """Where the factors of a layer's inputs (a submember's, then the scales) and of its outputs begin; what
    there is not lies below zero."""
    last = spots.shape[0] - 1
    adapter, outer = spots[layer, INPUT_ADAPTER], spots[layer, OUTPUT_ADAPTER]
    return (
        adapter + k * n_in if adapter >= 0 else -1,
        spots[last, SCALE] if layer == 0 else -1,
        outer + k * n_out if outer >= 0 else -1,
    )


@inner
def _factors(p: Any, adapter: Any, scale: Any, columns: Any) -> None:
    """Adapter times scale of each input, or what there is of them."""
    columns[:] = ONE
    if adapter >= 0:
        times(columns, p[adapter : adapter + columns.size])
    if scale >= 0:
        times(columns, p[scale : scale + columns.size])


@inner
def unfold(
    p: Any,
    q: Any,
    k: Any,
    begins: Any,
    spots: Any,
    shape: Any,
    plain: Any,
    plain_begins: Any,
    plain_shape: Any,
    scratch: Any,
    runs: Any,
    turned: Any,
) -> None:
    """Parameters of submember ``k`` into ``q``, from those of its member; what all share only with the first.

    Parameters
    ----------
    begins, spots, shape
        Where the member's blocks begin, by number and by layer and kind; their true rows and columns.
    plain, plain_begins, plain_shape
        The plain network's blocks, where they begin, and their true rows and columns.
    scratch
        ``(4, I)`` for the widest layer.
    runs, turned
        See above.
    """
    for b in range(plain.shape[0]):
        embedded, n_out, n_in, size, parted, offset = _part(b, k, begins, shape, plain, plain_shape, runs)
        start, to = offset, plain_begins[b]
        adapter, scale, outer = _places(spots, plain[b, 4], k, n_out, n_in)
        if plain[b, 3] != WEIGHT or (adapter < 0 and scale < 0 and not embedded):
            if parted or k == 0:
                copy(p, start, size, q, to)
            continue
        columns = scratch[0, :n_in]
        _factors(p, adapter, scale, columns)
        if embedded:
            category, n_columns = spots[spots.shape[0] - 1, CATEGORY], plain_shape[b, 1]
            if k == 0:
                _turn(p, category, runs, turned[0])
            for o in range(n_out):
                _effective(p, start + o * n_in, outer, o, columns, scratch[1])
                _spread(scratch[1], runs, turned[0], q, to + o * n_columns)
            continue
        for o in range(n_out):
            here = to + o * n_in
            _effective(p, start + o * n_in, outer, o, columns, q[here : here + n_in])


@inner
def fold(
    p: Any,
    g: Any,
    h: Any,
    k: Any,
    begins: Any,
    spots: Any,
    shape: Any,
    plain: Any,
    plain_begins: Any,
    plain_shape: Any,
    scratch: Any,
    runs: Any,
    turned: Any,
) -> None:
    """Gradient ``h`` of submember ``k``, which is used up, into ``g``, that of its member.

    All others as in :func:`unfold`.
    """
    for b in range(plain.shape[0]):
        embedded, n_out, n_in, size, parted, offset = _part(b, k, begins, shape, plain, plain_shape, runs)
        to, start = offset, plain_begins[b]
        adapter, scale, outer = _places(spots, plain[b, 4], k, n_out, n_in)
        if embedded:
            columns = scratch[0, :n_in]
            _factors(p, adapter, scale, columns)
            turned[1, :] = ZERO
            for o in range(n_out):
                _effective(p, to + o * n_in, outer, o, columns, scratch[1])
                _gather(scratch[1], h, start + o * plain_shape[b, 1], runs, turned, scratch[2])
                copy(scratch[2], 0, n_in, h, start + o * n_in)  # over what has been read
            _turn_back(turned[1], runs, g, spots[spots.shape[0] - 1, CATEGORY], k == 0)
        if plain[b, 3] == WEIGHT and (adapter >= 0 or scale >= 0):
            columns, slopes = scratch[0, :n_in], scratch[1, :n_in]
            _factors(p, adapter, scale, columns)
            _fold_weights(p, g, h, to, start, outer, n_out, columns, slopes)
            if scale >= 0:
                _factors(p, adapter, -1, columns)
                times(columns, slopes)
                _put(g[scale : scale + n_in], columns, k == 0)
            if adapter >= 0:
                _factors(p, -1, scale, columns)
                times(columns, slopes)
                copy(columns, 0, n_in, g, adapter)
        _put(g[to : to + size], h[start : start + size], parted or k == 0)


@inner
def _part(b: Any, k: Any, begins: Any, shape: Any, plain: Any, plain_shape: Any, runs: Any) -> Any:
    """What block ``b`` of submember ``k`` is in its member.

    Whether it is the weights of a layer behind embedded categories; true rows, columns (there those of the
    inputs) and size; whether each submember has a part of its own; and where that, or what all share, begins.
    """
    source, n_out, n_in = plain[b, 0], plain_shape[b, 0], plain_shape[b, 1]
    embedded = runs.shape[0] > 0 and plain[b, 3] == WEIGHT and plain[b, 4] == 0
    if embedded:
        n_in = shape[source, 1]
    size = n_out * n_in
    parted = shape[source, 0] * shape[source, 1] > size
    return embedded, n_out, n_in, size, parted, begins[source] + (k * size if parted else 0)


@inner
def _effective(p: Any, row: Any, outer: Any, o: Any, columns: Any, into: Any) -> None:
    """Weights of neuron ``o`` times the factors of its inputs and its own."""
    factor = p[outer + o] if outer >= 0 else ONE
    values = p[row : row + columns.size]
    for i in range(columns.size):
        into[i] = factor * values[i] * columns[i]


@inner
def _turn(p: Any, category: Any, runs: Any, turned: Any) -> None:
    """Embeddings with a line for each of their numbers: vectors then go along categories."""
    for r in range(runs.shape[0]):
        n_columns, n_numbers, place = runs[r, 1], runs[r, 3], runs[r, 4]
        if place < 0:
            continue
        for c in range(n_columns):
            for d in range(n_numbers):
                turned[place + d * n_columns + c] = p[category + place + c * n_numbers + d]


@inner
def _turn_back(turned: Any, runs: Any, g: Any, category: Any, first: Any) -> None:
    """The gradient of embeddings into its place, or added to what has been there since the first."""
    for r in range(runs.shape[0]):
        n_columns, n_numbers, place = runs[r, 1], runs[r, 3], runs[r, 4]
        if place < 0:
            continue
        for c in range(n_columns):
            for d in range(n_numbers):
                to = category + place + c * n_numbers + d
                g[to] = turned[place + d * n_columns + c] + (ZERO if first else g[to])


@inner
def _spread(weights: Any, runs: Any, turned: Any, q: Any, to: Any) -> None:
    """Weights of a neuron's columns, at ``to`` of ``q``, from those of its inputs."""
    for r in range(runs.shape[0]):
        column, n_columns, first, n_inputs, place = runs[r, 0], runs[r, 1], runs[r, 2], runs[r, 3], runs[r, 4]
        if place < 0:
            copy(weights, first, n_columns, q, to + column)
            continue
        own = q[to + column : to + column + n_columns]
        own[:] = ZERO
        for d in range(n_inputs):
            values = turned[place + d * n_columns : place + (d + 1) * n_columns]
            for c in range(n_columns):
                own[c] += weights[first + d] * values[c]


@inner
def _gather(weights: Any, h: Any, start: Any, runs: Any, turned: Any, into: Any) -> None:
    """Gradient of the weights of a neuron's inputs from that of its columns, at ``start`` of ``h``.

    That of the embeddings is added to ``turned[1]``.
    """
    for r in range(runs.shape[0]):
        column, n_columns, first, n_inputs, place = runs[r, 0], runs[r, 1], runs[r, 2], runs[r, 3], runs[r, 4]
        if place < 0:
            copy(h, start + column, n_columns, into, first)
            continue
        own = h[start + column : start + column + n_columns]
        for d in range(n_inputs):
            values = turned[0, place + d * n_columns : place + (d + 1) * n_columns]
            slopes = turned[1, place + d * n_columns : place + (d + 1) * n_columns]
            for c in range(n_columns):
                slopes[c] += weights[first + d] * own[c]
            into[first + d] = _dot(own, 0, values, 0, n_columns)


@inner
def _put(into: Any, values: Any, first: Any) -> None:
    """Values into their place, or added to what has been there since the first."""
    if first:
        copy(values, 0, values.size, into, 0)
    else:
        for j in range(into.size):
            into[j] += values[j]


@inner
def _fold_weights(
    p: Any, g: Any, h: Any, weight: Any, start: Any, outer: Any, n_out: Any, columns: Any, slopes: Any
) -> None:
    """From the gradient of effective weights, at ``start`` of ``h``, that of the weights, over it.

    That of the factors of outputs goes to ``outer`` of ``g``, that of those of inputs, ``columns``, into
    ``slopes``.
    """
    n_in = columns.size
    slopes[:] = ZERO
    for o in range(n_out):
        row, here = weight + o * n_in, start + o * n_in
        own, values = h[here : here + n_in], p[row : row + n_in]
        factor = p[outer + o] if outer >= 0 else ONE
        for i in range(n_in):
            slopes[i] += factor * own[i] * values[i]
        times(own, columns)
        if outer >= 0:
            g[outer + o] = _dot(h, here, p, row, n_in)
            for i in range(n_in):
                own[i] *= factor


@inner
def _dot(a: Any, at: Any, b: Any, spot: Any, size: Any) -> Any:
    """Product of two vectors of any size."""
    s = splat(ZERO)
    for part in range(size // LANES):
        s = multiply_add(load(a, at + part * LANES), load(b, spot + part * LANES), s)
    found = total(s)
    for k in range(size - size % LANES, size):
        found += a[at + k] * b[spot + k]
    return found
