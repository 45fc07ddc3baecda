"""The arithmetic: modified matrix multiplication, activations by segment, losses by member."""

from parallelmlp_search.kernels.activations import ACTIVATION_KERNELS, ActivationKernel
from parallelmlp_search.kernels.losses import LOSSES, Loss, get_loss
from parallelmlp_search.kernels.modified_matmul import BACKENDS, modified_matmul

__all__ = [
    "ACTIVATION_KERNELS",
    "BACKENDS",
    "LOSSES",
    "ActivationKernel",
    "Loss",
    "get_loss",
    "modified_matmul",
]
