"""Which stretches of the flat buffers a launch of :func:`.flat_step.flat_step` updates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from parallelmlp_search.kernels.triton_kernels.availability import kernel_module
from parallelmlp_search.packing.layout import SLOW_RATE, Layout

__all__ = ["FlatOptimizer"]

STRETCH = 1024


class FlatOptimizer:
    """Steps of AdamW and SGD for the members of some buckets, one launch each.

    Parameters
    ----------
    layout
        Layout of the flat buffers.
    buckets
        Numbers of the buckets to update.
    device
        Where the buffers live.
    """

    def __init__(self, layout: Layout, buckets: Sequence[int], device: torch.device | str) -> None:
        self._module = kernel_module("flat_step", device, purpose="for the fused optimiser")
        lines: dict[tuple[bool, bool], list[tuple[int, ...]]] = {}
        for number in buckets:
            bucket = layout.buckets[number]
            adamw = bucket.shape.optimizer == "adamw"
            for block in bucket.blocks:
                size = bucket.n_members * block.row_size
                common = (size, block.row_size, layout.row_offsets[number], int(block.decays))
                lines.setdefault((adamw, block.is_slow), []).extend(
                    (block.offset, start, *common) for start in range(0, size, STRETCH)
                )
        self._stretches = {kind: torch.tensor(rows).to(device) for kind, rows in lines.items()}

    def step(
        self,
        flats: Mapping[str, Tensor],
        gradients: Tensor,
        coefficients: Tensor,
        shares: Tensor,
        local: Tensor,
        constants: Tensor,
        *,
        averaging: bool,
    ) -> None:
        """Take the step of number ``local`` (1,) of the tables; shapes as in :func:`.flat_step.flat_step`."""
        for (adamw, is_slow), stretches in self._stretches.items():
            self._module.flat_step[(stretches.shape[0],)](
                flats["parameters"],
                gradients,
                flats["first_moment"],
                flats["second_moment"],
                flats["average"],
                stretches,
                coefficients,
                shares,
                local,
                constants,
                n_members=constants.shape[1],
                ADAMW=adamw,
                AVERAGING=averaging,
                FACTOR=SLOW_RATE if is_slow else 1.0,
                SIZE=STRETCH,
                num_warps=4,
                enable_fp_fusion=True,
            )
