"""A study in a storage, worked on in memory: what is changed is noted, and written at once."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from parallelmlp_search.integrations.optuna.storage.storage_writers import Change

__all__ = ["Mirror"]


class Mirror(InMemoryStorage):
    """The trials of one study in memory, under the numbers that they have there, which are also their ids.

    Parameters
    ----------
    study_id
        Id of the study in its storage, since samplers remember the study that they know by it.
    directions, name
        Of the study.

    Attributes
    ----------
    n_known
        Trials that the storage has as well; those with higher numbers are new.
    changes
        Changes of the trials that were there before, by their numbers.
    study_attrs
        Attributes of the study that were set here: whether it is a user's, its name, its value.
    """

    def __init__(self, study_id: int, directions: Sequence[StudyDirection], name: str) -> None:
        super().__init__()
        self._quiet = True
        self._max_study_id = study_id - 1
        self.study_id = self.create_new_study(directions, name)
        self.forget()

    def forget(self) -> None:
        """Note from here on: what has been noted is written."""
        self.n_known = len(self.get_all_trials(self.study_id, deepcopy=False))
        self.changes: dict[int, Change] = {}
        self.study_attrs: dict[tuple[bool, str], Any] = {}
        self._quiet = False

    @property
    def new(self) -> list[FrozenTrial]:
        """Trials that were made here."""
        return self.get_all_trials(self.study_id, deepcopy=False)[self.n_known :]

    def look(
        self, trials: Sequence[FrozenTrial], user_attrs: dict[str, Any], system_attrs: dict[str, Any]
    ) -> None:
        """Take over what others have done: all trials and attributes of the study as its storage has them."""
        self._quiet = True
        mine = self.get_all_trials(self.study_id, deepcopy=False)
        for trial in trials:
            if trial.number >= len(mine):
                self.create_new_trial(self.study_id, template_trial=trial)
            elif not mine[trial.number].state.is_finished():
                twin = copy.copy(trial)
                twin._trial_id = trial.number
                self._set_trial(trial.number, twin)
                self._update_cache(trial.number, self.study_id)
        for name, value in user_attrs.items():
            self.set_study_user_attr(self.study_id, name, value)
        for name, value in system_attrs.items():
            self.set_study_system_attr(self.study_id, name, value)
        self.forget()

    def _noted(self, trial_id: int) -> Change:
        """The change of a trial; one that nobody reads if the trial is new, or nothing is to be noted."""
        if self._quiet or trial_id >= self.n_known:
            return Change()
        return self.changes.setdefault(trial_id, Change())

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        """Note a parameter."""
        if not self._quiet:
            distribution_to_json(distribution)  # refuses what the storage would refuse, before all is asked
        super().set_trial_param(trial_id, param_name, param_value_internal, distribution)
        self._noted(trial_id).params[param_name] = (param_value_internal, distribution)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Note that a trial was taken, or has ended."""
        changed = super().set_trial_state_values(trial_id, state, values)
        if changed:
            change = self._noted(trial_id)
            if state is TrialState.RUNNING:
                change.taken = True
            else:
                change.state, change.values = state, values
        return changed

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """Note a report."""
        super().set_trial_intermediate_value(trial_id, step, intermediate_value)
        self._noted(trial_id).intermediate_values[step] = intermediate_value

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Note a user's attribute of a trial."""
        json.dumps(value)  # refuses what the storage would refuse
        super().set_trial_user_attr(trial_id, key, value)
        self._noted(trial_id).user_attrs[key] = value

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Note what a sampler or pruner writes on a trial."""
        super().set_trial_system_attr(trial_id, key, value)
        self._noted(trial_id).system_attrs[key] = value

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Note a user's attribute of the study."""
        json.dumps(value)
        super().set_study_user_attr(study_id, key, value)
        if not self._quiet:
            self.study_attrs[True, key] = value

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Note what a sampler writes on the study."""
        super().set_study_system_attr(study_id, key, value)
        if not self._quiet:
            self.study_attrs[False, key] = value
