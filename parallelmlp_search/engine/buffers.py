"""What a packed network computes in: views of the parameters, buffers of a layer, memory of all buckets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from parallelmlp_search.engine.embedding import EmbeddingTensors, bind_embedding, embedding_size
from parallelmlp_search.engine.products import FirstLayerGradient
from parallelmlp_search.kernels.activations import ActivationKernel
from parallelmlp_search.kernels.numba.dispatch import CompiledActivations
from parallelmlp_search.packing.layout import EMBEDDING, Bucket, Layout, aligned
from parallelmlp_search.packing.pack import block_view

__all__ = [
    "Arena",
    "HiddenLayer",
    "LayerTensors",
    "SegmentViews",
    "arena_size",
    "bind",
    "compiled_activations",
    "first_layer_size",
    "scaled_size",
]


class LayerTensors(NamedTuple):
    """Views of one layer of a bucket: weight (P, O, I); bias, gain and shift (P, O, 1) or None.

    The first also has the embedding before it, the scales of its inputs (P, 1, I) and embeddings of
    categories (P, S, 1), one after the other, if there are any.
    Members of ``K`` submembers have adapters (P, K, I) and (P, K, O) as well, heads (P, K C, I) with biases
    (P, K C, 1), and where they share fully biases (P, K, O).
    """

    weight: Tensor
    bias: Tensor | None
    gain: Tensor | None
    shift: Tensor | None
    embedding: EmbeddingTensors | None = None
    scale: Tensor | None = None
    input_adapter: Tensor | None = None
    output_adapter: Tensor | None = None
    category: Tensor | None = None


_OTHERS = ("bias", "gain", "shift", "input_adapter", "output_adapter")


def bind(flat: Tensor, layout: Layout, bucket: int) -> list[LayerTensors]:
    """Views of a flat buffer, layer by layer, head last."""
    layers = []
    for layer in range(layout.buckets[bucket].shape.depth + 1):
        weight = block_view(flat, layout, bucket, layer, "weight")
        assert weight is not None
        others: dict[str, Any] = {kind: block_view(flat, layout, bucket, layer, kind) for kind in _OTHERS}
        layers.append(LayerTensors(weight, **others))
    scale = block_view(flat, layout, bucket, EMBEDDING, "scale")
    layers[0] = layers[0]._replace(
        embedding=bind_embedding(flat, layout, bucket),
        scale=None if scale is None else scale.transpose(1, 2),
        category=block_view(flat, layout, bucket, EMBEDDING, "category"),
    )
    return layers


class SegmentViews(NamedTuple):
    """Rows of a bucket that share an activation, in every buffer that it touches."""

    kernel: ActivationKernel
    rows: slice
    z: Tensor
    source: Tensor  # where the activation is written
    output: Tensor  # the segment's rows of the layer's output
    saved: Tensor  # what its backward reads
    mask: Tensor | None  # zeroes padded neurons of activations that are not zero at zero
    keep: Tensor | None  # dropout factors
    gradients: tuple[Tensor, ...]  # its rows of the scratch buffers


class HiddenLayer(NamedTuple):
    """Buffers of one hidden layer of a bucket."""

    z: Tensor  # (P, H, N) before the activation
    a: Tensor  # (P, H, N) output of the layer, the same tensor as z where that is safe
    residual: bool
    normalized: Tensor | None  # (P, H, N), kept for the backward of the normalisation
    keep: Tensor | None  # (P, H, N) dropout factors
    mask: Tensor | None  # (P, H, 1): 1 for true neurons, 0 for padding
    scratch: tuple[Tensor, ...]  # three of (P, H, N) for the backward pass
    compiled: CompiledActivations | None
    covered: frozenset[str]  # activations that it deals with
    forward_views: tuple[SegmentViews, ...]  # segments that still have something to do
    backward_views: tuple[SegmentViews, ...]


def compiled_activations(z: Tensor, output: Tensor, segments: Sequence[SegmentViews]) -> CompiledActivations:
    """The loops for the activations of a layer, over ``z`` where a segment is written there."""
    kernels, in_place = [], []
    for view in segments:
        count = view.rows.stop - view.rows.start
        kernels += [view.kernel] * count
        in_place += [view.source.data_ptr() == view.z.data_ptr()] * count
    return CompiledActivations(z, output, kernels, in_place)


class Arena:
    """Memory that the buckets of a population take turns in.

    A bucket goes forward and backward before the next one begins, so all of them work in the same memory, and
    what must stay in a core's cache is one bucket, not the population.
    """

    def __init__(self, size: int, dtype: torch.dtype, device: torch.device | str) -> None:
        self._storage = torch.empty(size, dtype=dtype, device=device)
        self._used = 0

    def restart(self) -> None:
        """Hand the memory out from its beginning again."""
        self._used = 0

    def take(self, *shape: int) -> Tensor:
        """A contiguous tensor that overlaps no other since the last restart."""
        size = math.prod(shape)
        start = self._used
        self._used += aligned(size)
        return self._storage[start : start + size].view(shape)


def first_layer_size(bucket: Bucket) -> int:
    """Elements that the gradient of the first layer wants for itself."""
    shape = bucket.shape
    if shape.n_periodic:
        return 0
    width = (*shape.widths, shape.n_outputs)[0]
    return FirstLayerGradient.storage_size(bucket.n_members, width, shape.n_inputs)


def scaled_size(bucket: Bucket) -> int:
    """Elements of the first layer's weights times the scales of their inputs; 0 without scales."""
    shape = bucket.shape
    width = (*shape.widths, shape.n_outputs)[0]
    return bucket.n_members * width * shape.fan_in if shape.scaled else 0


def arena_size(bucket: Bucket, n_rows: int, training: bool) -> int:
    """Elements that a bucket of plain networks takes from the arena, rounded up."""
    shape = bucket.shape
    rows = bucket.n_members * n_rows
    per_layer = 1 + training * (1 + (shape.normalization == "layer") + shape.dropout)
    widths = sum(per_layer * aligned(rows * width) for width in shape.widths)
    scratch = 3 * aligned(rows * max(shape.widths, default=0)) if training else 0
    scratch += training * aligned(first_layer_size(bucket))
    embedding = embedding_size(bucket, n_rows, training)
    first = (1 + training) * aligned(scaled_size(bucket))
    return widths + scratch + embedding + first + 2 * aligned(rows * shape.n_outputs)
