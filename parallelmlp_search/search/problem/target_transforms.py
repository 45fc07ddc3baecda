"""Target transformations: those that the default search space tries for a target, and those of a space."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parallelmlp_search.data.target_curve import skewness
from parallelmlp_search.selection import Metric
from parallelmlp_search.space import SearchSpace
from parallelmlp_search.space.config import TARGET_TRANSFORMS

TARGET_TRANSFORM = "target_transform"
"""Name of the choice in a search space."""

MEAN_SKEWNESS, MEDIAN_SKEWNESS = 3.0, 1.0
"""Least skewness, positive or negative, for which a transformation is tried where the metric asks for means,
and where it asks for medians (docs/decisions/047-target-transformations.md)."""

MIN_DISTINCT = 20
"""Least number of distinct values of such a target."""


def offered_transforms(target: NDArray[Any], task: str, metric: Metric) -> tuple[str, ...]:
    """Return the transformations that the default search space tries for a target.

    They are tried for a regression of one skewed output: the logarithm for a target without negative values,
    and the power of Yeo and Johnson for any other.

    Parameters
    ----------
    target, task, metric
        Target ``(n,)`` or ``(n, outputs)``, task, and metric.

    Returns
    -------
    tuple of str
        Empty, or ``none`` and another.
    """
    if task != "regression" or target.ndim > 1:
        return ()
    values = np.asarray(target, dtype=np.float64)
    size = abs(skewness(values))
    if size < MEDIAN_SKEWNESS or len(np.unique(values)) < MIN_DISTINCT:
        return ()
    if size < MEAN_SKEWNESS and asks_for_means(metric, torch.tensor(values)[None]):
        return ()
    return ("none", "log" if values.min() >= 0 else "yeo_johnson")


def asks_for_means(metric: Metric, target: Tensor, weight: Tensor | None = None) -> bool:
    """Return True if a metric scores the mean of a target better than its median.

    Parameters
    ----------
    metric
        Metric of a regression.
    target, weight
        Target ``(C, n)``, and weights ``(n,)`` or None.

    Returns
    -------
    bool
    """
    weights = torch.ones(target.shape[1]) if weight is None else weight
    mean = (target * weights).sum(dim=1) / weights.sum()
    constants = torch.stack([mean, target.median(dim=1).values])
    errors = metric.error(constants[:, :, None].expand(-1, -1, target.shape[1]), target, weight)
    return bool(errors[0] < errors[1])


def transforms_of(space: SearchSpace) -> tuple[str, ...]:
    """Return the transformations that networks of a space can have, without ``none``."""
    domain = space.domains.get(TARGET_TRANSFORM)
    chosen = () if domain is None else domain.grid(len(TARGET_TRANSFORMS))
    return tuple(name for name in TARGET_TRANSFORMS[1:] if name in chosen)
