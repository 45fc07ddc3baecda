"""Ctrl-C, whenever it comes: what is being written is written, and no trial is left running."""

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
from parallelmlp_search._signals import Interrupts
from parallelmlp_search.integrations.optuna import PackedObjective, RungPruner, open_storage, optimize
from parallelmlp_search.integrations.optuna.study.batch import Batch
from tests.integrations.conftest import SPACE, Table

PLACES = [None, "journal:{}/study.log", "sqlite:///{}/study.db"]


@pytest.fixture(autouse=True)
def _keyboard() -> Iterator[None]:
    """Ctrl-C comes through, also where the tests were started in the background, which ignores it."""
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


def _pressed_at(
    monkeypatch: pytest.MonkeyPatch, owner: type, name: str, moment: int, *, after: bool = False
) -> list[int]:
    """Let a method be interrupted, in its own way, when it is called for the nth time."""
    calls: list[int] = []
    method: Callable[..., Any] = getattr(owner, name)

    def interrupted(*arguments: Any, **how: Any) -> Any:
        calls.append(1)
        if len(calls) == moment and not after:
            press()
        result = method(*arguments, **how)
        if len(calls) == moment and after:
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
def test_whatever_is_being_written_no_trial_is_left_running(
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
    for moment in (1, 2, 3, 5, 8, 13, 21):
        study = _study(place, tmp_path)
        with monkeypatch.context() as patch:
            calls = _pressed_at(patch, owner, method, moment, after=after)
            with contextlib.suppress(KeyboardInterrupt):
                optimize(study, objective, n_trials=8, batch_size=4)
                interrupted -= 1
            interrupted += 1
        assert all(state.is_finished() or state is TrialState.WAITING for state in _states(study))
        assert len(calls) >= moment or moment > 3
    assert interrupted >= 3


@pytest.mark.parametrize("place", PLACES)
def test_training_is_interrupted_at_once(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str | None
) -> None:
    calls = _pressed_at(monkeypatch, Batch, "advance", 2)
    study = _study(place, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        optimize(study, *table, SPACE, n_trials=8, batch_size=8, max_epochs=9)
    assert len(calls) == 2
    states = _states(study)
    assert states.count(TrialState.PRUNED) >= 4  # what the first rung has told stays told
    assert states.count(TrialState.FAIL) >= 1
    assert len(states) == 8


class _Broken(RandomSampler):
    """Fails, or is interrupted, before its fourth trial has begun."""

    def __init__(self, what: Callable[[], None]) -> None:
        super().__init__(seed=0)
        self.what = what

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        if trial.number == 3:
            self.what()


def _fail() -> None:
    raise ZeroDivisionError("on purpose")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("what", "error"), [(_fail, ZeroDivisionError), (press, KeyboardInterrupt)])
def test_a_sampler_that_fails_leaves_no_trial_running(
    table: Table, tmp_path: Path, place: str | None, what: Callable[[], None], error: type[BaseException]
) -> None:
    study = _study(place, tmp_path, _Broken(what))
    with pytest.raises(error):
        optimize(study, *table, SPACE, n_trials=8, max_epochs=1)
    assert _states(study) == [TrialState.FAIL] * 4
    study = _study(place, tmp_path, _Broken(what))
    with pytest.raises(error):
        PackedSearchCV(None, {"dropout": [0.0, 0.2]}, study=study, n_trials=8, max_epochs=1, cv=2).fit(*table)
    assert set(_states(study)) == {TrialState.FAIL}


def test_interrupts_wait_for_where_they_are_allowed() -> None:
    reached = []
    with Interrupts() as interrupts:
        interrupts.check()
        with interrupts.allowed():
            reached.append("undisturbed")
        press()
        reached.append("written")
        with pytest.raises(KeyboardInterrupt), interrupts.allowed():
            reached.append("too late")
        with pytest.raises(KeyboardInterrupt), interrupts.allowed():
            press()
        interrupts.check()  # each of them comes through once
    assert reached == ["undisturbed", "written"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_second_interrupt_does_not_wait() -> None:
    with Interrupts():
        press()
        with pytest.raises(KeyboardInterrupt):
            press()


def _interrupted(error: type[Exception] | None) -> None:
    with Interrupts():
        press()
        if error is not None:
            raise error


def test_at_the_end_an_interrupt_comes_through_unless_there_is_an_error_already() -> None:
    with pytest.raises(KeyboardInterrupt):
        _interrupted(None)
    with pytest.raises(ZeroDivisionError):
        _interrupted(ZeroDivisionError)


def test_a_stop_of_the_system_waits_where_it_is_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        with Interrupts() as interrupts:
            signal.raise_signal(signal.SIGTERM)
            assert seen == []
            interrupts.check()
            assert seen == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)
    with Interrupts():
        assert signal.getsignal(signal.SIGTERM) is before  # what ends the program goes on to do so


def test_other_threads_have_nothing_to_hold_back(table: Table) -> None:
    study = optuna.create_study(direction="maximize")
    done: list[Any] = []

    def work() -> None:
        with Interrupts() as interrupts, interrupts.allowed():
            done.append(signal.getsignal(signal.SIGINT))
        optimize(study, *table, SPACE, n_trials=2, max_epochs=1)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [signal.default_int_handler]
    assert len(study.trials) == 2
    assert np.isfinite(study.best_value)
