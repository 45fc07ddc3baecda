"""Compilation of the compiled loops, ahead of a search or from the command line."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from parallelmlp_search.kernels.activations import ACTIVATION_KERNELS
from parallelmlp_search.kernels.numba.compiled_members import CompiledMembers, StepBatches
from parallelmlp_search.kernels.numba.dispatch import (
    CompiledActivations,
    compiled_loops,
    compiled_loss,
    uses_compiled,
)

COMPILE_SECONDS = 40.0
"""Time of `compile_all` with an empty cache, on one core of an AMD EPYC at 2.4 GHz."""

MIN_TIME_FACTOR = 4.0
"""Loops, which double the speed, are compiled if this many times `COMPILE_SECONDS` are left."""


def compile_all() -> None:
    """Compile every loop and cache the machine code: about 40 s on one core, once per machine."""
    single = torch.float32  # whatever the default dtype of the calling program
    z = torch.zeros(1, 1, 4, dtype=single)
    for kernel in (ACTIVATION_KERNELS["relu"], ACTIVATION_KERNELS["gelu"]):
        for in_place in (True, False):
            activations = CompiledActivations(z, torch.zeros_like(z), [kernel], [in_place])
            activations.forward()
            activations.backward(torch.zeros_like(z))
    compiled_loss("binary_logits")(z, torch.zeros(4, dtype=torch.int64), torch.zeros_like(z))
    two = torch.zeros(1, 2, 4, dtype=single)
    compiled_loss("cross_entropy")(two, torch.zeros(4, dtype=torch.int64), torch.zeros_like(two))
    members = CompiledMembers(
        [torch.zeros(64, dtype=single) for _ in range(4)],
        [
            ("weight", 0, 0, 2, 3, True, 0),
            ("bias", 0, 16, 2, 1, False, 0),
            ("weight", 1, 32, 1, 2, True, 0),
        ],
        [ACTIVATION_KERNELS["relu"]],
        [[(2, 3), (2, 1), (1, 2)]],
        torch.full((1, 4), 0.5, dtype=single),
        residual=[False],
        adaptive=True,
    )
    batches = StepBatches.of([(torch.zeros(4, 3, dtype=single), torch.zeros(4, dtype=single), None)])
    members(
        batches,
        np.ones((1, 1, 4, 1), dtype=np.float32),
        np.zeros(1, dtype=np.float32),
        torch.ones(1, dtype=torch.bool),
    )
    blocks, ones = np.array([[0, 4, 1]]), np.ones((4, 1), dtype=np.float32)
    buffers = [np.zeros(16, dtype=np.float32) for _ in range(5)]
    compiled_loops().optimizer_step(*buffers, blocks, ones, ones[:2], np.float32(0.0), True)


def _is_cached() -> bool:
    """True if the machine code of the longest loop is on this disk and belongs to the present source."""
    loop = importlib.import_module("parallelmlp_search.kernels.numba.training").member_steps
    try:
        return bool(loop._cache._cache_file._load_index())
    except (AttributeError, OSError):  # no cache, or another version of numba
        return False


@contextmanager
def compiled_in_time(device: torch.device | str, seconds_left: float | None) -> Iterator[bool]:
    """Compile the loops before work begins, or disable them inside the context if time is short.

    Parameters
    ----------
    device
        Device of the training.
    seconds_left
        Time left, or None without a time limit.

    Yields
    ------
    bool
        False if the loops are disabled for lack of time, also in processes that start inside the context.
    """
    if not uses_compiled(torch.float32, device) or _is_cached():
        yield True
        return
    if seconds_left is None or seconds_left >= MIN_TIME_FACTOR * COMPILE_SECONDS:
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
