"""Forward and backward pass of one plain network inside a compiled loop.

Layers are numbered from 0; the last one is the head. Rows are filled up to whole vectors with zeros whose
share of the loss is zero.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from parallelmlp_search.kernels.numba.decorators import inner, long, maker
from parallelmlp_search.kernels.numba.elementwise import ONE, activate_and_slope, slope_times
from parallelmlp_search.kernels.numba.layers import (
    MIXTURES,
    WAVES,
    activate_layer,
    drop,
    normalize,
    normalize_backward,
    scale_gradient,
    scale_weights,
    times,
)
from parallelmlp_search.kernels.numba.member_memory import (
    BIAS,
    GAIN,
    SCALE,
    SHIFT,
    WEIGHT,
    zeros,
)
from parallelmlp_search.kernels.numba.products import (
    copy,
    dots,
    outer,
    products,
    row_sums,
    transposed,
    weight_products,
    whole,
)
from parallelmlp_search.kernels.numba.vectors import LANES, load, store

__all__ = ["Memory", "Network", "backward_pass", "forward_pass", "memory_of"]


class Network(NamedTuple):
    """What all networks of a bucket have in common: numbers of layers, columns, embedded numbers and rows
    (true ones, and filled up), columns filled up, and which parts there are."""

    n_layers: Any
    n_inputs: Any
    n_numbers: Any
    n_true: Any
    n_rows: Any
    n_columns: Any
    has_bias: Any
    normalized: Any
    scaled: Any
    dropping: Any


class Memory(NamedTuple):
    """Where a network is computed, one after the other.

    ``before`` and ``after`` hold all layers, activations and what they are computed from, until that becomes
    their slope; ``kept`` and ``inverse`` what normalisation needs on the way back;
    ``grad`` and ``other`` take turns as the gradient of a layer, ``past`` as what goes past it.
    """

    before: Any
    after: Any
    kept: Any
    inverse: Any
    grad: Any
    other: Any
    past: Any
    product: Any
    turned: Any
    wide: Any  # columns and mixtures of their numbers, where there is an embedding
    waves: Any
    slopes: Any
    scaled: Any  # the first layer's weights times the scales of their inputs, and its biases
    scratch: Any


@maker
def memory_of(net: Any, padded: Any, room: Any, residual: Any) -> Any:
    """Memory for the largest network of a bucket, of sizes ``padded`` (layers + 1,)."""
    n_rows, n_wide = net.n_rows, padded[0]
    widest, total_width = 0, 0
    for layer in range(net.n_layers):
        widest = max(widest, padded[layer + 1])
        total_width += padded[layer + 1]
    # room for the blocks of products
    size = (total_width + LANES) * n_rows
    turn = (max(widest, MIXTURES * net.n_numbers) + LANES) * n_rows
    scaled = whole(padded[1] * n_wide) + room + whole(padded[1])
    return Memory(
        zeros(size),
        zeros(size),
        zeros(size if net.normalized else 0),
        zeros(net.n_layers * n_rows if net.normalized else 0),
        zeros(turn),
        zeros(turn),
        zeros(turn if residual.any() else 0),
        zeros(max((widest + LANES) * room, (max(widest, n_wide) + LANES) * LANES)),
        zeros(n_rows * room),
        zeros((n_wide + LANES) * n_rows if net.n_numbers else 0),
        np.zeros((2, (WAVES + LANES) * n_rows if net.n_numbers else 0), dtype=np.float32),
        zeros((WAVES + LANES) * n_rows if net.n_numbers else 0),
        zeros(scaled if net.scaled else 0),
        np.zeros((3, n_rows), dtype=np.float32),
    )


@inner
def _compact(product: Any, n_columns: Any, n_out: Any, n_in: Any, g: Any, to: Any) -> None:
    """The first ``n_in`` columns of each row of a product, one row after the other, into ``g``."""
    for o in range(n_out):
        for part in range((n_in + LANES - 1) // LANES):
            k = part * LANES
            store(g, to + o * n_in + k, load(product, o * n_columns + k))


@long
def forward_pass(
    net: Any,
    memory: Any,
    p: Any,
    spots: Any,
    sizes: Any,
    at: Any,
    code: Any,
    x: Any,
    begin: Any,
    residual: Any,
    fields: Any,
    t: Any,
    rate: Any,
    ahead: Any,
) -> None:
    """Outputs of every layer, those of the head in the last place of ``memory.before``.

    Parameters
    ----------
    p, spots
        Parameters, and where each kind of them begins in each layer.
    sizes, at
        Neurons of each layer, inputs first; where its outputs begin.
    code
        Of the activation.
    x, begin
        Inputs ``(I, N)`` of the first layer, from ``begin`` on.
    residual
        Whether a hidden layer adds its input.
    fields, t, rate, ahead
        Uniform numbers ``(T, layers, H, N)``, of which step, how much is dropped, and by how many rows the
        network is ahead.
    """
    before, after = memory.before, memory.after
    n_layers, n_rows = net.n_layers, net.n_rows
    for layer in range(n_layers):
        n_out, n_in, to, end = sizes[layer + 1], sizes[layer], at[layer], at[layer + 1]
        w, b = spots[layer, WEIGHT], spots[layer, BIAS]
        if layer == 0 and net.scaled:
            biases = memory.scaled.size - whole(n_out)
            scale_weights(p, w, spots[n_layers, SCALE], b, n_out, n_in, memory.scaled, biases)
            offset = biases if net.has_bias else -1
            products(memory.scaled, 0, n_in, 1, offset, n_out, n_in, x, begin, n_rows, before, to)
        else:
            products(p, w, n_in, 1, b, n_out, n_in, x, begin, n_rows, before, to)
        if layer == n_layers - 1:
            break
        z, y = before[to:end], after[to:end]
        if net.normalized:
            gain, shift = spots[layer, GAIN], spots[layer, SHIFT]
            spread = memory.inverse[layer * n_rows : (layer + 1) * n_rows]
            normalize(z, memory.kept[to:end], spread, memory.scratch[0], p, gain, shift, n_out, n_rows)
        if net.dropping:
            activate_layer(code, z, y)
            field = fields[t, layer]
            drop(y, field, rate, n_out, n_rows, net.n_true, ahead)
            drop(z, field, rate, n_out, n_rows, net.n_true, ahead)
        else:
            activate_and_slope(code, z, y)
        if residual[layer]:
            if not net.dropping and code <= 6:  # the way back needs the activation as it was
                slope = before[to:end]
                slope[:] = ONE
                slope_times(code, y, slope)
            for k in range(n_out * n_rows):
                y[k] += x[begin + k]
        x, begin = after, to


@long
def backward_pass(
    net: Any,
    memory: Any,
    p: Any,
    g: Any,
    spots: Any,
    sizes: Any,
    at: Any,
    code: Any,
    columns: Any,
    start: Any,
    residual: Any,
) -> Any:
    """Gradient of all parameters into ``g``, from that of the outputs in ``memory.grad``.

    Parameters
    ----------
    columns, start
        Rows of the batch ``(N, columns)``, from ``start`` on, behind whose inputs there may be a 1.

    Returns
    -------
    bool
        Whether the gradient of the mixtures of an embedding, which is left to the caller, lies in
        ``memory.grad`` and not in ``memory.other``.
    """
    n_layers, n_rows, n_true, n_columns = net.n_layers, net.n_rows, net.n_true, net.n_columns
    before, after, product, turned = memory.before, memory.after, memory.product, memory.turned
    d, free = memory.grad, memory.other
    for layer in range(n_layers - 1, -1, -1):
        n_out, n_in = sizes[layer + 1], sizes[layer]
        w, b = spots[layer, WEIGHT], spots[layer, BIAS]
        has_ones = False
        if layer == 0 and not net.n_numbers:
            weight_products(d, 0, n_out, columns, start, n_columns, n_true, n_rows, product)
            _compact(product, n_columns, n_out, n_in, g, w)
            has_ones = n_columns > n_in  # the column after the inputs is 1
        else:
            y, begin = (memory.wide, 0) if layer == 0 else (after, at[layer - 1])
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
        if net.has_bias and has_ones:
            for o in range(n_out):
                g[b + o] = product[o * n_columns + n_in]
        elif net.has_bias:
            row_sums(d, 0, n_out, n_rows, g, b)
        if layer == 0:
            if net.n_numbers:
                n_mixed, n_inputs = MIXTURES * net.n_numbers, net.n_inputs
                if net.scaled:
                    products(memory.scaled, n_inputs, 1, n_in, -1, n_mixed, n_out, d, 0, n_rows, free, 0)
                else:
                    products(p, w + n_inputs, 1, n_in, -1, n_mixed, n_out, d, 0, n_rows, free, 0)
                if n_layers > 1 and residual[0]:
                    for k in range(n_mixed * n_rows):
                        free[k] += memory.past[n_inputs * n_rows + k]
            if net.scaled:
                scale_gradient(p, g, w, spots[n_layers, SCALE], n_out, n_in)
            break
        if n_out == 1:
            outer(p, w, n_in, d, n_rows, free)
        else:
            products(p, w, 1, n_in, -1, n_in, n_out, d, 0, n_rows, free, 0)
        if layer < n_layers - 1 and residual[layer]:
            for k in range(n_in * n_rows):
                free[k] += memory.past[k]
        d, free = free, d
        below = layer - 1
        to, end = at[below], at[layer]
        z, slope = before[to:end], d[: end - to]
        if residual[below]:
            copy(slope, 0, slope.size, memory.past, 0)
        # 7 to 9 (gelu, silu, mish) have left the slope itself, 1 to 6 save their output
        if net.dropping or 7 <= code <= 9 or (residual[below] and code <= 6):
            times(slope, z)
        else:
            slope_times(code, after[to:end] if code <= 6 else z, slope)
        if net.normalized:
            gain, shift = spots[below, GAIN], spots[below, SHIFT]
            scratch = memory.scratch
            spread = memory.inverse[below * n_rows : (below + 1) * n_rows]
            normalize_backward(
                slope,
                memory.kept[to:end],
                spread,
                scratch[0],
                scratch[1],
                p,
                g,
                gain,
                shift,
                n_in,
                n_rows,
            )
    return n_layers % 2 == 0
