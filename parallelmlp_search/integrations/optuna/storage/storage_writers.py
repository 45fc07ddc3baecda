"""Many trials written into a storage at once.

Optuna's storages write one value at a time, each with a transaction or a synchronised append of its own: 4 ms
in a journal and 17 in SQLite, more than twenty times for a trial of our default space. Here a batch is one
append or one transaction.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import FrozenTrial, TrialState

__all__ = ["Change", "JournalWriter", "Writer", "writer_of"]


@dataclass
class Change:
    """What becomes of a trial that a storage knows already.

    Attributes
    ----------
    taken
        Whether it was waiting, and is to be this worker's.
    params
        Internal value and distribution of each parameter that it got.
    intermediate_values, user_attrs, system_attrs
        What is added.
    state
        State that it ends in; None while it goes on.
    values
        Its values, if it ends with any.
    """

    taken: bool = False
    params: dict[str, tuple[float, BaseDistribution]] = field(default_factory=dict)
    intermediate_values: dict[int, float] = field(default_factory=dict)
    user_attrs: dict[str, Any] = field(default_factory=dict)
    system_attrs: dict[str, Any] = field(default_factory=dict)
    state: TrialState | None = None
    values: Sequence[float] | None = None


class Writer:
    """Writes trials one by one, into any storage.

    Parameters
    ----------
    storage
        The storage.
    """

    def __init__(self, storage: BaseStorage) -> None:
        self.storage = storage

    def create(self, study_id: int, templates: Sequence[FrozenTrial]) -> None:
        """Add trials to a study, in this order."""
        for template in templates:
            self.storage.create_new_trial(study_id, template_trial=template)

    def write(self, changes: Mapping[int, Change]) -> set[int]:
        """Change trials, by their ids in the storage.

        Returns
        -------
        set of int
            Ids of the trials that are not this worker's: they were taken, or finished, by another.
        """
        lost = {place for place, change in changes.items() if change.taken and not self._take(place)}
        kept = {place: change for place, change in changes.items() if place not in lost}
        return lost | self._write(kept)

    def _take(self, trial_id: int) -> bool:
        try:
            return self.storage.set_trial_state_values(trial_id, TrialState.RUNNING)
        except UpdateFinishedTrialError:
            return False

    def _write(self, changes: Mapping[int, Change]) -> set[int]:
        lost = set()
        for trial_id, change in changes.items():
            try:
                put(self.storage, trial_id, change)
            except UpdateFinishedTrialError:
                lost.add(trial_id)
        return lost


class JournalWriter(Writer):
    """Writes trials into a journal, a batch with one append."""

    storage: JournalStorage

    def create(self, study_id: int, templates: Sequence[FrozenTrial]) -> None:
        """Add trials to a study, in this order."""
        scribe = _Scribe()
        for template in templates:
            scribe.create_new_trial(study_id, template_trial=template)
        scribe.append_to(self.storage)

    def _write(self, changes: Mapping[int, Change]) -> set[int]:
        scribe = _Scribe()
        for trial_id, change in changes.items():
            put(scribe, trial_id, change)
        scribe.append_to(self.storage)
        # who reads a journal passes over entries about trials that were finished before
        return {
            trial_id
            for trial_id, change in changes.items()
            if self.storage.get_trial(trial_id).state is not (change.state or TrialState.RUNNING)
        }


def writer_of(storage: BaseStorage) -> Writer:
    """The writer that suits a storage."""
    if isinstance(storage, JournalStorage):
        return JournalWriter(storage)
    with contextlib.suppress(
        ImportError, AttributeError
    ):  # another Optuna may keep its databases differently
        from parallelmlp_search.integrations.optuna.storage.rdb_writer import DatabaseWriter

        return DatabaseWriter(storage)
    return Writer(storage)


def put(storage: BaseStorage, trial_id: int, change: Change) -> None:
    """Tell a storage about a change, call by call; the state comes last, since it ends the trial."""
    for name, (value, distribution) in change.params.items():
        storage.set_trial_param(trial_id, name, value, distribution)
    for step, value in change.intermediate_values.items():
        storage.set_trial_intermediate_value(trial_id, step, value)
    for name, attribute in change.user_attrs.items():
        storage.set_trial_user_attr(trial_id, name, attribute)
    for name, attribute in change.system_attrs.items():
        storage.set_trial_system_attr(trial_id, name, attribute)
    if change.state is not None:
        storage.set_trial_state_values(trial_id, change.state, change.values)


class _Pages(BaseJournalBackend):
    """Entries that wait to be written, in memory."""

    def __init__(self) -> None:
        self.logs: list[dict[str, Any]] = []

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        return []

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self.logs += logs


class _Scribe(JournalStorage):
    """Knows how a journal is written, and nothing of what is in it."""

    def __init__(self) -> None:
        self._pages = _Pages()
        super().__init__(self._pages)
        self._replay_result._last_created_trial_id_by_this_process = -1  # it never reads which it was

    def append_to(self, storage: JournalStorage) -> None:
        """Write everything into the journal of a storage."""
        if self._pages.logs:
            storage._backend.append_logs(self._pages.logs)
