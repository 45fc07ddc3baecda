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
"""Inputs below which the columns of the first layer's gradient are filled up to whole vectors.

Nanoseconds a neuron with 32 rows and 10 inputs on one core: 47 by the general product, 13.6 with 16 columns
and 3.7 to copy ten of them; transposed it takes 12.5 and 10. With 50 inputs the general product is at 75 of
95 GFLOP/s and nothing is to be won."""

LANES = 16
"""Columns that fill a vector of float32 where vectors are widest."""


class FirstLayerGradient:
    """Gradients of the first layer's weights and biases, for ``n_inputs`` shared by all members.

    Among the columns that fill up is one that is 1 in every row: it gives the gradient of the biases, which
    then needs no pass of its own.

    Parameters
    ----------
    n_members, width, n_inputs, n_rows
        ``P``, ``H``, ``D`` and ``N``.
    storage
        Memory for :meth:`storage_size` elements, read by nobody else during the call.
    """

    def __init__(self, n_members: int, width: int, n_inputs: int, n_rows: int, storage: Tensor) -> None:
        self._n_inputs = n_inputs
        self._n_neurons = n_members * width
        n_columns = _filled(n_inputs)
        self._rows = storage.new_zeros(n_rows, n_columns)
        self._rows[:, n_inputs] = 1.0
        self._own_rows = self._rows[:, :n_inputs]
        self._result = storage[: n_columns * self._n_neurons].view(self._n_neurons, n_columns)
        self._weight = self._result[:, :n_inputs]
        self._bias = self._result[:, n_inputs]

    @staticmethod
    def storage_size(n_members: int, width: int, n_inputs: int) -> int:
        """Elements of storage, or 0 where the plain product is as good."""
        return _filled(n_inputs) * n_members * width if n_inputs < NARROW_INPUTS else 0

    def __call__(self, grad: Tensor, rows: Tensor, weight: Tensor, bias: Tensor | None) -> None:
        """``grad`` (P, H, N) and ``rows`` (N, D) into ``weight`` (P, H, D) and ``bias`` (P, H, 1)."""
        self._own_rows.copy_(rows)
        torch.mm(grad.view(self._n_neurons, -1), self._rows, out=self._result)
        weight.view(self._n_neurons, self._n_inputs).copy_(self._weight)
        if bias is not None:
            bias.view(self._n_neurons).copy_(self._bias)


def _filled(n_inputs: int) -> int:
    return -(-(n_inputs + 1) // LANES) * LANES


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
