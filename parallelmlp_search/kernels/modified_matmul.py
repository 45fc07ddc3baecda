"""The modified matrix multiplication (M3) as one operator with named backends.

Farias, Ludermir and Bastos-Filho (2022) train independent networks in one by multiplying each hidden neuron
only with the weights of its own network. Here both sides may be ragged: member ``m`` has ``in_widths[m]``
inputs and ``out_widths[m]`` outputs, so that the operator serves the head of the paper's populations (all
``out_widths`` equal to ``C``) as well as the layers of deep ones.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from parallelmlp_search.exceptions import InvalidParameterError, near_miss
from parallelmlp_search.kernels.batched import ragged_backward, ragged_forward
from parallelmlp_search.kernels.reference import loop_matmul, scatter_matmul
from parallelmlp_search.packing.layout import MatmulLayout

__all__ = ["BACKENDS", "modified_matmul"]

BACKENDS = ("auto", "batched", "reference", "loop")
"""``batched``: a batched product per run of equal shapes. ``reference``: the paper's multiply and
scatter-add. ``loop``: one member after the other. ``auto`` takes the fastest, today always ``batched``."""


class _BatchedMatmul(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, activations: Tensor, weight: Tensor, layout: MatmulLayout) -> Tensor:
        ctx.save_for_backward(activations, weight)
        ctx.layout = layout
        return ragged_forward(activations, weight, layout)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        activations, weight = ctx.saved_tensors
        grad_activations, grad_weight = ragged_backward(
            grads[0].contiguous(), activations, weight, ctx.layout
        )
        return grad_activations, grad_weight, None


def modified_matmul(
    activations: Tensor,
    weight: Tensor,
    layout: MatmulLayout,
    *,
    bias: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Multiply the stacked activations of all members, each with its own weights.

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
    backend : {"auto", "batched", "reference", "loop"}

    Returns
    -------
    Tensor of shape (layout.n_out, N)
        With one number of outputs ``C`` for all members, ``.view(P, C, N)`` separates them.

    Raises
    ------
    InvalidParameterError
        If a shape does not match the layout or the backend is unknown.

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
    if backend in ("auto", "batched"):
        result: Tensor = _BatchedMatmul.apply(activations.contiguous(), weight.contiguous(), layout)  # type: ignore[no-untyped-call]
    elif backend == "reference":
        result = scatter_matmul(activations, weight, layout)
    elif backend == "loop":
        result = loop_matmul(activations, weight, layout)
    else:
        raise InvalidParameterError(
            f"backend must be one of {', '.join(BACKENDS)}, but got {backend!r}{near_miss(backend, BACKENDS)}"
        )
    return result if bias is None else result + bias.unsqueeze(1)
