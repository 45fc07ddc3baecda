"""Rows drawn with replacement, whole groups at a time, from streams that a seed decides."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral
from typing import Any

import numpy as np
from torch import Tensor

from parallelmlp_search.exceptions import InvalidParameterError

__all__ = ["draws", "spawned", "units_of"]


def draws(
    unit_of_row: np.ndarray[Any, np.dtype[np.int64]], seed: np.random.SeedSequence, most: int
) -> Iterator[tuple[np.ndarray[Any, np.dtype[np.int64]], float, np.random.Generator]]:
    """How often each row is drawn (N,), the share of units left out, and a stream for further draws."""
    n_units = int(unit_of_row.max()) + 1
    for child in seed.spawn(most):
        random = np.random.default_rng(child)
        drawn = np.bincount(random.integers(n_units, size=n_units), minlength=n_units)
        yield drawn[unit_of_row], float((drawn == 0).mean()), random


def units_of(groups: Any, n_rows: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """(N,) number of the unit that each row is drawn with."""
    if groups is None:
        return np.arange(n_rows)
    labels = groups.cpu().numpy() if isinstance(groups, Tensor) else np.asarray(groups)
    if labels.shape != (n_rows,):
        raise InvalidParameterError(
            f"groups must have one label per row, shape ({n_rows},), but got shape {labels.shape}"
        )
    unique, numbers = np.unique(labels, return_inverse=True)
    if len(unique) < 2:
        raise InvalidParameterError("groups must name at least 2 groups, but all rows are of one")
    return numbers.astype(np.int64)


def spawned(seed: int | np.random.SeedSequence) -> tuple[np.random.SeedSequence, np.random.SeedSequence]:
    """Two streams; the caller's sequence is left as it was, so that a second call draws the same."""
    if not isinstance(seed, np.random.SeedSequence):
        if isinstance(seed, bool) or not isinstance(seed, Integral) or seed < 0:
            raise InvalidParameterError(f"seed must be an integer >= 0 or a SeedSequence, but got {seed!r}")
        seed = np.random.SeedSequence(int(seed))
    key = (*seed.spawn_key, 0x5E1EC7)
    fresh = np.random.SeedSequence(seed.entropy, spawn_key=key, pool_size=seed.pool_size)
    first, second = fresh.spawn(2)
    return first, second
