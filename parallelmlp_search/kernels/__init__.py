"""Kernels: modified matrix multiplication, activations and losses, with compiled and GPU versions.

Public names are imported on first use, so that the compiled loops can be compiled and called without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from parallelmlp_search.kernels.activations import ACTIVATION_KERNELS, ActivationKernel
    from parallelmlp_search.kernels.losses import LOSSES, Loss, get_loss
    from parallelmlp_search.kernels.matmul import (
        BACKEND_DTYPES,
        BACKENDS,
        choose_backend,
        modified_matmul,
    )

__all__ = [
    "ACTIVATION_KERNELS",
    "BACKENDS",
    "BACKEND_DTYPES",
    "LOSSES",
    "ActivationKernel",
    "Loss",
    "choose_backend",
    "get_loss",
    "modified_matmul",
]

_MODULES = {"ActivationKernel": "activations", "ACTIVATION_KERNELS": "activations"}
_MODULES |= dict.fromkeys(("LOSSES", "Loss", "get_loss"), "losses")


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module = import_module(f"{__name__}.{_MODULES.get(name, 'matmul')}")
    globals()[name] = value = getattr(module, name)
    return value
