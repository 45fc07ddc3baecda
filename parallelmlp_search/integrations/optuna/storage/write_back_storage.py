"""Working copy of a study in memory, from which changes are written to its storage in batches."""

from __future__ import annotations

import copy
import json
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from parallelmlp_search.integrations.optuna.storage.trial_writer import (
    TrialUpdate,
    changed_items,
    difference,
)


class WriteBackStorage(InMemoryStorage):
    """Copy of one study in memory, which knows what has changed since it was last refreshed.

    It refuses values that the original storage would refuse.

    Parameters
    ----------
    original
        The study. The copy has the same id, because samplers remember studies by id; the ids of its trials
        are their numbers.
    """

    def __init__(self, original: optuna.Study) -> None:
        super().__init__()
        self._original = original
        for _ in range(original._study_id):  # ids count from 0
            self.delete_study(self.create_new_study(original.directions))
        self._id = self.create_new_study(original.directions, original.study_name)
        self.refresh()

    def _trials(self) -> list[FrozenTrial]:
        return self.get_all_trials(self._id, deepcopy=False)

    def refresh(self) -> None:
        """Adopt the state of the original study."""
        own, trials = self._trials(), self._original.get_trials(deepcopy=False)
        for trial in trials:
            if trial.number >= len(own):
                self.create_new_trial(self._id, template_trial=trial)
            elif not own[trial.number].state.is_finished():
                update = difference(own[trial.number], trial)
                if update.claimed:
                    self.set_trial_state_values(trial.number, TrialState.RUNNING)
                update.apply_to(self, trial.number)
        for name, value in self._original.user_attrs.items():
            self.set_study_user_attr(self._id, name, value)
        system_attrs = self._original._storage.get_study_system_attrs(self._id)
        for name, value in system_attrs.items():
            self.set_study_system_attr(self._id, name, value)
        self.original_ids = [trial._trial_id for trial in trials]
        self._unfinished = [_copy(trial) for trial in self._trials() if not trial.state.is_finished()]
        self._known_attrs = [dict(attrs) for attrs in self._study_attrs()]

    def _study_attrs(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return self.get_study_user_attrs(self._id), self.get_study_system_attrs(self._id)

    def new_trials(self) -> list[FrozenTrial]:
        """Return the trials that were created here."""
        return self._trials()[len(self.original_ids) :]

    def updates(self) -> dict[int, TrialUpdate]:
        """Return the updates of the other trials, by number."""
        trials = self._trials()
        updates = {old.number: difference(old, trials[old.number]) for old in self._unfinished}
        return {number: update for number, update in updates.items() if update != TrialUpdate()}

    def changed_study_attrs(self) -> list[dict[str, Any]]:
        """Return the user attributes and the system attributes of the study that were set."""
        attrs = zip(self._known_attrs, self._study_attrs(), strict=True)
        return [changed_items(old, new) for old, new in attrs]

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        """Set a parameter, if a storage can hold its distribution.

        Parameters
        ----------
        trial_id, param_name, param_value_internal, distribution
            As of :class:`optuna.storages.BaseStorage`.
        """
        distribution_to_json(distribution)
        super().set_trial_param(trial_id, param_name, param_value_internal, distribution)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set a user attribute of a trial, if a storage can hold it.

        Parameters
        ----------
        trial_id, key, value
            As of :class:`optuna.storages.BaseStorage`.
        """
        json.dumps(value)
        super().set_trial_user_attr(trial_id, key, value)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Set a user attribute of the study, if a storage can hold it.

        Parameters
        ----------
        study_id, key, value
            As of :class:`optuna.storages.BaseStorage`.
        """
        json.dumps(value)
        super().set_study_user_attr(study_id, key, value)


def _copy(trial: FrozenTrial) -> FrozenTrial:
    """Copy a trial and what Optuna's ``Trial`` changes in place."""
    copied = copy.copy(trial)
    copied.params = dict(trial.params)
    copied.intermediate_values = dict(trial.intermediate_values)
    copied.user_attrs = dict(trial.user_attrs)
    copied.system_attrs = dict(trial.system_attrs)
    return copied
