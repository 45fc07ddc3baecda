"""Bootstrap samples of rows or of whole groups, reproducible from a seed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from parallelmlp_search._checks import check_integer, check_positive
from parallelmlp_search.exceptions import InvalidParameterError

MIN_TIMED_SAMPLES = 5
"""Samples that are drawn in any case."""

Integers = npt.NDArray[np.int64]


class BootstrapSample(NamedTuple):
    """One bootstrap sample.

    Attributes
    ----------
    counts
        (N,) number of times that each row is drawn; 0 marks an out-of-bag row.
    out_of_bag
        Share of the sampling units that are not drawn.
    generator
        Random numbers for further choices within this sample.
    """

    counts: Integers
    out_of_bag: float
    generator: np.random.Generator


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """Settings of a bootstrap.

    Parameters
    ----------
    n_samples
        Samples that yield a score, >= 2.
    max_rows
        Maximum number of drawn rows that a selection is repeated on; all out-of-bag rows are scored. None
        chooses 1,000 to 10,000 rows, such that all samples take about 4 seconds on one core.
    groups
        (N,) labels; rows of one group are drawn together. None: each row is a unit of its own.
    seed
        Seed of the samples; they are the same on every device.
    n_workers
        Threads that repeat the selection at once. Results do not depend on it.
    seconds
        Most time of all samples on one core, by the measured costs of the metrics. It decides on the rows and
        members of a repeated selection. None for about 4 seconds.
    deadline
        Reading of :func:`time.monotonic` after which no sample beyond :data:`MIN_TIMED_SAMPLES` is drawn, or
        None.
    """

    n_samples: int = 30
    max_rows: int | None = None
    groups: Any = None
    seed: int | np.random.SeedSequence = 0
    n_workers: int = 1
    seconds: float | None = None
    deadline: float | None = None

    def is_over(self, n_found: int) -> bool:
        """Return True if there are samples enough, given how many were scored."""
        late = self.deadline is not None and time.monotonic() >= self.deadline
        return n_found >= (min(MIN_TIMED_SAMPLES, self.n_samples) if late else self.n_samples)

    def __post_init__(self) -> None:
        check_integer("n_samples", self.n_samples, 2)
        check_integer("n_workers", self.n_workers, 1)
        if self.seconds is not None:
            check_positive("seconds", self.seconds)
        if self.max_rows is not None:
            check_integer("max_rows", self.max_rows, 2)


def bootstrap_samples(
    units: Integers, seed: np.random.SeedSequence, n_samples: int
) -> Iterator[BootstrapSample]:
    """Draw units with replacement, as many as there are.

    Parameters
    ----------
    units
        (N,) number of the unit that each row belongs to.
    seed
        Seed; each sample has a stream of its own.
    n_samples
        Number of samples.

    Yields
    ------
    BootstrapSample
        The samples in order.
    """
    n_units = int(units.max()) + 1
    for child in seed.spawn(n_samples):
        generator = np.random.default_rng(child)
        counts = np.bincount(generator.integers(n_units, size=n_units), minlength=n_units)
        yield BootstrapSample(counts[units], float((counts == 0).mean()), generator)


def sampling_units(groups: Any, n_rows: int) -> Integers:
    """Return the number of each row's sampling unit (N,): its group, or the row itself without groups.

    Raises
    ------
    InvalidParameterError
        If there is not one label per row, or only one group.
    """
    if groups is None:
        return np.arange(n_rows)
    labels = groups.cpu().numpy() if isinstance(groups, Tensor) else np.asarray(groups)
    if labels.shape != (n_rows,):
        raise InvalidParameterError(
            f"groups must have one label per row, shape ({n_rows},), but got shape {labels.shape}"
        )
    unique, numbers = np.unique(labels, return_inverse=True)
    if len(unique) < 2:
        raise InvalidParameterError("groups must name at least 2 groups, but all rows belong to one")
    return numbers.astype(np.int64)


def spawn_seeds(seed: int | np.random.SeedSequence) -> tuple[np.random.SeedSequence, np.random.SeedSequence]:
    """Derive two seeds. The caller's sequence is not changed, so a second call gives the same two."""
    if not isinstance(seed, np.random.SeedSequence):
        seed = np.random.SeedSequence(check_integer("seed", seed, 0))
    key = (*seed.spawn_key, 0x5E1EC7)
    parent = np.random.SeedSequence(seed.entropy, spawn_key=key, pool_size=seed.pool_size)
    first, second = parent.spawn(2)
    return first, second
