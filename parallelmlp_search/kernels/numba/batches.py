"""Inputs of several training steps: batches gathered from a table, and uniform numbers for dropout.

The numbers are those of NumPy's generator ``SFC64`` (Doty-Humphrey 2018) and of its ``SeedSequence`` (O'Neill
2015). One generator makes a field of 128 x 128 numbers in 10 us, NumPy in 30 us, of which seeding takes 8.
"""

from __future__ import annotations

from parallelmlp_search.kernels.numba.arguments import GatheredBatches, NoiseFields
from parallelmlp_search.kernels.numba.decorators import inlined
from parallelmlp_search.kernels.numba.elementwise import F
from parallelmlp_search.kernels.numba.pointers import as_integers, unpacker
from parallelmlp_search.kernels.numba.products import copy
from parallelmlp_search.kernels.numba.vectors import LANES, transpose_block

_gathered_batches, _noise_fields = unpacker(GatheredBatches), unpacker(NoiseFields)

LOW_32, LOW_24, LOW_53 = (1 << 32) - 1, (1 << 24) - 1, (1 << 53) - 1
"""Masks. Integers are signed, so a shift to the right is followed by one."""

UNIT = F(2.0**-24)
"""Distance of two uniform numbers."""

HASH_START, HASH_FACTOR = 0x43B0D7E5, 0x931E8875
STATE_START, STATE_FACTOR = 0x8B51F9DD, 0x58F38DED
MIX_LEFT, MIX_RIGHT = 0xCA01F9DD, 0x4973F715
"""Constants of `SeedSequence`."""


def gather_batches(arguments):
    """Copy the rows of the batches of several steps, as they are and transposed."""
    batches = _gathered_batches(as_integers(arguments))
    n_true, n_rows, n_inputs = batches.n_true, batches.n_rows, batches.n_inputs
    n_columns, n_whole = batches.n_columns, n_inputs // LANES * LANES
    for t in range(batches.n_steps):
        columns, rows = batches.columns + t * n_true * n_columns, batches.rows + t * n_inputs * n_rows
        for n in range(n_true):
            source, to = batches.table + batches.numbers[t * n_true + n] * batches.stride, n * n_columns
            for r in range(batches.n_ranges):
                size = batches.ranges[2 * r + 1]
                copy(source, batches.ranges[2 * r], size, columns, to)
                to += size
        for block in range(n_true // LANES):
            first = block * LANES
            for part in range(n_inputs // LANES):
                j = part * LANES
                transpose_block(columns, first * n_columns + j, n_columns, rows, j * n_rows + first, n_rows)
            _transpose_each(columns, n_columns, rows, n_rows, first, first + LANES, n_whole, n_inputs)
        _transpose_each(columns, n_columns, rows, n_rows, n_true // LANES * LANES, n_true, 0, n_inputs)
    return 0


@inlined
def _transpose_each(columns, n_columns, rows, n_rows, first, stop, first_input, stop_input):
    """Transpose rows and inputs that do not fill whole vectors, one number after the other."""
    for j in range(first_input, stop_input):
        for n in range(first, stop):
            rows[j * n_rows + n] = columns[n * n_columns + j]


def dropout_noise(arguments):
    """Fill the uniform numbers of several steps and layers, each from its own generator."""
    noise = _noise_fields(as_integers(arguments))
    size = noise.n_neurons * noise.n_rows
    for t in range(noise.n_steps):
        for layer in range(noise.n_layers):
            a, b, c = _seeded(noise.seed, noise.first_step + t, layer, noise.scratch)
            count = noise.widths[layer] * noise.n_true
            field = noise.fields + (t * noise.n_layers + layer) * size
            if noise.n_true == noise.n_rows:
                _fill(field, count, a, b, c)
            else:
                _fill_padded(field, count, noise.n_true, noise.n_rows, a, b, c)
    return 0


@inlined
def _hashed(value, constant, factor):
    """Return the hash of 32 bits, and the next constant."""
    value ^= constant
    constant = (constant * factor) & LOW_32
    value = (value * constant) & LOW_32
    return value ^ (value >> 16), constant


@inlined
def _seeded(seed, step, layer, pool):
    """State of ``SFC64([seed, step, layer])`` for a seed of 32 bits."""
    pool[0], pool[1], pool[2], pool[3] = seed, step, layer, 0
    constant = HASH_START
    for i in range(4):
        pool[i], constant = _hashed(pool[i], constant, HASH_FACTOR)
    for i in range(4):
        for j in range(4):
            if i != j:
                value, constant = _hashed(pool[i], constant, HASH_FACTOR)
                mixed = (MIX_LEFT * pool[j] - MIX_RIGHT * value) & LOW_32
                pool[j] = mixed ^ (mixed >> 16)
    constant = STATE_START
    for i in range(6):
        pool[4 + i], constant = _hashed(pool[i % 4], constant, STATE_FACTOR)
    a = pool[4] | (pool[5] << 32)
    b = pool[6] | (pool[7] << 32)
    c = pool[8] | (pool[9] << 32)
    for counter in range(1, 13):
        a, b, c, _ = _next(a, b, c, counter)
    return a, b, c


@inlined
def _next(a, b, c, counter):
    """Return the next state and 64 random bits."""
    bits = a + b + counter
    return b ^ ((b >> 11) & LOW_53), c + (c << 3), ((c << 24) | ((c >> 40) & LOW_24)) + bits, bits


@inlined
def _fill(field, count, a, b, c):
    """Fill consecutive numbers, two from each draw."""
    counter = 13
    for k in range(count // 2):
        a, b, c, bits = _next(a, b, c, counter)
        counter += 1
        field[2 * k] = F((bits >> 8) & LOW_24) * UNIT
        field[2 * k + 1] = F((bits >> 40) & LOW_24) * UNIT
    if count % 2:
        a, b, c, bits = _next(a, b, c, counter)
        field[count - 1] = F((bits >> 8) & LOW_24) * UNIT


@inlined
def _fill_padded(field, count, n_true, n_rows, a, b, c):
    """Fill the first ``n_true`` of every ``n_rows`` numbers."""
    counter, row, n, bits = 13, 0, 0, 0
    for k in range(count):
        if k % 2 == 0:
            a, b, c, bits = _next(a, b, c, counter)
            counter += 1
        field[row + n] = F((bits >> (8 if k % 2 == 0 else 40)) & LOW_24) * UNIT
        n += 1
        if n == n_true:
            n = 0
            row += n_rows
