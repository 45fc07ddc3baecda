"""Optimizer steps on the buffers of one member, in whole vectors."""

from __future__ import annotations

import math

from parallelmlp_search.kernels.numba.decorators import inlined
from parallelmlp_search.kernels.numba.elementwise import ONE, ZERO, F
from parallelmlp_search.kernels.numba.member_memory import (
    BLOCK_COLUMNS,
    BLOCK_ROWS,
    DECAYS,
    GROUP,
    block_size,
    column,
)
from parallelmlp_search.kernels.numba.products import round_up
from parallelmlp_search.kernels.numba.vectors import (
    LANES,
    divide,
    load,
    multiply,
    multiply_add,
    splat,
    sqrt,
    store,
    subtract,
)


@inlined
def adamw_step(p, g, m, v, start, stop, keep, scale, shift, mixes):
    """Update elements ``start`` to ``stop`` as `loops.optimizer_step` does with AdamW."""
    keeps, scales, shifts = splat(keep), splat(scale), splat(shift)
    mixes_m, mixes_v = splat(mixes[0]), splat(mixes[1])
    for part in range(start // LANES, stop // LANES):
        k = part * LANES
        x, old_m, old_v = load(g, k), load(m, k), load(v, k)
        new_m = multiply_add(mixes_m, subtract(x, old_m), old_m)
        new_v = multiply_add(mixes_v, subtract(multiply(x, x), old_v), old_v)
        store(m, k, new_m)
        store(v, k, new_v)
        step = divide(new_m, multiply_add(scales, sqrt(new_v), shifts))
        store(p, k, subtract(multiply(load(p, k), keeps), step))


@inlined
def _sgd_step(p, g, m, start, stop, rate, momentum, decay):
    """Update elements ``start`` to ``stop`` as `loops.optimizer_step` does with SGD."""
    rates, momenta, decays = splat(-rate), splat(momentum), splat(decay)
    for part in range(start // LANES, stop // LANES):
        k = part * LANES
        old = load(p, k)
        new_m = multiply_add(load(m, k), momenta, multiply_add(decays, old, load(g, k)))
        store(m, k, new_m)
        store(p, k, multiply_add(rates, new_m, old))


@inlined
def update_blocks(p, g, m, v, blocks, coefficients, n_steps, n_members, mixes, adaptive):
    """Take a step of every block with the coefficients of its group.

    Parameters
    ----------
    p, g, m, v
        Parameters, their gradient, and first and second moments.
    blocks
        Blocks of the member.
    coefficients, n_steps, n_members
        First coefficient of the member at this step in ``(groups, n_steps, 4, n_members)``.
    mixes
        ``(2,)``, see `loops.optimizer_step`.
    adaptive
        True for AdamW.
    """
    for b in range(blocks.n):
        start = blocks.starts[b]
        stop = start + round_up(block_size(blocks, b))
        own = coefficients + column(blocks, b, GROUP) * n_steps * 4 * n_members
        decays, second = column(blocks, b, DECAYS), own[n_members]
        if adaptive:
            keep = second if decays == 1 else ONE
            adamw_step(p, g, m, v, start, stop, keep, own[2 * n_members], own[3 * n_members], mixes)
        else:
            _sgd_step(p, g, m, start, stop, own[0], mixes[0], second if decays == 1 else ZERO)


@inlined
def clip_gradient(g, blocks, max_norm, size):
    """Scale a gradient down to a norm, as torch does; ``size`` is that of the whole buffer."""
    squares = ZERO
    for b in range(blocks.n):
        start = blocks.starts[b]
        for k in range(start, start + block_size(blocks, b)):
            squares += g[k] * g[k]
    factor = max_norm / (F(math.sqrt(squares)) + F(1e-6))
    if factor < ONE:
        for k in range(size):
            g[k] *= factor


@inlined
def keep_bounds(p, blocks, bounds, size):
    """Move parameters beyond their bounds ``(2, size)`` to them; NaN stays."""
    first = 0
    for b in range(blocks.n):
        n_rows, n_columns = blocks.shapes[2 * b], blocks.shapes[2 * b + 1]
        padded = column(blocks, b, BLOCK_COLUMNS)
        for o in range(n_rows):
            own, low = p + (blocks.starts[b] + o * n_columns), bounds + (first + o * padded)
            high = low + size
            for k in range(n_columns):
                value = low[k] if own[k] < low[k] else own[k]
                own[k] = high[k] if value > high[k] else value
        first += column(blocks, b, BLOCK_ROWS) * padded


@inlined
def update_average(average, p, share, size):
    """Move the average of the weights towards the weights."""
    for k in range(size):
        average[k] += share * (p[k] - average[k])
