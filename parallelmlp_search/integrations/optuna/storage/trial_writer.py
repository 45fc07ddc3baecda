"""Updates of stored trials, and the writer that makes them one by one in any storage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState


@dataclass
class TrialUpdate:
    """Update of a trial that is already in a storage."""

    claimed: bool = False  # a waiting trial that this worker starts
    params: dict[str, tuple[float, BaseDistribution]] = field(default_factory=dict)  # internal values
    intermediate_values: dict[int, float] = field(default_factory=dict)
    user_attrs: dict[str, Any] = field(default_factory=dict)
    system_attrs: dict[str, Any] = field(default_factory=dict)
    state: TrialState | None = None  # final state; None if the trial goes on
    values: Sequence[float] | None = None

    def apply_to(self, storage: BaseStorage, trial_id: int) -> None:
        """Make the update call by call; the state comes last, because it ends the trial."""
        for name, (value, distribution) in self.params.items():
            storage.set_trial_param(trial_id, name, value, distribution)
        for step, value in self.intermediate_values.items():
            storage.set_trial_intermediate_value(trial_id, step, value)
        for name, attribute in self.user_attrs.items():
            storage.set_trial_user_attr(trial_id, name, attribute)
        for name, attribute in self.system_attrs.items():
            storage.set_trial_system_attr(trial_id, name, attribute)
        if self.state is not None:
            storage.set_trial_state_values(trial_id, self.state, self.values)


class TrialWriter:
    """Writes trials one by one, through the public methods of any storage.

    Parameters
    ----------
    storage
        Storage to write into.
    """

    def __init__(self, storage: BaseStorage) -> None:
        self.storage = storage

    def create(self, study_id: int, templates: Sequence[FrozenTrial]) -> None:
        """Add trials to a study, in this order."""
        for template in templates:
            self.storage.create_new_trial(study_id, template_trial=template)

    def write(self, updates: Mapping[int, TrialUpdate]) -> set[int]:
        """Update trials, given by their ids in the storage.

        Returns
        -------
        set of int
            Ids of the trials that another worker has claimed or finished; these are left as they are.
        """
        lost = {id for id, update in updates.items() if update.claimed and not self._claim(id)}
        return lost | self._write({id: update for id, update in updates.items() if id not in lost})

    def _claim(self, trial_id: int) -> bool:
        try:
            return self.storage.set_trial_state_values(trial_id, TrialState.RUNNING)
        except UpdateFinishedTrialError:
            return False

    def _write(self, updates: Mapping[int, TrialUpdate]) -> set[int]:
        lost = set()
        for trial_id, update in updates.items():
            try:
                update.apply_to(self.storage, trial_id)
            except UpdateFinishedTrialError:
                lost.add(trial_id)
        return lost


def difference(old: FrozenTrial, new: FrozenTrial) -> TrialUpdate:
    """Return the update that turns an unfinished trial into a later version of itself."""
    distributions = new.distributions
    return TrialUpdate(
        claimed=old.state is TrialState.WAITING and new.state is not TrialState.WAITING,
        params={
            name: (distributions[name].to_internal_repr(value), distributions[name])
            for name, value in new.params.items()
            if name not in old.params
        },
        intermediate_values=changed_items(old.intermediate_values, new.intermediate_values),
        user_attrs=changed_items(old.user_attrs, new.user_attrs),
        system_attrs=changed_items(old.system_attrs, new.system_attrs),
        state=new.state if new.state.is_finished() else None,
        values=new.values,
    )


def changed_items(old: Mapping[Any, Any], new: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return the items of a mapping that are not in its earlier version."""
    return {key: value for key, value in new.items() if key not in old or old[key] != value}
