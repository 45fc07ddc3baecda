"""A trained network as objectives see it, and what they make of it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from parallelmlp_search.exceptions import InvalidParameterError, near_miss
from parallelmlp_search.packing import Architecture
from parallelmlp_search.packing.pack import build_module
from parallelmlp_search.space import MLPConfig

__all__ = ["OBJECTIVES", "Candidate", "Objective", "checked_objective", "value_of"]

OBJECTIVES = ("score", "n_parameters", "latency_ms")

LATENCY_CALLS = 31


@dataclass(frozen=True)
class Candidate:
    """A trained network, as objectives of one's own see it.

    Attributes
    ----------
    config
        Its configuration.
    score
        Metric on the rows that judge, in the metric's own orientation.
    architecture
        Sizes of its tensors.
    """

    config: MLPConfig
    score: float
    architecture: Architecture

    @property
    def n_parameters(self) -> int:
        """Trained scalars."""
        return self.architecture.n_parameters

    def latency_ms(self) -> float:
        """Median milliseconds of predicting one row with the plain network, on one thread of the CPU."""
        module = build_module(self.architecture).eval()
        row = torch.zeros(1, self.architecture.n_inputs)
        seconds = []
        with torch.inference_mode():
            for _ in range(LATENCY_CALLS):
                started = time.perf_counter()
                module(row)
                seconds.append(time.perf_counter() - started)
        return 1000.0 * statistics.median(seconds)


Objective = str | Callable[[Candidate], float]
"""One of :data:`OBJECTIVES`, or a function of the trained candidate."""


def checked_objective(objective: Objective) -> Objective:
    """The objective itself, if it is one.

    Raises
    ------
    InvalidParameterError
        If it is a name of none.
    """
    if not callable(objective) and objective not in OBJECTIVES:
        raise InvalidParameterError(
            f"objectives must be functions or among {', '.join(OBJECTIVES)}, but got {objective!r}"
            f"{near_miss(str(objective), OBJECTIVES)}"
        )
    return objective


def value_of(objective: Objective, candidate: Candidate) -> float:
    """What an objective makes of a candidate."""
    if callable(objective):
        return float(objective(candidate))
    value = getattr(candidate, objective)
    return float(value() if callable(value) else value)
