"""Memory of one member in a compiled loop: its blocks of parameters, and the buffers of its passes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from parallelmlp_search.kernels.numba.decorators import allocating, force_inlined
from parallelmlp_search.kernels.numba.products import copy, round_up
from parallelmlp_search.kernels.numba.vectors import LANES

SOURCE, BLOCK_ROWS, BLOCK_COLUMNS, KIND, LAYER, DECAYS, GROUP = range(7)
"""Columns of a table of blocks, see `Blocks`."""

_KINDS = "weight bias gain shift scale frequency phase mixing offset input_adapter output_adapter category"
KINDS = {kind: number for number, kind in enumerate(_KINDS.split())}
"""Number of each kind of block."""

WEIGHT, BIAS, GAIN, SHIFT, SCALE, FREQUENCY, PHASE, MIXING, OFFSET = range(9)
INPUT_ADAPTER, OUTPUT_ADAPTER, CATEGORY = range(9, 12)
N_KINDS = len(KINDS)

N_WAVES, N_WAVE_OUTPUTS = 16, 3
"""Waves per number of a periodic embedding, and outputs that are combined from them."""

_CACHE_LINE = 16
"""Floats in a cache line."""


class Blocks(NamedTuple):
    """Blocks of parameters of one member or of one expanded network, and their places in its own buffer.

    Attributes
    ----------
    table
        ``(blocks, 7)``: offset in the flat buffers of the bucket, padded rows and columns, kind (see
        :data:`KINDS`), layer (the number after the head's for what lies before the first layer), 1 if it
        decays, and group of coefficients. Of an expanded network ``(blocks, 5)``, with the number of the
        member's block that it comes from in place of the offset.
    shapes
        ``(blocks, 2)``: true rows and columns.
    starts
        ``(blocks,)``: start of each block in the buffer.
    offsets
        ``(layers + 1, kinds)``: the same by layer and kind, -1 for a block that does not exist.
    """

    table: Any
    shapes: Any
    starts: Any
    offsets: Any


class Network(NamedTuple):
    """Properties that the networks of a bucket share, and the sizes of the present one."""

    n_layers: Any
    n_inputs: Any
    n_numbers: Any  # columns with a periodic embedding
    n_true: Any  # rows of a batch
    n_rows: Any  # the same, padded to whole vectors
    n_columns: Any  # padded input columns
    has_bias: Any
    normalized: Any
    scaled: Any  # True for input scales
    dropping: Any
    residual: Any  # (layers,): True for a residual connection
    fields: Any  # (T, layers, H, N): uniform numbers of dropout, or empty
    sizes: Any  # (layers + 1,): neurons of each layer, inputs first
    starts: Any  # (layers + 1,): start of the outputs of each layer


class Memory(NamedTuple):
    """Buffers of the passes. All networks of a bucket use them in turn."""

    before: Any  # pre-activations of all layers, later their slopes
    after: Any  # activations of all layers
    normalized: Any  # normalized values before gain and shift
    inverse: Any  # inverse deviations of the normalization
    grad: Any  # gradient by the outputs of a layer ...
    other: Any  # ... and of the layer below, by turns
    skipped: Any  # gradient that a residual connection passes on
    product: Any  # gradient of padded weights
    transposed: Any  # transposed activations or gradients
    embedded: Any  # inputs with the outputs of a periodic embedding
    waves: Any  # its cosines and sines
    wave_slopes: Any
    scaled: Any  # weights of the first layer times the input scales, and its biases
    scratch: Any  # (3, N)


@allocating
def zeros(size):
    """Return zeros that start with a cache line: vectors across two lines take twice as long."""
    memory = np.zeros(size + _CACHE_LINE, dtype=np.float32)
    start = (-(memory.ctypes.data // 4)) % _CACHE_LINE
    return memory[start : start + size]


@allocating
def allocate_memory(net, padded, room):
    """Return buffers for the largest network of a bucket, with layers of sizes ``padded`` (layers + 1,)."""
    n_rows, n_embedded = net.n_rows, padded[0]
    widest, total_width = 0, 0
    for layer in range(net.n_layers):
        widest = max(widest, padded[layer + 1])
        total_width += padded[layer + 1]
    # products read and write up to LANES neurons beyond the last
    size = (total_width + LANES) * n_rows
    layer_size = (max(widest, N_WAVE_OUTPUTS * net.n_numbers) + LANES) * n_rows
    wave_size = (N_WAVES + LANES) * n_rows if net.n_numbers else 0
    scaled = round_up(padded[1] * n_embedded) + room + round_up(padded[1])
    return Memory(
        zeros(size),
        zeros(size),
        zeros(size if net.normalized else 0),
        zeros(net.n_layers * n_rows if net.normalized else 0),
        zeros(layer_size),
        zeros(layer_size),
        zeros(layer_size if net.residual.any() else 0),
        zeros(max((widest + LANES) * room, (max(widest, n_embedded) + LANES) * LANES)),
        zeros(n_rows * room),
        zeros((n_embedded + LANES) * n_rows if net.n_numbers else 0),
        np.zeros((2, wave_size), dtype=np.float32),
        zeros(wave_size),
        zeros(scaled if net.scaled else 0),
        np.zeros((3, n_rows), dtype=np.float32),
    )


@allocating
def blocks_of(table, n_layers):
    """Return the blocks of a table with their padded shapes, not yet placed."""
    return Blocks(
        table,
        table[:, BLOCK_ROWS:KIND],
        np.zeros(len(table), np.int64),
        np.zeros((n_layers + 1, N_KINDS), np.int64),
    )


@force_inlined
def place_blocks(blocks, room):
    """Set the starts and offsets of blocks in their buffer, and return the size of the buffer.

    Weights have ``room`` behind them for what products write beyond a row.
    """
    blocks.offsets[:] = -1
    end = 0
    for b in range(len(blocks.table)):
        kind = blocks.table[b, KIND]
        blocks.starts[b] = end
        blocks.offsets[blocks.table[b, LAYER], kind] = end
        end += round_up(blocks.shapes[b, 0] * blocks.shapes[b, 1])
        if kind == WEIGHT:
            end += room
    return end


@force_inlined
def _copy_member(flat, blocks, member, own, reads):
    for b in range(len(blocks.table)):
        n_columns, padded = blocks.shapes[b, 1], blocks.table[b, BLOCK_COLUMNS]
        start = blocks.table[b, SOURCE] + member * blocks.table[b, BLOCK_ROWS] * padded
        n_copies, size = blocks.shapes[b, 0], n_columns
        if n_columns == padded:
            n_copies, size = 1, blocks.shapes[b, 0] * n_columns
        for o in range(n_copies):
            if reads:
                copy(flat, start + o * padded, size, own, blocks.starts[b] + o * n_columns)
            else:
                copy(own, blocks.starts[b] + o * n_columns, size, flat, start + o * padded)


@force_inlined
def read_member(flat, blocks, member, own):
    """Copy the blocks of a member from a flat buffer of the bucket to its own buffer."""
    _copy_member(flat, blocks, member, own, True)


@force_inlined
def write_member(flat, blocks, member, own):
    """Copy the blocks of a member from its own buffer to a flat buffer of the bucket."""
    _copy_member(flat, blocks, member, own, False)
