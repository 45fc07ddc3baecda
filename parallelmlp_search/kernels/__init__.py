"""Kernels: modified matrix multiplication, activations and losses, with compiled and GPU versions."""

from parallelmlp_search.kernels.activations import ACTIVATION_KERNELS, ActivationKernel
from parallelmlp_search.kernels.losses import LOSSES, Loss, get_loss
from parallelmlp_search.kernels.modified_matmul import (
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
