"""Products of a training step whose shapes are slow in the general routines.

Libraries put the columns of a result into vector lanes, so a product whose result has few columns runs far
below the peak. Two occur in every step on a narrow table: the gradient of the first layer's weights, whose
columns are the inputs, and the input gradient of a head with one output.
"""

from __future__ import annotations

import torch
from torch import Tensor

from parallelmlp_search.kernels.batched import affine_input_gradient, shared_weight_gradient

NARROW_INPUTS = 32
"""Number of inputs below which the columns of the first layer's gradient are padded to whole vectors.

Time per neuron with 32 rows and 10 inputs on one core: 47 ns by the general product, 13.6 ns with 16 columns
plus 3.7 ns to copy ten of them. With 50 inputs the general product reaches 75 of 95 GFLOP/s."""

LANES = 16
"""Columns that fill the widest vector of float32."""


def padded_columns(n_inputs: int) -> int:
    """Return the columns of the padded gradient, or 0 if the general product is as fast."""
    return -(-(n_inputs + 1) // LANES) * LANES if n_inputs < NARROW_INPUTS else 0


class FirstLayerGradient:
    """Gradient of the first layer's weights and biases, for inputs that all members share.

    One of the padded columns is 1 in every row. It gives the gradient of the biases in the same product.

    Parameters
    ----------
    n_inputs, n_rows
        Inputs ``D`` and rows ``N``.
    result
        Memory ``(P H, padded_columns(D))`` that no other operation uses during a call; None computes the
        general product and a sum.
    """

    def __init__(self, n_inputs: int, n_rows: int, result: Tensor | None) -> None:
        self._result = result
        if result is not None:
            self._rows = result.new_zeros(n_rows, result.shape[1])
            self._rows[:, n_inputs] = 1.0
            self._inputs = self._rows[:, :n_inputs]
            self._weight, self._bias = result[:, :n_inputs], result[:, n_inputs]

    def __call__(self, grad: Tensor, rows: Tensor, weight: Tensor, bias: Tensor | None) -> None:
        """``grad`` (P, H, N) and ``rows`` (N, D) into ``weight`` (P, H, D) and ``bias`` (P, H, 1)."""
        if self._result is None:
            if bias is not None:
                torch.sum(grad, dim=2, keepdim=True, out=bias)
            shared_weight_gradient(grad, rows, weight)
            return
        self._inputs.copy_(rows)
        n_neurons = len(self._result)
        torch.mm(grad.view(n_neurons, -1), self._rows, out=self._result)
        weight.view(n_neurons, -1).copy_(self._weight)
        if bias is not None:
            bias.view(n_neurons).copy_(self._bias)


def head_input_gradient(weight: Tensor, grad: Tensor, out: Tensor) -> None:
    """Compute ``W^T dY`` of the head.

    Parameters
    ----------
    weight, grad
        ``W`` (P, C, I) and ``dY`` (P, C, N). With one output the product is an outer product: 0.14 us per
        member instead of 0.43 us (46 neurons, 32 rows).
    out
        Result ``(P, I, N)``.
    """
    if weight.shape[1] == 1:
        torch.mul(weight.transpose(1, 2), grad, out=out)
    else:
        affine_input_gradient(weight, grad, out)
