"""Availability of Triton: on a CUDA device, or anywhere in its interpreter."""

from __future__ import annotations

import importlib
import os
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from types import ModuleType

import torch

from parallelmlp_search._optional import is_installed, require
from parallelmlp_search.exceptions import InvalidParameterError

_HERE = __name__.rpartition(".")[0]


def is_interpreted() -> bool:
    """Return True if kernels run in Triton's interpreter, which ``TRITON_INTERPRET=1`` selects."""
    return os.environ.get("TRITON_INTERPRET", "") == "1"


@cache
def _is_installed() -> bool:
    return is_installed("triton")


def runs_on(device: torch.device | str) -> bool:
    """Return True if kernels can run on a device: Triton is installed, and it is CUDA or interpreted."""
    return _is_installed() and (torch.device(device).type == "cuda" or is_interpreted())


def kernel_module(name: str, device: torch.device | str, *, purpose: str) -> ModuleType:
    """Import a module of this package that needs Triton.

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
            "move them there, use backend 'batched', or set TRITON_INTERPRET=1 to run slowly on any device"
        )
    return importlib.import_module(f"{_HERE}.{name}")


def current(device: torch.device | str) -> AbstractContextManager[object]:
    """Return a context in which a CUDA device is the current one, on which Triton launches kernels.

    Operations of torch go by the device of their tensors instead.
    """
    device = torch.device(device)
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def tile_precision(dtype: torch.dtype) -> str:
    """Return the precision of products of tiles, according to torch's setting.

    It is ``"ieee"``, or ``"tf32"`` for float32 after :func:`torch.set_float32_matmul_precision` with
    ``"high"`` or ``"medium"``.
    """
    if dtype != torch.float32 or torch.get_float32_matmul_precision() == "highest":
        return "ieee"
    return "tf32"
