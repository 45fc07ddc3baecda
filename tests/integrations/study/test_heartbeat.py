"""Heartbeats: trials of dead workers are retried, once each, and not those of living ones."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.samplers import RandomSampler
from optuna.trial import TrialState, create_trial

from parallelmlp_search.integrations.optuna import (
    PackedObjective,
    open_storage,
    open_study,
    optimize,
    space_to_distributions,
)
from parallelmlp_search.integrations.optuna.study.batch import Batch
from parallelmlp_search.integrations.optuna.study.heartbeat import FIRST_TRY_ATTR, RETRY_OF_ATTR, Heartbeat
from parallelmlp_search.space import SearchSpace
from tests.integrations.conftest import SPACE, Table


def _ask(study: optuna.Study, space: SearchSpace = SPACE) -> optuna.Trial:
    return study.ask(space_to_distributions(space))


def test_only_trials_of_dead_workers_are_retried_and_only_once(tmp_path: Path) -> None:
    storage = f"journal:{tmp_path}/study.log"
    maker = optuna.create_study(storage=open_storage(storage), study_name="s")
    lost, unnamed = _ask(maker), _ask(maker)
    with Heartbeat(maker, 0.05) as living:
        with Heartbeat(open_study(storage), 0.05) as leaver:
            for name, value in leaver.owner_attrs.items():
                lost.set_user_attr(name, value)
            time.sleep(0.5)
            assert living.retry_lost_trials() == []
            assert living.n_other_workers() == 1
        assert living.n_other_workers() == 0
        watcher = Heartbeat(open_study(storage), 0.05, all_workers_beat=True)
        assert living.retry_lost_trials() == [lost.number]
        assert watcher.retry_lost_trials() == []  # the lost trial is told, and the other was seen only now
        time.sleep(0.5)
        assert living.retry_lost_trials() == []  # may belong to a worker without heartbeat
        assert watcher.retry_lost_trials() == [unnamed.number]
    again = [trial for trial in maker.trials if trial.state is TrialState.WAITING]
    assert [trial.user_attrs[RETRY_OF_ATTR] for trial in again] == [lost.number, unnamed.number]
    assert again[0].system_attrs["fixed_params"] == lost.params


def test_attributes_of_earlier_versions_are_read(tmp_path: Path) -> None:
    study = optuna.create_study(storage=open_storage(f"journal:{tmp_path}/study.log"), study_name="s")
    lost = {"worker": "host-1-dead", "seed": 7, "retry_of": 0, "first_try": 0, "retries": 1}
    study.add_trial(create_trial(state=TrialState.FAIL))
    study.add_trial(create_trial(state=TrialState.RUNNING, user_attrs=lost))
    study.add_trial(create_trial(state=TrialState.RUNNING, user_attrs={"worker": "host-2-alive"}))
    study._storage.set_study_system_attr(study._study_id, "worker:host-1-dead", -1)
    study._storage.set_study_system_attr(study._study_id, "worker:host-2-alive", 3)
    with Heartbeat(study, 10.0) as survivor:
        assert survivor.n_other_workers() == 1
        assert survivor.retry_lost_trials() == [1]
    assert [trial.state for trial in study.trials[1:]] == [
        TrialState.FAIL,
        TrialState.RUNNING,
        TrialState.WAITING,
    ]
    assert study.trials[3].user_attrs == {"retry_of": 1, "first_try": 0, "retries": 2, "seed": 7}


def _left_running(study: optuna.Study) -> optuna.Trial:
    """A running trial of a worker that has stopped."""
    with Heartbeat(study, 10.0) as victim:
        trial = _ask(study)
        for name, value in {**victim.owner_attrs, "seed": 7}.items():
            trial.set_user_attr(name, value)
    return trial


def test_a_worker_that_dies_after_enqueuing_a_retry_loses_nothing(
    tmp_path: Path, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has enqueued the retry and not ended the lost trial."""
    storage = f"journal:{tmp_path}/study.log"
    study = optuna.create_study(storage=open_storage(storage), study_name="s", direction="maximize")
    lost = _left_running(study)
    with Heartbeat(study, 10.0) as survivor, monkeypatch.context() as patch:
        patch.setattr(Heartbeat, "_end_trial", lambda *_: False)
        survivor.retry_lost_trials()
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING, TrialState.WAITING]
    optimize(study, *table, SPACE, n_trials=1, max_epochs=1)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.COMPLETE]
    assert study.trials[1].user_attrs["seed"] == 7  # the same network
    assert study.trials[1].params == lost.params


