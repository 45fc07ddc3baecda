"""Forward and backward pass of one network without submembers in a compiled loop.

Layers are numbered from 0, the last one is the head. Rows are padded to whole vectors with zeros, whose share
of the loss is zero.
"""

from __future__ import annotations

from parallelmlp_search.kernels.numba.decorators import force_inlined, inlined
from parallelmlp_search.kernels.numba.elementwise import ONE, activate_and_slope, slope_times
from parallelmlp_search.kernels.numba.layers import (
    activate_layer,
    drop,
    multiply_by,
    normalize,
    normalize_backward,
    scale_gradient,
    scale_weights,
)
from parallelmlp_search.kernels.numba.member_memory import BIAS, N_WAVE_OUTPUTS, WEIGHT
from parallelmlp_search.kernels.numba.products import (
    copy,
    matmul,
    outer_product,
    round_up,
    row_products,
    row_sums,
    transpose,
    weight_gradient,
)
from parallelmlp_search.kernels.numba.vectors import LANES, load, store


@force_inlined
def forward_pass(net, memory, p, offsets, code, x, begin, t, rate, shift):
    """Compute the outputs of all layers. Those of the head are the last ones in ``memory.before``.

    Parameters
    ----------
    p, offsets
        Parameters, and their starts by layer and kind.
    code
        Code of the activation.
    x, begin
        Inputs ``(I, N)`` of the first layer from ``begin`` on.
    t, rate, shift
        Step, dropout rate, and rows by which the dropout of this network is shifted.
    """
    before, after = memory.before, memory.after
    n_layers, n_rows = net.n_layers, net.n_rows
    for layer in range(n_layers):
        n_out, n_in, to, end = (
            net.sizes[layer + 1],
            net.sizes[layer],
            net.starts[layer],
            net.starts[layer + 1],
        )
        if layer == 0 and net.scaled:
            biases = scale_weights(net, memory, p, offsets)
            matmul(memory.scaled, 0, n_in, 1, biases, n_out, n_in, x, begin, n_rows, before, to)
        else:
            w, b = offsets[layer, WEIGHT], offsets[layer, BIAS]
            matmul(p, w, n_in, 1, b, n_out, n_in, x, begin, n_rows, before, to)
        if layer == n_layers - 1:
            break
        z, y = before[to:end], after[to:end]
        if net.normalized:
            normalize(net, memory, p, offsets, layer)
        if net.dropping:
            activate_layer(code, z, y)
            drop(net, y, net.fields[t, layer], rate, shift)
            drop(net, z, net.fields[t, layer], rate, shift)
        else:
            activate_and_slope(code, z, y)
        if net.residual[layer]:
            if not net.dropping and code <= 6:  # the slope needs the activation without the residual
                slope = before[to:end]
                slope[:] = ONE
                slope_times(code, y, slope)
            for k in range(n_out * n_rows):
                y[k] += x[begin + k]
        x, begin = after, to


