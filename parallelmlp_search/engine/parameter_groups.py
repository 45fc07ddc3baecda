"""How fast each block of parameters learns and decays, in units of its member's own rates.

The neural tangent parametrisation (Jacot et al. 2018) writes a weight as ``w = W / sqrt(fan in)`` and trains
``W``. Nothing needs to be computed with ``W``: what the optimiser does to it is, seen from ``w``, a step of
``1 / sqrt(fan in)`` the length (AdamW, whose epsilon becomes ``sqrt(fan in)`` times as large) or of
``1 / fan in`` the length (SGD), with the same decay. So networks are plain ones whatever their
parametrisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parallelmlp_search.packing.layout import Architecture, Block, Bucket
from parallelmlp_search.space import MLPConfig

__all__ = ["RateFactors", "factor_groups", "factored"]


class RateFactors(NamedTuple):
    """Factors of the members of a bucket, float64 ``(P,)`` each, for one block or several.

    Attributes
    ----------
    rate
        On the learning rate.
    decay
        On what weight decay takes away in a step of AdamW, or adds to the gradient of SGD.
    epsilon
        On the learning rate where the epsilon of AdamW is divided by it.
    """

    rate: NDArray[np.float64]
    decay: NDArray[np.float64]
    epsilon: NDArray[np.float64]

    @property
    def are_one(self) -> bool:
        """Whether they change nothing."""
        return all(bool((factor == 1.0).all()) for factor in self)


def _group_rate(kind: str, config: MLPConfig) -> float:
    """Learning rate of a kind of parameters, in units of the member's."""
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
    """Rate, decay and epsilon of a block, ``(3, P)``; most blocks have nothing but ones."""
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


def factor_groups(bucket: Bucket, configs: Sequence[MLPConfig]) -> list[tuple[RateFactors, list[Block]]]:
    """Blocks of a bucket that share their factors, in the order of their first ones.

    Parameters
    ----------
    bucket
        The bucket.
    configs
        Configurations of its rows.
    """
    groups: dict[bytes, tuple[RateFactors, list[Block]]] = {}
    for block in bucket.blocks:
        factors = _factors(block, bucket, configs)
        groups.setdefault(factors.tobytes(), (RateFactors(*factors), []))[1].append(block)
    return list(groups.values())


def factored(table: Tensor, factors: RateFactors, optimizer: str) -> Tensor:
    """Coefficients ``(steps, 4, P)`` of a block, from those of its members.

    See :class:`~parallelmlp_search.engine.optimizer.PackedOptimizer` for what they are.
    """
    if factors.are_one:
        return table
    rate, decay, epsilon = (torch.from_numpy(factor).to(table.device) for factor in factors)
    rates, keeps, scales, offsets = table.unbind(1)
    keeps = 1.0 - decay * (1.0 - keeps) if optimizer == "adamw" else decay * keeps
    return torch.stack([rate * rates, keeps, scales / rate, offsets / epsilon], dim=1)
