"""Successive halving as pure functions of scores (Jamieson and Talwalkar 2016; Li et al. 2020)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

__all__ = ["ladder", "ladder_cost", "promoted", "survivors"]

MAX_RUNGS = 4


def ladder(
    max_epochs: int, reduction_factor: int, *, n_rungs: int = MAX_RUNGS, least: float = 1.0
) -> tuple[float, ...]:
    """Epochs at which members are judged, each ``reduction_factor`` times the one before.

    ``least`` is the shortest first rung; a table with many rows may be judged before an epoch is over.

    >>> ladder(27, 3)
    (1.0, 3.0, 9.0, 27.0)
    >>> ladder(2, 3)
    (1.0, 2.0)
    >>> ladder(6, 3, least=0.1)
    (0.222, 0.667, 2.0, 6.0)
    """
    rungs = [float(max_epochs)]
    for step in range(1, n_rungs):
        epochs = max_epochs / reduction_factor**step
        # whole epochs where they fit, so that a rung ends where its history says
        whole = epochs >= 2 or least >= 1
        epochs = max(least, float(int(epochs)) if whole else round(epochs, 3))
        if 2 * epochs > rungs[0]:
            break
        rungs.insert(0, epochs)
    return tuple(rungs)


def survivors(n_trials: int, reduction_factor: int) -> int:
    """How many of ``n_trials`` scored at a rung may go on: one in ``reduction_factor``, at least one."""
    return math.ceil(n_trials / reduction_factor)


def promoted(cohort: Mapping[int, float], past: Sequence[float], reduction_factor: int) -> list[int]:
    """Members of a cohort that go on to the next rung.

    A trial goes on if it is among the best ``1 / reduction_factor`` of all trials that this rung has ever
    scored, so that later cohorts, drawn near the leaders, get the room that they earn.

    Parameters
    ----------
    cohort
        Error of each trial that has just been scored, lower is better; NaN or infinite if it failed.
    past
        Errors of earlier cohorts at the same rung.
    reduction_factor
        One in this many is promoted.

    Returns
    -------
    list of int
        Trials, best first; ties go to the lower number. A failed trial is never promoted.
    """
    finite = sorted((error, trial) for trial, error in cohort.items() if math.isfinite(error))
    earlier = sorted(error for error in past if math.isfinite(error))
    room = survivors(len(cohort) + len(past), reduction_factor)
    chosen: list[int] = []
    ahead = 0
    for place, (error, trial) in enumerate(finite):
        while ahead < len(earlier) and earlier[ahead] <= error:
            ahead += 1
        if place + ahead >= room:
            break
        chosen.append(trial)
    return chosen


def ladder_cost(rungs: Sequence[float], reduction_factor: int) -> float:
    """Epochs that a trial takes on average on its way up the ladder."""
    cost = share = before = 0.0
    for step, epochs in enumerate(rungs):
        share = 1.0 / reduction_factor**step
        cost += share * (epochs - before)
        before = epochs
    return cost
