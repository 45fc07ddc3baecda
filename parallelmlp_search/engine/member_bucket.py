"""Training of a bucket by compiled loops, which take several steps with one member after the other.

The reference is the general way: :class:`~parallelmlp_search.engine.bucket_network.BucketNetwork` and
:class:`~parallelmlp_search.engine.optimizer.PackedOptimizer`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parallelmlp_search.engine.optimizer import PackedOptimizer
from parallelmlp_search.engine.population import Population
from parallelmlp_search.engine.schedule import dropout_rates
from parallelmlp_search.engine.step_coefficients import StepTable
from parallelmlp_search.kernels.activations import ACTIVATION_KERNELS
from parallelmlp_search.kernels.losses import log_link_power
from parallelmlp_search.kernels.numba.compiled_members import (
    CompiledMembers,
    Expansion,
    StepBatches,
    tiles_of,
)
from parallelmlp_search.kernels.numba.dispatch import CompiledActivations
from parallelmlp_search.packing.architecture import Architecture
from parallelmlp_search.packing.layout import Block, Bucket
from parallelmlp_search.packing.monotone import packed_bounds
from parallelmlp_search.packing.pack import select_columns

MAX_LAYER_SIZE = 2048
"""Inputs or neurons of a layer above which two vectors of each exceed half of a 512 KiB cache."""


def is_supported(bucket: Bucket, loss: str | None = None) -> bool:
    """Return True if the compiled loops support the members of a bucket and the loss, if there is one."""
    shape = bucket.shape
    classes = () if shape.n_outputs == 1 else ("cross_entropy",)
    plain = (None, "squared_error", "binary_logits", *classes)
    if loss not in plain and log_link_power(str(loss)) is None:
        return False
    if max(shape.expanded.fan_in, *shape.widths, shape.n_outputs) > MAX_LAYER_SIZE:
        return False
    return {a.activation for a in bucket.architectures} <= CompiledActivations.names()


@lru_cache(maxsize=1 << 14)
def _true_shapes(architecture: Architecture) -> tuple[tuple[int, int], ...]:
    """Rows and columns of each block of a member."""
    return tuple(block[2:] for block in architecture.block_shapes())


def _expansion(bucket: Bucket) -> Expansion:
    """Expanded networks of the members of a bucket."""
    return Expansion(
        bucket.shape.submembers,
        [(kind, layer, rows, columns) for layer, kind, rows, columns in bucket.shape.expanded.block_shapes()],
        [_true_shapes(architecture.expanded) for architecture in bucket.architectures],
        [
            (
                columns.start,
                columns.stop - columns.start,
                inputs.start,
                inputs.stop - inputs.start,
                -1 if elements is None else elements.start,
            )
            for columns, inputs, elements in (bucket.shape.input_runs() if bucket.shape.categories else ())
        ],
    )


def _compiled_members(
    bucket: Bucket,
    flats: Sequence[Tensor],
    settings: Tensor,
    groups: Mapping[Block, int],
    loss: str | None = None,
) -> CompiledMembers:
    """Compiled loop of a bucket; ``groups`` has the number of the coefficients of each block."""
    shape = bucket.shape
    return CompiledMembers(
        flats,
        [(b.kind, b.layer, b.offset, b.rows, b.columns, b.decays, groups.get(b, 0)) for b in bucket.blocks],
        [ACTIVATION_KERNELS[a.activation] for a in bucket.architectures],
        [_true_shapes(architecture) for architecture in bucket.architectures],
        settings,
        residual=shape.residual or (False,) * shape.depth,
        expansion=_expansion(bucket) if shape.is_expanded else None,
        n_numbers=shape.n_periodic,
        adaptive=shape.optimizer == "adamw",
        power=log_link_power(loss) or 0.0,
        bounds=packed_bounds(bucket),
    )


class MemberOutputs:
    """Compiled outputs of the members of a bucket for which :func:`is_supported` is true."""

    def __init__(self, bucket: Bucket) -> None:
        nothing = torch.zeros(bucket.n_members, 4, dtype=torch.float32)
        self._run = _compiled_members(bucket, [nothing.view(-1)] * 4, nothing, {})
        self._bucket = bucket
        self._rows: Tensor | None = None
        self._tiles: NDArray[np.float32]

    def __call__(self, flat: Tensor, rows: Tensor) -> Tensor:
        """Return the outputs ``(P, C, n)`` for rows ``(n, *)`` with the parameters of a flat buffer."""
        shape = self._bucket.shape
        if rows is not self._rows:  # evaluations during training have the same rows
            seen = select_columns(rows, shape.columns or ((0, shape.n_inputs),))
            self._rows, self._tiles = rows, tiles_of(seen.numpy())
        result = torch.empty(self._bucket.n_members, shape.n_outputs, len(rows), dtype=torch.float32)
        self._run.outputs(flat, self._tiles, result.numpy(), classifies=shape.classifies)
        return result


class MemberWindow(NamedTuple):
    """Window of ``T`` steps of a population.

    Attributes
    ----------
    rows, steps
        Batches and numbers of the steps.
    alive
        Members ``(P,)`` bool that train; the others keep their weights and have a loss of 0.
    fields
        Uniform numbers for dropout, or None.
    """

    rows: StepBatches
    steps: range
    alive: Tensor
    fields: NDArray[np.float32] | None


class MemberBucket:
    """Compiled training of the members of a bucket for which :func:`is_supported` is true.

    Parameters
    ----------
    population
        Weights, moments and averages are updated in place.
    number
        Number of the bucket.
    optimizer
        Optimizer of the population, for its coefficients and parameter groups.
    loss
        Name of the loss.

    Attributes
    ----------
    dropout
        True if the bucket needs dropout fields.
    """

    def __init__(
        self, population: Population, number: int, optimizer: PackedOptimizer, loss: str | None = None
    ) -> None:
        layout = population.layout
        bucket = layout.buckets[number]
        shape = bucket.shape
        self._number, self._optimizer = number, optimizer
        self._span = layout.stacked_rows(number)
        self._configs = population.row_configs()[self._span]
        self.dropout = shape.dropout
        is_adamw = shape.optimizer == "adamw"
        mix_first, mix_second, momentum, clip_norms, smoothing = optimizer.constants[:, self._span]
        mixes = (mix_first, mix_second) if is_adamw else (momentum, torch.zeros_like(momentum))
        group_of = {block: g for g, group in enumerate(optimizer.groups[number]) for block in group.blocks}
        names = ("parameters", "first_moment", "second_moment", "average")
        self._run = _compiled_members(
            bucket,
            [population.flats[name] for name in names],
            torch.stack([smoothing, clip_norms, *mixes], dim=1),
            group_of,
            loss,
        )
        self._rates: StepTable[NDArray[np.float32]] = StepTable(bucket.n_members)

    def prepare(self, window: MemberWindow) -> Callable[[], Tensor]:
        """Return a function that takes the steps of a window and returns the losses ``(T, P_b)``."""
        tables, averaging = self._optimizer.compiled_steps(self._number, window.steps)
        fields = rates = None
        if self.dropout:
            table, place = self._rates.at(window.steps, self._dropout_rates)
            fields, rates = window.fields, table[place]
        alive = window.alive[self._span]
        return partial(self._run, window.rows, tables, averaging, alive, fields, rates)

    def _dropout_rates(self, steps: range) -> NDArray[np.float32]:
        """Dropout rates ``(T, P_b)`` of steps."""
        numbers = torch.arange(steps.start, steps.stop, dtype=torch.float64)
        rates = dropout_rates(self._configs, numbers / self._optimizer.total_steps)
        if rates is None:
            constant = np.array([config.dropout for config in self._configs], dtype=np.float32)
            return np.tile(constant, (len(steps), 1))
        table: NDArray[np.float32] = rates.float().numpy()
        return table
