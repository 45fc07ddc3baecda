"""Successive halving as functions of errors (Jamieson and Talwalkar 2016; Li et al. 2020)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

MAX_RUNGS = 4


def ladder(
    max_epochs: int, reduction_factor: int, *, n_rungs: int = MAX_RUNGS, least: float = 1.0
) -> tuple[float, ...]:
    """Epochs of each rung, each ``reduction_factor`` times the one before.

    Parameters
    ----------
    max_epochs, reduction_factor
        Epochs of the last rung, and the ratio between rungs.
    n_rungs, least
        Most rungs, and least epochs of the first rung; below 1 where a table has many rows.

    Returns
    -------
    tuple of float

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
        # whole epochs where possible, so that a rung ends with an epoch
        whole = epochs >= 2 or least >= 1
        epochs = max(least, float(int(epochs)) if whole else round(epochs, 3))
        if 2 * epochs > rungs[0]:
            break
        rungs.insert(0, epochs)
    return tuple(rungs)


def survivors(n_trials: int, reduction_factor: int) -> int:
    """Trials of ``n_trials`` at a rung that can advance: one in ``reduction_factor``, at least one."""
    return math.ceil(n_trials / reduction_factor)


def advancing(cohort: Mapping[int, float], past: Sequence[float], reduction_factor: int) -> list[int]:
    """Trials of a cohort that advance to the next rung.

    A trial advances if it is among the best ``1 / reduction_factor`` of all trials that the rung has ever
    scored. Later cohorts, drawn near the elites, then take the places that their errors deserve.

    Parameters
    ----------
    cohort, past
        Error of each trial of the cohort, NaN or infinite if it failed; errors of earlier cohorts.
    reduction_factor
        One in this many advances.

    Returns
    -------
    list of int
        Trials, best first; ties go to the lower number. A failed trial never advances.
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
    """Mean epochs of a trial on all rungs."""
    cost = share = before = 0.0
    for step, epochs in enumerate(rungs):
        share = 1.0 / reduction_factor**step
        cost += share * (epochs - before)
        before = epochs
    return cost
