"""Batched products over the members of a bucket that write into existing buffers.

Activations are feature-major, ``(P, H, N)``, so that each member is contiguous and a bucket is a view of the
stacked activations. These are the primitives of the training step.
"""

from __future__ import annotations

import torch
from torch import Tensor


def shared_affine(weight: Tensor, bias: Tensor | None, rows: Tensor, out: Tensor) -> Tensor:
    """Compute the first layer, whose input all members share, as one product.

    Parameters
    ----------
    weight, bias
        ``(P, H, D)``, and ``(P, H, 1)`` or None.
    rows
        ``(N, D)``.
    out
        ``(P, H, N)``; written.

    Returns
    -------
    Tensor
        ``out``.
    """
    n_members, width, n_inputs = weight.shape
    flat = out.view(n_members * width, -1)
    torch.mm(weight.view(n_members * width, n_inputs), rows.t(), out=flat)
    if bias is not None:
        out.add_(bias)
    return out


def shared_weight_gradient(grad: Tensor, rows: Tensor, out: Tensor) -> None:
    """Compute the gradient of the weights of the first layer.

    Parameters
    ----------
    grad, rows
        ``(P, H, N)`` and ``(N, D)``.
    out
        ``(P, H, D)``; written.
    """
    n_members, width, n_rows = grad.shape
    torch.mm(grad.view(n_members * width, n_rows), rows, out=out.view(n_members * width, -1))


def affine(weight: Tensor, bias: Tensor | None, activations: Tensor, out: Tensor) -> Tensor:
    """Compute ``W a + b`` for each member.

    Parameters
    ----------
    weight, bias
        ``(P, O, I)``, and ``(P, O, 1)`` or None.
    activations
        ``(P, I, N)``.
    out
        ``(P, O, N)``; written.

    Returns
    -------
    Tensor
        ``out``.
    """
    if bias is None:
        torch.bmm(weight, activations, out=out)
    else:
        torch.baddbmm(bias, weight, activations, out=out)
    return out


def affine_weight_gradient(grad: Tensor, activations: Tensor, out: Tensor) -> None:
    """Compute ``dW = dZ a^T`` for each member.

    Parameters
    ----------
    grad, activations
        ``(P, O, N)`` and ``(P, I, N)``.
    out
        ``(P, O, I)``; written.
    """
    torch.bmm(grad, activations.transpose(1, 2), out=out)


def affine_input_gradient(weight: Tensor, grad: Tensor, out: Tensor, *, accumulate: bool = False) -> None:
    """Compute ``da = W^T dZ`` for each member.

    Parameters
    ----------
    weight, grad
        ``(P, O, I)`` and ``(P, O, N)``.
    out
        ``(P, I, N)``; written.
    accumulate
        True to add the result to ``out``.
    """
    if accumulate:
        out.baddbmm_(weight.transpose(1, 2), grad)
    else:
        torch.bmm(weight.transpose(1, 2), grad, out=out)
