"""Code path that trains networks on a device, in words for users."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import torch

from parallelmlp_search.kernels.numba.dispatch import uses_compiled
from parallelmlp_search.kernels.triton.availability import runs_on


@dataclass(frozen=True)
class ExecutionPath:
    """Code path that trains networks.

    Attributes
    ----------
    name
        Short name, such as ``compiled loops``.
    advice
        How to get a faster path; empty on the fastest one.
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
        return ExecutionPath("compiled loops")
    if importlib.util.find_spec("numba") is None:
        return ExecutionPath(
            "plain tensor operations", "compiled loops are up to 4 times as fast: pip install numba"
        )
    return ExecutionPath(
        "plain tensor operations", "compiled loops are up to 4 times as fast, but PMLP_COMPILED=0 is set"
    )
