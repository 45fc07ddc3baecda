"""Time of each part of the compiled member loop, measured alone, thousands of times on one member.

A clock inside the compiled loop would slow it down.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.packed.multiply_adds import compiled_loop
from parallelmlp_search.kernels.numba.arguments import ACTIVATION_CODES
from parallelmlp_search.kernels.numba.decorators import inlined
from parallelmlp_search.kernels.numba.elementwise import F, activate_and_slope, slope_times
from parallelmlp_search.kernels.numba.loops import binary_rows, cross_entropy_rows
from parallelmlp_search.kernels.numba.optimizer_steps import adamw_step
from parallelmlp_search.kernels.numba.pointers import as_floats, as_integers
from parallelmlp_search.kernels.numba.products import (
    matmul,
    outer_product,
    row_products,
    transpose,
    weight_gradient,
)
from parallelmlp_search.kernels.numba.vectors import LANES

__all__ = ["Part", "inside"]

ONE, NONE, RATE = F(1.0), F(0.0), F(1e3)


@inlined
def _f(address: Any) -> Any:
    return as_floats(address)


@compiled_loop
def _forward(times: Any, p: Any, n_out: Any, n_in: Any, x: Any, n_rows: Any, z: Any) -> None:
    for _ in range(times):
        matmul(_f(p), 0, n_in, 1, 0, n_out, n_in, _f(x), 0, n_rows, _f(z), 0)


@compiled_loop
def _back(times: Any, p: Any, n_out: Any, n_in: Any, d: Any, n_rows: Any, z: Any) -> None:
    for _ in range(times):
        if n_out == 1:
            outer_product(_f(p), 0, n_in, _f(d), n_rows, _f(z))
        else:
            matmul(_f(p), 0, 1, n_in, -1, n_in, n_out, _f(d), 0, n_rows, _f(z), 0)


@compiled_loop
def _first_weights(
    times: Any, d: Any, n_out: Any, columns: Any, n_columns: Any, n_rows: Any, result: Any
) -> None:
    for _ in range(times):
        weight_gradient(_f(d), 0, n_out, _f(columns), 0, n_columns, n_rows, n_rows, _f(result))


@compiled_loop
def _weights(
    times: Any, d: Any, n_out: Any, a: Any, n_in: Any, columns: Any, lanes: Any, n_rows: Any, result: Any
) -> None:
    a, d, columns, result = _f(a), _f(d), _f(columns), _f(result)
    for _ in range(times):
        if n_out == 1:
            row_products(a, 0, n_in, d, 0, n_rows, result, 0)
        elif n_out <= lanes:
            transpose(d, 0, n_out, n_rows, columns, lanes)
            weight_gradient(a, 0, n_in, columns, 0, lanes, n_rows, n_rows, result)
        else:
            width = (n_in + lanes - 1) // lanes * lanes
            transpose(a, 0, n_in, n_rows, columns, width)
            weight_gradient(d, 0, n_out, columns, 0, width, n_rows, n_rows, result)


@compiled_loop
def _activate(times: Any, code: Any, z: Any, a: Any, size: Any) -> None:
    for _ in range(times):
        activate_and_slope(code, _f(z), _f(a), size)


@compiled_loop
def _slope(times: Any, code: Any, a: Any, d: Any, size: Any) -> None:
    for _ in range(times):
        slope_times(code, _f(a), _f(d), size)


@compiled_loop
def _binary(times: Any, z: Any, classes: Any, shares: Any, d: Any, values: Any, n_rows: Any) -> None:
    for _ in range(times):
        binary_rows(_f(z), as_integers(classes), _f(shares), NONE, _f(d), _f(values), n_rows)


@compiled_loop
def _classes(times: Any, z: Any, target: Any, shares: Any, d: Any, scratch: Any, n: Any, n_rows: Any) -> None:
    for _ in range(times):
        cross_entropy_rows(_f(z), as_integers(target), _f(shares), NONE, _f(d), _f(scratch), n, n_rows)


@compiled_loop
def _adam(times: Any, p: Any, g: Any, m: Any, v: Any, mixes: Any, size: Any) -> None:
    for _ in range(times):
        adamw_step(_f(p), _f(g), _f(m), _f(v), 0, size, ONE, RATE, ONE, _f(mixes))


def _microseconds(function: Callable[..., Any], *arguments: Any) -> float:
    """Return the microseconds of one call, after compilation. Arrays are passed by address."""
    arguments = tuple(a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments)
    function(1, *arguments)
    times = 100
    while True:
        started = time.perf_counter()
        function(times, *arguments)
        spent = time.perf_counter() - started
        if spent > 0.1:
            return 1e6 * spent / times
        times = int(times * max(2.0, 0.12 / max(spent, 1e-6)))


@dataclass
class Part:
    """Microseconds of a part of a member's step, and the FLOP of its products, if any."""

    microseconds: float = 0.0
    flop: float = 0.0


def inside(sizes: tuple[int, ...], n_rows: int, activation: str) -> dict[str, Part]:
    """Time each part of a step of one member.

    Parameters
    ----------
    sizes
        Inputs, widths and outputs of the member.
    n_rows
        Rows of a batch; a multiple of the vector length.
    activation
        Activation of the hidden layers.

    Returns
    -------
    dict of Part
        By the names of the profile on file.
    """
    generator = torch.Generator().manual_seed(0)

    def numbers(size: int) -> Any:  # torch aligns each to a cache line, as the member loop does
        return torch.rand(size, generator=generator).add_(0.1).numpy()

    widest = max(sizes) + 16
    p, result = numbers(widest * widest), numbers(widest * widest)
    x, z, d, columns = (numbers(widest * n_rows) for _ in range(4))
    parts: dict[str, Part] = {}

    def add(part: str, function: Callable[..., Any], *arguments: Any, flop: float = 0.0) -> None:
        found = parts.setdefault(part, Part())
        found.microseconds += _microseconds(function, *arguments)
        found.flop += flop

    code, lanes = ACTIVATION_CODES[activation], LANES
    for layer, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
        flop = 2.0 * n_in * n_out * n_rows
        where = "first layer" if layer == 0 else "deeper layers and head"
        add(f"product: {where} forward", _forward, p, n_out, n_in, x, n_rows, z, flop=flop)
        name = f"product: gradient of weights, {where}"
        if layer == 0:
            filled = -(-n_in // 16) * 16
            add(name, _first_weights, d, n_out, columns, filled, n_rows, result, flop=flop)
            continue
        add(name, _weights, d, n_out, x, n_in, columns, lanes, n_rows, result, flop=flop)
        add("product: gradient of inputs", _back, p, n_out, n_in, d, n_rows, z, flop=flop)
        used = n_in * n_rows
        add("activations and their slopes", _activate, code, z, x, used)
        if not 7 <= code <= 9:
            d.fill(0.0)
            add("activations and their slopes", _slope, code, x, d, used)
    classes, n_outputs = np.zeros(n_rows, dtype=np.int64), sizes[-1]
    shares, scratch = numbers(n_rows), numbers(3 * n_rows)
    if n_outputs == 1:
        add("loss", _binary, z, classes, shares, d, scratch, n_rows)
    else:
        add("loss", _classes, z, classes, shares, d, scratch, n_outputs, n_rows)
    size = sum(n_out * (n_in + 1) for n_in, n_out in itertools.pairwise(sizes)) // 16 * 16
    state = [numbers(size + 16) for _ in range(4)]
    add("optimiser", _adam, *state, np.zeros(2, dtype=np.float32), size)
    return parts