def test_an_enqueued_trial_is_retried_with_its_parameters(tmp_path: Path) -> None:
    study = optuna.create_study(storage=f"sqlite:///{tmp_path}/study.db", study_name="s")
    study.enqueue_trial({"dropout": 0.2})
    with Heartbeat(study, 10.0) as victim:
        study.ask().set_user_attr("worker", victim.worker)
    with Heartbeat(study, 10.0) as survivor:
        assert survivor.retry_lost_trials() == [0]
    assert _ask(study).params["dropout"] == 0.2


def test_the_first_of_two_retries_is_trained(tmp_path: Path, table: Table) -> None:
    storage = f"sqlite:///{tmp_path}/study.db"
    study = optuna.create_study(storage=storage, study_name="s", direction="maximize")
    lost = _left_running(study)
    with Heartbeat(study, 10.0) as one, Heartbeat(study, 10.0) as other:
        # both read before either writes
        one._enqueue_retry(study.trials[0])
        other._enqueue_retry(study.trials[0])
        assert one._end_trial(lost.number)
        assert not other._end_trial(lost.number)
    optimize(study, *table, SPACE, n_trials=2, max_epochs=1)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.COMPLETE, TrialState.FAIL]
    assert study.trials[2].intermediate_values == {}
    assert "repeats the same" in study.trials[2].user_attrs["failure"]


def test_a_trial_that_was_finished_after_all_is_not_retried(tmp_path: Path, table: Table) -> None:
    study = optuna.create_study(
        storage=open_storage(f"journal:{tmp_path}/study.log"), study_name="s", direction="maximize"
    )
    alive = _left_running(study)
    with Heartbeat(study, 10.0) as survivor:
        survivor._enqueue_retry(study.trials[0])
        study.tell(alive, 0.5)
        assert not survivor._end_trial(alive.number)
    optimize(study, *table, SPACE, n_trials=1, max_epochs=1)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE, TrialState.FAIL]
    assert study.trials[0].value == 0.5


def test_a_trial_that_kills_its_workers_is_not_retried_forever(tmp_path: Path) -> None:
    storage = f"journal:{tmp_path}/study.log"
    study = optuna.create_study(storage=open_storage(storage), study_name="s")
    for _ in range(5):
        with Heartbeat(study, 10.0) as victim:
            trial = _ask(study)
            for name, value in victim.owner_attrs.items():
                trial.set_user_attr(name, value)
        with Heartbeat(study, 10.0) as survivor:
            survivor.retry_lost_trials()
    tries = Counter(trial.user_attrs.get(FIRST_TRY_ATTR, trial.number) for trial in study.trials)
    assert tries[0] == 3


@pytest.mark.parametrize("point", ["while it trains", "while it tells"])
@pytest.mark.parametrize("place", ["journal:{}/study.log", "sqlite:///{}/study.db"])
def test_a_worker_that_was_taken_for_dead_drops_its_lost_trials(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, point: str
) -> None:
    """Another worker has finished one of its trials; it goes on with the others and tells none twice."""
    study = optuna.create_study(
        storage=open_storage(place.format(tmp_path)), direction="maximize", sampler=RandomSampler(seed=0)
    )
    other = open_study(place.format(tmp_path))
    taken: list[int] = []

    def take_over(*_: Any) -> float:
        if not taken:
            taken.append(other.get_trials(states=(TrialState.RUNNING,))[-1].number)
            other.tell(taken[0], state=TrialState.FAIL)
        return 0.0

    train = Batch.train
    if point == "while it trains":
        monkeypatch.setattr(
            Batch, "train", lambda *args, **options: (take_over(), train(*args, **options))[1]
        )
    told: list[int] = []
    optimize(
        study,
        PackedObjective(*table, SPACE, max_epochs=3, constraints={"none": take_over}),
        n_trials=8,
        batch_size=8,
        callbacks=[lambda study, trial: told.append(trial.number)],
    )
    assert [trial.state for trial in study.trials] == [
        TrialState.FAIL if number == taken[0] else TrialState.COMPLETE for number in range(8)
    ]
    assert study.trials[taken[0]].value is None
    assert sorted(told) == [number for number in range(8) if number != taken[0]]
