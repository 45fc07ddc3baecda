"""Products of one member inside a compiled loop: a block of results is summed up in registers.

Matrices lie in flat arrays from an offset on, rows of a batch in whole vectors. Blocks are four neurons by
two vectors of rows, or eight neurons by one vector of columns: enough sums to hide each other's delay, few
enough for sixteen registers. Buffers have room for what a block reads and writes beyond the last neuron.

GFLOP/s on one Zen 4 core whose library reaches 102 with products of 1,024 by 1,024: 110 for (64 x 50) and
(64 x 64) times 128 rows, 91 to 115 for their gradients, 93 to 108 for (256 x 256) and (512 x 512).
"""

from __future__ import annotations

from typing import Any

from parallelmlp_search.kernels.numba.decorators import inner
from parallelmlp_search.kernels.numba.elementwise import ZERO
from parallelmlp_search.kernels.numba.vectors import (
    LANES,
    add,
    load,
    multiply,
    multiply_add,
    splat,
    spread,
    store,
    total,
    transpose,
)

__all__ = ["copy", "dots", "outer", "products", "row_sums", "transposed", "weight_products", "whole"]


@inner
def copy(values: Any, start: Any, size: Any, into: Any, to: Any) -> None:
    """``size`` values from ``start`` on to their place in another array."""
    # by slices, whose indices cannot be negative, which it would cost vectors to find out
    source, target = values[start : start + size], into[to : to + size]
    for k in range(size):
        target[k] = source[k]


@inner
def whole(size: Any) -> Any:
    """The multiple of the lanes that is not below a size."""
    return (size + LANES - 1) // LANES * LANES


@inner
def _quarter(
    w: Any, at: Any, over: Any, along: Any, z: Any, x: Any, spot: Any, n_in: Any, n_rows: Any
) -> Any:
    """Two vectors of rows of four neurons, whose sums begin with what ``z`` says of each."""
    z0, z1, z2, z3 = z
    y0, y1, y2, y3 = z
    for k in range(n_in):
        left, right = load(x, spot + k * n_rows), load(x, spot + k * n_rows + LANES)
        place = at + k * along
        w0, w1 = spread(w, place), spread(w, place + over)
        w2, w3 = spread(w, place + 2 * over), spread(w, place + 3 * over)
        z0, y0 = multiply_add(w0, left, z0), multiply_add(w0, right, y0)
        z1, y1 = multiply_add(w1, left, z1), multiply_add(w1, right, y1)
        z2, y2 = multiply_add(w2, left, z2), multiply_add(w2, right, y2)
        z3, y3 = multiply_add(w3, left, z3), multiply_add(w3, right, y3)
    return z0, z1, z2, z3, y0, y1, y2, y3


@inner
def _narrow(w: Any, at: Any, over: Any, along: Any, z: Any, x: Any, spot: Any, n_in: Any, n_rows: Any) -> Any:
    """One vector of rows of four neurons."""
    z0, z1, z2, z3 = z
    for k in range(n_in):
        left = load(x, spot + k * n_rows)
        place = at + k * along
        z0 = multiply_add(spread(w, place), left, z0)
        z1 = multiply_add(spread(w, place + over), left, z1)
        z2 = multiply_add(spread(w, place + 2 * over), left, z2)
        z3 = multiply_add(spread(w, place + 3 * over), left, z3)
    return z0, z1, z2, z3