@force_inlined
def backward_pass(net, memory, p, g, offsets, code, columns, start):
    """Gradient of all parameters into ``g``, from that of the outputs in ``memory.grad``.

    Parameters
    ----------
    p, g, offsets, code
        Parameters, their gradient, their starts by layer and kind, and the code of the activation.
    columns, start
        Rows of the batch ``(N, n_columns)`` from ``start`` on. The first padded column, if any, is 1.

    Returns
    -------
    bool
        True if the gradient by the outputs of a periodic embedding is in ``memory.grad``, False if it is in
        ``memory.other``. The caller continues from there.
    """
    n_layers, n_rows = net.n_layers, net.n_rows
    d, free = memory.grad, memory.other
    for layer in range(n_layers - 1, -1, -1):
        n_out, n_in = net.sizes[layer + 1], net.sizes[layer]
        w = offsets[layer, WEIGHT]
        _layer_gradient(net, memory, g, offsets, layer, d, columns, start)
        if layer == 0:
            if net.n_numbers:
                n_mixed, n_inputs = N_WAVE_OUTPUTS * net.n_numbers, net.n_inputs
                if net.scaled:
                    matmul(memory.scaled, n_inputs, 1, n_in, -1, n_mixed, n_out, d, 0, n_rows, free, 0)
                else:
                    matmul(p, w + n_inputs, 1, n_in, -1, n_mixed, n_out, d, 0, n_rows, free, 0)
                if n_layers > 1 and net.residual[0]:
                    for k in range(n_mixed * n_rows):
                        free[k] += memory.skipped[n_inputs * n_rows + k]
            if net.scaled:
                scale_gradient(net, p, g, offsets)
            break
        if n_out == 1:
            outer_product(p, w, n_in, d, n_rows, free)
        else:
            matmul(p, w, 1, n_in, -1, n_in, n_out, d, 0, n_rows, free, 0)
        if layer < n_layers - 1 and net.residual[layer]:
            for k in range(n_in * n_rows):
                free[k] += memory.skipped[k]
        d, free = free, d
        below = layer - 1
        to, end = net.starts[below], net.starts[layer]
        z, slope = memory.before[to:end], d[: end - to]
        if net.residual[below]:
            copy(slope, 0, slope.size, memory.skipped, 0)
        # codes 7 to 9 (gelu, silu, mish) have left the slope itself, 1 to 6 save their output
        if net.dropping or 7 <= code <= 9 or (net.residual[below] and code <= 6):
            multiply_by(slope, z)
        else:
            slope_times(code, memory.after[to:end] if code <= 6 else z, slope)
        if net.normalized:
            normalize_backward(net, memory, p, g, offsets, below, slope)
    return n_layers % 2 == 0


@force_inlined
def _layer_gradient(net, memory, g, offsets, layer, d, columns, start):
    """Gradient of the weights and biases of a layer, from that of its outputs ``d`` (O, N)."""
    n_out, n_in, n_rows, n_columns = net.sizes[layer + 1], net.sizes[layer], net.n_rows, net.n_columns
    product, transposed = memory.product, memory.transposed
    w, b = offsets[layer, WEIGHT], offsets[layer, BIAS]
    has_ones = False
    if layer == 0 and not net.n_numbers:
        weight_gradient(d, 0, n_out, columns, start, n_columns, net.n_true, n_rows, product)
        _remove_padding(product, n_columns, n_out, n_in, g, w)
        has_ones = n_columns > n_in  # the column after the inputs is 1
    else:
        y, begin = (memory.embedded, 0) if layer == 0 else (memory.after, net.starts[layer - 1])
        if n_out == 1:
            row_products(y, begin, n_in, d, 0, n_rows, g, w)
        elif n_out <= LANES:
            transpose(d, 0, n_out, n_rows, transposed, LANES)
            weight_gradient(y, begin, n_in, transposed, 0, LANES, net.n_true, n_rows, product)
            for o in range(n_out):
                for i in range(n_in):
                    g[w + o * n_in + i] = product[i * LANES + o]
        else:
            width = round_up(n_in)
            transpose(y, begin, n_in, n_rows, transposed, width)
            weight_gradient(d, 0, n_out, transposed, 0, width, net.n_true, n_rows, product)
            _remove_padding(product, width, n_out, n_in, g, w)
    if net.has_bias and has_ones:
        for o in range(n_out):
            g[b + o] = product[o * n_columns + n_in]
    elif net.has_bias:
        row_sums(d, 0, n_out, n_rows, g, b)


@inlined
def _remove_padding(product, n_columns, n_out, n_in, g, to):
    """Copy the first ``n_in`` columns of each row of a product to ``g``, one row after the other."""
    for o in range(n_out):
        for part in range((n_in + LANES - 1) // LANES):
            k = part * LANES
            store(g, to + o * n_in + k, load(product, o * n_columns + k))
