"""Batched products over the members of a bucket, written into buffers that exist.

Activations are feature-major, ``(P, H, N)``: each member is contiguous, and a bucket is a view of the
stacked activations that costs nothing. These are the primitives of the training step and of the operator
in :mod:`parallelmlp_search.kernels.modified_matmul`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from parallelmlp_search.packing.layout import MatmulLayout

__all__ = [
    "affine",
    "affine_input_gradient",
    "affine_weight_gradient",
    "ragged_backward",
    "ragged_forward",
    "shared_affine",
    "shared_weight_gradient",
]


def shared_affine(weight: Tensor, bias: Tensor | None, rows: Tensor, out: Tensor) -> Tensor:
    """First layer, whose input all members share: one dense product.

    ``weight`` (P, H, D), ``bias`` (P, H, 1) or None, ``rows`` (N, D), ``out`` (P, H, N).
    """
    n_members, width, n_inputs = weight.shape
    flat = out.view(n_members * width, -1)
    torch.mm(weight.view(n_members * width, n_inputs), rows.t(), out=flat)
    if bias is not None:
        out.add_(bias)
    return out


def shared_weight_gradient(grad: Tensor, rows: Tensor, out: Tensor) -> None:
    """Gradient of the first layer's weights: ``grad`` (P, H, N), ``rows`` (N, D), ``out`` (P, H, D)."""
    n_members, width, n_rows = grad.shape
    torch.mm(grad.view(n_members * width, n_rows), rows, out=out.view(n_members * width, -1))


def affine(weight: Tensor, bias: Tensor | None, activations: Tensor, out: Tensor) -> Tensor:
    """``W a + b`` for each member: (P, O, I), (P, O, 1) or None, (P, I, N) -> ``out`` (P, O, N)."""
    if bias is None:
        torch.bmm(weight, activations, out=out)
    else:
        torch.baddbmm(bias, weight, activations, out=out)
    return out


def affine_weight_gradient(grad: Tensor, activations: Tensor, out: Tensor) -> None:
    """``dW = dZ a^T``: (P, O, N), (P, I, N) -> ``out`` (P, O, I)."""
    torch.bmm(grad, activations.transpose(1, 2), out=out)


def affine_input_gradient(weight: Tensor, grad: Tensor, out: Tensor, *, accumulate: bool = False) -> None:
    """``da = W^T dZ``: (P, O, I), (P, O, N) -> ``out`` (P, I, N), added to it if ``accumulate``."""
    if accumulate:
        out.baddbmm_(weight.transpose(1, 2), grad)
    else:
        torch.bmm(weight.transpose(1, 2), grad, out=out)


def ragged_forward(activations: Tensor, weight: Tensor, layout: MatmulLayout) -> Tensor:
    """Modified matrix multiplication as one batched product for each run of equal shapes.

    Shapes as in :func:`parallelmlp_search.kernels.reference.scatter_matmul`.
    """
    n_rows = activations.shape[1]
    result = activations.new_empty(layout.n_out, n_rows)
    for count, n_in, n_out, in_offset, out_offset, weight_offset in layout.runs:
        inputs = activations[in_offset : in_offset + count * n_in].view(count, n_in, n_rows)
        matrix = weight[weight_offset : weight_offset + count * n_in * n_out].view(count, n_out, n_in)
        outputs = result[out_offset : out_offset + count * n_out].view(count, n_out, n_rows)
        torch.bmm(matrix, inputs, out=outputs)
    return result


def ragged_backward(
    grad: Tensor, activations: Tensor, weight: Tensor, layout: MatmulLayout
) -> tuple[Tensor, Tensor]:
    """Gradients of :func:`ragged_forward` by its activations and its weights, into two whole buffers.

    Slicing under autograd would cost a full-size zero gradient per run (28 ms against 3.6 ms a step for
    1000 members on one core); here each run writes its own part of one buffer.
    """
    n_rows = grad.shape[1]
    grad_activations = torch.empty_like(activations)
    grad_weight = torch.empty_like(weight)
    for count, n_in, n_out, in_offset, out_offset, weight_offset in layout.runs:
        n_weights = count * n_in * n_out
        inputs = activations[in_offset : in_offset + count * n_in].view(count, n_in, n_rows)
        matrix = weight[weight_offset : weight_offset + n_weights].view(count, n_out, n_in)
        outer = grad[out_offset : out_offset + count * n_out].view(count, n_out, n_rows)
        into = grad_activations[in_offset : in_offset + count * n_in].view(count, n_in, n_rows)
        affine_input_gradient(matrix, outer, into)
        into_weight = grad_weight[weight_offset : weight_offset + n_weights].view(count, n_out, n_in)
        affine_weight_gradient(outer, inputs, into_weight)
    return grad_activations, grad_weight
