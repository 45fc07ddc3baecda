"""Matrix products of one member in a compiled loop. Blocks of results are summed in registers.

Matrices lie in buffers from an offset on. Rows of a batch are contiguous and padded to whole vectors. A
block is four neurons by two vectors of rows, or eight neurons by one vector of columns: enough sums to hide
the latency of each, few enough for sixteen registers. Buffers have room for what a block reads and writes
beyond the last neuron.

GFLOP/s on one Zen 4 core, whose BLAS reaches 102 with products of 1,024 by 1,024: 110 for (64 x 50) and
(64 x 64) times 128 rows, 91 to 115 for their gradients, 93 to 108 for (256 x 256) and (512 x 512).
"""

from __future__ import annotations

from parallelmlp_search.kernels.numba.decorators import inlined
from parallelmlp_search.kernels.numba.elementwise import ZERO
from parallelmlp_search.kernels.numba.vectors import (
    LANES,
    add,
    horizontal_sum,
    load,
    load_splat,
    multiply,
    multiply_add,
    splat,
    store,
    transpose_block,
)


@inlined
def copy(source, start, size, target, to):
    """Copy ``size`` elements from ``start`` of one buffer to ``to`` of another."""
    for k in range(size):
        target[to + k] = source[start + k]


@inlined
def round_up(size):
    """Return the smallest multiple of ``LANES`` that is not below a size."""
    return (size + LANES - 1) // LANES * LANES


@inlined
def _block_4x2(w, at, row_stride, stride, z, x, begin, n_in, n_rows):
    """Two vectors of rows of four neurons; the sums start with ``z``."""
    z0, z1, z2, z3 = z
    y0, y1, y2, y3 = z
    for k in range(n_in):
        left, right = load(x, begin + k * n_rows), load(x, begin + k * n_rows + LANES)
        first = at + k * stride
        w0, w1 = load_splat(w, first), load_splat(w, first + row_stride)
        w2, w3 = load_splat(w, first + 2 * row_stride), load_splat(w, first + 3 * row_stride)
        z0, y0 = multiply_add(w0, left, z0), multiply_add(w0, right, y0)
        z1, y1 = multiply_add(w1, left, z1), multiply_add(w1, right, y1)
        z2, y2 = multiply_add(w2, left, z2), multiply_add(w2, right, y2)
        z3, y3 = multiply_add(w3, left, z3), multiply_add(w3, right, y3)
    return z0, z1, z2, z3, y0, y1, y2, y3


@inlined
def _block_4x1(w, at, row_stride, stride, z, x, begin, n_in, n_rows):
    """One vector of rows of four neurons; the sums start with ``z``."""
    z0, z1, z2, z3 = z
    for k in range(n_in):
        left = load(x, begin + k * n_rows)
        first = at + k * stride
        z0 = multiply_add(load_splat(w, first), left, z0)
        z1 = multiply_add(load_splat(w, first + row_stride), left, z1)
        z2 = multiply_add(load_splat(w, first + 2 * row_stride), left, z2)
        z3 = multiply_add(load_splat(w, first + 3 * row_stride), left, z3)
    return z0, z1, z2, z3


