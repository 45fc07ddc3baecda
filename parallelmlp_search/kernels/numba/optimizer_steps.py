"""Optimizer steps on the buffers of one member, in whole vectors."""

from __future__ import annotations

import math

from parallelmlp_search.kernels.numba.decorators import force_inlined, inlined
from parallelmlp_search.kernels.numba.elementwise import ONE, ZERO, F
from parallelmlp_search.kernels.numba.member_memory import DECAYS, GROUP
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


@force_inlined
def update_blocks(p, g, m, v, blocks, coefficients, mixes, adaptive):
    """Take a step of every block with the ``coefficients`` (groups, 4) of its group."""
    for b in range(len(blocks.table)):
        start = blocks.starts[b]
        stop = start + round_up(blocks.shapes[b, 0] * blocks.shapes[b, 1])
        own, decays = coefficients[blocks.table[b, GROUP]], blocks.table[b, DECAYS] == 1
        if adaptive:
            adamw_step(p, g, m, v, start, stop, own[1] if decays else ONE, own[2], own[3], mixes)
        else:
            _sgd_step(p, g, m, start, stop, own[0], mixes[0], own[1] if decays else ZERO)


@force_inlined
def clip_gradient(g, blocks, max_norm, size):
    """Scale a gradient down to a norm, as torch does; ``size`` is that of the whole buffer."""
    squares = ZERO
    for b in range(len(blocks.table)):
        start = blocks.starts[b]
        for k in range(start, start + blocks.shapes[b, 0] * blocks.shapes[b, 1]):
            squares += g[k] * g[k]
    factor = max_norm / (F(math.sqrt(squares)) + F(1e-6))
    if factor < ONE:
        for k in range(size):
            g[k] *= factor


@inlined
def update_average(average, p, share, size):
    """Move the average of the weights towards the weights."""
    for k in range(size):
        average[k] += share * (p[k] - average[k])
