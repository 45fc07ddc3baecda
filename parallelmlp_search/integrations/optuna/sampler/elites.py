"""Best trials of a study, updated one finished trial at a time."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from parallelmlp_search.integrations.optuna.compatibility import constraints_of

SortKey = tuple[float, int, int, float]
"""Constraint violation; 0 for complete and 1 for pruned; negative last step; loss. Lower is better."""


class Elites:
    """Best trials of a study.

    Feasible trials come first, then infeasible ones by their violation. Among them, complete trials come by
    value, then pruned trials by their last step and value. With several objectives, nondominated fronts take
    the place of values. Trials with an infinite or NaN value are ignored.

    Parameters
    ----------
    directions
        Directions of the study.
    max_elites
        Largest number of elites.

    Attributes
    ----------
    n_finished
        Number of complete and pruned trials so far.
    """

    def __init__(self, directions: Sequence[StudyDirection], max_elites: int) -> None:
        self.max_elites = max_elites
        self.n_finished = 0
        self._signs = np.array([-1.0 if one is StudyDirection.MAXIMIZE else 1.0 for one in directions])
        self._ordered: list[tuple[SortKey, int, FrozenTrial]] = []
        self._fronts: list[_Front] = []

    def add(self, trial: FrozenTrial) -> None:
        """Add a finished trial; failed ones are ignored."""
        if trial.state is TrialState.COMPLETE:
            losses = self._signs * np.array(trial.values, dtype=float)
            key = (_violation(trial), 0, 0, float(losses[0]))
        elif trial.state is TrialState.PRUNED:
            step = trial.last_step
            last = math.nan if step is None else trial.intermediate_values[step]
            losses = self._signs[:1] * last
            key = (_violation(trial), 1, -(step or 0), float(losses[0]))
        else:
            return
        self.n_finished += 1
        if not np.isfinite(losses).all():
            return
        if len(self._signs) > 1 and key[0] == 0.0:
            self._add_to_fronts(trial, losses)
        else:
            bisect.insort(self._ordered, (key, trial.number, trial))
            del self._ordered[self.max_elites :]

    def best(self, rng: np.random.Generator) -> list[FrozenTrial]:
        """Return the elites, best first, each front in random order."""
        chosen: list[FrozenTrial] = []
        for front in self._fronts:
            chosen += [front.trials[index] for index in rng.permutation(len(front.trials))]
        chosen += [trial for _, _, trial in self._ordered]
        return chosen[: self.max_elites]

    def _add_to_fronts(self, trial: FrozenTrial, losses: NDArray[np.float64]) -> None:
        # Trials are never removed, so none moves up: fronts below a full one can be dropped, and trials that
        # are dominated by a new one move together to the next front.
        moving = _Front([trial], losses[None, :])
        level = 0
        while level < len(self._fronts) and _dominated(moving.losses, self._fronts[level].losses).any():
            level += 1
        while moving.trials:
            if level == len(self._fronts):
                self._fronts.append(moving)
                break
            front = self._fronts[level]
            dominated = _dominated(front.losses, moving.losses)
            stays = front.part(~dominated)
            self._fronts[level] = _Front(
                stays.trials + moving.trials, np.concatenate([stays.losses, moving.losses])
            )
            moving = front.part(dominated)
            level += 1
        counts = np.cumsum([len(front.trials) for front in self._fronts])
        del self._fronts[int(np.searchsorted(counts, self.max_elites)) + 1 :]


class _Front:
    """Trials that do not dominate each other, with their losses ``(n_trials, n_objectives)``."""

    def __init__(self, trials: list[FrozenTrial], losses: NDArray[np.float64]) -> None:
        self.trials = trials
        self.losses = losses

    def part(self, mask: NDArray[np.bool_]) -> _Front:
        return _Front([self.trials[index] for index in np.flatnonzero(mask)], self.losses[mask])


def _dominated(losses: NDArray[np.float64], by: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return a mask of the rows that any row of ``by`` dominates."""
    mask = np.zeros(len(losses), dtype=bool)
    for other in by:
        mask |= (other <= losses).all(axis=1) & (other < losses).any(axis=1)
    return mask


def _violation(trial: FrozenTrial) -> float:
    """Return the sum of the positive constraints of a trial."""
    return float(sum(max(0.0, value) for value in constraints_of(trial)))
