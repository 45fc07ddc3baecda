"""Periodic embeddings of a bucket: forward and hand-written backward, in buffers that are made once.

Each member has waves of its own, so behind the embedding the inputs of the first layer are no longer shared:
they are ``(P, D', N)`` with ``D' = D + 3 n``, for ``n`` numbers among ``D`` columns. The plain twin is
:class:`parallelmlp_search.packing.periodic.Periodic`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from parallelmlp_search.kernels.batched import affine_weight_gradient
from parallelmlp_search.packing.layout import EMBEDDING, Bucket, Layout, aligned
from parallelmlp_search.packing.pack import block_view
from parallelmlp_search.space.config import PERIODIC_FREQUENCIES, PERIODIC_OUTPUTS

if TYPE_CHECKING:
    from parallelmlp_search.engine.buffers import Arena, LayerTensors

__all__ = ["EmbeddingTensors", "PeriodicEmbedding", "bind_embedding", "embedding_size"]

CHUNK_ELEMENTS = 1 << 17
"""Waves that are there at once while predicting: 512 KiB in float32, however many members and numbers."""

K, M = PERIODIC_FREQUENCIES, PERIODIC_OUTPUTS
TWO_PI = 2.0 * math.pi


class EmbeddingTensors(NamedTuple):
    """Views of the embedding of a bucket with ``n`` numbers."""

    frequency: Tensor  # (P, n, 16, 1)
    phase: Tensor  # (P, n, 16, 1)
    mixing: Tensor  # (P, n, 3, 16)
    offset: Tensor  # (P, n, 3, 1)


def bind_embedding(flat: Tensor, layout: Layout, bucket: int) -> EmbeddingTensors | None:
    """Views of a flat buffer, or None where the bucket has no embedding."""
    if not layout.buckets[bucket].shape.n_periodic:
        return None
    n_members = layout.buckets[bucket].n_members

    def view(kind: str, *shape: int) -> Tensor:
        tensor = block_view(flat, layout, bucket, EMBEDDING, kind)
        assert tensor is not None
        return tensor.view(n_members, -1, *shape)

    return EmbeddingTensors(
        view("frequency", K, 1), view("phase", K, 1), view("mixing", M, K), view("offset", M, 1)
    )


Part = tuple[slice, slice]
"""Members and numbers that are embedded at once."""


def _parts(n_members: int, n_numbers: int, n_rows: int, training: bool) -> list[Part]:
    """Whole members, or some numbers of one; everything at once where a backward pass will want it."""
    if training:
        return [(slice(0, n_members), slice(0, n_numbers))]
    fitting = max(1, CHUNK_ELEMENTS // (K * n_rows))  # numbers
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


def embedding_size(bucket: Bucket, n_rows: int, training: bool) -> int:
    """Elements that a bucket's embedding takes from the arena, rounded up."""
    shape = bucket.shape
    if not shape.n_periodic:
        return 0
    parts = _parts(bucket.n_members, shape.n_periodic, n_rows, training)
    waves = aligned(_size(parts[0]) * K * n_rows)
    mixed = aligned(_size(parts[0]) * M * n_rows)
    return aligned(bucket.n_members * shape.fan_in * n_rows) + (1 + training) * waves + mixed


class PeriodicEmbedding:
    """Buffers and passes of the embedding of one bucket, for batches of exactly ``n_rows`` rows.

    Parameters
    ----------
    bucket
        The bucket, whose first ``n_periodic`` columns are numbers.
    n_rows
        Rows ``N`` of every batch.
    arena
        Memory for the buffers.
    training
        Whether to keep what the backward pass needs.

    Attributes
    ----------
    inputs
        ``(P, D', N)``: inputs of the first layer, valid after :meth:`forward`.
    """

    def __init__(self, bucket: Bucket, n_rows: int, arena: Arena, *, training: bool) -> None:
        shape = bucket.shape
        n_members, self._n = bucket.n_members, shape.n_periodic
        self._n_columns = shape.n_inputs
        self._shape = (n_members, self._n, n_rows)
        self._parts = _parts(n_members, self._n, n_rows, training)
        size = _size(self._parts[0])
        self.inputs = arena.take(n_members, shape.fan_in, n_rows)
        self._numbers = self.inputs[0, : self._n].view(1, self._n, 1, n_rows)
        self._angles = arena.take(size * K, n_rows)
        self._waves = arena.take(size * K, n_rows) if training else self._angles
        self._mixed = arena.take(size * M, n_rows)

    @classmethod
    def of(cls, bucket: Bucket, n_rows: int, arena: Arena, *, training: bool) -> PeriodicEmbedding | None:
        """The embedding of a bucket, or None where it has none."""
        return cls(bucket, n_rows, arena, training=training) if bucket.shape.n_periodic else None

    def forward(self, first: LayerTensors, rows: Tensor) -> Tensor:
        """:attr:`inputs` from rows ``(N, D)`` and the parameters of the first layer."""
        tensors = first.embedding
        assert tensors is not None
        n_rows = self._shape[2]
        # turned round once, then copied as it lies
        columns = self.inputs[:, : self._n_columns]
        columns[0].copy_(rows.t())
        columns[1:].copy_(columns[:1])
        for part in self._parts:
            members, numbers = part
            size = _size(part)
            count = members.stop - members.start
            angles = self._angles[: size * K].view(count, -1, K, n_rows)
            waves = self._waves[: size * K].view(count, -1, K, n_rows)
            # two passes of 0.06 ns an element: the one of addcmul takes 0.5 where it spreads its operands
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

    def backward(
        self,
        first: LayerTensors,
        into: LayerTensors,
        grad: Tensor,
        past: Tensor | None,
    ) -> None:
        """Gradients of the first layer and of the embedding.

        Call it after :meth:`forward`, whose waves are overwritten.

        Parameters
        ----------
        first, into
            Parameters of the first layer, and where their gradients are written.
        grad
            Gradient ``(P, H, N)`` of its products.
        past
            Gradient ``(P, D', N)`` that goes past them where the layer is residual, or None.
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
        if past is not None:
            mixed.add_(past[:, self._n_columns :])
        mixed = mixed.view(size, M, n_rows)
        angles = self._angles.view(n_members, n_numbers, K, n_rows)
        waves = self._waves.view(n_members, n_numbers, K, n_rows)
        flat = waves.view(size, K, n_rows)
        torch.sum(mixed, dim=2, keepdim=True, out=gradients.offset.view(size, M, 1))
        torch.bmm(mixed, flat.transpose(1, 2), out=gradients.mixing.view(size, M, K))
        torch.bmm(tensors.mixing.view(size, M, K).transpose(1, 2), mixed, out=flat)
        # the slope of the cosine, without its sign, which the small sums get
        waves.mul_(torch.sin(angles, out=angles))
        torch.sum(waves, dim=3, keepdim=True, out=gradients.phase)
        waves.mul_(self._numbers)
        torch.sum(waves, dim=3, keepdim=True, out=gradients.frequency)
        gradients.phase.neg_()
        gradients.frequency.mul_(-TWO_PI)
