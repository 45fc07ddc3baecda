"""Modified matrix multiplication (M3) with a choice of backends.

Farias, Ludermir and Bastos-Filho (2022) train independent networks as one by multiplying each hidden neuron
only with the weights of its own network. Here both sides may be ragged: member ``m`` has ``in_widths[m]``
inputs and ``out_widths[m]`` outputs. The operator therefore serves the head of the paper's populations, where
all ``out_widths`` are ``C``, and the layers of deep networks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from parallelmlp_search.exceptions import InvalidParameterError, near_miss
from parallelmlp_search.kernels.operator import operator
from parallelmlp_search.kernels.reference import loop_matmul, scatter_matmul
from parallelmlp_search.kernels.triton.availability import kernel_module, runs_on
from parallelmlp_search.packing.layout import MatmulLayout

BACKENDS = ("auto", "batched", "triton", "reference", "loop")
"""``batched``: one batched product per run of equal shapes. ``triton``: one launch, one program per tile, on
CUDA. ``reference``: the paper's multiply and scatter-add. ``loop``: one member after the other. ``auto``
chooses between the first two by device and shape."""

_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)

BACKEND_DTYPES: dict[str, tuple[torch.dtype, ...]] = dict.fromkeys(BACKENDS[1:], _DTYPES)
"""Dtypes of each backend. ``batched`` and ``loop`` accumulate as torch's products do, ``triton`` in float32
(float64 for float64), ``reference`` in the dtype itself. float32 is multiplied exactly by
default. After ``torch.set_float32_matmul_precision("high")``, ``batched``, ``loop`` and ``triton`` use
TF32 on CUDA devices that have it; ``reference`` never does."""

MAX_LAUNCHES = 4
"""Largest number of runs for which ``auto`` takes batched products on a GPU: each is a launch of 5 us."""

MAX_TRITON_WIDTH = 256
"""Mean width above which one member fills the GPU, and cuBLAS is faster."""


def choose_backend(layout: MatmulLayout, device: torch.device | str, dtype: torch.dtype) -> str:
    """Return the backend that ``auto`` stands for.

    Parameters
    ----------
    layout
        Widths of each member.
    device, dtype
        Device and dtype of the tensors. float64 takes batched products: Triton has none before version 3.6.

    Returns
    -------
    str
        ``"batched"`` or ``"triton"``.
    """
    if dtype == torch.float64:
        return "batched"
    is_ragged = len(layout.runs) > MAX_LAUNCHES
    is_wide = layout.n_weights > MAX_TRITON_WIDTH**2 * layout.n_members
    on_cuda = torch.device(device).type == "cuda"
    return "triton" if on_cuda and is_ragged and not is_wide and runs_on(device) else "batched"


def modified_matmul(
    activations: Tensor,
    weight: Tensor,
    layout: MatmulLayout,
    *,
    bias: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Multiply the stacked activations of each member with its own weights.

    Parameters
    ----------
    activations : Tensor of shape (layout.n_in, N)
        Activations of all members, stacked, feature-major.
    weight : Tensor of shape (layout.n_weights,)
        Each member's ``(out, in)`` matrix, row by row, one member after the other.
    layout : MatmulLayout
        Widths of each member; hashable, computed once.
    bias : Tensor of shape (layout.n_out,), optional
        Added to each row of the result.
    backend : {"auto", "batched", "triton", "reference", "loop"}
        See :data:`BACKENDS`, and :data:`BACKEND_DTYPES` for precision.

    Returns
    -------
    Tensor of shape (layout.n_out, N)
        With one number of outputs ``C`` for all members, ``.view(P, C, N)`` separates them.

    Raises
    ------
    InvalidParameterError
        If a shape does not match the layout, the dtypes differ or are not the backend's, or the backend is
        unknown or cannot run on the device.
    MissingDependencyError
        If the backend is ``"triton"`` and Triton is not installed.

    Examples
    --------
    >>> layout = MatmulLayout(in_widths=(2, 3), out_widths=(1, 1))
    >>> modified_matmul(torch.ones(5, 4), torch.arange(5.0), layout).tolist()
    [[1.0, 1.0, 1.0, 1.0], [9.0, 9.0, 9.0, 9.0]]
    """
    if activations.ndim != 2 or activations.shape[0] != layout.n_in:
        raise InvalidParameterError(
            f"activations must have shape ({layout.n_in}, N), but got {tuple(activations.shape)}"
        )
    if weight.shape != (layout.n_weights,):
        raise InvalidParameterError(
            f"weight must have shape ({layout.n_weights},), but got {tuple(weight.shape)}"
        )
    if bias is not None and bias.shape != (layout.n_out,):
        raise InvalidParameterError(f"bias must have shape ({layout.n_out},), but got {tuple(bias.shape)}")
    if backend not in BACKENDS:
        raise InvalidParameterError(
            f"backend must be one of {', '.join(BACKENDS)}, but got {backend!r}{near_miss(backend, BACKENDS)}"
        )
    if backend == "auto":
        backend = choose_backend(layout, activations.device, activations.dtype)
    _check_dtypes(activations, weight, bias, backend)
    if backend == "reference":
        result = scatter_matmul(activations, weight, layout)
    elif backend == "loop":
        result = loop_matmul(activations, weight, layout)
    else:
        if backend == "triton":
            kernel_module("ragged", activations.device, purpose="for backend 'triton'")
        result = operator(activations, weight, layout.flat_runs, backend)
    # under autocast the bias may have a wider dtype than the result
    return result if bias is None else result + bias.to(result.dtype).unsqueeze(1)


def _check_dtypes(activations: Tensor, weight: Tensor, bias: Tensor | None, backend: str) -> None:
    allowed = BACKEND_DTYPES[backend]
    if activations.dtype not in allowed:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in allowed)
        raise InvalidParameterError(
            f"activations must be one of {names} for backend {backend!r}, but got {activations.dtype}"
        )
    if torch.is_autocast_enabled(activations.device.type):
        return  # autocast brings them to one dtype
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor is not None and tensor.dtype != activations.dtype:
            raise InvalidParameterError(
                f"{name} must have the dtype of activations, {activations.dtype}, but got {tensor.dtype}"
            )
