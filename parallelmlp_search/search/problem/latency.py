"""Latency of configurations, for searches with a limit of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from parallelmlp_search._checks import check_seconds, duration_text
from parallelmlp_search.data.encoding import TableEncoder
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.inference.fold_model import architecture_of
from parallelmlp_search.inference.latency import (
    EncodingSeconds,
    encoding_seconds,
    network_seconds,
    used_sections,
)
from parallelmlp_search.packing import Architecture, Head
from parallelmlp_search.search.problem.preparation import Part, Preparation
from parallelmlp_search.search.problem.problem import Problem
from parallelmlp_search.space import MLPConfig

DRAWS, MIN_DRAWN = 20, 50
"""Draws per configuration that is wanted, since some are too slow; fewest that are drawn at once."""

SAFETY = 1.1
"""Limit that a message recommends, relative to what was measured."""

N_MEASURED = 12
"""Networks whose times predict those of all others."""

FIRST_RATES = np.array([1e-6, 1e-10, 3e-9, 2e-9])
"""Rough seconds of :func:`_sizes`, by which networks are sorted before any is measured."""

Propose = Callable[[int], list[MLPConfig]]


class LatencyMeter:
    """Measures how long predictions of networks take, per row.

    Parameters
    ----------
    problem
        Table whose first rows are predicted.
    encoder, head
        Preprocessing and outputs of a part.
    limit
        Most seconds per row.
    batch
        Rows that are predicted at once.
    """

    @classmethod
    def of(cls, preparation: Preparation, part: Part) -> LatencyMeter | None:
        """Return the meter of a search, whose networks have the shape of a part; None without a limit."""
        settings = preparation.settings
        if settings.infer_limit is None:
            return None
        limit, batch = check_seconds("infer_limit", settings.infer_limit), settings.infer_batch_size
        return cls(preparation.problem, part.preprocessor.encoder_, part.head, limit, batch)

    def __init__(self, problem: Problem, encoder: TableEncoder, head: Head, limit: float, batch: int) -> None:
        self._encoder, self._head = encoder, head
        self.limit, self.batch = limit, batch
        self.table = problem.frame.iloc[np.arange(batch) % problem.n_rows]
        self._measured = cache(self._measure)
        self._sections: dict[tuple[tuple[int, int], ...], tuple[bool, ...]] = {}
        self._rates: NDArray[np.float64] | None = None

    def encoding(self, n_folds: int) -> EncodingSeconds:
        """Seconds per row of reading and encoding a row for the networks of some folds."""
        found = encoding_seconds(self._encoder, self.table, n_folds)
        return EncodingSeconds(
            found.reading / self.batch, tuple(seconds / self.batch for seconds in found.sections)
        )

    @cached_property
    def _encoding_of_one(self) -> EncodingSeconds:
        return self.encoding(1)

    def sections(self, config: MLPConfig) -> tuple[bool, ...]:
        """Sections of the inputs that a configuration uses."""
        shape = architecture_of(config, self._encoder, self._head)
        if shape.columns not in self._sections:
            self._sections[shape.columns] = tuple(used_sections(shape, self._encoder))
        return self._sections[shape.columns]

    def inputs(self, config: MLPConfig) -> float:
        """Seconds per row of making the inputs of one network alone."""
        reading, sections = self._encoding_of_one
        uses = self.sections(config)
        return reading + sum(seconds for seconds, used in zip(sections, uses, strict=True) if used)

    def network(self, config: MLPConfig) -> float:
        """Seconds per row of one network of a configuration, without encoding."""
        return self._measured(architecture_of(config, self._encoder, self._head))

    def _measure(self, architecture: Architecture) -> float:
        return network_seconds(architecture, self._encoder, self._head, self.batch) / self.batch

    def fits(self, config: MLPConfig) -> bool:
        """True if one network of a configuration alone is predicted to be within the limit."""
        return self.inputs(config) + self.predicted(config) <= self.limit

    def predicted(self, config: MLPConfig) -> float:
        """Seconds per row of one network, predicted from its sizes and the times of a few others."""
        assert self._rates is not None
        return float(_sizes(architecture_of(config, self._encoder, self._head)) @ self._rates)

    def calibrate(self, configs: Sequence[MLPConfig]) -> None:
        """Measure a few of some configurations, small and large ones, for the predictions.

        Parameters
        ----------
        configs
            Configurations of the space.
        """
        shapes = {architecture_of(config, self._encoder, self._head) for config in configs}
        ordered = sorted(shapes, key=lambda shape: (float(_sizes(shape) @ FIRST_RATES), hash(shape)))
        places = np.linspace(0, len(ordered) - 1, min(N_MEASURED, len(ordered))).astype(int)
        sizes = np.stack([_sizes(ordered[place]) for place in places])
        seconds = np.array([self._measured(ordered[place]) for place in places])
        # relative errors, so that small networks count as much as large ones
        self._rates, _ = nnls(sizes / seconds[:, None], np.ones(len(seconds)))

    def fitting(self, propose: Propose) -> Propose:
        """Return a function that proposes only configurations that fit.

        Parameters
        ----------
        propose
            Returns the given number of configurations, or fewer where the space is exhausted.

        Returns
        -------
        callable
            Returns fewer configurations, or none, if few of :data:`DRAWS` times as many fit.
        """

        def proposed(count: int) -> list[MLPConfig]:
            found: dict[MLPConfig, None] = {}
            size = max(count, MIN_DRAWN)
            for _ in range(DRAWS):
                drawn = propose(size)
                if self._rates is None and drawn:
                    self.calibrate(drawn)
                found |= dict.fromkeys(config for config in drawn if self.fits(config))
                if len(found) >= count or len(drawn) < size:
                    break
            return list(found)[:count]

        return proposed

    def sample(self, propose: Propose, count: int) -> list[MLPConfig]:
        """Return configurations that fit, before a search begins.

        Parameters
        ----------
        propose
            Draws the given number of configurations from the space.
        count
            Number of configurations that are wanted.

        Returns
        -------
        list of MLPConfig
            At least one, unless none is wanted.

        Raises
        ------
        InvalidParameterError
            If none is found. The message names what the fastest takes.
        """
        found = self.fitting(propose)(count)
        if found or count == 0:
            return found
        drawn = propose(count)
        least = min(self.inputs(config) + self.predicted(config) for config in drawn)
        reading = duration_text(self._encoding_of_one.reading)
        raise InvalidParameterError(
            f"infer_limit must be at least about {duration_text(SAFETY * least)} per row on this machine in "
            f"batches of {self.batch:,}: the fastest of {len(drawn)} networks of the space takes "
            f"{duration_text(least)} with its inputs, and reading a row {reading} of them, but got "
            f"{duration_text(self.limit)}"
        )


def _sizes(architecture: Architecture) -> NDArray[np.float64]:
    """One, and the numbers of multiplications, activations and waves of a prediction of one row."""
    fan_in, products, elements = architecture.expanded.fan_in, 0, 0
    for width in (*architecture.widths, architecture.n_outputs):
        products += fan_in * width
        elements += width
        fan_in = width
    submembers = architecture.submembers
    return np.array([1.0, submembers * products, submembers * elements, architecture.n_waves])
