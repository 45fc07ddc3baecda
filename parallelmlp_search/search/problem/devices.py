"""Where tensors live: a device by its name."""

from __future__ import annotations

import torch

from parallelmlp_search.exceptions import InvalidParameterError

__all__ = ["CUDA_CACHE_SCALE", "resolve_device"]

CUDA_CACHE_SCALE = 64
"""A GPU wants chunks this many times larger than a core's cache."""


def resolve_device(name: str) -> str:
    """The device of a name, checked: ``auto`` is a GPU where there is one."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind = name.partition(":")[0]
    if kind not in ("cpu", "cuda"):
        raise InvalidParameterError(f"device must be auto, cpu, cuda or cuda:N, but got {name!r}")
    if kind == "cuda" and not torch.cuda.is_available():
        raise InvalidParameterError(f"device is {name!r}, but torch finds no CUDA device: use auto or cpu")
    return name
