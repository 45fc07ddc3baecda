"""Memory of one member in a compiled loop: its blocks of parameters, and the buffers of its passes."""

from __future__ import annotations

from typing import Any, NamedTuple

from parallelmlp_search.kernels.numba.arguments import CACHE_LINE, KINDS
from parallelmlp_search.kernels.numba.decorators import inlined
from parallelmlp_search.kernels.numba.products import copy, round_up
from parallelmlp_search.kernels.numba.vectors import LANES

SOURCE, BLOCK_ROWS, BLOCK_COLUMNS, KIND, LAYER, DECAYS, GROUP = range(7)
N_BLOCK_COLUMNS = 7
"""Columns of a table of blocks, see `Blocks`."""

WEIGHT, BIAS, GAIN, SHIFT, SCALE, FREQUENCY, PHASE, MIXING, OFFSET = range(9)
INPUT_ADAPTER, OUTPUT_ADAPTER, CATEGORY = range(9, 12)
N_KINDS = len(KINDS)

N_WAVES, N_WAVE_OUTPUTS = 16, 3
"""Waves per number of a periodic embedding, and outputs that are combined from them."""


class Blocks(NamedTuple):
    """Blocks of parameters of one member or of one expanded network, and their places in its own buffer.

    Attributes
    ----------
    n
        Number of blocks.
    table
        ``(blocks, 7)``: offset in the flat buffers of the bucket, padded rows and columns, kind (a number of
        :data:`~parallelmlp_search.kernels.numba.arguments.KINDS`), layer (the number after the head's for
        what lies before the first layer), 1 if it decays, and group of coefficients. For an expanded
        network, the number of the member's block that it comes from takes the place of the offset, and the
        last two are not used.
    shapes
        ``(blocks, 2)``: true rows and columns.
    starts
        ``(blocks,)``: start of each block in the buffer.
    offsets
        ``(layers + 1, kinds)``: the same by layer and kind, -1 for a block that does not exist.
    n_layers
        Number of layers with the head.
    """

    n: Any
    table: Any
    shapes: Any
    starts: Any
    offsets: Any
    n_layers: Any


@inlined
def column(blocks, b, name):
    """Return an entry of the table of blocks."""
    return blocks.table[b * N_BLOCK_COLUMNS + name]


@inlined
def block_size(blocks, b):
    """Return the true rows times the true columns of a block."""
    return blocks.shapes[2 * b] * blocks.shapes[2 * b + 1]


@inlined
def offset_of(blocks, layer, kind):
    """Return the start of a block by its layer and kind, or -1 if it does not exist."""
    return blocks.offsets[layer * N_KINDS + kind]


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
    residual: Any  # (layers,): True for a residual connection
    fields: Any  # (T, layers, H, N): uniform numbers of dropout
    n_field_layers: Any  # 0 without dropout
    n_field_neurons: Any
    sizes: Any  # (layers + 1,): neurons of each layer, inputs first
    starts: Any  # (layers + 1,): start of each layer in the buffers of activations


class Memory(NamedTuple):
    """Buffers of the passes of one network. Rows are padded to whole vectors."""

    before: Any  # pre-activations, after the activation its slope
    after: Any  # activations
    normalized: Any  # pre-activations after layer normalization, before gain and shift
    inverse: Any  # (layers, N): inverse standard deviations
    grad: Any  # gradient of the outputs of a layer ...
    other: Any  # ... and of the layer below, by turns
    skipped: Any  # gradient that a residual connection passes on
    product: Any  # gradient of padded weights
    transposed: Any  # transposed activations or gradients
    embedded: Any  # inputs with the outputs of a periodic embedding
    cosines: Any  # its waves
    sines: Any
    wave_slopes: Any
    scaled: Any  # weights of the first layer times the input scales
    scaled_bias: Any  # biases of the first layer, in the same buffer as `scaled`: their distance from it
    scratch: Any  # (3, N)


@inlined
def fill(values, size, value):
    """Set the first ``size`` elements."""
    for k in range(size):
        values[k] = value


