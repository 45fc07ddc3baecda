"""Bytes and FLOPs of a plan, and what they suggest: how wide to merge, how many members fit.

The constants describe one core of a present-day CPU and were measured with float32 on an AVX-512 core
of 95 GFLOP/s with torch 2.13. They steer the shape of a plan, never its result, and are constants on
purpose: a plan must not depend on the machine, or the same seed would not give the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from parallelmlp_search.packing.layout import Architecture
from parallelmlp_search.space.config import MAX_CATEGORY_DIMENSION, category_dimension

__all__ = [
    "MemberCost",
    "bucket_seconds",
    "flops_per_step",
    "member_bytes",
    "member_cost",
    "overhead_seconds",
    "peak_rate",
]

BUCKET_OVERHEAD_SECONDS = 1.2e-4
"""A training step of one more bucket: some 40 to 60 calls of 2 us each."""

WAVE_SECONDS = 5.0e-9
"""A wave of an embedding for one row, forward and backward: cosine and sine take 1.3 ns each. Ten numbers and
128 rows were measured to add 150 us to a member-step, those for the wider first layer included."""

GPU_SPEED = 200.0
"""Rate of products on a GPU in units of one core: some 20 TFLOP/s in float32. A round of calls takes as long
there as on a core, since each is a launch, so buckets are merged far more readily."""

COPIES = 6
"""Flat copies of the parameters while training: weights, gradients, two moments, average, best snapshot."""


def peak_rate(width: int) -> float:
    """FLOP per second of a batched product whose members are ``width`` wide (one core, float32).

    Narrow products reach less of the peak: two fifths at width 8, half at 13, nine tenths at 128.
    """
    return 0.95e11 * width / (width + 13.0)


@dataclass(frozen=True, slots=True)
class MemberCost:
    """What one member costs: FLOP and seconds of one training step, and bytes while training."""

    flops: float
    seconds: float
    n_bytes: int


@lru_cache(maxsize=1 << 14)
def flops_per_step(architecture: Architecture, n_rows: int) -> float:
    """FLOP of one training step of one member on ``n_rows`` rows.

    Two per weight and row forward, four backward, of which the first layer needs only two, since nobody
    asks for the gradient of the input, but for what an embedding adds to it; twenty per parameter for the
    optimiser. A wave of an embedding counts as 60: its cosine and sine, and what mixes it. Submembers that
    share weights have products of their own, but parameters and waves in common; embedded categories have the
    products of their columns.
    """
    total = 60.0 * architecture.n_waves * n_rows
    for product in _products(architecture, n_rows):
        total += product
    return total + _unfolding_flops(architecture) + 20.0 * architecture.n_parameters


def _unfolding_flops(architecture: Architecture) -> float:
    """FLOP of a training step in weights of columns from those of embedded categories, and back."""
    width = (*architecture.widths, architecture.n_outputs)[0]
    n_embedded = sum(size * category_dimension(size) for _, size in architecture.categories)
    return 6.0 * architecture.submembers * width * n_embedded


def _products(architecture: Architecture, n_rows: int) -> Iterator[float]:
    """FLOP of a training step in the products of each layer, the head last."""
    # whatever is embedded of categories, products are those of columns
    fan_in = architecture.expanded.fan_in
    embedded = fan_in - architecture.n_inputs
    n_rows *= architecture.submembers
    for layer, width in enumerate((*architecture.widths, architecture.n_outputs)):
        asked = embedded if layer == 0 else fan_in  # inputs whose gradient is needed
        yield (4.0 * fan_in + 2.0 * asked) * width * n_rows
        fan_in = width


def member_cost(architecture: Architecture, n_rows: int) -> MemberCost:
    """Cost of one member in a full bucket, from the measured rates."""
    seconds = WAVE_SECONDS * architecture.n_waves * n_rows
    fan_in = architecture.expanded.fan_in
    widths = (*architecture.widths, architecture.n_outputs)
    for layer, (width, product) in enumerate(zip(widths, _products(architecture, n_rows), strict=True)):
        seconds += product / peak_rate(min(width, fan_in) if layer else width)
        # activations and their backward passes: about 2.6 ns an element, 0.4 more with dropout
        seconds += (2.6e-9 + 0.4e-9 * architecture.dropout) * width * n_rows * architecture.submembers
        fan_in = width
    seconds += _unfolding_flops(architecture) / peak_rate(MAX_CATEGORY_DIMENSION)
    # seven passes of the optimiser in cache, some 1.5 ns a parameter
    seconds += 1.5e-9 * architecture.n_parameters
    return MemberCost(
        flops=flops_per_step(architecture, n_rows),
        seconds=seconds,
        n_bytes=member_bytes(architecture, n_rows),
    )


def member_bytes(architecture: Architecture, n_rows: int, *, item_size: int = 4, copies: int = COPIES) -> int:
    """Bytes that one member needs while it trains: its parameters' copies and its activations."""
    hidden = sum(architecture.widths) + architecture.n_outputs
    activations = (3 + architecture.dropout + (architecture.normalization != "none")) * hidden * n_rows
    if architecture.n_periodic:
        activations += 2 * (architecture.n_waves + architecture.fan_in) * n_rows
    n_parameters = copies * architecture.n_parameters
    if architecture.is_expanded:  # weights of each submember and their gradients
        n_parameters += 2 * architecture.submembers * architecture.expanded.n_parameters
    return item_size * (n_parameters + architecture.submembers * activations)


def bucket_seconds(shape: Architecture, n_members: int, n_rows: int, speed: float = 1.0) -> float:
    """Predicted time of one training step of a bucket of ``n_members`` members of this padded shape.

    ``speed`` is how much faster than a core a device computes; calls cost the same there.
    """
    computing = n_members * member_cost(shape, n_rows).seconds / speed
    return overhead_seconds(shape) + computing


def overhead_seconds(shape: Architecture) -> float:
    """Time of the calls of one training step of a bucket, however many members it has."""
    return BUCKET_OVERHEAD_SECONDS * (1 + shape.depth + (shape.n_periodic > 0) + shape.is_expanded) / 2
