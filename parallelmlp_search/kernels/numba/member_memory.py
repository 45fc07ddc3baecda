"""A member's own memory inside a compiled loop: where each of its blocks lies, and the way there and back.

``blocks`` has a line for each block of a bucket, in the order of the layout: where it begins in the flat
buffers, its padded rows and columns, its kind and its layer (:data:`KINDS`), whether it decays, and its group
of coefficients. A member's true rows and columns are in ``shapes``, one line a block.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from parallelmlp_search.kernels.numba.decorators import inner, maker
from parallelmlp_search.kernels.numba.products import copy, whole

__all__ = [
    "BIAS",
    "CATEGORY",
    "FREQUENCY",
    "GAIN",
    "INPUT_ADAPTER",
    "KINDS",
    "MIXING",
    "N_KINDS",
    "OFFSET",
    "OUTPUT_ADAPTER",
    "PHASE",
    "SCALE",
    "SHIFT",
    "WEIGHT",
    "fetch",
    "place_blocks",
    "put_back",
    "zeros",
]

WEIGHT, BIAS, GAIN, SHIFT, SCALE, FREQUENCY, PHASE, MIXING, OFFSET = range(9)
INPUT_ADAPTER, OUTPUT_ADAPTER, CATEGORY = 9, 10, 11
N_KINDS = 12

KINDS = {
    "weight": WEIGHT,
    "bias": BIAS,
    "gain": GAIN,
    "shift": SHIFT,
    "scale": SCALE,
    "frequency": FREQUENCY,
    "phase": PHASE,
    "mixing": MIXING,
    "offset": OFFSET,
    "input_adapter": INPUT_ADAPTER,
    "output_adapter": OUTPUT_ADAPTER,
    "category": CATEGORY,
}
"""Number of each kind of block."""

LINE = 16


@maker
def zeros(size: Any) -> Any:
    """So many zeros that begin with a cache line: vectors across two lines take twice as long."""
    memory = np.zeros(size + LINE, dtype=np.float32)
    start = (-(memory.ctypes.data // 4)) % LINE
    return memory[start : start + size]


@inner
def place_blocks(blocks: Any, shapes: Any, room: Any, begins: Any, spots: Any) -> Any:
    """Where each block begins in a member's own buffer, and where the last one ends.

    ``begins`` (blocks,) is written, and ``spots`` (layers + 1, 12): the same by layer and kind, what lies
    before the first layer in the last line, -1 for what there is not. Weights have ``room`` behind them, for
    what products write beyond a row.
    """
    spots[:] = -1
    place = 0
    for b in range(blocks.shape[0]):
        begins[b] = place
        spots[blocks[b, 4], blocks[b, 3]] = place
        place += whole(shapes[b, 0] * shapes[b, 1])
        if blocks[b, 3] == WEIGHT:
            place += room
    return place


@inner
def fetch(flat: Any, blocks: Any, shapes: Any, begins: Any, member: Any, own: Any) -> None:
    """A member's blocks from a flat buffer to their places."""
    for b in range(blocks.shape[0]):
        n_columns, padded = shapes[b, 1], blocks[b, 2]
        start = blocks[b, 0] + member * blocks[b, 1] * padded
        to, size = begins[b], shapes[b, 0] * n_columns
        if n_columns == padded:
            copy(flat, start, size, own, to)
        else:
            for o in range(shapes[b, 0]):
                row, here = start + o * padded, to + o * n_columns
                copy(flat, row, n_columns, own, here)


@inner
def put_back(flat: Any, blocks: Any, shapes: Any, begins: Any, member: Any, own: Any) -> None:
    """The other way."""
    for b in range(blocks.shape[0]):
        n_columns, padded = shapes[b, 1], blocks[b, 2]
        start = blocks[b, 0] + member * blocks[b, 1] * padded
        to, size = begins[b], shapes[b, 0] * n_columns
        if n_columns == padded:
            copy(own, to, size, flat, start)
        else:
            for o in range(shapes[b, 0]):
                row, here = start + o * padded, to + o * n_columns
                copy(own, here, n_columns, flat, row)