@inlined
def after(buffer, size):
    """Return the start of the buffer that follows one of ``size`` floats, at the start of a cache line."""
    # vectors across two cache lines take twice as long
    return buffer + (size + CACHE_LINE - 1) // CACHE_LINE * CACHE_LINE


@inlined
def place_memory(net, padded, room, has_residual, start):
    """Place the buffers for the largest network of a bucket in memory from ``start`` on.

    Parameters
    ----------
    net
        Properties of the networks.
    padded
        ``(layers + 1,)``: sizes of the layers of the largest network.
    room
        Floats that products write beyond a row of weights.
    has_residual
        True if any layer has a residual connection.
    start
        Start of the memory. It is not read or written.

    Returns
    -------
    Memory, pointer
        The buffers, and the end of their memory.
    """
    n_rows, n_embedded = net.n_rows, padded[0]
    widest, total_width = 0, 0
    for layer in range(net.n_layers):
        widest = max(widest, padded[layer + 1])
        total_width += padded[layer + 1]
    # products read and write up to LANES neurons beyond the last
    size = (total_width + LANES) * n_rows
    layer_size = (max(widest, N_WAVE_OUTPUTS * net.n_numbers) + LANES) * n_rows
    wave_size = (N_WAVES + LANES) * n_rows if net.n_numbers else 0
    scaled_bias = round_up(padded[1] * n_embedded) + room
    before = start
    activations = after(before, size)
    normalized = after(activations, size)
    inverse = after(normalized, size if net.normalized else 0)
    grad = after(inverse, net.n_layers * n_rows if net.normalized else 0)
    other = after(grad, layer_size)
    skipped = after(other, layer_size)
    product = after(skipped, layer_size if has_residual else 0)
    transposed = after(product, max((widest + LANES) * room, (max(widest, n_embedded) + LANES) * LANES))
    embedded = after(transposed, n_rows * room)
    cosines = after(embedded, (n_embedded + LANES) * n_rows if net.n_numbers else 0)
    sines = after(cosines, wave_size)
    wave_slopes = after(sines, wave_size)
    scaled = after(wave_slopes, wave_size)
    scratch = after(scaled, scaled_bias + round_up(padded[1]) if net.scaled else 0)
    memory = Memory(
        before,
        activations,
        normalized,
        inverse,
        grad,
        other,
        skipped,
        product,
        transposed,
        embedded,
        cosines,
        sines,
        wave_slopes,
        scaled,
        scaled_bias,
        scratch,
    )
    return memory, after(scratch, 3 * n_rows)


@inlined
def place_blocks(blocks, room):
    """Set the starts and offsets of blocks in their buffer, and return the size of the buffer.

    Weights have ``room`` behind them for what products write beyond a row.
    """
    for k in range((blocks.n_layers + 1) * N_KINDS):
        blocks.offsets[k] = -1
    end = 0
    for b in range(blocks.n):
        kind = column(blocks, b, KIND)
        blocks.starts[b] = end
        blocks.offsets[column(blocks, b, LAYER) * N_KINDS + kind] = end
        end += round_up(block_size(blocks, b))
        if kind == WEIGHT:
            end += room
    return end


@inlined
def _copy_member(flat, blocks, member, own, reads):
    for b in range(blocks.n):
        n_rows, n_columns = blocks.shapes[2 * b], blocks.shapes[2 * b + 1]
        padded = column(blocks, b, BLOCK_COLUMNS)
        start = column(blocks, b, SOURCE) + member * column(blocks, b, BLOCK_ROWS) * padded
        n_copies, size = n_rows, n_columns
        if n_columns == padded:
            n_copies, size = 1, n_rows * n_columns
        for o in range(n_copies):
            if reads:
                copy(flat, start + o * padded, size, own, blocks.starts[b] + o * n_columns)
            else:
                copy(own, blocks.starts[b] + o * n_columns, size, flat, start + o * padded)


@inlined
def read_member(flat, blocks, member, own):
    """Copy the blocks of a member from a flat buffer of the bucket to its own buffer."""
    _copy_member(flat, blocks, member, own, True)


@inlined
def write_member(flat, blocks, member, own):
    """Copy the blocks of a member from its own buffer to a flat buffer of the bucket."""
    _copy_member(flat, blocks, member, own, False)
