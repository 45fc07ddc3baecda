"""Trials written many at once are what they would be written one by one, whatever the storage."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import BaseStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from parallelmlp_search.integrations.optuna import open_storage
from parallelmlp_search.integrations.optuna.storage.rdb_writer import DatabaseWriter
from parallelmlp_search.integrations.optuna.storage.storage_writers import (
    Change,
    JournalWriter,
    Writer,
    writer_of,
)

Open = Callable[[], BaseStorage]

WRITERS = {"journal:{}/study.log": JournalWriter, "sqlite:///{}/study.db": DatabaseWriter}

X = FloatDistribution(1e-3, 1.0, log=True)
STARTED = datetime(2024, 5, 1, 12, 30, 15, 123456)


@pytest.fixture(params=[*WRITERS, None])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens the same storage again and again, as several workers do."""
    if request.param is None:
        memory = optuna.storages.InMemoryStorage()
        return lambda: memory

    def another() -> BaseStorage:
        storage = open_storage(request.param.format(tmp_path))
        assert storage is not None
        return storage

    return another


def _trials() -> list[FrozenTrial]:
    """One of each kind."""
    params = {"x": 0.5, "n": 3, "kind": None, "steps": 0.25}
    distributions = {
        "x": X,
        "n": IntDistribution(1, 5),
        "kind": CategoricalDistribution(["a", None, True]),
        "steps": FloatDistribution(0.0, 1.0, step=0.25),
    }
    trials = [
        create_trial(
            value=value,
            params=params,
            distributions=distributions,
            intermediate_values={1: 0.5, 3: math.inf, 9: -math.inf},
            user_attrs={"word": "ü", "nested": {"a": [1, None]}},
            system_attrs={"fixed_params": {"x": 0.5}},
        )
        for value in (0.25, math.inf, -math.inf)
    ]
    trials.append(create_trial(state=TrialState.PRUNED, intermediate_values={1: math.nan}))
    trials.append(create_trial(state=TrialState.FAIL, user_attrs={"failure": "lost"}))
    trials.append(create_trial(state=TrialState.WAITING, system_attrs={"fixed_params": {"n": 2}}))
    trials.append(create_trial(state=TrialState.RUNNING, params={"x": 0.1}, distributions={"x": X}))
    for place, trial in enumerate(trials):
        if trial.state is not TrialState.WAITING:
            trial.datetime_start = STARTED + timedelta(seconds=place)
        if trial.state.is_finished():
            trial.datetime_complete = STARTED + timedelta(seconds=60 + place)
    return trials


def _facts(study: optuna.Study, *, timed: bool = True) -> list[str]:
    """All that is known of trials; as text, in which nan equals nan."""
    return [
        str(
            [
                trial.number, trial.state, trial.values, trial.params, trial.distributions,
                sorted(trial.intermediate_values.items()), sorted(trial.user_attrs.items()),
                sorted(trial.system_attrs.items()),
                (trial.datetime_start, trial.datetime_complete) if timed else trial.datetime_complete is None,
            ]
        )
        for trial in study.get_trials(deepcopy=False)
    ]  # fmt: skip


def _study(opened: Open, name: str, *, known: int = 0) -> optuna.Study:
    study = optuna.create_study(storage=opened(), study_name=name, direction="maximize")
    study.add_trials([create_trial(value=0.0) for _ in range(known)])
    return study


@pytest.mark.parametrize("place", WRITERS)
def test_every_storage_has_the_writer_that_suits_it(place: str, tmp_path: Path) -> None:
    storage = open_storage(place.format(tmp_path))
    assert storage is not None
    assert type(writer_of(storage)) is WRITERS[place]
    assert type(writer_of(optuna.storages.InMemoryStorage())) is Writer


@pytest.mark.parametrize("known", [0, 2])
def test_trials_are_added_as_optuna_adds_them(opened: Open, known: int) -> None:
    together, one_by_one = _study(opened, "together", known=known), _study(opened, "one by one", known=known)
    writer_of(together._storage).create(together._study_id, _trials())
    one_by_one.add_trials(_trials())
    assert _facts(together)[known:] == _facts(one_by_one)[known:]
    again = optuna.load_study(study_name="together", storage=opened())
    assert _facts(again) == _facts(together)
    assert again.best_value == math.inf
    assert again.ask().number == known + 5  # the one that waited
    assert again.ask().number == known + 7


def test_several_values_and_none_at_all(opened: Open) -> None:
    study = optuna.create_study(storage=opened(), study_name="two", directions=["maximize", "minimize"])
    writer = writer_of(study._storage)
    writer.create(study._study_id, [create_trial(values=[0.5, math.inf]), create_trial(values=[0.25, -1.0])])
    writer.create(study._study_id, [])
    assert writer.write({}) == set()
    assert [trial.values for trial in study.trials] == [[0.5, math.inf], [0.25, -1.0]]


def _changes() -> dict[int, Change]:
    """By number: a trial that goes on, three that end, one that is taken, one taken that ends at once."""
    attributes: dict[str, Any] = {"user_attrs": {"n": 1, "old": "new"}, "system_attrs": {"rung": 0.5}}
    return {
        0: Change(intermediate_values={1: math.nan, 3: math.inf}, **attributes),
        1: Change(intermediate_values={1: 0.5}, state=TrialState.COMPLETE, values=[0.5], **attributes),
        2: Change(state=TrialState.PRUNED, values=[-math.inf]),
        3: Change(state=TrialState.FAIL, **attributes),
        4: Change(taken=True, params={"x": (0.5, X)}, **attributes),
        5: Change(taken=True, state=TrialState.FAIL, **attributes),
    }


