"""A member of submembers inside a compiled loop: the plain network of each, and the gradient back from it.

What a plain network's weights are made of, and how its gradient is divided up, is told in
:mod:`parallelmlp_search.engine.folded_network`, the twin. ``plain`` has a line for each block of a plain
network: the number of the member's block that it comes from, its padded rows and columns, its kind and its
layer, as in :mod:`parallelmlp_search.kernels.compiled_places`. A block that is larger in the member has a
part for each submember, one behind the other; any other is shared.
"""

from __future__ import annotations

from typing import Any

from parallelmlp_search.kernels.compiled_functions import inner
from parallelmlp_search.kernels.compiled_layers import times
from parallelmlp_search.kernels.compiled_math import ONE, ZERO
from parallelmlp_search.kernels.compiled_places import INPUT_ADAPTER, OUTPUT_ADAPTER, SCALE, WEIGHT
from parallelmlp_search.kernels.compiled_products import copy
from parallelmlp_search.kernels.compiled_vectors import LANES, load, multiply_add, splat, total

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
) -> None:
    """Parameters of submember ``k`` into ``q``, from those of its member; what all share only with the first.

    Parameters
    ----------
    begins, spots, shape
        Where the member's blocks begin, by number and by layer and kind; their true rows and columns.
    plain, plain_begins, plain_shape
        The plain network's blocks, where they begin, and their true rows and columns.
    scratch
        ``(2, I)`` for the widest layer.
    """
    for b in range(plain.shape[0]):
        source, n_out, n_in = plain[b, 0], plain_shape[b, 0], plain_shape[b, 1]
        size = n_out * n_in
        parted = shape[source, 0] * shape[source, 1] > size
        start, to = begins[source] + (k * size if parted else 0), plain_begins[b]
        adapter, scale, outer = _places(spots, plain[b, 4], k, n_out, n_in)
        if plain[b, 3] != WEIGHT or (adapter < 0 and scale < 0):
            if parted or k == 0:
                copy(p, start, size, q, to)
            continue
        columns = scratch[0, :n_in]
        _factors(p, adapter, scale, columns)
        for o in range(n_out):
            row, here = start + o * n_in, to + o * n_in
            own, values = q[here : here + n_in], p[row : row + n_in]
            factor = p[outer + o] if outer >= 0 else ONE
            for i in range(n_in):
                own[i] = factor * values[i] * columns[i]


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
) -> None:
    """Gradient ``h`` of submember ``k``, which is used up, into ``g``, that of its member.

    All others as in :func:`unfold`.
    """
    for b in range(plain.shape[0]):
        source, n_out, n_in = plain[b, 0], plain_shape[b, 0], plain_shape[b, 1]
        size = n_out * n_in
        parted = shape[source, 0] * shape[source, 1] > size
        to, start = begins[source] + (k * size if parted else 0), plain_begins[b]
        adapter, scale, outer = _places(spots, plain[b, 4], k, n_out, n_in)
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
