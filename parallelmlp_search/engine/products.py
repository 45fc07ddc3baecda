"""Products of a training step whose shapes defeat the general ones, with what was measured.

A product whose result has a few columns runs far below its peak, since libraries put the columns of a result
into vector lanes. Two occur in every step on a narrow table: the gradient of the first layer's weights,
whose columns are the inputs, and the way back through a head of one output.
"""

from __future__ import annotations

import torch
from torch import Tensor

from parallelmlp_search.kernels.batched import affine_input_gradient, shared_weight_gradient

__all__ = ["NARROW_INPUTS", "FirstLayerGradient", "head_input_gradient"]

NARROW_INPUTS = 32
"""Inputs below which the first layer's gradient is computed transposed.

GFLOP/s on one core of 95, plain and transposed, with 4,600 neurons and 32 rows: 7 and 37 for 5 inputs, 14 and
56 for 10, 75 and 84 for 50, from which writing the transposed result back takes more than is won."""


class FirstLayerGradient:
    """Gradients of the first layer's weights and biases, for ``n_inputs`` shared by all members.

    Few inputs get one more, which is 1 in every row: its column is the gradient of the biases, for an
    eleventh more work at ten inputs instead of a pass of its own.

    Parameters
    ----------
    n_members, width, n_inputs, n_rows
        ``P``, ``H``, ``D`` and ``N``.
    storage
        Memory for ``(D + 1) P H`` elements, read by nobody else during the call.
    """

    def __init__(
        self, n_members: int, width: int, n_inputs: int, n_rows: int, storage: Tensor, *, bias: bool
    ) -> None:
        self._n_inputs = n_inputs
        self._shape = (n_members, width)
        n_columns = n_inputs + bias
        self._rows = storage.new_ones(n_rows, n_columns)
        self._own_rows = self._rows[:, :n_inputs]
        self._result = storage[: n_columns * n_members * width].view(n_columns, n_members * width)
        self._weight = self._result[:n_inputs].t()
        self._bias = self._result[n_inputs] if bias else None

    @staticmethod
    def storage_size(n_members: int, width: int, n_inputs: int) -> int:
        """Elements of storage, or 0 where the plain product is as good."""
        return (n_inputs + 1) * n_members * width if n_inputs < NARROW_INPUTS else 0

    def __call__(self, grad: Tensor, rows: Tensor, weight: Tensor, bias: Tensor | None) -> None:
        """``grad`` (P, H, N) and ``rows`` (N, D) into ``weight`` (P, H, D) and ``bias`` (P, H, 1)."""
        n_neurons = self._shape[0] * self._shape[1]
        self._own_rows.copy_(rows)
        torch.mm(self._rows.t(), grad.view(n_neurons, -1).t(), out=self._result)
        weight.view(n_neurons, self._n_inputs).copy_(self._weight)
        if bias is not None:
            assert self._bias is not None
            bias.view(n_neurons).copy_(self._bias)


def plain_first_layer_gradient(grad: Tensor, rows: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """What :class:`FirstLayerGradient` computes, by the general product and a sum."""
    if bias is not None:
        torch.sum(grad, dim=2, keepdim=True, out=bias)
    shared_weight_gradient(grad, rows, weight)


def head_input_gradient(weight: Tensor, grad: Tensor, out: Tensor) -> None:
    """``W^T dY`` of the head: (P, C, I), (P, C, N) -> ``out`` (P, I, N).

    With one output it is an outer product: 0.14 us a member instead of 0.43 (46 neurons, 32 rows).
    """
    if weight.shape[1] == 1:
        torch.mul(weight.transpose(1, 2), grad, out=out)
    else:
        affine_input_gradient(weight, grad, out)
