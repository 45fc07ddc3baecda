"""Launches of :func:`.flat_step.flat_step` for the buckets of a layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from parallelmlp_search.kernels.triton.availability import current, kernel_module
from parallelmlp_search.packing.layout import Block, Layout

STRETCH = 1024
"""Elements that a program updates."""


class FlatOptimizer:
    """Steps of AdamW and SGD for the members of some buckets, with one launch per kind of step.

    Parameters
    ----------
    layout
        Layout of the flat buffers.
    buckets
        Numbers of the buckets to update.
    device
        Device of the buffers.
    groups
        For each of these buckets, groups of blocks with their factors of rate, decay and epsilon, float64
        ``(3, P_b)``.
    dtype
        Dtype of the buffers.
    """

    def __init__(
        self,
        layout: Layout,
        buckets: Sequence[int],
        device: torch.device | str,
        groups: Sequence[Sequence[tuple[Tensor, Sequence[Block]]]],
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._module = kernel_module("flat_step", device, purpose="for the fused optimizer")
        lines: dict[tuple[bool, bool], list[tuple[int, ...]]] = {}
        factors: list[Tensor] = []
        n_factors = 0
        for number, of_bucket in zip(buckets, groups, strict=True):
            bucket = layout.buckets[number]
            for own, blocks in of_bucket:
                factored = bool((own != 1.0).any())
                start = n_factors if factored else 0
                if factored:
                    factors.append(own.reshape(-1))
                    n_factors += own.numel()
                for block in blocks:
                    size = bucket.n_members * block.row_size
                    common = (size, block.row_size, layout.row_offsets[number], int(block.decays), start)
                    lines.setdefault((bucket.shape.optimizer == "adamw", factored), []).extend(
                        (block.offset, first, *common) for first in range(0, size, STRETCH)
                    )
        self._factors = torch.cat([*factors, torch.ones(1, dtype=torch.float64)]).to(device, dtype)
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
        """Take step ``local`` (1,) of the tables; shapes as in :func:`.flat_step.flat_step`."""
        with current(gradients.device):
            for (adamw, factored), stretches in self._stretches.items():
                self._module.flat_step[(stretches.shape[0],)](
                    flats["parameters"],
                    gradients,
                    flats["first_moment"],
                    flats["second_moment"],
                    flats["average"],
                    stretches,
                    self._factors,
                    coefficients,
                    shares,
                    local,
                    constants,
                    n_members=constants.shape[1],
                    ADAMW=adamw,
                    AVERAGING=averaging,
                    FACTORED=factored,
                    SIZE=STRETCH,
                    num_warps=4,
                    enable_fp_fusion=True,
                )
