"""Bounds of weights that make networks monotone in some of their inputs. Free of torch.

Every neuron has a sign: its output may only grow (1) or fall (-1) with the monotone inputs, each multiplied
by the sign of its column, or does not depend on them (0). A weight from a neuron of sign ``s`` to one of sign
``t`` then has the sign ``s t``, is zero where a neuron of sign 0 would begin to depend on monotone inputs,
and is free where ``s`` is 0. The outputs of the network have the sign 1.

With non-negative weights alone, networks of convex activations are convex (Runje and Shankaranarayana 2023,
"Constrained Monotonic Neural Networks", who therefore also use ``-f(-x)`` as an activation). A neuron of sign
-1 computes the same: it enters the next layer with a negative weight, so that ``-f(-x)`` needs no activation
of its own. Neurons of sign 0 combine the other inputs freely.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parallelmlp_search.packing.architecture import EMBEDDING, Architecture
from parallelmlp_search.packing.layout import Bucket

Signs = NDArray[np.int8]
Bounds = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Lower and upper bounds ``(rows, columns)`` of a parameter tensor."""

LARGEST = np.finfo(np.float32).max
"""Bound of a weight that is free."""

FIRST_FACTORS = (0.5, 1.5)
"""Initial factors of submembers on monotone inputs, in place of the signs -1 and 1."""


def input_signs(architecture: Architecture) -> Signs:
    """Return the sign of each input of the first layer ``(fan_in,)``, 0 for inputs that are not monotone.

    Monotone columns are numbers, which come before embedded categories, so that their places are the same.
    """
    signs = np.zeros(architecture.fan_in, dtype=np.int8)
    for first, end, sign in architecture.signs:
        signs[first:end] = sign
    return signs


def neuron_signs(width: int, *, has_free_inputs: bool) -> Signs:
    """Return the signs of the neurons of a hidden layer.

    They depend on the place of a neuron alone, so that layers can be padded, and residual connections add
    neurons of the same sign.
    """
    pattern = (1, -1, 0) if has_free_inputs else (1, -1)
    return np.resize(np.array(pattern, dtype=np.int8), width)


def _of_weights(before: Signs, after: Signs) -> Bounds:
    """Bounds of weights ``(after, before)`` between neurons of these signs."""
    product = after[:, None] * before[None, :]
    is_free = np.broadcast_to(before == 0, product.shape)
    low = np.where(is_free | (product < 0), -LARGEST, np.float32(0.0))
    high = np.where(is_free | (product > 0), LARGEST, np.float32(0.0))
    return low, high


def _of_factors(signs: Signs, n_rows: int) -> Bounds:
    """Bounds of factors ``(n_rows, neurons)``: those of neurons with a sign are not negative."""
    low = np.where(signs == 0, -LARGEST, np.float32(0.0))
    return np.tile(low, (n_rows, 1)), np.full((n_rows, len(signs)), LARGEST, dtype=np.float32)


@lru_cache(maxsize=32)
def bounds(architecture: Architecture) -> Mapping[tuple[int, str], Bounds]:
    """Return the bounds of parameter tensors by layer and kind; tensors that are free have none.

    The bounds of a padded architecture begin with those of its members.
    """
    if not architecture.signs:
        return {}
    found: dict[tuple[int, str], Bounds] = {}
    before = inputs = input_signs(architecture)
    has_free = bool((inputs == 0).any())
    for layer, kind, n_rows, _ in architecture.block_shapes():
        if layer == EMBEDDING:
            if kind == "scale":
                low, high = _of_factors(inputs, 1)
                found[layer, kind] = low.T, high.T
            continue
        if kind == "weight":
            is_head = layer == architecture.depth
            after = np.ones(n_rows, np.int8) if is_head else neuron_signs(n_rows, has_free_inputs=has_free)
            found[layer, kind] = _of_weights(before, after)
            before = after
        elif kind in ("input_adapter", "output_adapter"):  # which come before and after the weights
            found[layer, kind] = _of_factors(before, n_rows)
    return found


def packed_bounds(bucket: Bucket) -> NDArray[np.float32] | None:
    """Return the bounds of all parameters of one member of a bucket, block by block with padding.

    Returns
    -------
    array of shape (2, elements) or None
        Lower and upper bounds; None if nothing is bounded.
    """
    of_blocks = bounds(bucket.shape)
    if not of_blocks:
        return None
    parts = []
    for block in bucket.blocks:
        free = np.full((2, block.row_size), LARGEST, dtype=np.float32)
        free[0] *= -1.0
        own = of_blocks.get((block.layer, block.kind))
        parts.append(free if own is None else np.stack(own).reshape(2, -1))
    return np.ascontiguousarray(np.concatenate(parts, axis=1))


def constrain(vector: NDArray[np.float64], architecture: Architecture) -> None:
    """Move the initial weights of a network to their allowed sides, in place.

    Absolute values keep the variance. As neurons of both signs enter a layer with opposite signs, its sums
    stay near zero.

    Parameters
    ----------
    vector
        Canonical vector ``(n_parameters,)``.
    architecture
        Architecture of the network.
    """
    for key, piece, low, high in _pieces(vector, architecture):
        if key == (0, "input_adapter"):
            signed = low == 0
            piece[signed] = np.where(piece[signed] < 0, *FIRST_FACTORS)
        else:
            size = np.abs(piece)
            piece[:] = np.where(low == 0, np.minimum(size, high), np.where(high == 0, -size, piece))


def violations(vector: NDArray[np.floating[Any]], architecture: Architecture) -> int:
    """Return the number of weights of a network that lie outside of their bounds."""
    found = _pieces(vector, architecture)
    return sum(int(((piece < low) | (piece > high)).sum()) for _, piece, low, high in found)


def _pieces(
    vector: NDArray[np.floating[Any]], architecture: Architecture
) -> Iterator[tuple[tuple[int, str], NDArray[np.floating[Any]], NDArray[np.float32], NDArray[np.float32]]]:
    """Layer and kind of each bounded tensor, its view of a canonical vector, and its bounds, flat."""
    of_blocks, start = bounds(architecture), 0
    for layer, kind, n_rows, n_columns in architecture.block_shapes():
        stop = start + n_rows * n_columns
        if (layer, kind) in of_blocks:
            low, high = of_blocks[layer, kind]
            yield (layer, kind), vector[start:stop], low.ravel(), high.ravel()
        start = stop
