"""Latency of configurations, for searches with a limit of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, cached_property
from typing import NoReturn

import numpy as np

from parallelmlp_search._checks import check_seconds, duration_text
from parallelmlp_search.data.encoding import TableEncoder
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.inference.latency import encoding_seconds, network_seconds
from parallelmlp_search.inference.model import architecture_of
from parallelmlp_search.packing import Architecture, Head
from parallelmlp_search.search.problem.preparation import Part, Preparation
from parallelmlp_search.search.problem.problem import Problem
from parallelmlp_search.space import MLPConfig

DRAWS = 20
"""Draws per configuration that is wanted, since some are too slow."""

SAFETY = 1.1
"""Limit that a message recommends, relative to what was measured."""

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

    def encoding(self, n_folds: int) -> float:
        """Seconds per row of reading and encoding a row for the networks of some folds."""
        return encoding_seconds(self._encoder, self.table, n_folds) / self.batch

    @cached_property
    def _encoding_of_one(self) -> float:
        return self.encoding(1)

    def network(self, config: MLPConfig) -> float:
        """Seconds per row of one network of a configuration, without encoding."""
        return self._measured(architecture_of(config, self._encoder, self._head))

    def _measure(self, architecture: Architecture) -> float:
        return network_seconds(architecture, self._encoder, self._head, self.batch) / self.batch

    def fits(self, config: MLPConfig) -> bool:
        """True if one network of a configuration alone is within the limit."""
        return self._encoding_of_one + self.network(config) <= self.limit

    def fitting(self, propose: Propose) -> Propose:
        """Return a function that proposes only configurations that fit.

        Parameters
        ----------
        propose
            Returns the given number of configurations, or fewer where the space is exhausted.

        Returns
        -------
        callable
            Returns fewer configurations if few of :data:`DRAWS` times as many fit. It raises
            `InvalidParameterError` if none does, and names what the fastest takes.
        """

        def proposed(count: int) -> list[MLPConfig]:
            found: dict[MLPConfig, None] = {}
            fastest, n_drawn = math.inf, 0
            for _ in range(DRAWS):
                drawn = propose(count)
                n_drawn += len(drawn)
                fastest = min([fastest, *map(self.network, drawn)])
                found |= dict.fromkeys(config for config in drawn if self.fits(config))
                if len(found) >= count or len(drawn) < count:
                    break
            if n_drawn and not found:
                self._refuse(fastest, n_drawn)
            return list(found)[:count]

        return proposed

    def _refuse(self, fastest: float, n_drawn: int) -> NoReturn:
        least = duration_text(SAFETY * (self._encoding_of_one + fastest))
        encoding, network = duration_text(self._encoding_of_one), duration_text(fastest)
        raise InvalidParameterError(
            f"infer_limit must be at least about {least} per row on this machine in batches of "
            f"{self.batch:,}: preparing the inputs takes {encoding}, and the fastest of {n_drawn} networks "
            f"of the space {network}, but got {duration_text(self.limit)}"
        )