@inlined
def _block_1x1(w, at, stride, z0, x, begin, n_in, n_rows):
    """One vector of rows of one neuron, in four sums that are independent of each other."""
    z1 = z2 = z3 = splat(ZERO)
    for quarter in range(n_in // 4):
        k = 4 * quarter
        first, row = at + k * stride, begin + k * n_rows
        z0 = multiply_add(load_splat(w, first), load(x, row), z0)
        z1 = multiply_add(load_splat(w, first + stride), load(x, row + n_rows), z1)
        z2 = multiply_add(load_splat(w, first + 2 * stride), load(x, row + 2 * n_rows), z2)
        z3 = multiply_add(load_splat(w, first + 3 * stride), load(x, row + 3 * n_rows), z3)
    for k in range(n_in - n_in % 4, n_in):
        z0 = multiply_add(load_splat(w, at + k * stride), load(x, begin + k * n_rows), z0)
    return add(add(z0, z1), add(z2, z3))


@inlined
def matmul(w, start, row_stride, stride, bias, n_out, n_in, x, begin, n_rows, z, to):
    """``W x + b`` into ``z`` (O, N) from ``to`` on, with ``x`` (I, N) from ``begin`` on.

    ``W[o, i]`` is ``w[start + o * row_stride + i * stride]``. The biases start at ``bias`` of ``w``, which is
    negative for none.
    """
    zero = splat(ZERO)
    n_parts = n_rows // LANES
    for half in range((n_parts + 1) // 2):
        part = 2 * half * LANES
        x_start = begin + part
        is_pair = 2 * half + 1 < n_parts
        for quarter in range(n_out // 4):
            o = 4 * quarter
            if bias >= 0:
                first = (
                    load_splat(w, bias + o),
                    load_splat(w, bias + o + 1),
                    load_splat(w, bias + o + 2),
                    load_splat(w, bias + o + 3),
                )
            else:
                first = zero, zero, zero, zero
            z_start, at = to + o * n_rows + part, start + o * row_stride
            if is_pair:
                z0, z1, z2, z3, y0, y1, y2, y3 = _block_4x2(
                    w, at, row_stride, stride, first, x, x_start, n_in, n_rows
                )
                store(z, z_start + LANES, y0)
                store(z, z_start + n_rows + LANES, y1)
                store(z, z_start + 2 * n_rows + LANES, y2)
                store(z, z_start + 3 * n_rows + LANES, y3)
            else:
                z0, z1, z2, z3 = _block_4x1(w, at, row_stride, stride, first, x, x_start, n_in, n_rows)
            store(z, z_start, z0)
            store(z, z_start + n_rows, z1)
            store(z, z_start + 2 * n_rows, z2)
            store(z, z_start + 3 * n_rows, z3)
        for o in range(n_out - n_out % 4, n_out):
            single = load_splat(w, bias + o) if bias >= 0 else zero
            z_start, at = to + o * n_rows + part, start + o * row_stride
            store(z, z_start, _block_1x1(w, at, stride, single, x, x_start, n_in, n_rows))
            if is_pair:
                y = _block_1x1(w, at, stride, single, x, x_start + LANES, n_in, n_rows)
                store(z, z_start + LANES, y)


@inlined
def weight_gradient(grad, at, n_out, columns, start, n_columns, n_true, n_rows, product):
    """``grad`` (O, N) from ``at`` on times ``columns`` (N, n_columns) from ``start`` on, into ``product``.

    Only the first ``n_true`` rows are summed. Neurons are taken eight at a time: results for those beyond the
    last one are undefined.
    """
    for part in range(n_columns // LANES):
        for eighth in range((n_out + 7) // 8):
            begin = at + 8 * eighth * n_rows
            s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = splat(ZERO)
            for n in range(n_true):
                x = load(columns, start + n * n_columns + part * LANES)
                k = begin + n
                s0 = multiply_add(load_splat(grad, k), x, s0)
                s1 = multiply_add(load_splat(grad, k + n_rows), x, s1)
                s2 = multiply_add(load_splat(grad, k + 2 * n_rows), x, s2)
                s3 = multiply_add(load_splat(grad, k + 3 * n_rows), x, s3)
                s4 = multiply_add(load_splat(grad, k + 4 * n_rows), x, s4)
                s5 = multiply_add(load_splat(grad, k + 5 * n_rows), x, s5)
                s6 = multiply_add(load_splat(grad, k + 6 * n_rows), x, s6)
                s7 = multiply_add(load_splat(grad, k + 7 * n_rows), x, s7)
            k = 8 * eighth * n_columns + part * LANES
            store(product, k, s0)
            store(product, k + n_columns, s1)
            store(product, k + 2 * n_columns, s2)
            store(product, k + 3 * n_columns, s3)
            store(product, k + 4 * n_columns, s4)
            store(product, k + 5 * n_columns, s5)
            store(product, k + 6 * n_columns, s6)
            store(product, k + 7 * n_columns, s7)


@inlined
def outer_product(w, start, n, row, n_rows, z):
    """Products of ``n`` numbers from ``start`` of ``w`` on with a row (N,), into ``z`` (n, N)."""
    for h in range(n):
        factor = load_splat(w, start + h)
        for part in range(n_rows // LANES):
            k = part * LANES
            store(z, h * n_rows + k, multiply(factor, load(row, k)))


@inlined
def row_products(a, at, n, row, begin, n_rows, result, to):
    """Scalar products of ``n`` rows of ``a`` with a row, into ``result`` (n,) from ``to`` on."""
    for h in range(n):
        s = splat(ZERO)
        for part in range(n_rows // LANES):
            s = multiply_add(load(a, at + h * n_rows + part * LANES), load(row, begin + part * LANES), s)
        result[to + h] = horizontal_sum(s)


@inlined
def row_sums(a, at, n, n_rows, result, to):
    """Sums of ``n`` rows of ``a``, into ``result`` (n,) from ``to`` on."""
    for h in range(n):
        s = splat(ZERO)
        for part in range(n_rows // LANES):
            s = add(s, load(a, at + h * n_rows + part * LANES))
        result[to + h] = horizontal_sum(s)


@inlined
def transpose(a, at, n, n_rows, columns, n_columns):
    """``n`` rows of ``a`` (n, N) as ``columns`` (N, n_columns), whose padding is undefined."""
    for part in range(n_columns // LANES):
        for rows in range(n_rows // LANES):
            source = at + part * LANES * n_rows + rows * LANES
            transpose_block(a, source, n_rows, columns, rows * LANES * n_columns + part * LANES, n_columns)