def _begun(opened: Open, name: str) -> tuple[optuna.Study, dict[int, Change]]:
    study = _study(opened, name)
    for number in range(6):
        state = TrialState.RUNNING if number < 4 else TrialState.WAITING
        study.add_trial(create_trial(state=state, user_attrs={"old": number}))
    ids = {trial.number: trial._trial_id for trial in study.trials}
    return study, {ids[number]: change for number, change in _changes().items()}


def test_trials_are_changed_as_optuna_changes_them(opened: Open) -> None:
    together, changes = _begun(opened, "together")
    assert writer_of(together._storage).write(changes) == set()
    one_by_one, changes = _begun(opened, "one by one")
    assert Writer(one_by_one._storage).write(changes) == set()
    assert _facts(together, timed=False) == _facts(one_by_one, timed=False)
    plain, _ = _begun(opened, "unchanged")
    assert _facts(together, timed=False) != _facts(plain, timed=False)
    taken = together.trials[4]
    assert taken.datetime_start is not None
    assert (datetime.now() - taken.datetime_start).total_seconds() < 60
    ended = together.trials[1].datetime_complete
    assert ended is not None
    assert (datetime.now() - ended).total_seconds() < 60


def test_what_another_has_taken_or_finished_is_left_alone(opened: Open) -> None:
    study, changes = _begun(opened, "s")
    other = optuna.load_study(study_name="s", storage=opened())
    assert other.ask().number == 4
    for number in (0, 1, 5):
        if number == 5:
            assert other.ask().number == 5
        other.tell(number, state=TrialState.FAIL)
    ids = {trial._trial_id: trial.number for trial in other.trials}
    lost = writer_of(study._storage).write(changes)
    assert {ids[trial_id] for trial_id in lost} == {0, 1, 4, 5}
    trials = study.get_trials()
    assert [trials[number].user_attrs for number in (0, 1, 4, 5)] == [{"old": n} for n in (0, 1, 4, 5)]
    assert [trials[number].state for number in (0, 1, 5)] == [TrialState.FAIL] * 3
    assert (trials[2].state, trials[3].state) == (TrialState.PRUNED, TrialState.FAIL)
    assert trials[4].state is TrialState.RUNNING
    assert trials[4].params == {}


def test_a_batch_is_one_append(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study, changes = _begun(lambda: open_storage(f"journal:{tmp_path}/s.log"), "s")  # type: ignore[arg-type, return-value]
    appended: list[int] = []
    append = JournalFileBackend.append_logs
    monkeypatch.setattr(
        JournalFileBackend,
        "append_logs",
        lambda self, logs: (appended.append(len(logs)), append(self, logs))[1],
    )
    writer = writer_of(study._storage)
    writer.create(study._study_id, _trials())
    assert appended == [7]
    writer.write({trial_id: change for trial_id, change in changes.items() if not change.taken})
    assert len(appended) == 2
    study.add_trials(_trials())
    assert len(appended) == 9


def test_a_batch_is_one_transaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study, changes = _begun(lambda: open_storage(f"sqlite:///{tmp_path}/s.db"), "s")  # type: ignore[arg-type, return-value]
    commits: list[int] = []
    commit = Session.commit
    monkeypatch.setattr(Session, "commit", lambda self: (commits.append(1), commit(self))[1])
    writer = writer_of(study._storage)
    writer.create(study._study_id, _trials())
    assert len(commits) == 1
    writer.write(changes)
    assert len(commits) == 2
    study.add_trials(_trials())
    assert len(commits) >= 2 + len(_trials())


def test_a_locked_database_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = _study(lambda: open_storage(f"sqlite:///{tmp_path}/s.db"), "s")  # type: ignore[arg-type, return-value]
    writer = writer_of(study._storage)
    refusals = [4]
    commit = Session.commit

    def reluctant(self: Session) -> None:
        if refusals[0] > 0:
            refusals[0] -= 1
            raise OperationalError("database is locked", None, Exception())
        commit(self)

    monkeypatch.setattr("parallelmlp_search.integrations.optuna.storage.retry.PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(Session, "commit", reluctant)
    writer.create(study._study_id, _trials())
    assert len(study.trials) == len(_trials())
    refusals[0] = 5
    with pytest.raises(optuna.exceptions.StorageInternalError):
        writer.create(study._study_id, _trials())
    monkeypatch.undo()
    assert len(study.trials) == len(_trials())


def test_a_database_of_another_kind_is_written_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a future Optuna keeps its tables elsewhere."""
    storage = open_storage(f"sqlite:///{tmp_path}/s.db")
    assert storage is not None
    monkeypatch.delattr("parallelmlp_search.integrations.optuna.storage.rdb_writer.DatabaseWriter")
    assert type(writer_of(storage)) is Writer
    study = optuna.create_study(storage=storage)
    writer_of(storage).create(study._study_id, _trials())
    assert len(study.trials) == len(_trials())
