"""Batches of trials are written as Optuna writes them one by one, in any storage."""

from __future__ import annotations

import logging
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

from parallelmlp_search.integrations.optuna.storage.rdb_writer import RDBWriter
from parallelmlp_search.integrations.optuna.storage.storage_writers import JournalWriter, get_writer
from parallelmlp_search.integrations.optuna.storage.trial_writer import TrialUpdate, TrialWriter
from tests.integrations.conftest import UNTESTED_VERSION, open_existing

Open = Callable[[], BaseStorage]

JOURNAL, SQLITE = "journal:{}/study.log", "sqlite:///{}/study.db"

WRITERS = {JOURNAL: JournalWriter, SQLITE: RDBWriter}

X = FloatDistribution(1e-3, 1.0, log=True)
STARTED = datetime(2024, 5, 1, 12, 30, 15, 123456)


@pytest.fixture(params=[(JOURNAL, True), (SQLITE, True), (JOURNAL, False), (SQLITE, False), (None, True)])
def opened(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Opens the same storage again and again, as several workers do; in batches, and with the fallback."""
    url, is_tested_version = request.param
    if not is_tested_version:
        monkeypatch.setattr(optuna, "__version__", UNTESTED_VERSION)
    if url is None:
        memory = optuna.storages.InMemoryStorage()
        return lambda: memory
    return lambda: open_existing(url.format(tmp_path))


def _trials() -> list[FrozenTrial]:
    """One trial of each kind."""
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
    for index, trial in enumerate(trials):
        if trial.state is not TrialState.WAITING:
            trial.datetime_start = STARTED + timedelta(seconds=index)
        if trial.state.is_finished():
            trial.datetime_complete = STARTED + timedelta(seconds=60 + index)
    return trials


def _contents(study: optuna.Study, *, timed: bool = True) -> list[str]:
    """Everything that is stored of the trials, as text, in which NaN equals NaN."""
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


def _study(opened: Open, name: str, *, n_known: int = 0) -> optuna.Study:
    study = optuna.create_study(storage=opened(), study_name=name, direction="maximize")
    study.add_trials([create_trial(value=0.0) for _ in range(n_known)])
    return study


@pytest.mark.parametrize("url", WRITERS)
def test_each_storage_has_its_writer(url: str, tmp_path: Path) -> None:
    assert type(get_writer(open_existing(url.format(tmp_path)))) is WRITERS[url]
    assert type(get_writer(optuna.storages.InMemoryStorage())) is TrialWriter


def test_a_database_without_cache_is_written_in_batches_too(tmp_path: Path) -> None:
    assert type(get_writer(optuna.storages.RDBStorage(SQLITE.format(tmp_path)))) is RDBWriter


@pytest.mark.parametrize("version", [UNTESTED_VERSION, "6.0.0.dev", "4.2.1", "3.6.2"])
@pytest.mark.parametrize("url", WRITERS)
def test_storages_of_untested_versions_are_written_one_by_one(
    url: str, version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    storage = open_existing(url.format(tmp_path))
    monkeypatch.setattr(optuna, "__version__", version)
    monkeypatch.setattr(logging.getLogger("optuna"), "propagate", True)
    optuna.logging.set_verbosity(optuna.logging.INFO)
    assert type(get_writer(storage)) is TrialWriter
    assert f"Optuna {version} is not among the tested versions" in caplog.text


def test_the_installed_version_is_tested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_existing(SQLITE.format(tmp_path))
    assert type(get_writer(storage)) is RDBWriter
    major, minor, *_ = optuna.__version__.split(".")
    monkeypatch.setattr(optuna, "__version__", f"{major}.{minor}.99")
    assert type(get_writer(storage)) is RDBWriter


@pytest.mark.parametrize("n_known", [0, 2])
def test_trials_are_added_as_optuna_adds_them(opened: Open, n_known: int) -> None:
    batch, one_by_one = (_study(opened, name, n_known=n_known) for name in ("batch", "one by one"))
    get_writer(batch._storage).create(batch._study_id, _trials())
    one_by_one.add_trials(_trials())
    assert _contents(batch)[n_known:] == _contents(one_by_one)[n_known:]
    again = optuna.load_study(study_name="batch", storage=opened())
    assert _contents(again) == _contents(batch)
    assert again.best_value == math.inf
    assert again.ask().number == n_known + 5  # the waiting trial
    assert again.ask().number == n_known + 7


def test_several_values_and_empty_batches(opened: Open) -> None:
    study = optuna.create_study(storage=opened(), study_name="two", directions=["maximize", "minimize"])
    writer = get_writer(study._storage)
    writer.create(study._study_id, [create_trial(values=[0.5, math.inf]), create_trial(values=[0.25, -1.0])])
    writer.create(study._study_id, [])
    assert writer.write({}) == set()
    assert [trial.values for trial in study.trials] == [[0.5, math.inf], [0.25, -1.0]]


def _updates() -> dict[int, TrialUpdate]:
    """By number: a trial that goes on, three that end, one that is claimed, one that is claimed and ends."""
    attributes: dict[str, Any] = {"user_attrs": {"n": 1, "old": "new"}, "system_attrs": {"rung": 0.5}}
    return {
        0: TrialUpdate(intermediate_values={1: math.nan, 3: math.inf}, **attributes),
        1: TrialUpdate(intermediate_values={1: 0.5}, state=TrialState.COMPLETE, values=[0.5], **attributes),
        2: TrialUpdate(state=TrialState.PRUNED, values=[-math.inf]),
        3: TrialUpdate(state=TrialState.FAIL, **attributes),
        4: TrialUpdate(claimed=True, params={"x": (0.5, X)}, **attributes),
        5: TrialUpdate(claimed=True, state=TrialState.FAIL, **attributes),
    }


def _started_study(opened: Open, name: str) -> tuple[optuna.Study, dict[int, TrialUpdate]]:
    study = _study(opened, name)
    for number in range(6):
        state = TrialState.RUNNING if number < 4 else TrialState.WAITING
        study.add_trial(create_trial(state=state, user_attrs={"old": number}))
    ids = {trial.number: trial._trial_id for trial in study.trials}
    return study, {ids[number]: update for number, update in _updates().items()}


def test_trials_are_updated_as_optuna_updates_them(opened: Open) -> None:
    batch, updates = _started_study(opened, "batch")
    assert get_writer(batch._storage).write(updates) == set()
    one_by_one, updates = _started_study(opened, "one by one")
    assert TrialWriter(one_by_one._storage).write(updates) == set()
    assert _contents(batch, timed=False) == _contents(one_by_one, timed=False)
    unchanged, _ = _started_study(opened, "unchanged")
    assert _contents(batch, timed=False) != _contents(unchanged, timed=False)
    for moment in (batch.trials[4].datetime_start, batch.trials[1].datetime_complete):
        assert moment is not None
        assert abs((datetime.now() - moment).total_seconds()) < 60


def test_trials_that_another_worker_has_claimed_or_finished_are_left_alone(opened: Open) -> None:
    study, updates = _started_study(opened, "s")
    other = optuna.load_study(study_name="s", storage=opened())
    assert other.ask().number == 4
    for number in (0, 1, 5):
        if number == 5:
            assert other.ask().number == 5
        other.tell(number, state=TrialState.FAIL)
    ids = {trial._trial_id: trial.number for trial in other.trials}
    lost = get_writer(study._storage).write(updates)
    assert {ids[trial_id] for trial_id in lost} == {0, 1, 4, 5}
    trials = study.get_trials()
    assert [trials[number].user_attrs for number in (0, 1, 4, 5)] == [{"old": n} for n in (0, 1, 4, 5)]
    assert [trials[number].state for number in (0, 1, 5)] == [TrialState.FAIL] * 3
    assert (trials[2].state, trials[3].state) == (TrialState.PRUNED, TrialState.FAIL)
    assert trials[4].state is TrialState.RUNNING
    assert trials[4].params == {}


def test_a_journal_batch_is_one_append(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study, updates = _started_study(lambda: open_existing(JOURNAL.format(tmp_path)), "s")
    appended: list[int] = []
    append = JournalFileBackend.append_logs
    monkeypatch.setattr(
        JournalFileBackend,
        "append_logs",
        lambda self, logs: (appended.append(len(logs)), append(self, logs))[1],
    )
    writer = get_writer(study._storage)
    writer.create(study._study_id, _trials())
    assert appended == [7]
    writer.write({trial_id: update for trial_id, update in updates.items() if not update.claimed})
    assert len(appended) == 2
    study.add_trials(_trials())
    assert len(appended) == 9


def test_a_database_batch_is_one_transaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study, updates = _started_study(lambda: open_existing(SQLITE.format(tmp_path)), "s")
    commits: list[int] = []
    commit = Session.commit
    monkeypatch.setattr(Session, "commit", lambda self: (commits.append(1), commit(self))[1])
    writer = get_writer(study._storage)
    writer.create(study._study_id, _trials())
    assert len(commits) == 1
    writer.write(updates)
    assert len(commits) == 2
    study.add_trials(_trials())
    assert len(commits) >= 2 + len(_trials())


def test_a_locked_database_is_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = _study(lambda: open_existing(SQLITE.format(tmp_path)), "s")
    writer = get_writer(study._storage)
    n_failures = [4]
    commit = Session.commit

    def fail_first(self: Session) -> None:
        if n_failures[0] > 0:
            n_failures[0] -= 1
            raise OperationalError("database is locked", None, Exception())
        commit(self)

    monkeypatch.setattr("parallelmlp_search.integrations.optuna.storage.retry.MAX_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(Session, "commit", fail_first)
    writer.create(study._study_id, _trials())
    assert len(study.trials) == len(_trials())
    n_failures[0] = 5
    with pytest.raises(optuna.exceptions.StorageInternalError):
        writer.create(study._study_id, _trials())
    monkeypatch.undo()
    assert len(study.trials) == len(_trials())
