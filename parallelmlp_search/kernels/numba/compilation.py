"""When the compiled loops are compiled: before any worker starts, or not at all where time is short."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from parallelmlp_search.kernels.activations import ACTIVATION_KERNELS
from parallelmlp_search.kernels.numba.dispatch import (
    CompiledActivations,
    CompiledMembers,
    MemberRows,
    compiled_loops,
    compiled_loss,
    uses_compiled,
)

__all__ = ["compile_all", "compiled_in_time"]


def compile_all() -> None:
    """Compile every loop now: ten seconds or so, once a machine, that a first search then does not wait."""
    loops = compiled_loops()
    z, vector = torch.zeros(1, 1, 4), np.zeros(16, dtype=np.float32)
    for kernel in (ACTIVATION_KERNELS["relu"], ACTIVATION_KERNELS["gelu"]):
        for in_place in (True, False):
            activations = CompiledActivations(z, torch.zeros_like(z), [kernel], [in_place])
            activations.forward()
            activations.backward(torch.zeros_like(z))
    compiled_loss("binary_logits")(z, torch.zeros(4, dtype=torch.int64), torch.zeros_like(z))
    relu = ACTIVATION_KERNELS["relu"]
    blocks = [
        ("weight", 0, 0, 2, 3, True, 0),
        ("bias", 0, 16, 2, 1, False, 0),
        ("weight", 1, 32, 1, 2, True, 0),
    ]
    shapes = [[(2, 3), (2, 1), (1, 2)]]
    settings = torch.full((1, 4), 0.5)
    members = CompiledMembers(
        [torch.zeros(64) for _ in range(4)], blocks, [relu], shapes, settings, residual=[False], adaptive=True
    )
    steps = MemberRows(torch.zeros(1, 4, 3), torch.zeros(1, 4), None)
    table = np.ones((1, 1, 4, 1), dtype=np.float32)
    members(steps, table, np.zeros(1, dtype=np.float32), torch.ones(1))
    two = torch.zeros(1, 2, 4)
    compiled_loss("cross_entropy")(two, torch.zeros(4, dtype=torch.int64), torch.zeros_like(two))
    places, ones = np.array([[0, 4, 1]]), np.ones((4, 1), dtype=np.float32)
    for step in (loops.adamw, loops.sgd):
        buffers = [vector.copy() for _ in range(5)]
        step(*buffers, places, ones, ones[:2], np.float32(0.0))


COMPILE_SECONDS = 40.0
"""What :func:`compile_all` takes the first time, about, with two cores at half the speed of present ones."""

WORTH_COMPILING = 4.0
"""Times as much time must be left before anything is compiled: loops are about twice as fast as without."""


def _are_ready() -> bool:
    """Whether the machine code of the longest loop lies on this disk, made from its present source."""
    loop = importlib.import_module("parallelmlp_search.kernels.numba.training").member_steps
    try:
        return bool(loop._cache._cache_file._load_index())
    except (AttributeError, OSError):  # kept nowhere, or numba has changed
        return False


@contextmanager
def compiled_in_time(device: torch.device | str, seconds_left: float | None) -> Iterator[bool]:
    """Have the loops compiled before work begins, or do without them in here where time is short.

    Yields whether nothing is given up for want of time. ``seconds_left`` is None without a time limit.
    Processes that start in here do the same.
    """
    if not uses_compiled(torch.float32, device) or _are_ready():
        yield True
        return
    if seconds_left is None or seconds_left >= WORTH_COMPILING * COMPILE_SECONDS:
        compile_all()
        yield True
        return
    before = os.environ.get("PMLP_COMPILED")
    os.environ["PMLP_COMPILED"] = "0"
    try:
        yield False
    finally:
        if before is None:
            del os.environ["PMLP_COMPILED"]
        else:
            os.environ["PMLP_COMPILED"] = before


if __name__ == "__main__":
    compile_all()
