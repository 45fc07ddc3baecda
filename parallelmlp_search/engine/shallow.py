"""Buckets of one hidden layer and one logit, which one call trains for several steps.

The plain twin is the ordinary way of a bucket: :class:`~parallelmlp_search.engine.network.BucketNetwork` and
:class:`~parallelmlp_search.engine.optimizer.PackedOptimizer`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from parallelmlp_search.engine.optimizer import PackedOptimizer
from parallelmlp_search.engine.population import Population
from parallelmlp_search.engine.products import NARROW_INPUTS
from parallelmlp_search.kernels.activations import ACTIVATION_KERNELS
from parallelmlp_search.kernels.compiled import CompiledActivations, CompiledShallow, ShallowRows
from parallelmlp_search.packing.layout import Bucket

__all__ = ["ShallowBucket", "is_shallow"]


def is_shallow(bucket: Bucket) -> bool:
    """Whether the one call covers everything that the members of a bucket ask for, given one logit's loss."""
    shape = bucket.shape
    plain = shape.bias and not shape.dropout and shape.normalization == "none" and not any(shape.residual)
    few = 0 < shape.n_inputs < NARROW_INPUTS
    if not (shape.depth == 1 and shape.n_outputs == 1 and plain and few):
        return False
    return {a.activation for a in bucket.architectures} <= CompiledActivations.names()


class ShallowBucket:
    """Trains the members of a bucket for which :func:`is_shallow` holds.

    Parameters
    ----------
    population
        Weights, moments and averages are updated in place.
    number
        Number of the bucket.
    """

    def __init__(self, population: Population, number: int) -> None:
        layout = population.layout
        bucket = layout.buckets[number]
        self._number = number
        self._span = slice(*layout.row_offsets[number : number + 2])
        configs = population.row_configs()[self._span]
        adaptive = bucket.shape.optimizer == "adamw"
        mixes = [
            (1.0 - c.beta1, 1.0 - c.beta2) if adaptive else (c.momentum, c.weight_decay) for c in configs
        ]
        settings = [
            (config.label_smoothing, config.clip_norm or float("inf"), *mix)
            for config, mix in zip(configs, mixes, strict=True)
        ]
        blocks = [bucket.block(layer, kind) for layer in (0, 1) for kind in ("weight", "bias")]
        offsets = [block.offset for block in blocks if block is not None]
        flats = [
            population.flats[name] for name in ("parameters", "first_moment", "second_moment", "average")
        ]
        self._run = CompiledShallow(
            flats,
            (*offsets, bucket.shape.widths[0]),
            [ACTIVATION_KERNELS[a.activation] for a in bucket.architectures],
            [a.widths[0] for a in bucket.architectures],
            torch.tensor(settings, dtype=torch.float64),
            adaptive=adaptive,
        )

    def __call__(self, rows: ShallowRows, optimizer: PackedOptimizer, step: int, alive: Tensor) -> Tensor:
        """Take the steps from number ``step`` on whose batches are given; losses ``(T, P)``.

        Members that are not ``alive`` (those of the whole population) stay as they are, with a loss of 0.
        """
        table, averaging = optimizer.compiled_steps(self._number, step, rows.n_steps)
        return self._run(rows, table, averaging, alive[self._span])