@inner
def _single(w: Any, at: Any, along: Any, z0: Any, x: Any, spot: Any, n_in: Any, n_rows: Any) -> Any:
    """One vector of rows of one neuron, as four sums."""
    z1 = z2 = z3 = splat(ZERO)
    for quarter in range(n_in // 4):
        k = 4 * quarter
        place, here = at + k * along, spot + k * n_rows
        z0 = multiply_add(spread(w, place), load(x, here), z0)
        z1 = multiply_add(spread(w, place + along), load(x, here + n_rows), z1)
        z2 = multiply_add(spread(w, place + 2 * along), load(x, here + 2 * n_rows), z2)
        z3 = multiply_add(spread(w, place + 3 * along), load(x, here + 3 * n_rows), z3)
    for k in range(n_in - n_in % 4, n_in):
        z0 = multiply_add(spread(w, at + k * along), load(x, spot + k * n_rows), z0)
    return add(add(z0, z1), add(z2, z3))


@inner
def products(
    w: Any,
    start: Any,
    over: Any,
    along: Any,
    bias: Any,
    n_out: Any,
    n_in: Any,
    x: Any,
    begin: Any,
    n_rows: Any,
    z: Any,
    to: Any,
) -> None:
    """``W x`` into ``z`` (O, N) at ``to``: ``W[o, i]`` is ``w[start + o over + i along]``, ``x`` (I, N).

    ``bias`` is where the biases begin in ``w``, or below zero for none.
    """
    zero = splat(ZERO)
    n_parts = n_rows // LANES
    for half in range((n_parts + 1) // 2):
        part = 2 * half * LANES
        spot = begin + part
        both = 2 * half + 1 < n_parts
        for quarter in range(n_out // 4):
            o = 4 * quarter
            if bias >= 0:
                first = (
                    spread(w, bias + o),
                    spread(w, bias + o + 1),
                    spread(w, bias + o + 2),
                    spread(w, bias + o + 3),
                )
            else:
                first = zero, zero, zero, zero
            here = to + o * n_rows + part
            if both:
                z0, z1, z2, z3, y0, y1, y2, y3 = _quarter(
                    w, start + o * over, over, along, first, x, spot, n_in, n_rows
                )
                store(z, here + LANES, y0)
                store(z, here + n_rows + LANES, y1)
                store(z, here + 2 * n_rows + LANES, y2)
                store(z, here + 3 * n_rows + LANES, y3)
            else:
                z0, z1, z2, z3 = _narrow(w, start + o * over, over, along, first, x, spot, n_in, n_rows)
            store(z, here, z0)
            store(z, here + n_rows, z1)
            store(z, here + 2 * n_rows, z2)
            store(z, here + 3 * n_rows, z3)
        for o in range(n_out - n_out % 4, n_out):
            single = spread(w, bias + o) if bias >= 0 else zero
            here = to + o * n_rows + part
            at = start + o * over
            store(z, here, _single(w, at, along, single, x, spot, n_in, n_rows))
            if both:
                store(z, here + LANES, _single(w, at, along, single, x, spot + LANES, n_in, n_rows))


@inner
def weight_products(
    grad: Any,
    at: Any,
    n_out: Any,
    columns: Any,
    start: Any,
    n_columns: Any,
    n_true: Any,
    n_rows: Any,
    product: Any,
) -> None:
    """``grad`` (O, N) at ``at`` times ``columns`` (N, columns) from ``start`` on, into ``product``.

    Eight neurons at a time; those beyond the last one hold what there was, and so do their products.
    """
    for part in range(n_columns // LANES):
        for eighth in range((n_out + 7) // 8):
            begin = at + 8 * eighth * n_rows
            s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = splat(ZERO)
            for n in range(n_true):
                x = load(columns, start + n * n_columns + part * LANES)
                k = begin + n
                s0 = multiply_add(spread(grad, k), x, s0)
                s1 = multiply_add(spread(grad, k + n_rows), x, s1)
                s2 = multiply_add(spread(grad, k + 2 * n_rows), x, s2)
                s3 = multiply_add(spread(grad, k + 3 * n_rows), x, s3)
                s4 = multiply_add(spread(grad, k + 4 * n_rows), x, s4)
                s5 = multiply_add(spread(grad, k + 5 * n_rows), x, s5)
                s6 = multiply_add(spread(grad, k + 6 * n_rows), x, s6)
                s7 = multiply_add(spread(grad, k + 7 * n_rows), x, s7)
            k = 8 * eighth * n_columns + part * LANES
            store(product, k, s0)
            store(product, k + n_columns, s1)
            store(product, k + 2 * n_columns, s2)
            store(product, k + 3 * n_columns, s3)
            store(product, k + 4 * n_columns, s4)
            store(product, k + 5 * n_columns, s5)
            store(product, k + 6 * n_columns, s6)
            store(product, k + 7 * n_columns, s7)


@inner
def outer(w: Any, start: Any, n: Any, row: Any, n_rows: Any, z: Any) -> None:
    """Products of ``n`` numbers, from ``start`` on, with one row each: ``z`` (n, N)."""
    for h in range(n):
        factor = spread(w, start + h)
        for part in range(n_rows // LANES):
            k = part * LANES
            store(z, h * n_rows + k, multiply(factor, load(row, k)))


@inner
def dots(a: Any, at: Any, n: Any, row: Any, spot: Any, n_rows: Any, found: Any, to: Any) -> None:
    """Products of each of ``n`` rows of ``a`` with one row."""
    for h in range(n):
        s = splat(ZERO)
        for part in range(n_rows // LANES):
            s = multiply_add(load(a, at + h * n_rows + part * LANES), load(row, spot + part * LANES), s)
        found[to + h] = total(s)


@inner
def row_sums(a: Any, at: Any, n: Any, n_rows: Any, found: Any, to: Any) -> None:
    """Sum of each of ``n`` rows."""
    for h in range(n):
        s = splat(ZERO)
        for part in range(n_rows // LANES):
            s = add(s, load(a, at + h * n_rows + part * LANES))
        found[to + h] = total(s)


@inner
def transposed(a: Any, at: Any, n: Any, n_rows: Any, columns: Any, n_columns: Any) -> None:
    """``n`` rows of ``a`` (n, N) as columns (N, columns); those that fill up hold anything."""
    for part in range(n_columns // LANES):
        for rows in range(n_rows // LANES):
            here = at + part * LANES * n_rows + rows * LANES
            transpose(a, here, n_rows, columns, rows * LANES * n_columns + part * LANES, n_columns)
