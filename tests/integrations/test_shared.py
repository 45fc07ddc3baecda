"""Several workers on one study: nothing lost, nothing twice, and one question for all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.trial import FrozenTrial, TrialState
from typer.testing import CliRunner

from parallelmlp_search.cli import app
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.integrations.optuna import (
    PackedObjective,
    RungPruner,
    SharedStudy,
    open_storage,
    open_study,
    optimize,
    space_to_distributions,
)
from parallelmlp_search.integrations.optuna.attendance import FIRST, RETRY_OF, Attendance
from parallelmlp_search.search import Problem, RunDirectory, SearchSettings, screen
from parallelmlp_search.space import SearchSpace
from tests.integrations.conftest import SPACE, Table

WORKER = """
import sys
import numpy as np
import pandas as pd
from parallelmlp_search.integrations.optuna import SharedStudy
from parallelmlp_search.search import Problem, SearchSettings, screen
from parallelmlp_search.space import SearchSpace

folder, storage, n_trials, epochs = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
frame = pd.read_csv(f"{folder}/table.csv")
target = frame.pop("y").to_numpy()
settings = SearchSettings(
    search_space=SearchSpace.load(f"{folder}/space.json"), n_trials=n_trials, max_epochs=epochs
)
problem = Problem(frame, target, "binary")
screen(problem, settings, SharedStudy(storage, "together", heartbeat=0.5, n_jobs=1), n_jobs=1)
"""


@pytest.fixture
def folder(table: Table, tmp_path: Path) -> Path:
    pd.DataFrame(table[0], columns=list("abcde")).assign(y=table[1]).to_csv(
        tmp_path / "table.csv", index=False
    )
    SPACE.save(tmp_path / "space.json")
    return tmp_path


def _start(folder: Path, storage: str, n_trials: int, epochs: int) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", WORKER, str(folder), storage, str(n_trials), str(epochs)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _running(storage: str) -> list[FrozenTrial]:
    try:
        study = open_study(storage, "together")
    except InvalidParameterError:
        return []
    return study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))


def _kill_while_training(workers: list[subprocess.Popen[str]], storage: str) -> None:
    """Kill the workers as soon as each of them has trials in hand."""
    left = {worker.pid: worker for worker in workers}
    deadline = time.monotonic() + 120
    while left and time.monotonic() < deadline:
        holders = {
            int(t.user_attrs["worker"].split("-")[-2])
            for t in _running(storage)
            if len(t.params) == len(SPACE.names) and "worker" in t.user_attrs
        }
        time.sleep(0.2)
        for pid in holders & set(left):
            left.pop(pid).send_signal(signal.SIGKILL)
    assert not left, "a worker never got a trial"
    for worker in workers:
        worker.communicate()
        assert worker.returncode == -signal.SIGKILL


def _check_all_there(storage: str, n_trials: int) -> list[FrozenTrial]:
    """Every wanted trial is finished once, and what was left behind was finished by someone else."""
    trials = open_study(storage, "together").get_trials(deepcopy=False)
    assert all(trial.state.is_finished() for trial in trials)
    own = [trial for trial in trials if RETRY_OF not in trial.user_attrs][:n_trials]
    assert len(own) == n_trials
    done = (TrialState.COMPLETE, TrialState.PRUNED)
    finished = Counter(trial.user_attrs.get(FIRST, trial.number) for trial in trials if trial.state in done)
    assert finished == Counter(trial.number for trial in own)
    for trial in trials:
        if RETRY_OF in trial.user_attrs:
            lost = trials[trial.user_attrs[RETRY_OF]]
            assert lost.state is TrialState.FAIL
            assert lost.params.items() <= trial.params.items()  # it may have been asking still
            assert lost.user_attrs["worker"] != trial.user_attrs["worker"]
    return trials


@pytest.mark.parametrize("place", ["journal:{}/study.log", "sqlite:///{}/study.db"])
def test_a_killed_worker_loses_nothing(folder: Path, place: str) -> None:
    storage = place.format(folder)
    workers = [_start(folder, storage, 24, 27) for _ in range(2)]
    _kill_while_training(workers[:1], storage)
    out, _ = workers[1].communicate(timeout=120)
    assert workers[1].returncode == 0, out
    trials = _check_all_there(storage, 24)
    assert any(RETRY_OF in trial.user_attrs for trial in trials)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["journal:{}/study.log", "sqlite:///{}/study.db"])
def test_eight_workers_of_which_two_are_killed(folder: Path, place: str) -> None:
    storage = place.format(folder)
    workers = [_start(folder, storage, 400, 81) for _ in range(8)]
    _kill_while_training(workers[2:4], storage)
    for worker in workers[:2] + workers[4:]:
        out, _ = worker.communicate(timeout=600)
        assert worker.returncode == 0, out
    trials = _check_all_there(storage, 400)
    assert len({trial.user_attrs["worker"] for trial in trials}) == 8


# ---------------------------------------------------------------------- the command line


def _search(folder: Path, output: str, *arguments: str, code: int = 0) -> str:
    how = ["--target", "y", "--space", str(folder / "space.json"), "--max-epochs", "4", "--folds", "2"]
    data = ["search", str(folder / "table.csv"), *how, "--output", str(folder / output)]
    result = CliRunner().invoke(app, [*data, *arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


def test_two_runs_share_their_trials(folder: Path) -> None:
    together = ["--storage", f"journal:{folder}/study.log", "--study", "s", "--trials", "20", "--quiet"]
    _search(folder, "first", *together)
    assert len(open_study(f"journal:{folder}/study.log").trials) == 20
    _search(folder, "second", *together)
    assert len(open_study(f"journal:{folder}/study.log").trials) == 20
    first, second = (RunDirectory.open(folder / name) for name in ("first", "second"))
    columns = ["trial", "rung", "error", "config_learning_rate", "state"]
    pd.testing.assert_frame_equal(first.trials()[columns], second.trials()[columns])
    assert first.result()["honest"] == second.result()["honest"]
    assert second.result()["member_steps"] < first.result()["member_steps"]


def test_screening_alone_makes_no_run(folder: Path) -> None:
    together = [
        "--storage",
        f"sqlite:///{folder}/study.db",
        "--study",
        "s",
        "--trials",
        "12",
        "--screen-only",
    ]
    found = json.loads(_search(folder, "none", *together, "--json", "--quiet"))
    assert found == {"study": "s", "storage": f"sqlite:///{folder}/study.db", "trials": 12}
    assert not (folder / "none").exists()
    assert len(open_study(found["storage"]).trials) == 12


def test_mistakes_of_sharing(folder: Path) -> None:
    storage = f"sqlite:///{folder}/study.db"
    together = ["--storage", storage, "--study", "s", "--trials", "6", "--quiet"]
    _search(folder, "run", *together)
    assert "another metric: 'roc_auc', but got 'log_loss'" in _search(
        folder, "no", *together, "--metric", "log_loss", code=2
    )
    assert "another seed: 0, but got 3" in _search(folder, "no", *together, "--seed", "3", code=2)
    assert "another search space" in _search(folder, "no", *together, "--space", "small", code=2)
    assert "--storage needs --study" in _search(folder, "no", "--storage", storage, code=2)
    assert "give --storage and --study" in _search(folder, "no", "--screen-only", code=2)
    assert "cannot be shared" in _search(folder, "no", *together, "--sampler", "grid", code=2)
    optuna.create_study(storage=storage, study_name="other", direction="maximize").add_trial(
        optuna.trial.create_trial(value=1.0)
    )
    assert "was not made by a shared search" in _search(
        folder, "no", "--storage", storage, "--study", "other", code=2
    )
    assert not (folder / "no").exists()


@pytest.mark.parametrize("sampler", ["random", "qmc", "tpe", "cmaes"])
def test_every_sampler_can_be_shared(table: Table, sampler: str) -> None:
    frame = pd.DataFrame(table[0], columns=list("abcde"))
    problem = Problem(frame, table[1], "binary")
    settings = SearchSettings(search_space=SPACE, n_trials=20, max_epochs=3, sampler=sampler)
    shared = SharedStudy("sqlite://", "memory")
    assert screen(problem, settings, shared, n_jobs=1) == 20


def test_workers_agree_once_and_on_a_sampler_that_can_be_shared(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    prints: list[str] = []
    fingerprint = Problem.fingerprint
    monkeypatch.setattr(
        Problem, "fingerprint", lambda problem: prints.append("again") or fingerprint(problem)
    )
    problem = Problem(pd.DataFrame(table[0], columns=list("abcde")), table[1], "binary")
    settings = SearchSettings(search_space=SPACE, n_trials=4, max_epochs=1)
    assert screen(problem, settings, SharedStudy("sqlite://", "memory"), n_jobs=1) == 4
    assert len(prints) == 1
    with pytest.raises(InvalidParameterError, match="'grid' cannot be shared"):
        screen(problem, replace(settings, sampler="grid"), SharedStudy("sqlite://", "memory"), n_jobs=1)
    assert len(prints) == 1


# ---------------------------------------------------------------------- parts


def _ask(study: optuna.Study, space: SearchSpace = SPACE) -> optuna.Trial:
    return study.ask(space_to_distributions(space))


def test_only_the_dead_are_swept_and_only_once(tmp_path: Path) -> None:
    storage = f"journal:{tmp_path}/study.log"
    maker = optuna.create_study(storage=open_storage(storage), study_name="s")
    lost, unsigned = _ask(maker), _ask(maker)
    with Attendance(maker, 0.05) as living:
        with Attendance(open_study(storage), 0.05) as leaver:
            for name, value in leaver.marks.items():
                lost.set_user_attr(name, value)
            time.sleep(0.5)
            assert living.sweep() == []
            assert living.others() == 1
        assert living.others() == 0
        watcher = Attendance(open_study(storage), 0.05, alone_with_ours=True)
        assert living.sweep() == [lost.number]
        assert watcher.sweep() == []  # lost is told already, and the other has only just been seen
        time.sleep(0.5)
        assert living.sweep() == []  # may be the trial of a plain loop
        assert watcher.sweep() == [unsigned.number]
    again = [trial for trial in maker.trials if trial.state is TrialState.WAITING]
    assert [trial.user_attrs[RETRY_OF] for trial in again] == [lost.number, unsigned.number]
    assert again[0].system_attrs["fixed_params"] == lost.params


def test_a_trial_that_kills_its_workers_is_given_up(tmp_path: Path) -> None:
    storage = f"journal:{tmp_path}/study.log"
    study = optuna.create_study(storage=open_storage(storage), study_name="s")
    for _ in range(5):
        with Attendance(study, 10.0) as victim:
            trial = _ask(study)
            for name, value in victim.marks.items():
                trial.set_user_attr(name, value)
        with Attendance(study, 10.0) as survivor:
            survivor.sweep()
    lines = Counter(trial.user_attrs.get(FIRST, trial.number) for trial in study.trials)
    assert lines[0] == 3


def test_a_worker_that_was_taken_for_dead_lets_go(table: Table, tmp_path: Path) -> None:
    """Its trials were finished by another; it goes on with the others and tells nothing twice."""
    study = optuna.create_study(storage=f"sqlite:///{tmp_path}/s.db", direction="maximize")
    objective = PackedObjective(*table, SPACE, max_epochs=3)

    def take_over(study: optuna.Study, trial: FrozenTrial) -> None:
        others = [t for t in study.get_trials(deepcopy=False) if t.state is TrialState.RUNNING]
        if others and not taken:
            taken.append(others[-1].number)
            study.tell(others[-1].number, state=TrialState.FAIL)

    taken: list[int] = []
    optimize(study, objective, n_trials=8, batch_size=8, callbacks=[take_over])
    states = Counter(trial.state for trial in study.trials)
    assert states == {TrialState.COMPLETE: 7, TrialState.FAIL: 1}


@pytest.mark.parametrize("place", ["sqlite:///{}/study.db", "journal:{}/study.log"])
def test_a_storage_changes_no_result(table: Table, tmp_path: Path, place: str) -> None:
    def facts(storage: Any) -> list[tuple[Any, ...]]:
        study = optuna.create_study(
            storage=storage,
            direction="maximize",
            sampler=optuna.samplers.TPESampler(seed=1, n_startup_trials=6, multivariate=True),
            pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3),
        )
        study.enqueue_trial({"widths": "12", "learning_rate": 0.01, "dropout": 0.0, "batch_size": 32})
        optimize(study, *table, SPACE, n_trials=20, batch_size=6, max_epochs=9)
        return [(t.number, t.params, t.intermediate_values, t.value, t.state) for t in study.trials]

    assert facts(None) == facts(open_storage(place.format(tmp_path)))


def test_rungs_promote_one_in_three_of_all_that_they_have_scored() -> None:
    rng = np.random.default_rng(0)
    study = optuna.create_study(direction="maximize", pruner=RungPruner(3))
    scores = rng.random(30)
    going_on = []
    for start in (0, 9, 18):
        batch = [study.ask() for _ in range(9)]
        for trial in batch:
            trial.report(scores[trial.number], 1)
        going_on += [trial.number for trial in batch if not trial.should_prune()]
        seen = np.sort(scores[: start + 9])[::-1]
        assert {n for n in going_on if n >= start} == {
            n for n in range(start, start + 9) if scores[n] >= seen[len(seen) // 3 - 1]
        }
    last = study.ask()
    assert not last.should_prune()  # has not reported
    last.report(float("nan"), 1)
    assert last.should_prune()
    with pytest.raises(InvalidParameterError, match="reduction_factor must be >= 2"):
        RungPruner(1)
