"""Ctrl-C at any point leaves no trial running, and pending writes are finished."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.samplers import RandomSampler
from optuna.storages import InMemoryStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.orm import Session

from parallelmlp_search import PackedSearchCV
from parallelmlp_search.integrations.optuna import PackedObjective, RungPruner, open_storage, optimize
from parallelmlp_search.integrations.optuna.study.batch import Batch
from tests.integrations.conftest import SPACE, Table

PLACES = [None, "journal:{}/study.log", "sqlite:///{}/study.db"]


@pytest.fixture(autouse=True)
def _default_handler() -> Iterator[None]:
    """Handle Ctrl-C even if the tests run in the background, where it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press() -> None:
    signal.raise_signal(signal.SIGINT)


def _study(place: str | None, tmp_path: Path, sampler: Any = None) -> Study:
    study = optuna.create_study(
        storage=open_storage(place and place.format(tmp_path)),
        direction="maximize",
        sampler=sampler or RandomSampler(seed=0),
        pruner=RungPruner(3),
    )
    study.enqueue_trial({"dropout": 0.2})
    return study


def _states(study: Study) -> list[TrialState]:
    return [trial.state for trial in study.get_trials(deepcopy=False)]


def _interrupt_at(
    monkeypatch: pytest.MonkeyPatch, owner: type, name: str, n: int, *, after: bool = False
) -> list[int]:
    """Interrupt a method at its n-th call, before or after its work."""
    calls: list[int] = []
    method: Callable[..., Any] = getattr(owner, name)

    def interrupted(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == n and not after:
            press()
        result = method(*arguments, **options)
        if len(calls) == n and after:
            press()
        return result

    monkeypatch.setattr(owner, name, interrupted)
    return calls


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("place", "owner", "method"),
    [
        (None, InMemoryStorage, "create_new_trial"),
        (None, InMemoryStorage, "set_trial_param"),
        (None, InMemoryStorage, "set_trial_state_values"),
        (PLACES[1], JournalFileBackend, "append_logs"),
        (PLACES[2], Session, "commit"),
    ],
    ids=["making a trial", "suggesting", "telling", "appending to a journal", "committing"],
)
def test_an_interrupted_write_leaves_no_trial_running(
    table: Table,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str | None,
    owner: type,
    method: str,
    after: bool,
) -> None:
    objective = PackedObjective(*table, SPACE, max_epochs=3)
    interrupted = 0
    for n in (1, 2, 3, 5, 8, 13, 21):
        study = _study(place, tmp_path)
        with monkeypatch.context() as patch:
            calls = _interrupt_at(patch, owner, method, n, after=after)
            with contextlib.suppress(KeyboardInterrupt):
                optimize(study, objective, n_trials=8, batch_size=4)
                interrupted -= 1
            interrupted += 1
        assert all(state.is_finished() or state is TrialState.WAITING for state in _states(study))
        assert len(calls) >= n or n > 3
    assert interrupted >= 3


@pytest.mark.parametrize("place", PLACES)
def test_training_is_interrupted_at_once(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str | None
) -> None:
    calls = _interrupt_at(monkeypatch, Batch, "train", 2)
    study = _study(place, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        optimize(study, *table, SPACE, n_trials=8, batch_size=8, max_epochs=9)
    assert len(calls) == 2
    states = _states(study)
    assert states.count(TrialState.PRUNED) >= 4  # told after the first rung
    assert states.count(TrialState.FAIL) >= 1
    assert len(states) == 8


class _FailingSampler(RandomSampler):
    """Fails or is interrupted before its fourth trial begins."""

    def __init__(self, fail: Callable[[], None]) -> None:
        super().__init__(seed=0)
        self.fail = fail

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        if trial.number == 3:
            self.fail()


def _fail() -> None:
    raise ZeroDivisionError("on purpose")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("fail", "error"), [(_fail, ZeroDivisionError), (press, KeyboardInterrupt)])
def test_a_sampler_that_fails_leaves_no_trial_running(
    table: Table, tmp_path: Path, place: str | None, fail: Callable[[], None], error: type[BaseException]
) -> None:
    study = _study(place, tmp_path, _FailingSampler(fail))
    with pytest.raises(error):
        optimize(study, *table, SPACE, n_trials=8, max_epochs=1)
    assert _states(study) == [TrialState.FAIL] * 4
    study = _study(place, tmp_path, _FailingSampler(fail))
    with pytest.raises(error):
        PackedSearchCV(None, {"dropout": [0.0, 0.2]}, study=study, n_trials=8, max_epochs=1, cv=2).fit(*table)
    assert set(_states(study)) == {TrialState.FAIL}


def test_studies_are_optimized_in_other_threads(table: Table) -> None:
    study = optuna.create_study(direction="maximize")
    thread = threading.Thread(
        target=optimize, args=(study, *table, SPACE), kwargs={"n_trials": 2, "max_epochs": 1}
    )
    thread.start()
    thread.join()
    assert len(study.trials) == 2
    assert np.isfinite(study.best_value)
