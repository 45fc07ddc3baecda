"""Named buffers inside one flat tensor.

All buckets of a population work in the same memory, one after the other: a bucket runs forward and backward
before the next one starts. So one bucket, and not the population, must fit the cache of a core.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from parallelmlp_search.packing.layout import aligned

Shapes = dict[str, tuple[int, ...]]
"""Shape of each buffer by name."""


@dataclass(frozen=True, slots=True)
class PassOptions:
    """Properties of the passes for which buffers are made.

    Attributes
    ----------
    n_rows
        Rows ``N`` of every batch.
    training
        True to keep what the backward pass needs.
    compiled
        True to use the compiled loops for activations.
    """

    n_rows: int
    training: bool = False
    compiled: bool = False


def n_elements(shapes: Shapes) -> int:
    """Return the elements that buffers of these shapes take, each aligned."""
    return sum(aligned(math.prod(shape)) for shape in shapes.values())


def carve(storage: Tensor, shapes: Shapes) -> dict[str, Tensor]:
    """Return contiguous buffers of these shapes, one after the other from the start of a flat tensor."""
    buffers = {}
    start = 0
    for name, shape in shapes.items():
        size = math.prod(shape)
        buffers[name] = storage[start : start + size].view(shape)
        start += aligned(size)
    return buffers
