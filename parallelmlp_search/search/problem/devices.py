"""Devices by name."""

from __future__ import annotations

import warnings

import torch

from parallelmlp_search.distribute import active_cluster
from parallelmlp_search.exceptions import DeviceWarning, InvalidParameterError


def resolve_device(name: str) -> str:
    """Device of a name; ``auto`` is a GPU where there is one, but not for workers of a cluster.

    Raises
    ------
    InvalidParameterError
        If there is no such device.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() and active_cluster() is None else "cpu"
    kind = name.partition(":")[0]
    if kind not in ("cpu", "cuda"):
        raise InvalidParameterError(f"device must be auto, cpu, cuda or cuda:N, but got {name!r}")
    if kind == "cuda" and not torch.cuda.is_available():
        raise InvalidParameterError(f"device is {name!r}, but torch finds no CUDA device: use auto or cpu")
    return name


def warn_of_precision(precision: str, device: str) -> None:
    """Warn of a precision that a device does not have."""
    if precision != "ieee" and torch.device(device).type == "cpu":
        warnings.warn(
            f"precision {precision!r} has no effect on the CPU, which computes in float32: "
            "it needs a CUDA device",
            DeviceWarning,
            stacklevel=2,
        )
