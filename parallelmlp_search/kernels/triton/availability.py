"""Whether Triton can run here: on a CUDA device, or anywhere in its interpreter."""

from __future__ import annotations

import importlib
import importlib.util
import os
from functools import cache
from types import ModuleType

import torch

from parallelmlp_search._optional import require
from parallelmlp_search.exceptions import InvalidParameterError

__all__ = ["is_interpreted", "kernel_module", "runs_on", "tile_precision"]

_HERE = __name__.rpartition(".")[0]


def is_interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, which ``TRITON_INTERPRET=1`` asks for before the start."""
    return os.environ.get("TRITON_INTERPRET", "") == "1"


@cache
def _is_installed() -> bool:
    return importlib.util.find_spec("triton") is not None


def runs_on(device: torch.device | str) -> bool:
    """Whether kernels can run on a device: Triton is installed, and it is CUDA or interpreted."""
    return _is_installed() and (torch.device(device).type == "cuda" or is_interpreted())


def kernel_module(name: str, device: torch.device | str, *, purpose: str) -> ModuleType:
    """Import one of the modules beside this one, which need Triton.

    Raises
    ------
    MissingDependencyError
        If Triton is not installed.
    InvalidParameterError
        If Triton cannot run on the device.
    """
    require("triton", extra="gpu", purpose=purpose)
    if not runs_on(device):
        raise InvalidParameterError(
            f"backend 'triton' must have its tensors on a CUDA device, but got {torch.device(device)}: "
            "move them there, take backend 'batched', or set TRITON_INTERPRET=1 to run it slowly anywhere"
        )
    return importlib.import_module(f"{_HERE}.{name}")


def tile_precision(dtype: torch.dtype) -> str:
    """How products of float32 tiles are computed, by torch's own switch.

    ``"ieee"`` unless :func:`torch.set_float32_matmul_precision` was given ``"high"`` or ``"medium"``, which
    both mean ``"tf32"`` here. Other dtypes have one precision only.
    """
    if dtype != torch.float32 or torch.get_float32_matmul_precision() == "highest":
        return "ieee"
    return "tf32"
