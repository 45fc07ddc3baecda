"""Many trials written into a database at once, with the tables of Optuna's own storage."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

from optuna.distributions import distribution_to_json
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import RDBStorage, _create_scoped_session
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import insert, update
from sqlalchemy.orm import Session

from parallelmlp_search.integrations.optuna.storage.retry import insist
from parallelmlp_search.integrations.optuna.storage.storage_writers import Change, Writer

__all__ = ["DatabaseWriter"]

AT_ONCE = 500
"""Ids in one question; SQLite takes 999 values."""

ATTRIBUTES = {
    models.TrialUserAttributeModel: "user_attrs",
    models.TrialSystemAttributeModel: "system_attrs",
}
"""Tables of attributes, and what they are called elsewhere."""

Result = TypeVar("Result")


class DatabaseWriter(Writer):
    """Writes trials into a database, a batch with one transaction.

    A state is changed where it is still what it was, in the same statement, so that of two workers only one
    can take a trial, or end it; Optuna looks first and writes then, which SQLite lets two do at once.

    Parameters
    ----------
    storage
        A storage of Optuna that lives in a database.

    Raises
    ------
    AttributeError
        If it does not.
    """

    def __init__(self, storage: BaseStorage) -> None:
        super().__init__(storage)
        backend = storage._backend if isinstance(storage, _CachedStorage) else storage
        if not isinstance(backend, RDBStorage):
            raise AttributeError(f"{storage!r} has no tables")
        self._sessions = backend.scoped_session

    def create(self, study_id: int, templates: Sequence[FrozenTrial]) -> None:
        """Add trials to a study, in this order."""

        def add(session: Session) -> None:
            # the numbers of two workers that add trials at the same time must differ
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
            for place, row in enumerate(rows):
                row.number = first + place
            ids: list[Any] = [row.trial_id for row in rows]
            _insert(session, {place: _all_of(one) for place, one in zip(ids, templates, strict=True)})

        if templates:
            self._transaction(add)

    def write(self, changes: Mapping[int, Change]) -> set[int]:
        """Change trials, by their ids in the storage; the ids of those that are not this worker's."""
        return self._transaction(lambda session: _change(session, changes)) if changes else set()

    def _transaction(self, work: Callable[[Session], Result]) -> Result:
        def transact() -> Result:
            with _create_scoped_session(self._sessions) as session:
                return work(session)

        # a database that is locked, or a deadlock
        return insist(transact, lambda error: isinstance(error, StorageInternalError))


def _change(session: Session, changes: Mapping[int, Change]) -> set[int]:
    lost: set[int] = set()
    for trial_id, change in changes.items():
        before = TrialState.WAITING if change.taken else TrialState.RUNNING
        # also where nothing changes, so that nobody else changes it until this transaction is over
        found = session.execute(
            update(models.TrialModel)
            .where(models.TrialModel.trial_id == trial_id, models.TrialModel.state == before)
            .values(state=change.state or TrialState.RUNNING)
            .execution_options(synchronize_session=False)
        )
        if found.rowcount == 0:  # type: ignore[attr-defined]
            lost.add(trial_id)
    kept = {trial_id: change for trial_id, change in changes.items() if trial_id not in lost}
    now = datetime.now()
    for row in _rows(session, models.TrialModel, kept):
        change = kept[row.trial_id]
        if change.taken:
            row.datetime_start = now
        if change.state is not None:
            row.datetime_complete = now
    new = {trial_id: replace(change) for trial_id, change in kept.items()}
    for model, kind in ATTRIBUTES.items():
        for row in _rows(session, model, kept):
            attributes = dict(getattr(new[row.trial_id], kind))
            if row.key in attributes:
                row.value_json = json.dumps(attributes.pop(row.key))
                setattr(new[row.trial_id], kind, attributes)
    _insert(session, new)
    return lost


def _rows(session: Session, model: Any, trial_ids: Iterable[int]) -> list[Any]:
    """Rows of a table that belong to some trials."""
    wanted = list(trial_ids)
    found: list[Any] = []
    for start in range(0, len(wanted), AT_ONCE):
        part = wanted[start : start + AT_ONCE]
        found += session.query(model).filter(model.trial_id.in_(part)).all()
    return found


def _all_of(trial: FrozenTrial) -> Change:
    """What a trial holds, as what is added to an empty one."""
    params = {
        name: (trial.distributions[name].to_internal_repr(value), trial.distributions[name])
        for name, value in trial.params.items()
    }
    return Change(
        params=params,
        intermediate_values=trial.intermediate_values,
        user_attrs=trial.user_attrs,
        system_attrs=trial.system_attrs,
        values=trial.values,
    )


def _insert(session: Session, additions: Mapping[int, Change]) -> None:
    """Add what belongs to trials, each kind in one statement."""
    rows: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for trial_id, change in additions.items():
        for name, (value, distribution) in change.params.items():
            rows[models.TrialParamModel].append(
                {
                    "trial_id": trial_id,
                    "param_name": name,
                    "param_value": value,
                    "distribution_json": distribution_to_json(distribution),
                }
            )
        for objective, value in enumerate(change.values or ()):
            stored, how = models.TrialValueModel.value_to_stored_repr(value)
            rows[models.TrialValueModel].append(
                {"trial_id": trial_id, "objective": objective, "value": stored, "value_type": how}
            )
        for step, value in change.intermediate_values.items():
            stored, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(value)
            rows[models.TrialIntermediateValueModel].append(
                {
                    "trial_id": trial_id,
                    "step": step,
                    "intermediate_value": stored,
                    "intermediate_value_type": kind,
                }
            )
        for model, name in ATTRIBUTES.items():
            for key, value in getattr(change, name).items():
                rows[model].append({"trial_id": trial_id, "key": key, "value_json": json.dumps(value)})
    for model, values in rows.items():
        session.execute(insert(model), values)
