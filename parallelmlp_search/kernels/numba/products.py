"""Matrix products of one member in a compiled loop. Blocks of results are summed in registers.

Matrices lie in buffers from an offset on. Rows of a batch are contiguous and padded to whole vectors. A
block is four neurons by two vectors, or eight by two where a machine has 32 registers: enough sums to hide
the latency of each, and fewer loads than sums. Buffers have room for what a block reads and writes beyond the
last neuron.

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


HAS_32_REGISTERS = LANES == 16


@inlined
def _biases(w, bias, o):
    """Biases of four neurons in all lanes; zeros if ``bias`` is negative."""
    if bias < 0:
        zero = splat(ZERO)
        return zero, zero, zero, zero
    k = bias + o
    return load_splat(w, k), load_splat(w, k + 1), load_splat(w, k + 2), load_splat(w, k + 3)


@inlined
def _store_rows(z, to, n_rows, sums):
    """Store one vector of rows of four neurons."""
    store(z, to, sums[0])
    store(z, to + n_rows, sums[1])
    store(z, to + 2 * n_rows, sums[2])
    store(z, to + 3 * n_rows, sums[3])


@inlined
def _block_8x2(w, at, row_stride, stride, upper, lower, x, begin, n_in, n_rows):
    """Two vectors of rows of eight neurons; the sums start with those of the first and last four."""
    z0, z1, z2, z3 = upper
    y0, y1, y2, y3 = upper
    z4, z5, z6, z7 = lower
    y4, y5, y6, y7 = lower
    for k in range(n_in):
        left, right = load(x, begin + k * n_rows), load(x, begin + k * n_rows + LANES)
        first = at + k * stride
        second = first + 4 * row_stride
        w0, w1 = load_splat(w, first), load_splat(w, first + row_stride)
        w2, w3 = load_splat(w, first + 2 * row_stride), load_splat(w, first + 3 * row_stride)
        z0, y0 = multiply_add(w0, left, z0), multiply_add(w0, right, y0)
        z1, y1 = multiply_add(w1, left, z1), multiply_add(w1, right, y1)
        z2, y2 = multiply_add(w2, left, z2), multiply_add(w2, right, y2)
        z3, y3 = multiply_add(w3, left, z3), multiply_add(w3, right, y3)
        w4, w5 = load_splat(w, second), load_splat(w, second + row_stride)
        w6, w7 = load_splat(w, second + 2 * row_stride), load_splat(w, second + 3 * row_stride)
        z4, y4 = multiply_add(w4, left, z4), multiply_add(w4, right, y4)
        z5, y5 = multiply_add(w5, left, z5), multiply_add(w5, right, y5)
        z6, y6 = multiply_add(w6, left, z6), multiply_add(w6, right, y6)
        z7, y7 = multiply_add(w7, left, z7), multiply_add(w7, right, y7)
    return (z0, z1, z2, z3), (y0, y1, y2, y3), (z4, z5, z6, z7), (y4, y5, y6, y7)


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
    return (z0, z1, z2, z3), (y0, y1, y2, y3)


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
    negative for none. Results for up to two neurons beyond the last one are undefined.
    """
    n_parts = n_rows // LANES
    for half in range((n_parts + 1) // 2):
        part = 2 * half * LANES
        x_start = begin + part
        is_pair = 2 * half + 1 < n_parts
        done = 0
        if HAS_32_REGISTERS and is_pair:
            for eighth in range(n_out // 8):
                o = 8 * eighth
                z_start, at = to + o * n_rows + part, start + o * row_stride
                upper, lower = _biases(w, bias, o), _biases(w, bias, o + 4)
                a, b, c, d = _block_8x2(w, at, row_stride, stride, upper, lower, x, x_start, n_in, n_rows)
                _store_rows(z, z_start, n_rows, a)
                _store_rows(z, z_start + LANES, n_rows, b)
                _store_rows(z, z_start + 4 * n_rows, n_rows, c)
                _store_rows(z, z_start + 4 * n_rows + LANES, n_rows, d)
            done = n_out // 8 * 2
        is_single = n_out % 4 == 1
        for quarter in range(done, n_out // 4 if is_single else (n_out + 3) // 4):
            o = 4 * quarter
            first = _biases(w, bias, o)
            z_start, at = to + o * n_rows + part, start + o * row_stride
            if is_pair:
                a, b = _block_4x2(w, at, row_stride, stride, first, x, x_start, n_in, n_rows)
                _store_rows(z, z_start, n_rows, a)
                _store_rows(z, z_start + LANES, n_rows, b)
            else:
                a = _block_4x1(w, at, row_stride, stride, first, x, x_start, n_in, n_rows)
                _store_rows(z, z_start, n_rows, a)
        if is_single:
            o = n_out - 1
            single = load_splat(w, bias + o) if bias >= 0 else splat(ZERO)
            z_start, at = to + o * n_rows + part, start + o * row_stride
            store(z, z_start, _block_1x1(w, at, stride, single, x, x_start, n_in, n_rows))
            if is_pair:
                y = _block_1x1(w, at, stride, single, x, x_start + LANES, n_in, n_rows)
                store(z, z_start + LANES, y)


@inlined
def _gradient_8x1(grad, at, n_rows, columns, start, n_columns, n_true):
    """Gradients of eight neurons by one vector of columns."""
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = splat(ZERO)
    for n in range(n_true):
        x = load(columns, start + n * n_columns)
        k = at + n
        s0 = multiply_add(load_splat(grad, k), x, s0)
        s1 = multiply_add(load_splat(grad, k + n_rows), x, s1)
        s2 = multiply_add(load_splat(grad, k + 2 * n_rows), x, s2)
        s3 = multiply_add(load_splat(grad, k + 3 * n_rows), x, s3)
        s4 = multiply_add(load_splat(grad, k + 4 * n_rows), x, s4)
        s5 = multiply_add(load_splat(grad, k + 5 * n_rows), x, s5)
        s6 = multiply_add(load_splat(grad, k + 6 * n_rows), x, s6)
        s7 = multiply_add(load_splat(grad, k + 7 * n_rows), x, s7)
    return (s0, s1, s2, s3), (s4, s5, s6, s7)


@inlined
def weight_gradient(grad, at, n_out, columns, start, n_columns, n_true, n_rows, product):
    """``grad`` (O, N) from ``at`` on times ``columns`` (N, n_columns) from ``start`` on, into ``product``.

    Only the first ``n_true`` rows are summed. Neurons are taken four or eight at a time: results for those
    beyond the last one are undefined.
    """
    zero = splat(ZERO)
    zeros = zero, zero, zero, zero
    n_parts = n_columns // LANES
    for half in range(n_parts // 2):
        x, to = start + 2 * half * LANES, 2 * half * LANES
        done = 0
        if HAS_32_REGISTERS:
            for eighth in range(n_out // 8):
                begin, k = at + 8 * eighth * n_rows, to + 8 * eighth * n_columns
                a, b, c, d = _block_8x2(grad, begin, n_rows, 1, zeros, zeros, columns, x, n_true, n_columns)
                _store_rows(product, k, n_columns, a)
                _store_rows(product, k + LANES, n_columns, b)
                _store_rows(product, k + 4 * n_columns, n_columns, c)
                _store_rows(product, k + 4 * n_columns + LANES, n_columns, d)
            done = n_out // 8 * 2
        for quarter in range(done, (n_out + 3) // 4):
            begin, k = at + 4 * quarter * n_rows, to + 4 * quarter * n_columns
            a, b = _block_4x2(grad, begin, n_rows, 1, zeros, columns, x, n_true, n_columns)
            _store_rows(product, k, n_columns, a)
            _store_rows(product, k + LANES, n_columns, b)
    if n_parts % 2:
        x, to = start + (n_parts - 1) * LANES, (n_parts - 1) * LANES
        for eighth in range((n_out + 7) // 8):
            a, b = _gradient_8x1(grad, at + 8 * eighth * n_rows, n_rows, columns, x, n_columns, n_true)
            k = to + 8 * eighth * n_columns
            _store_rows(product, k, n_columns, a)
            _store_rows(product, k + 4 * n_columns, n_columns, b)


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
