"""Promotion against all that a rung has ever scored, as a pruner."""

from __future__ import annotations

import math

import optuna
from optuna.pruners import BasePruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.search.screening.rungs import survivors

__all__ = ["RungPruner"]


class RungPruner(BasePruner):
    """Ends a trial that is not among the best ``1 / reduction_factor`` of all that reported at its step.

    It is how our own search promotes (Jamieson and Talwalkar 2016; Li et al. 2020, without brackets): a late
    trial is measured by all that came before it, and a batch gets one verdict whatever the order in it, if
    all its trials report before the first is judged.

    Parameters
    ----------
    reduction_factor
        One in this many goes on, at least one.
    """

    def __init__(self, reduction_factor: int = 3) -> None:
        if isinstance(reduction_factor, bool) or reduction_factor < 2:
            raise InvalidParameterError(f"reduction_factor must be >= 2, but got {reduction_factor!r}")
        self.reduction_factor = reduction_factor

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the trial ends at the step that it has reported last."""
        step = trial.last_step
        if step is None:
            return False
        sign = -1.0 if study.direction is StudyDirection.MAXIMIZE else 1.0

        def error(other: FrozenTrial) -> float:
            value = sign * other.intermediate_values[step]
            return math.inf if math.isnan(value) else value

        own = (error(trial), trial.number)
        rivals = [t for t in study.get_trials(deepcopy=False) if step in t.intermediate_values]
        ahead = sum((error(other), other.number) < own for other in rivals if other.number != trial.number)
        return ahead >= survivors(max(1, len(rivals)), self.reduction_factor)
