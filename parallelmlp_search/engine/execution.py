"""Code path that trains networks on a device, in words for users."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from parallelmlp_search.kernels.numba import library
from parallelmlp_search.kernels.numba.dispatch import uses_compiled
from parallelmlp_search.kernels.numba.library import USE_VARIABLE
from parallelmlp_search.kernels.triton.availability import runs_on

PATHS = ("persistent", "graph", "compiled", "plain")
"""Paths of training: persistent kernel, CUDA graphs, compiled loops, tensor operations."""


@dataclass(frozen=True)
class ExecutionPath:
    """Code path that trains networks.

    Attributes
    ----------
    name
        Short name, such as ``compiled loops for x86-64-v4``.
    advice
        How to get a faster path, or when it begins; empty on the fastest one.
    """

    name: str
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.advice})" if self.advice else self.name


def execution_path(device: torch.device | str) -> ExecutionPath:
    """Return the path that trains networks in float32 on a device.

    Parameters
    ----------
    device
        ``cpu``, ``cuda`` or ``cuda:N``.

    Returns
    -------
    ExecutionPath
    """
    if torch.device(device).type == "cuda":
        if runs_on(device):
            return ExecutionPath("persistent Triton kernels and CUDA graphs")
        return ExecutionPath("CUDA graphs", "Triton kernels are faster: pip install triton")
    if uses_compiled(torch.float32, device):
        if library.find() is None:
            return ExecutionPath("compiled loops", "they are compiled once, before the first search")
        return ExecutionPath(f"compiled loops for {library.target()}")
    rule = os.environ.get(USE_VARIABLE)
    if rule == "ready" and library.can_compile():
        return ExecutionPath(
            "plain tensor operations", "the compiled loops take over once they have been compiled"
        )
    if rule == "0":
        advice = f"compiled loops are two to four times as fast, but {USE_VARIABLE}=0 disables them"
    else:
        advice = "compiled loops are two to four times as fast: pip install numba"
    return ExecutionPath("plain tensor operations", advice)
