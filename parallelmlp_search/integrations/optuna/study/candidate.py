"""Trained networks as user-defined objectives see them, and checks of objectives."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from optuna.study import StudyDirection

from parallelmlp_search.exceptions import InvalidParameterError, near_miss
from parallelmlp_search.packing import Architecture
from parallelmlp_search.packing.pack import build_module
from parallelmlp_search.space import MLPConfig

OBJECTIVES = ("score", "n_parameters", "latency_ms")

N_LATENCY_CALLS = 31


@dataclass(frozen=True)
class Candidate:
    """Trained network, as user-defined objectives and constraints see it.

    Attributes
    ----------
    config
        Its configuration.
    score
        Metric on the validation rows, in the metric's own orientation.
    architecture
        Sizes of its tensors.
    """

    config: MLPConfig
    score: float
    architecture: Architecture

    @property
    def n_parameters(self) -> int:
        """Number of trained parameters."""
        return self.architecture.n_parameters

    def latency_ms(self) -> float:
        """Median milliseconds to predict one row with the plain network, on one CPU thread."""
        module = build_module(self.architecture).eval()
        row = torch.zeros(1, self.architecture.n_inputs)
        seconds = []
        with torch.inference_mode():
            for _ in range(N_LATENCY_CALLS):
                started = time.perf_counter()
                module(row)
                seconds.append(time.perf_counter() - started)
        return 1000.0 * statistics.median(seconds)


Objective = str | Callable[[Candidate], float]
"""One of :data:`OBJECTIVES`, or a function of the trained candidate."""


def check_objective(objective: Objective) -> Objective:
    """Return an objective if it is valid.

    Raises
    ------
    InvalidParameterError
        If it is neither a function nor one of :data:`OBJECTIVES`.
    """
    if not callable(objective) and objective not in OBJECTIVES:
        raise InvalidParameterError(
            f"objectives must be functions or among {', '.join(OBJECTIVES)}, but got {objective!r}"
            f"{near_miss(str(objective), OBJECTIVES)}"
        )
    return objective


def evaluate_objective(objective: Objective, candidate: Candidate) -> float:
    """Return the value of an objective for a candidate."""
    if callable(objective):
        return float(objective(candidate))
    value = getattr(candidate, objective)
    return float(value() if callable(value) else value)


def check_direction(direction: StudyDirection, goal: str) -> None:
    """Check that a study has the direction of a goal such as ``minimize log_loss``.

    Raises
    ------
    InvalidParameterError
        If it has the other direction.
    """
    wanted, actual = goal.partition(" ")[0], direction.name.lower()
    if actual != wanted:
        raise InvalidParameterError(
            f"the study must {goal}, but its direction is {actual}: create it with {wanted!r}"
        )
