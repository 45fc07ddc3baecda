"""Modified matrix multiplication on the GPU: one program per tile of one member, ragged in both dimensions.

A table lists the tiles of all members. A program reads its row, multiplies along the shared dimension block
by block, and writes one tile. There are no atomics, so results are reproducible bit for bit. Products are
accumulated in float32 (float64 for float64). ``UPCAST`` widens tiles before they are multiplied: the
interpreter needs it for bfloat16, which NumPy does not have.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def product_tiles(
    matrix, right, result, tiles, n_columns,
    TRANSPOSED: tl.constexpr, BLOCK: tl.constexpr, COLUMNS: tl.constexpr, DEEP: tl.constexpr,
    ACCUMULATE: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """``result = M right`` for each member, or ``M^T right`` if ``TRANSPOSED``.

    ``tiles`` (programs, 6) int64 holds the starts of the member's matrix and of its rows of the result and of
    ``right``, the numbers of these rows, and the first row of the tile. ``right`` and ``result`` have
    ``n_columns`` columns. The second axis of the grid runs over blocks of columns.
    """
    line = tiles + tl.program_id(0) * 6
    matrix_start = tl.load(line)
    result_start = tl.load(line + 1)
    right_start = tl.load(line + 2)
    n_result = tl.load(line + 3).to(tl.int32)
    n_right = tl.load(line + 4).to(tl.int32)
    r = tl.load(line + 5).to(tl.int32) + tl.arange(0, BLOCK)
    n = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    in_r = r < n_result
    in_n = n < n_columns
    total = tl.zeros((BLOCK, COLUMNS), ACCUMULATE)
    for start in range(0, n_right, DEEP):
        k = start + tl.arange(0, DEEP)
        in_k = k < n_right
        # resolved at compile time; before Triton 3.4 a conditional expression is not
        if TRANSPOSED:  # noqa: SIM108
            place = k[None, :] * n_result + r[:, None]
        else:
            place = r[:, None] * n_right + k[None, :]
        m = tl.load(matrix + matrix_start + place, mask=in_r[:, None] & in_k[None, :], other=0.0)
        place = (right_start + k[:, None]) * n_columns + n[None, :]
        x = tl.load(right + place, mask=in_k[:, None] & in_n[None, :], other=0.0)
        if UPCAST:
            m = m.to(ACCUMULATE)
            x = x.to(ACCUMULATE)
        total += tl.dot(m, x, input_precision=PRECISION, out_dtype=ACCUMULATE)
    place = (result_start + r[:, None]) * n_columns + n[None, :]
    tl.store(result + place, total.to(result.dtype.element_ty), mask=in_r[:, None] & in_n[None, :])


@triton.jit
def outer_tiles(
    left, right, result, tiles, n_columns,
    BLOCK: tl.constexpr, DEEP: tl.constexpr,
    ACCUMULATE: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """``result = left right^T`` for each member: the gradient by its matrix.

    ``tiles`` (programs, 7) int64 holds the starts of the member's matrix and of its rows of ``left`` and of
    ``right``, the numbers of these rows, and the first row and column of the tile.
    """
    line = tiles + tl.program_id(0) * 7
    result_start = tl.load(line)
    left_start = tl.load(line + 1)
    right_start = tl.load(line + 2)
    n_left = tl.load(line + 3).to(tl.int32)
    n_right = tl.load(line + 4).to(tl.int32)
    r = tl.load(line + 5).to(tl.int32) + tl.arange(0, BLOCK)
    c = tl.load(line + 6).to(tl.int32) + tl.arange(0, BLOCK)
    in_r = r < n_left
    in_c = c < n_right
    total = tl.zeros((BLOCK, BLOCK), ACCUMULATE)
    for start in range(0, n_columns, DEEP):
        k = start + tl.arange(0, DEEP)
        in_k = k < n_columns
        place = (left_start + r[:, None]) * n_columns + k[None, :]
        a = tl.load(left + place, mask=in_r[:, None] & in_k[None, :], other=0.0)
        place = (right_start + c[:, None]) * n_columns + k[None, :]
        b = tl.load(right + place, mask=in_c[:, None] & in_k[None, :], other=0.0)
        if UPCAST:
            a = a.to(ACCUMULATE)
            b = b.to(ACCUMULATE)
        total += tl.dot(a, tl.trans(b), input_precision=PRECISION, out_dtype=ACCUMULATE)
    place = result_start + r[:, None] * n_right + c[None, :]
    tl.store(result + place, total.to(result.dtype.element_ty), mask=in_r[:, None] & in_c[None, :])
