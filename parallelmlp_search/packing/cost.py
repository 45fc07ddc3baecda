"""Predicted cost of members and buckets; steers how wide buckets merge and how work is divided.

The constants were measured with float32 on one AVX-512 core of 95 GFLOP/s with torch 2.13. They are the same
on every machine, since a plan that depended on the machine would change results of the same seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from parallelmlp_search.packing.architecture import Architecture
from parallelmlp_search.space.config import MAX_CATEGORY_DIMENSION, category_dimension

BUCKET_OVERHEAD_SECONDS = 1.2e-4
"""Overhead of a bucket in a training step: 40 to 60 calls of 2 us each."""

WAVE_SECONDS = 5.0e-9
"""A wave of a periodic embedding for one row, forward and backward; cosine and sine take 1.3 ns each.
Embedding ten numbers in 128 rows adds 150 us to a member-step, the wider first layer included."""

GPU_SPEED = 200.0
"""Rate of products on a GPU (20 TFLOP/s in float32) relative to one core. The calls of a bucket take as long
as on a core, so buckets merge far more readily."""


def peak_rate(width: int) -> float:
    """Return the FLOP per second of a batched product of a width (one core, float32).

    Width 8 reaches two fifths of the peak, 13 half, 128 nine tenths.
    """
    return 0.95e11 * width / (width + 13.0)


@lru_cache(maxsize=1 << 14)
def flops_per_step(architecture: Architecture, n_rows: int) -> float:
    """Return the FLOP of one training step of one member on ``n_rows`` rows.

    Each weight and row costs two forward and four backward, or two in the first layer, which passes gradients
    to embeddings only. The optimizer costs 20 per parameter, a wave 60. Submembers have their own products
    and share parameters and waves. Embedded categories have the products of their one-hot columns.
    """
    total = 60.0 * architecture.n_waves * n_rows
    for product in _products(architecture, n_rows):
        total += product
    return total + _expansion_flops(architecture) + 20.0 * architecture.n_parameters


def _expansion_flops(architecture: Architecture) -> float:
    """FLOP of a training step to expand the weights of embedded categories and to merge their gradients."""
    width = (*architecture.widths, architecture.n_outputs)[0]
    n_embedded = sum(size * category_dimension(size) for _, size in architecture.categories)
    return 6.0 * architecture.submembers * width * n_embedded


def _products(architecture: Architecture, n_rows: int) -> Iterator[float]:
    """FLOP of a training step in the products of each layer, the head last."""
    fan_in = architecture.expanded.fan_in  # products use the one-hot columns of embedded categories
    embedded = fan_in - architecture.n_inputs
    n_rows *= architecture.submembers
    for layer, width in enumerate((*architecture.widths, architecture.n_outputs)):
        with_gradient = embedded if layer == 0 else fan_in
        yield (4.0 * fan_in + 2.0 * with_gradient) * width * n_rows
        fan_in = width


@lru_cache(maxsize=1 << 14)
def member_seconds(architecture: Architecture, n_rows: int) -> float:
    """Return the predicted seconds of one training step of a member in a full bucket, on one core."""
    seconds = WAVE_SECONDS * architecture.n_waves * n_rows
    fan_in = architecture.expanded.fan_in
    widths = (*architecture.widths, architecture.n_outputs)
    for layer, (width, product) in enumerate(zip(widths, _products(architecture, n_rows), strict=True)):
        seconds += product / peak_rate(min(width, fan_in) if layer else width)
        # activations and their backward passes: about 2.6 ns an element, 0.4 more with dropout
        seconds += (2.6e-9 + 0.4e-9 * architecture.dropout) * width * n_rows * architecture.submembers
        fan_in = width
    seconds += _expansion_flops(architecture) / peak_rate(MAX_CATEGORY_DIMENSION)
    # seven passes of the optimizer in cache, some 1.5 ns a parameter
    return seconds + 1.5e-9 * architecture.n_parameters


def bucket_seconds(shape: Architecture, n_members: int, n_rows: int, speed: float = 1.0) -> float:
    """Return the predicted seconds of one training step of a bucket.

    Parameters
    ----------
    shape
        Padded architecture of all members.
    n_members, n_rows
        Members ``P`` and rows ``N`` of a minibatch.
    speed
        Rate of products relative to one core. Calls take as long as on a core.

    Returns
    -------
    float
    """
    return overhead_seconds(shape) + n_members * member_seconds(shape, n_rows) / speed


def overhead_seconds(shape: Architecture) -> float:
    """Return the seconds of the calls of one training step of a bucket, for any number of members."""
    return BUCKET_OVERHEAD_SECONDS * (1 + shape.depth + (shape.n_periodic > 0) + shape.is_expanded) / 2
