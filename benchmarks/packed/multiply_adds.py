"""Highest multiply-add rate of this machine, by the loops that the compiled products consist of.

Needs numba. Both loops release the GIL, so several cores can be measured at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from parallelmlp_search.kernels.numba.compilation import compiler_features
from parallelmlp_search.kernels.numba.decorators import OPTIONS
from parallelmlp_search.kernels.numba.library import target
from parallelmlp_search.kernels.numba.pointers import as_floats
from parallelmlp_search.kernels.numba.products import matmul
from parallelmlp_search.kernels.numba.vectors import LANES, add, load, multiply_add, store

__all__ = ["compiled_loop", "layer_products", "register_multiply_adds"]

CHAINS = 12
"""Independent sums: enough for two units with a latency of four or five cycles, and few enough for sixteen
registers."""

WIDTH, ROWS = 64, 128
"""Neurons on both sides of the layer, and rows: 16 KiB of weights and twice 32 KiB of activations."""


def compiled_loop(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function as the member loop is compiled. It takes arrays by their addresses."""
    numba.config.CPU_NAME, numba.config.CPU_FEATURES = target(), compiler_features(target())
    compiled: Callable[..., Any] = numba.njit(**OPTIONS, nogil=True)(function)
    return compiled


@compiled_loop
def _registers(times: Any, numbers: Any, result: Any) -> None:
    numbers, result = as_floats(numbers), as_floats(result)
    # s <- x s + y with 0 < x < 1 converges to y / (1 - x); equal sums would be merged by the compiler
    x, y = load(numbers, 0), load(numbers, LANES)
    a, b, c, d = load(numbers, 1), load(numbers, 2), load(numbers, 3), load(numbers, 4)
    e, f, g, h = load(numbers, 5), load(numbers, 6), load(numbers, 7), load(numbers, 8)
    i, j, k, l = load(numbers, 9), load(numbers, 10), load(numbers, 11), load(numbers, 12)  # noqa: E741
    for _ in range(times):
        a, b, c = multiply_add(x, a, y), multiply_add(x, b, y), multiply_add(x, c, y)
        d, e, f = multiply_add(x, d, y), multiply_add(x, e, y), multiply_add(x, f, y)
        g, h, i = multiply_add(x, g, y), multiply_add(x, h, y), multiply_add(x, i, y)
        j, k, l = multiply_add(x, j, y), multiply_add(x, k, y), multiply_add(x, l, y)  # noqa: E741
    first, second = add(add(a, b), add(c, d)), add(add(e, f), add(g, h))
    store(result, 0, add(add(first, second), add(add(i, j), add(k, l))))


@compiled_loop
def _layer(times: Any, weight: Any, rows: Any, result: Any) -> None:
    weight, rows, result = as_floats(weight), as_floats(rows), as_floats(result)
    for _ in range(times):
        matmul(weight, 0, WIDTH, 1, -1, WIDTH, WIDTH, rows, 0, ROWS, result, 0)


def register_multiply_adds(times: int) -> float:
    """Multiply and add vectors that stay in registers, and return the FLOP."""
    numbers = np.linspace(0.1, 0.5, 4 * LANES, dtype=np.float32)
    result = np.empty(LANES, dtype=np.float32)
    _registers(times, numbers.ctypes.data, result.ctypes.data)
    return 2.0 * times * CHAINS * LANES


def layer_products(times: int) -> float:
    """Multiply a layer's weights by a minibatch, both in the nearest caches, and return the FLOP."""
    weight, rows = (np.full(WIDTH * size, 0.1, dtype=np.float32) for size in (WIDTH, ROWS))
    result = np.empty_like(rows)
    _layer(times, weight.ctypes.data, rows.ctypes.data, result.ctypes.data)
    return 2.0 * times * WIDTH * WIDTH * ROWS
