"""Buckets of plain networks, which one call trains for several steps, member by member.

The plain twin is the ordinary way of a bucket: :class:`~parallelmlp_search.engine.network.BucketNetwork` and
:class:`~parallelmlp_search.engine.optimizer.PackedOptimizer`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from parallelmlp_search.engine.optimizer import PackedOptimizer
from parallelmlp_search.engine.population import Population
from parallelmlp_search.kernels.activations import ACTIVATION_KERNELS
from parallelmlp_search.kernels.compiled import CompiledActivations, CompiledMembers, MemberRows
from parallelmlp_search.packing.layout import Bucket

__all__ = ["MemberBucket", "is_covered"]

WIDEST = 2048
"""Inputs or neurons of a layer beyond which two vectors of each no longer lie in half a 512 KiB cache."""


def is_covered(bucket: Bucket, loss: str) -> bool:
    """Whether the one call does everything that the members of a bucket ask for, given the loss."""
    shape = bucket.shape
    if loss != ("binary_logits" if shape.n_outputs == 1 else "cross_entropy"):
        return False
    if max(shape.n_inputs, *shape.widths, shape.n_outputs) > WIDEST:
        return False
    if shape.n_periodic or shape.dropout or shape.normalization != "none" or any(shape.residual):
        return False
    return {a.activation for a in bucket.architectures} <= CompiledActivations.names()


class MemberBucket:
    """Trains the members of a bucket for which :func:`is_covered` holds.

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
        places = []
        for layer in range(bucket.shape.depth + 1):
            weight, bias = bucket.block(layer, "weight"), bucket.block(layer, "bias")
            assert weight is not None
            places.append((weight.offset, -1 if bias is None else bias.offset, weight.rows, weight.columns))
        names = ("parameters", "first_moment", "second_moment", "average")
        self._run = CompiledMembers(
            [population.flats[name] for name in names],
            places,
            [ACTIVATION_KERNELS[a.activation] for a in bucket.architectures],
            [(a.n_inputs, *a.widths, a.n_outputs) for a in bucket.architectures],
            torch.tensor(settings, dtype=torch.float64),
            adaptive=adaptive,
        )

    def __call__(self, rows: MemberRows, optimizer: PackedOptimizer, step: int, alive: Tensor) -> Tensor:
        """Take the steps from number ``step`` on whose batches are given; losses ``(T, P)``.

        Members that are not ``alive`` (those of the whole population) stay as they are, with a loss of 0.
        """
        table, averaging = optimizer.compiled_steps(self._number, step, rows.n_steps)
        return self._run(rows, table, averaging, alive[self._span])
