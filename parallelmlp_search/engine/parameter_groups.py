"""Learning rate, decay and epsilon of each block of parameters, relative to those of its member.

The neural tangent parametrization (Jacot et al. 2018) writes a weight as ``w = W / sqrt(fan in)`` and trains
``W``. For ``w`` the step of the optimizer is then ``1 / sqrt(fan in)`` times as long (AdamW, with an epsilon
``sqrt(fan in)`` times as large) or ``1 / fan in`` times (SGD), with the same decay. So both parametrizations
compute with ``w``, and only these factors differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parallelmlp_search.packing.architecture import Architecture
from parallelmlp_search.packing.layout import Block, Bucket
from parallelmlp_search.space import MLPConfig


class ParameterGroup(NamedTuple):
    """Blocks of a bucket with the same factors.

    Attributes
    ----------
    factors
        Float64 ``(3, P)``: factor of the learning rate; factor of the decay in a step of AdamW, or of the
        decay that SGD adds to the gradient; factor of the learning rate in the offset of AdamW.
    has_factors
        True if any factor differs from 1.
    optimizer
        Optimizer of the bucket.
    blocks
        Blocks of the group.
    """

    factors: Tensor
    has_factors: bool
    optimizer: str
    blocks: list[Block]

    def apply(self, coefficients: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return rate, keep, scale and offset of the group from those of its members."""
        if not self.has_factors:
            return coefficients
        rate, keep, scale, offset = coefficients
        of_rate, of_decay, of_epsilon = self.factors.unbind(0)
        keep = 1.0 - of_decay * (1.0 - keep) if self.optimizer == "adamw" else of_decay * keep
        return of_rate * rate, keep, scale / of_rate, offset / of_epsilon


def _group_rate(kind: str, config: MLPConfig) -> float:
    """Learning rate of a kind of parameters, relative to that of the member."""
    if kind == "bias":
        return config.bias_rate
    if kind == "scale":
        return config.input_scale_rate
    if kind in ("frequency", "phase", "mixing", "offset"):
        return config.embedding_rate
    return 1.0


def _tangent(block: Block, architecture: Architecture, optimizer: str) -> tuple[float, float, float]:
    """Factors of weights ``W / sqrt(fan in)``."""
    fan_in = architecture.fan_in if block.layer == 0 else architecture.widths[block.layer - 1]
    if optimizer == "adamw":
        return 1.0 / fan_in**0.5, 1.0, 1.0 / fan_in
    return 1.0 / fan_in, float(fan_in), 1.0


def _factors(block: Block, bucket: Bucket, configs: Sequence[MLPConfig]) -> NDArray[np.float64]:
    """Factors ``(3, P)`` of a block; those of most blocks are 1."""
    factors = np.ones((3, len(configs)))
    if block.kind != "weight":
        factors[:] = [_group_rate(block.kind, config) for config in configs]
        if bucket.shape.optimizer != "adamw":
            factors[1] = 1.0
        return factors
    for row, (config, architecture) in enumerate(zip(configs, bucket.architectures, strict=True)):
        if config.parametrization != "standard":
            factors[:, row] = _tangent(block, architecture, bucket.shape.optimizer)
    return factors


def parameter_groups(bucket: Bucket, configs: Sequence[MLPConfig]) -> list[ParameterGroup]:
    """Return the groups of a bucket, given the configurations of its rows, in the order of the blocks."""
    groups: dict[bytes, ParameterGroup] = {}
    for block in bucket.blocks:
        factors = _factors(block, bucket, configs)
        has_factors = bool((factors != 1.0).any())
        group = ParameterGroup(torch.from_numpy(factors), has_factors, bucket.shape.optimizer, [])
        groups.setdefault(factors.tobytes(), group).blocks.append(block)
    return list(groups.values())
