"""A working copy knows its changes, adopts those of others, and refuses what a storage would refuse."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from parallelmlp_search.integrations.optuna.storage.trial_writer import TrialUpdate
from parallelmlp_search.integrations.optuna.storage.write_back_storage import WriteBackStorage

X = FloatDistribution(0.0, 1.0)


@pytest.fixture
def original() -> optuna.Study:
    """A study with a complete, a running and a waiting trial, which has not the first id of its storage."""
    storage = optuna.storages.InMemoryStorage()
    for _ in range(3):
        optuna.create_study(storage=storage)
    study = optuna.create_study(storage=storage, study_name="s", direction="maximize")
    study.add_trial(create_trial(value=1.0, params={"x": 0.5}, distributions={"x": X}))
    study.add_trial(create_trial(state=TrialState.RUNNING, user_attrs={"old": 1}))
    study.enqueue_trial({"x": 0.25})
    return study


def _contents(trials: list[FrozenTrial]) -> list[Any]:
    return [
        (t.number, t.state, t.values, t.params, t.intermediate_values, t.user_attrs, t.system_attrs)
        for t in trials
    ]


def test_a_copy_equals_the_original(original: optuna.Study) -> None:
    copy = WriteBackStorage(original)
    assert original._study_id == 3
    assert copy.original_ids == [trial._trial_id for trial in original.trials]
    assert copy.get_study_directions(3) == [StudyDirection.MAXIMIZE]
    assert _contents(copy.get_all_trials(3)) == _contents(original.trials)
    assert copy.get_best_trial(3).number == 0
    assert (copy.updates(), copy.new_trials(), copy.changed_study_attrs()) == ({}, [], [{}, {}])


def test_changes_are_known(original: optuna.Study) -> None:
    copy = WriteBackStorage(original)
    assert copy.set_trial_state_values(2, TrialState.RUNNING)
    copy.set_trial_param(2, "x", 0.25, X)
    copy.set_trial_intermediate_value(1, 3, 0.5)
    copy.set_trial_user_attr(1, "old", 2)
    copy.set_trial_system_attr(1, "rung", 1)
    copy.set_trial_state_values(1, TrialState.PRUNED, [0.5])
    new = copy.create_new_trial(3)
    copy.set_trial_user_attr(new, "mine", True)
    copy.set_study_user_attr(3, "name", "value")
    copy.set_study_system_attr(3, "worker:b", 1)
    assert copy.updates() == {
        1: TrialUpdate(
            intermediate_values={3: 0.5},
            user_attrs={"old": 2},
            system_attrs={"rung": 1},
            state=TrialState.PRUNED,
            values=[0.5],
        ),
        2: TrialUpdate(claimed=True, params={"x": (0.25, X)}),
    }
    assert [(trial.number, trial.user_attrs) for trial in copy.new_trials()] == [(3, {"mine": True})]
    assert copy.changed_study_attrs() == [{"name": "value"}, {"worker:b": 1}]


def test_changes_through_a_trial_are_known(original: optuna.Study) -> None:
    """Optuna's ``Trial`` changes its own copy in place, which must not hide the change."""
    copy = WriteBackStorage(original)
    study = optuna.load_study(study_name="s", storage=copy)
    trial = study.ask()
    assert trial.number == 2
    trial.suggest_float("x", 0.0, 1.0)
    trial.report(0.75, 1)
    trial.set_user_attr("mine", 1)
    update = copy.updates()[2]
    assert (update.claimed, update.params, update.intermediate_values, update.user_attrs) == (
        True,
        {"x": (0.25, X)},
        {1: 0.75},
        {"mine": 1},
    )


def test_changes_of_others_are_adopted(original: optuna.Study) -> None:
    copy = WriteBackStorage(original)
    taken = original.ask()
    taken.suggest_float("x", 0.0, 1.0)
    taken.report(0.5, 1)
    original.tell(1, 2.0)
    original.add_trial(create_trial(value=3.0, params={"x": 0.5}, distributions={"x": X}))
    original.set_user_attr("name", "theirs")
    copy.refresh()
    assert _contents(copy.get_all_trials(3)) == _contents(original.trials)
    assert copy.get_best_trial(3).number == 3
    assert copy.get_study_user_attrs(3) == {"name": "theirs"}
    assert copy.updates() == {}


def test_values_that_no_storage_can_hold_are_refused(original: optuna.Study) -> None:
    copy = WriteBackStorage(original)
    with pytest.warns(UserWarning, match="persistent storage"):
        unknown = CategoricalDistribution([object()])  # type: ignore[list-item]
    with pytest.raises(TypeError):
        copy.set_trial_param(1, "thing", 0.0, unknown)
    with pytest.raises(TypeError):
        copy.set_trial_user_attr(1, "thing", object())
    with pytest.raises(TypeError):
        copy.set_study_user_attr(3, "thing", object())
    assert (copy.updates(), copy.changed_study_attrs()) == ({}, [{}, {}])
