"""Forward and backward pass of one network without submembers in a compiled loop.

Layers are numbered from 0, the last one is the head. Rows are padded to whole vectors with zeros, whose share
of the loss is zero.
"""

from __future__ import annotations

from parallelmlp_search.kernels.numba.decorators import inlined
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
from parallelmlp_search.kernels.numba.member_memory import BIAS, N_WAVE_OUTPUTS, WEIGHT, fill, offset_of
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


@inlined
def forward_pass(net, memory, p, blocks, code, x, t, rate, shift):
    """Compute the outputs of all layers. Those of the head are the last ones in ``memory.before``.

    Parameters
    ----------
    p, blocks
        Parameters, and their blocks.
    code
        Code of the activation.
    x
        Inputs ``(I, N)`` of the first layer.
    t, rate, shift
        Step, dropout rate, and rows by which the dropout of this network is shifted.
    """
    n_layers, n_rows = net.n_layers, net.n_rows
    for layer in range(n_layers):
        n_out, n_in, to = net.sizes[layer + 1], net.sizes[layer], net.starts[layer]
        z, y, size = memory.before + to, memory.after + to, n_out * n_rows
        if layer == 0 and net.scaled:
            biases = scale_weights(net, memory, p, blocks)
            matmul(memory.scaled, 0, n_in, 1, biases, n_out, n_in, x, 0, n_rows, z, 0)
        else:
            w, b = offset_of(blocks, layer, WEIGHT), offset_of(blocks, layer, BIAS)
            matmul(p, w, n_in, 1, b, n_out, n_in, x, 0, n_rows, z, 0)
        if layer == n_layers - 1:
            break
        if net.normalized:
            normalize(net, memory, p, blocks, layer)
        if net.n_field_layers:
            activate_layer(code, z, y, size)
            field = net.fields + (t * net.n_field_layers + layer) * net.n_field_neurons * n_rows
            drop(net, y, n_out, field, rate, shift)
            drop(net, z, n_out, field, rate, shift)
        else:
            activate_and_slope(code, z, y, size)
        if net.residual[layer]:
            if not net.n_field_layers and code <= 6:  # the slope needs the activation without the residual
                fill(z, size, ONE)
                slope_times(code, y, z, size)
            for k in range(size):
                y[k] += x[k]
        x = y


@inlined
def backward_pass(net, memory, p, g, blocks, code, columns):
    """Gradient of all parameters into ``g``, from that of the outputs in ``memory.grad``.

    Parameters
    ----------
    p, g, blocks, code
        Parameters, their gradient, their blocks, and the code of the activation.
    columns
        Rows of the batch ``(N, n_columns)``. The first padded column, if any, is 1.

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
        w = offset_of(blocks, layer, WEIGHT)
        _layer_gradient(net, memory, g, blocks, layer, d, columns)
        if layer == 0:
            if net.n_numbers:
                n_mixed, n_inputs = N_WAVE_OUTPUTS * net.n_numbers, net.n_inputs
                if net.scaled:
                    matmul(memory.scaled, n_inputs, 1, n_in, -1, n_mixed, n_out, d, 0, n_rows, free, 0)
                else:
                    matmul(p, w + n_inputs, 1, n_in, -1, n_mixed, n_out, d, 0, n_rows, free, 0)
                if n_layers > 1 and net.residual[0]:
                    skipped = memory.skipped + n_inputs * n_rows
                    for k in range(n_mixed * n_rows):
                        free[k] += skipped[k]
            if net.scaled:
                scale_gradient(net, p, g, blocks)
            break
        if n_out == 1:
            outer_product(p, w, n_in, d, n_rows, free)
        else:
            matmul(p, w, 1, n_in, -1, n_in, n_out, d, 0, n_rows, free, 0)
        size = n_in * n_rows
        if layer < n_layers - 1 and net.residual[layer]:
            skipped = memory.skipped
            for k in range(size):
                free[k] += skipped[k]
        d, free = free, d
        below = layer - 1
        z, y = memory.before + net.starts[below], memory.after + net.starts[below]
        if net.residual[below]:
            copy(d, 0, size, memory.skipped, 0)
        # codes 7 to 9 (gelu, silu, mish) have left the slope itself, 1 to 6 save their output
        if net.n_field_layers or 7 <= code <= 9 or (net.residual[below] and code <= 6):
            multiply_by(d, z, size)
        else:
            slope_times(code, y if code <= 6 else z, d, size)
        if net.normalized:
            normalize_backward(net, memory, p, g, blocks, below, d)
    return n_layers % 2 == 0


@inlined
def _layer_gradient(net, memory, g, blocks, layer, d, columns):
    """Gradient of the weights and biases of a layer, from that of its outputs ``d`` (O, N)."""
    n_out, n_in, n_rows, n_columns = net.sizes[layer + 1], net.sizes[layer], net.n_rows, net.n_columns
    product, transposed = memory.product, memory.transposed
    w, b = offset_of(blocks, layer, WEIGHT), offset_of(blocks, layer, BIAS)
    has_ones = False
    if layer == 0 and not net.n_numbers:
        weight_gradient(d, 0, n_out, columns, 0, n_columns, net.n_true, n_rows, product)
        _remove_padding(product, n_columns, n_out, n_in, g, w)
        has_ones = n_columns > n_in  # the column after the inputs is 1
    else:
        y = memory.embedded if layer == 0 else memory.after + net.starts[layer - 1]
        if n_out == 1:
            row_products(y, 0, n_in, d, 0, n_rows, g, w)
        elif n_out <= LANES:
            transpose(d, 0, n_out, n_rows, transposed, LANES)
            weight_gradient(y, 0, n_in, transposed, 0, LANES, net.n_true, n_rows, product)
            for o in range(n_out):
                for i in range(n_in):
                    g[w + o * n_in + i] = product[i * LANES + o]
        else:
            width = round_up(n_in)
            transpose(y, 0, n_in, n_rows, transposed, width)
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
