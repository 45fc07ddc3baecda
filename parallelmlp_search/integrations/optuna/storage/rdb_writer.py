"""Writer of batches of trials into a database, one transaction per batch.

It uses the tables of Optuna's ``RDBStorage``, which are private: :func:`get_writer` chooses it only for the
Optuna versions that it was tested with.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

from optuna.distributions import distribution_to_json
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import insert, update
from sqlalchemy.orm import Session

from parallelmlp_search.integrations.optuna.storage.retry import call_with_retry
from parallelmlp_search.integrations.optuna.storage.trial_writer import TrialUpdate, TrialWriter, difference

MAX_IDS_PER_QUERY = 500
"""SQLite accepts 999 values."""

ATTRIBUTE_TABLES = {
    models.TrialUserAttributeModel: "user_attrs",
    models.TrialSystemAttributeModel: "system_attrs",
}

EMPTY = create_trial(state=TrialState.RUNNING)

Result = TypeVar("Result")


def has_tables(storage: BaseStorage) -> bool:
    """Return True for a storage that lives in a database."""
    return isinstance(_uncached(storage), RDBStorage)


class RDBWriter(TrialWriter):
    """Writes trials into a database, one transaction per batch.

    The statement that changes a state also checks the old one, so that only one of two workers can claim or
    finish a trial. Optuna reads first and writes then, and SQLite lets two workers do that at once.

    Parameters
    ----------
    storage
        Storage for which :func:`has_tables` is True.
    """

    def __init__(self, storage: BaseStorage) -> None:
        super().__init__(storage)
        self._sessions = _uncached(storage).scoped_session

    def create(self, study_id: int, templates: Sequence[FrozenTrial]) -> None:
        """Add trials to a study, in this order."""

        def add(session: Session) -> None:
            # locks the study, because workers that add trials at the same time must get different numbers
            models.StudyModel.find_or_raise_by_id(study_id, session, for_update=True)
            rows = [
                models.TrialModel(
                    study_id=study_id,
                    state=template.state,
                    datetime_start=template.datetime_start,
                    datetime_complete=template.datetime_complete,
                )
                for template in templates
            ]
            session.add_all(rows)
            session.flush()
            first = rows[0].count_past_trials(session)
            for offset, row in enumerate(rows):
                row.number = first + offset
            ids: list[Any] = [row.trial_id for row in rows]
            contents = [difference(EMPTY, template) for template in templates]
            _insert(session, dict(zip(ids, contents, strict=True)))

        if templates:
            self._transaction(add)

    def write(self, updates: Mapping[int, TrialUpdate]) -> set[int]:
        """Update trials; returns the ids of those that another worker has claimed or finished."""
        return self._transaction(lambda session: _update(session, updates)) if updates else set()

    def _transaction(self, work: Callable[[Session], Result]) -> Result:
        def transact() -> Result:
            with _create_scoped_session(self._sessions) as session:
                return work(session)

        # a locked database or a deadlock
        return call_with_retry(transact, lambda error: isinstance(error, StorageInternalError))


def _uncached(storage: BaseStorage) -> Any:
    return storage._backend if isinstance(storage, _CachedStorage) else storage


def _update(session: Session, updates: Mapping[int, TrialUpdate]) -> set[int]:
    lost: set[int] = set()
    for trial_id, change in updates.items():
        expected = TrialState.WAITING if change.claimed else TrialState.RUNNING
        # also if the state stays the same, to lock the trial until the end of the transaction
        found = session.execute(
            update(models.TrialModel)
            .where(models.TrialModel.trial_id == trial_id, models.TrialModel.state == expected)
            .values(state=change.state or TrialState.RUNNING)
            .execution_options(synchronize_session=False)
        )
        if found.rowcount == 0:  # type: ignore[attr-defined]
            lost.add(trial_id)
    kept = {trial_id: change for trial_id, change in updates.items() if trial_id not in lost}
    now = datetime.now()
    for row in _rows(session, models.TrialModel, kept):
        change = kept[row.trial_id]
        if change.claimed:
            row.datetime_start = now
        if change.state is not None:
            row.datetime_complete = now
    new = {trial_id: replace(change) for trial_id, change in kept.items()}
    for model, kind in ATTRIBUTE_TABLES.items():
        for row in _rows(session, model, kept):
            attributes = dict(getattr(new[row.trial_id], kind))
            if row.key in attributes:
                row.value_json = json.dumps(attributes.pop(row.key))
                setattr(new[row.trial_id], kind, attributes)
    _insert(session, new)
    return lost


def _rows(session: Session, model: Any, trial_ids: Iterable[int]) -> list[Any]:
    """Return the rows of a table that belong to some trials."""
    ids = list(trial_ids)
    found: list[Any] = []
    for start in range(0, len(ids), MAX_IDS_PER_QUERY):
        part = ids[start : start + MAX_IDS_PER_QUERY]
        found += session.query(model).filter(model.trial_id.in_(part)).all()
    return found


def _insert(session: Session, additions: Mapping[int, TrialUpdate]) -> None:
    """Insert rows for trials, by trial id, with one statement per table."""
    rows: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for trial_id, added in additions.items():
        for name, (value, distribution) in added.params.items():
            row = {
                "param_name": name,
                "param_value": value,
                "distribution_json": distribution_to_json(distribution),
            }
            rows[models.TrialParamModel].append({"trial_id": trial_id, **row})
        for objective, value in enumerate(added.values or ()):
            stored, kind = models.TrialValueModel.value_to_stored_repr(value)
            row = {"objective": objective, "value": stored, "value_type": kind}
            rows[models.TrialValueModel].append({"trial_id": trial_id, **row})
        for step, value in added.intermediate_values.items():
            stored, how = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(value)
            row = {"step": step, "intermediate_value": stored, "intermediate_value_type": how}
            rows[models.TrialIntermediateValueModel].append({"trial_id": trial_id, **row})
        for model, name in ATTRIBUTE_TABLES.items():
            for key, value in getattr(added, name).items():
                rows[model].append({"trial_id": trial_id, "key": key, "value_json": json.dumps(value)})
    for model, values in rows.items():
        session.execute(insert(model), values)
