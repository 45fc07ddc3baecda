"""Views of the parameters of a bucket in a flat buffer, layer by layer."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from parallelmlp_search.packing.architecture import EMBEDDING
from parallelmlp_search.packing.layout import Bucket
from parallelmlp_search.packing.pack import block_rows
from parallelmlp_search.space.config import PERIODIC_FREQUENCIES, PERIODIC_OUTPUTS


class EmbeddingTensors(NamedTuple):
    """Parameters of the periodic embedding of a bucket with ``n`` numbers."""

    frequency: Tensor  # (P, n, 16, 1)
    phase: Tensor  # (P, n, 16, 1)
    mixing: Tensor  # (P, n, 3, 16)
    offset: Tensor  # (P, n, 3, 1)


class LayerTensors(NamedTuple):
    """Parameters of one layer of a bucket: weight (P, O, I); bias, gain and shift (P, O, 1) or None.

    The first layer also has the periodic embedding before it, the scales of its inputs (P, 1, I) and the
    embeddings of categories (P, S, 1), one after the other.

    Members with ``K`` submembers have adapters (P, K, I) and (P, K, O), and heads (P, K C, I) with biases
    (P, K C, 1). With full sharing, biases of hidden layers are (P, K, O).
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


_OPTIONAL = ("bias", "gain", "shift", "input_adapter", "output_adapter")


def bind(flat: Tensor, bucket: Bucket) -> list[LayerTensors]:
    """Return the parameters of each layer of a bucket as views of a flat buffer, head last."""

    def view(layer: int, kind: str, *shape: int) -> Any:
        """View (P, rows, columns), or of another shape, or None if the bucket has no such block."""
        block = bucket.block(layer, kind)
        if block is None:
            return None
        return block_rows(flat, bucket, block).view(bucket.n_members, *(shape or (block.rows, block.columns)))

    layers = [
        LayerTensors(view(layer, "weight"), **{kind: view(layer, kind) for kind in _OPTIONAL})
        for layer in range(bucket.shape.depth + 1)
    ]
    embedding = None
    if bucket.shape.n_periodic:
        embedding = EmbeddingTensors(
            frequency=view(EMBEDDING, "frequency", -1, PERIODIC_FREQUENCIES, 1),
            phase=view(EMBEDDING, "phase", -1, PERIODIC_FREQUENCIES, 1),
            mixing=view(EMBEDDING, "mixing", -1, PERIODIC_OUTPUTS, PERIODIC_FREQUENCIES),
            offset=view(EMBEDDING, "offset", -1, PERIODIC_OUTPUTS, 1),
        )
    scale = view(EMBEDDING, "scale")
    layers[0] = layers[0]._replace(
        embedding=embedding,
        scale=None if scale is None else scale.transpose(1, 2),
        category=view(EMBEDDING, "category"),
    )
    return layers
