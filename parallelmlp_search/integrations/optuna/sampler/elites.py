"""The leading trials of a study, kept up to date one told trial at a time."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

__all__ = ["Leaders", "violation"]

Standing = tuple[float, int, int, float]
"""Violation of constraints; 0 for complete and 1 for pruned; last step, negative; loss. Lower is better."""


class Leaders:
    """The best trials of a study.

    Feasible trials come before infeasible ones, which are ordered by how much they violate; complete ones
    come by value, then pruned ones, of which those that came further lead. With several objectives, trials
    of one front (none of which is better than another in all respects) are equals. Trials with a value that
    is infinite or not a number never lead.

    Parameters
    ----------
    directions
        Of the study.
    count
        How many leaders there are at most.

    Attributes
    ----------
    n_told
        Complete and pruned trials so far.
    """

    def __init__(self, directions: Sequence[StudyDirection], count: int) -> None:
        self.count = count
        self.n_told = 0
        self._signs = np.array([-1.0 if one is StudyDirection.MAXIMIZE else 1.0 for one in directions])
        self._ordered: list[tuple[Standing, int, FrozenTrial]] = []
        self._fronts: list[_Front] = []

    def add(self, trial: FrozenTrial) -> None:
        """Let a finished trial take its place; failed ones have none."""
        if trial.state is TrialState.COMPLETE:
            losses = self._signs * np.array(trial.values, dtype=float)
            standing = (violation(trial), 0, 0, float(losses[0]))
        elif trial.state is TrialState.PRUNED:
            step = trial.last_step
            last = math.nan if step is None else trial.intermediate_values[step]
            losses = self._signs[:1] * last
            standing = (violation(trial), 1, -(step or 0), float(losses[0]))
        else:
            return
        self.n_told += 1
        if not np.isfinite(losses).all():
            return
        if len(self._signs) > 1 and standing[0] == 0.0:
            self._enter_fronts(trial, losses)
        else:
            bisect.insort(self._ordered, (standing, trial.number, trial))
            del self._ordered[self.count :]

    def best(self, rng: np.random.Generator) -> list[FrozenTrial]:
        """The leaders, best first; ``rng`` orders those of one front, and chooses among too many."""
        chosen: list[FrozenTrial] = []
        for front in self._fronts:
            chosen += [front.trials[index] for index in rng.permutation(len(front.trials))]
        chosen += [trial for _, _, trial in self._ordered]
        return chosen[: self.count]

    def _enter_fronts(self, trial: FrozenTrial, losses: NDArray[np.float64]) -> None:
        # Trials never leave, so nobody rises: a front that is full enough makes those below it superfluous,
        # and a group that is pushed out of one front falls into the next as a whole.
        falling = _Front([trial], losses[None, :])
        level = 0
        while level < len(self._fronts) and _dominated(falling.losses, self._fronts[level].losses).any():
            level += 1
        while falling.trials:
            if level == len(self._fronts):
                self._fronts.append(falling)
                break
            front = self._fronts[level]
            out = _dominated(front.losses, falling.losses)
            stays = front.part(~out)
            self._fronts[level] = _Front(
                stays.trials + falling.trials, np.concatenate([stays.losses, falling.losses])
            )
            falling = front.part(out)
            level += 1
        held = np.cumsum([len(front.trials) for front in self._fronts])
        del self._fronts[int(np.searchsorted(held, self.count)) + 1 :]


class _Front:
    """Trials none of which dominates another, with their losses, ``(n, objectives)``."""

    def __init__(self, trials: list[FrozenTrial], losses: NDArray[np.float64]) -> None:
        self.trials = trials
        self.losses = losses

    def part(self, mask: NDArray[np.bool_]) -> _Front:
        return _Front([self.trials[index] for index in np.flatnonzero(mask)], self.losses[mask])


def _dominated(losses: NDArray[np.float64], by: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rows are dominated by any row of ``by``: nowhere better and somewhere worse."""
    mask = np.zeros(len(losses), dtype=bool)
    for other in by:
        mask |= (other <= losses).all(axis=1) & (other < losses).any(axis=1)
    return mask


def violation(trial: FrozenTrial) -> float:
    """Sum of what a trial's constraints exceed zero by; 0.0 where it is feasible or has none."""
    constraints = getattr(trial, "constraints", None)  # Optuna 5
    values = trial.system_attrs.get("constraints") if constraints is None else constraints.values()
    return float(sum(max(0.0, value) for value in values or ()))
