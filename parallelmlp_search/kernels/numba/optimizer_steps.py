"""Steps of the optimiser on one member's own buffers, whole vectors at a time."""

from __future__ import annotations

import math
from typing import Any

from parallelmlp_search.kernels.numba.decorators import inner
from parallelmlp_search.kernels.numba.elementwise import ONE, ZERO, F
from parallelmlp_search.kernels.numba.products import whole
from parallelmlp_search.kernels.numba.vectors import (
    LANES,
    divide,
    load,
    multiply,
    multiply_add,
    root,
    splat,
    store,
    subtract,
)

__all__ = ["adamw_stretch", "clip_gradient", "follow", "update_blocks"]


@inner
def adamw_stretch(
    p: Any, g: Any, m: Any, v: Any, start: Any, stop: Any, keep: Any, scale: Any, shift: Any, mixes: Any
) -> None:
    """The update of :func:`~parallelmlp_search.kernels.numba.loops.adamw`."""
    keeps, scales, shifts = splat(keep), splat(scale), splat(shift)
    mixes_m, mixes_v = splat(mixes[0]), splat(mixes[1])
    for part in range(start // LANES, stop // LANES):
        k = part * LANES
        x, old_m, old_v = load(g, k), load(m, k), load(v, k)
        new_m = multiply_add(mixes_m, subtract(x, old_m), old_m)
        new_v = multiply_add(mixes_v, subtract(multiply(x, x), old_v), old_v)
        store(m, k, new_m)
        store(v, k, new_v)
        moved = divide(new_m, multiply_add(scales, root(new_v), shifts))
        store(p, k, subtract(multiply(load(p, k), keeps), moved))


@inner
def _sgd(p: Any, g: Any, m: Any, start: Any, stop: Any, rate: Any, momentum: Any, decay: Any) -> None:
    """The update of :func:`~parallelmlp_search.kernels.numba.loops.sgd`."""
    rates, momenta, decays = splat(-rate), splat(momentum), splat(decay)
    for part in range(start // LANES, stop // LANES):
        k = part * LANES
        old = load(p, k)
        new_m = multiply_add(load(m, k), momenta, multiply_add(decays, old, load(g, k)))
        store(m, k, new_m)
        store(p, k, multiply_add(rates, new_m, old))


@inner
def update_blocks(
    p: Any,
    g: Any,
    m: Any,
    v: Any,
    blocks: Any,
    shapes: Any,
    begins: Any,
    tables: Any,
    mixes: Any,
    adaptive: Any,
) -> None:
    """A step of every block, with the coefficients of its group: ``tables`` (groups, 4) of this step."""
    for b in range(blocks.shape[0]):
        start = begins[b]
        stop = start + whole(shapes[b, 0] * shapes[b, 1])
        own, decays = tables[blocks[b, 6]], blocks[b, 5] == 1
        if adaptive:
            adamw_stretch(p, g, m, v, start, stop, own[1] if decays else ONE, own[2], own[3], mixes)
        else:
            _sgd(p, g, m, start, stop, own[0], mixes[0], own[1] if decays else ZERO)


@inner
def clip_gradient(g: Any, shapes: Any, begins: Any, clip: Any, size: Any) -> None:
    """Scale a gradient down to a norm, as torch does; ``size`` is that of the whole buffer."""
    squares = ZERO
    for b in range(shapes.shape[0]):
        start = begins[b]
        for k in range(start, start + shapes[b, 0] * shapes[b, 1]):
            squares += g[k] * g[k]
    factor = clip / (F(math.sqrt(squares)) + F(1e-6))
    if factor < ONE:
        for k in range(size):
            g[k] *= factor


@inner
def follow(average: Any, p: Any, share: Any, size: Any) -> None:
    """Move the averages towards the weights."""
    for k in range(size):
        average[k] += share * (p[k] - average[k])
