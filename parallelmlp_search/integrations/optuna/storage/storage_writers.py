"""Writers of batches of trials: for journals, and the choice of the writer for a storage.

Optuna's storages write one value at a time, each with a transaction or a synchronised append: 4 ms in a
journal and 17 ms in SQLite, more than twenty times per trial of the default space. The writers for journals
and databases write a batch with one append or one transaction.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import FrozenTrial, TrialState

from parallelmlp_search.integrations.optuna.compatibility import is_tested_version
from parallelmlp_search.integrations.optuna.storage.trial_writer import TrialUpdate, TrialWriter

logger = logging.getLogger("optuna.parallelmlp_search")


def get_writer(storage: BaseStorage) -> TrialWriter:
    """Return the fastest writer for a storage.

    Writing in batches needs private names of Optuna. With an Optuna version that it was not tested with,
    trials are written one by one through the public API.
    """
    if isinstance(storage, InMemoryStorage):
        return TrialWriter(storage)
    if not is_tested_version():
        logger.info(
            f"Optuna {optuna.__version__} is not among the tested versions, so trials are written to the "
            "storage one by one, which is slower."
        )
        return TrialWriter(storage)
    if isinstance(storage, JournalStorage):
        return JournalWriter(storage)
    from parallelmlp_search.integrations.optuna.storage.rdb_writer import RDBWriter, has_tables

    return RDBWriter(storage) if has_tables(storage) else TrialWriter(storage)


class JournalWriter(TrialWriter):
    """Writes trials into a journal, one append per batch."""

    storage: JournalStorage

    def create(self, study_id: int, templates: Sequence[FrozenTrial]) -> None:
        """Add trials to a study, in this order."""
        recorder = _JournalRecorder()
        for template in templates:
            recorder.create_new_trial(study_id, template_trial=template)
        recorder.append_to(self.storage)

    def _write(self, updates: Mapping[int, TrialUpdate]) -> set[int]:
        recorder = _JournalRecorder()
        for trial_id, update in updates.items():
            update.apply_to(recorder, trial_id)
        recorder.append_to(self.storage)
        # readers of a journal ignore entries of trials that were already finished
        return {
            trial_id
            for trial_id, update in updates.items()
            if self.storage.get_trial(trial_id).state is not (update.state or TrialState.RUNNING)
        }


class _Buffer(BaseJournalBackend):
    """Journal backend that keeps its log entries in memory and reads none."""

    def __init__(self) -> None:
        self.logs: list[dict[str, Any]] = []

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        return []

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self.logs += logs


class _JournalRecorder(JournalStorage):
    """Journal storage that records log entries in Optuna's own format, to append them all at once."""

    def __init__(self) -> None:
        self._buffer = _Buffer()
        super().__init__(self._buffer)
        # `create_new_trial` returns this id, which is only set when entries are read
        self._replay_result._last_created_trial_id_by_this_process = -1

    def append_to(self, storage: JournalStorage) -> None:
        """Append all entries to the journal of a storage."""
        if self._buffer.logs:
            storage._backend.append_logs(self._buffer.logs)
