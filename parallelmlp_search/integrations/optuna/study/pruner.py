"""Pruner with the rule of this package's search: successive halving over all trials of a rung."""

from __future__ import annotations

import math

import optuna
from optuna.pruners import BasePruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.search.screening.rungs import survivors


class RungPruner(BasePruner):
    """Prunes a trial that is not among the best ``1 / reduction_factor`` of all that reported at its step.

    This is successive halving without brackets (Jamieson and Talwalkar 2016; Li et al. 2020): a trial is
    compared with all trials that reported before it. If all trials of a batch report before the first is
    judged, their order does not matter.

    Parameters
    ----------
    reduction_factor
        One in this many trials advances, at least one.

    Raises
    ------
    InvalidParameterError
        If ``reduction_factor`` is below 2.
    """

    def __init__(self, reduction_factor: int = 3) -> None:
        if isinstance(reduction_factor, bool) or reduction_factor < 2:
            raise InvalidParameterError(f"reduction_factor must be >= 2, but got {reduction_factor!r}")
        self.reduction_factor = reduction_factor

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Return True if the trial ends at the step that it has reported last."""
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
