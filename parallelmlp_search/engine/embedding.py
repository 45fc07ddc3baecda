"""Periodic embedding of a bucket: forward pass and hand-written backward pass.

Each member has its own waves, so after the embedding the inputs of the first layer are ``(P, D', N)``, with
``D' = D + 3 n`` for ``n`` numbers among ``D`` columns. The reference is
:class:`parallelmlp_search.packing.periodic.Periodic`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from parallelmlp_search.engine.parameter_views import LayerTensors
from parallelmlp_search.engine.storage import PassOptions, Shapes
from parallelmlp_search.kernels.batched import affine_weight_gradient
from parallelmlp_search.packing.layout import Bucket
from parallelmlp_search.space.config import PERIODIC_FREQUENCIES, PERIODIC_OUTPUTS

CHUNK_ELEMENTS = 1 << 17
"""Waves computed at once while predicting: 512 KiB in float32, for any number of members and numbers."""

K, M = PERIODIC_FREQUENCIES, PERIODIC_OUTPUTS
TWO_PI = 2.0 * math.pi

Part = tuple[slice, slice]
"""Members and numbers that are embedded at once."""


def _parts(bucket: Bucket, options: PassOptions) -> list[Part]:
    """Parts that fit a chunk; the whole bucket for training, since the backward pass needs all waves."""
    n_members, n_numbers = bucket.n_members, bucket.shape.n_periodic
    if options.training:
        return [(slice(0, n_members), slice(0, n_numbers))]
    fitting = max(1, CHUNK_ELEMENTS // (K * options.n_rows))  # numbers
    if fitting < n_numbers:
        return [
            (slice(member, member + 1), slice(start, min(start + fitting, n_numbers)))
            for member in range(n_members)
            for start in range(0, n_numbers, fitting)
        ]
    step = fitting // n_numbers
    return [
        (slice(start, min(start + step, n_members)), slice(0, n_numbers))
        for start in range(0, n_members, step)
    ]


def _size(part: Part) -> int:
    members, numbers = part
    return int((members.stop - members.start) * (numbers.stop - numbers.start))


def embedding_shapes(bucket: Bucket, options: PassOptions) -> Shapes:
    """Return the shapes of the buffers of a bucket's periodic embedding; empty if it has none."""
    if not bucket.shape.n_periodic:
        return {}
    size, n_rows = _size(_parts(bucket, options)[0]), options.n_rows
    shapes: Shapes = {
        "embedded": (bucket.n_members, bucket.shape.fan_in, n_rows),
        "angles": (size * K, n_rows),
        "mixed": (size * M, n_rows),
    }
    return shapes | ({"waves": (size * K, n_rows)} if options.training else {})


class PeriodicEmbedding:
    """Passes of the embedding of one bucket.

    Parameters
    ----------
    bucket, options
        Bucket whose first ``n_periodic`` columns are numbers, and properties of the passes.
    buffers
        Buffers of :func:`embedding_shapes`.

    Attributes
    ----------
    inputs
        Inputs ``(P, D', N)`` of the first layer, valid after :meth:`forward`.
    """

    def __init__(self, bucket: Bucket, options: PassOptions, buffers: Mapping[str, Tensor]) -> None:
        n_numbers = bucket.shape.n_periodic
        self._n_columns = bucket.shape.n_inputs
        self._shape = (bucket.n_members, n_numbers, options.n_rows)
        self._parts = _parts(bucket, options)
        self.inputs = buffers["embedded"]
        self._numbers = self.inputs[0, :n_numbers].view(1, n_numbers, 1, -1)
        self._angles, self._mixed = buffers["angles"], buffers["mixed"]
        self._waves = buffers["waves"] if options.training else self._angles

    def forward(self, first: LayerTensors, rows: Tensor) -> Tensor:
        """Return :attr:`inputs` for rows ``(N, D)`` and the parameters of the first layer."""
        tensors = first.embedding
        assert tensors is not None
        n_rows = self._shape[2]
        # transposed once, then copied to the other members
        columns = self.inputs[:, : self._n_columns]
        columns[0].copy_(rows.t())
        columns[1:].copy_(columns[:1])
        for part in self._parts:
            members, numbers = part
            size = _size(part)
            count = members.stop - members.start
            angles = self._angles[: size * K].view(count, -1, K, n_rows)
            waves = self._waves[: size * K].view(count, -1, K, n_rows)
            # two passes of 0.06 ns an element; addcmul takes 0.5 ns where it broadcasts
            torch.mul(tensors.frequency[part] * TWO_PI, self._numbers[:, numbers], out=angles)
            angles.add_(tensors.phase[part])
            torch.cos(angles, out=waves)
            mixed = self._mixed[: size * M].view(size, M, n_rows)
            mixing, offset = tensors.mixing[part].reshape(size, M, K), tensors.offset[part]
            torch.baddbmm(offset.reshape(size, M, 1), mixing, waves.view(size, K, n_rows), out=mixed)
            start = self._n_columns + M * numbers.start
            place = slice(start, start + M * (size // count))
            self.inputs[members, place].copy_(mixed.view(count, -1, n_rows))
        return self.inputs

    def backward(self, first: LayerTensors, into: LayerTensors, grad: Tensor, bypass: Tensor | None) -> None:
        """Compute the gradients of the first layer and of the embedding; overwrites the waves.

        Parameters
        ----------
        first, into
            Parameters of the first layer, and their gradients to write.
        grad
            Gradient ``(P, H, N)`` of the products of the first layer.
        bypass
            Gradient ``(P, D', N)`` that a residual layer passes to its inputs, or None.
        """
        tensors, gradients = first.embedding, into.embedding
        assert tensors is not None
        assert gradients is not None
        if into.bias is not None:
            torch.sum(grad, dim=2, keepdim=True, out=into.bias)
        affine_weight_gradient(grad, self.inputs, into.weight)
        n_members, n_numbers, n_rows = self._shape
        size = n_members * n_numbers
        mixed = self._mixed.view(n_members, -1, n_rows)
        torch.bmm(first.weight[:, :, self._n_columns :].transpose(1, 2), grad, out=mixed)
        if bypass is not None:
            mixed.add_(bypass[:, self._n_columns :])
        mixed = mixed.view(size, M, n_rows)
        angles = self._angles.view(n_members, n_numbers, K, n_rows)
        waves = self._waves.view(n_members, n_numbers, K, n_rows)
        flat = waves.view(size, K, n_rows)
        torch.sum(mixed, dim=2, keepdim=True, out=gradients.offset.view(size, M, 1))
        torch.bmm(mixed, flat.transpose(1, 2), out=gradients.mixing.view(size, M, K))
        torch.bmm(tensors.mixing.view(size, M, K).transpose(1, 2), mixed, out=flat)
        # derivative of the cosine without its sign, which is applied to the small sums
        waves.mul_(torch.sin(angles, out=angles))
        torch.sum(waves, dim=3, keepdim=True, out=gradients.phase)
        waves.mul_(self._numbers)
        torch.sum(waves, dim=3, keepdim=True, out=gradients.frequency)
        gradients.phase.neg_()
        gradients.frequency.mul_(-TWO_PI)
