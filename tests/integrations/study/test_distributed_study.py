"""Several workers on one study: no trial is lost or trained twice, and all have the same settings."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.pruners import BasePruner, HyperbandPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, CmaEsSampler, NSGAIISampler, TPESampler
from optuna.trial import FrozenTrial, TrialState
from typer.testing import CliRunner

from parallelmlp_search.cli.app import app
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.integrations.optuna import (
    RefinementSampler,
    RungPruner,
    SharedStudy,
    open_storage,
    open_study,
    optimize,
)
from parallelmlp_search.integrations.optuna.study.heartbeat import (
    FIRST_TRY_ATTR,
    RETRY_OF_ATTR,
    duplicate_retries,
)
from parallelmlp_search.search import Problem, RunDirectory, SearchSettings, screen
from parallelmlp_search.search.proposals.distributions import asked_of
from tests.integrations.conftest import SPACE, UNTESTED_VERSION, Table

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
screen(problem, settings, SharedStudy(storage, "together", heartbeat=0.5), n_jobs=1)
"""


@pytest.fixture
def folder(table: Table, tmp_path: Path) -> Path:
    pd.DataFrame(table[0], columns=list("abcde")).assign(y=table[1]).to_csv(
        tmp_path / "table.csv", index=False
    )
    SPACE.save(tmp_path / "space.json")
    return tmp_path


Start = Callable[[str, int, int], subprocess.Popen[str]]


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Starts workers and ends them with the test."""
    workers = []

    def start(storage: str, n_trials: int, epochs: int) -> subprocess.Popen[str]:
        arguments = [sys.executable, "-c", WORKER, str(folder), storage, str(n_trials), str(epochs)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        worker = subprocess.Popen(
            arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        if worker.poll() is None:
            worker.kill()
        if worker.stdout is not None and not worker.stdout.closed:
            worker.communicate()


def _running(storage: str) -> list[FrozenTrial]:
    try:
        study = open_study(storage, "together")
    except InvalidParameterError:
        return []
    return study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))


def _kill_while_training(workers: list[subprocess.Popen[str]], storage: str) -> None:
    """Kill the workers as soon as each of them has running trials."""
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
    assert not left, [worker.communicate() for worker in left.values() if worker.poll() is not None]
    for worker in workers:
        worker.communicate()
        assert worker.returncode == -signal.SIGKILL


def _check_all_there(storage: str, n_trials: int) -> list[FrozenTrial]:
    """Check that each trial is finished once, lost ones by another worker."""
    trials = open_study(storage, "together").get_trials(deepcopy=False)
    assert all(trial.state.is_finished() for trial in trials)
    own = [trial for trial in trials if RETRY_OF_ATTR not in trial.user_attrs][:n_trials]
    assert len(own) == n_trials
    done = (TrialState.COMPLETE, TrialState.PRUNED)
    finished = Counter(
        trial.user_attrs.get(FIRST_TRY_ATTR, trial.number) for trial in trials if trial.state in done
    )
    assert finished == Counter(trial.number for trial in own)
    for trial in trials:
        if RETRY_OF_ATTR in trial.user_attrs:
            lost = trials[trial.user_attrs[RETRY_OF_ATTR]]
            assert lost.state is TrialState.FAIL
            if trial.number in duplicate_retries(trials):  # two workers have enqueued the same trial
                assert (trial.state, trial.intermediate_values) == (TrialState.FAIL, {})
                continue
            assert lost.params.items() <= trial.params.items()  # the worker may have died while it asked
            assert lost.user_attrs["worker"] != trial.user_attrs["worker"]
    return trials


@pytest.mark.parametrize(
    "place", ["journal:{}/study.log", pytest.param("sqlite:///{}/study.db", marks=pytest.mark.slow)]
)
def test_a_killed_worker_loses_nothing(folder: Path, start: Start, place: str) -> None:
    storage = place.format(folder)
    workers = [start(storage, 24, 6561) for _ in range(2)]
    _kill_while_training(workers[:1], storage)
    out, _ = workers[1].communicate(timeout=120)
    assert workers[1].returncode == 0, out
    trials = _check_all_there(storage, 24)
    assert any(RETRY_OF_ATTR in trial.user_attrs for trial in trials)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["journal:{}/study.log", "sqlite:///{}/study.db"])
def test_eight_workers_of_which_two_are_killed(folder: Path, start: Start, place: str) -> None:
    storage = place.format(folder)
    workers = [start(storage, 400, 2187) for _ in range(8)]
    _kill_while_training(workers[2:4], storage)
    for worker in workers[:2] + workers[4:]:
        out, _ = worker.communicate(timeout=600)
        assert worker.returncode == 0, out
    trials = _check_all_there(storage, 400)
    assert len({trial.user_attrs["worker"] for trial in trials}) == 8


def _search(folder: Path, output: str, *arguments: str, code: int = 0) -> str:
    options = ["--target", "y", "--space", str(folder / "space.json"), "--max-epochs", "4", "--folds", "2"]
    data = ["search", str(folder / "table.csv"), *options, "--output", str(folder / output)]
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


def test_screening_alone_creates_no_run(folder: Path) -> None:
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


def test_invalid_sharing_is_refused(folder: Path) -> None:
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


def test_settings_are_checked_once_and_grids_are_refused(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    fingerprints: list[str] = []
    fingerprint = Problem.fingerprint
    monkeypatch.setattr(
        Problem, "fingerprint", lambda problem: fingerprints.append("again") or fingerprint(problem)
    )
    problem = Problem(pd.DataFrame(table[0], columns=list("abcde")), table[1], "binary")
    settings = SearchSettings(search_space=SPACE, n_trials=4, max_epochs=1)
    assert screen(problem, settings, SharedStudy("sqlite://", "memory"), n_jobs=1) == 4
    assert len(fingerprints) == 1
    with pytest.raises(InvalidParameterError, match="'grid' cannot be shared"):
        screen(problem, replace(settings, sampler="grid"), SharedStudy("sqlite://", "memory"), n_jobs=1)
    assert len(fingerprints) == 1


def test_a_worker_waits_for_the_creator_of_the_study(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The creator has enqueued initial trials and not yet written the settings."""
    storage = f"journal:{tmp_path}/study.log"
    problem = Problem(pd.DataFrame(table[0], columns=list("abcde")), table[1], "binary")
    settings = SearchSettings(search_space=SPACE, n_trials=6, max_epochs=1)
    config = SPACE.sample(1, np.random.default_rng(0))[0]
    study = optuna.create_study(storage=open_storage(storage), study_name="s", direction="maximize")
    study.enqueue_trial(asked_of(SPACE, config)[0], user_attrs={"origin": "initial"})
    twin = SharedStudy("sqlite://", "twin")
    screen(problem, settings, twin, n_jobs=1)
    had_settings: list[bool] = []
    check = SharedStudy._wait_for_terms

    def terms(self: SharedStudy, joined: optuna.Study) -> dict[str, Any]:
        """The creator writes the settings after the other has begun to wait."""
        had_settings.append("question" in joined.user_attrs)
        later = threading.Timer(0.3, study.set_user_attr, ["question", twin._study.user_attrs["question"]])
        later.start()
        return check(self, joined)

    monkeypatch.setattr(SharedStudy, "_wait_for_terms", terms)
    assert screen(problem, settings, SharedStudy(storage, "s"), n_jobs=1) == 6
    assert had_settings == [False]
    assert study.trials[0].params["learning_rate"] == config.learning_rate


@pytest.mark.parametrize("version", [optuna.__version__, UNTESTED_VERSION], ids=["batches", "one-by-one"])
@pytest.mark.parametrize("place", ["sqlite:///{}/study.db", "journal:{}/study.log"])
@pytest.mark.parametrize(
    ("sampler", "pruner"),
    [
        (
            partial(TPESampler, n_startup_trials=6),
            SuccessiveHalvingPruner(min_resource=1, reduction_factor=3),
        ),
        (partial(TPESampler, n_startup_trials=6), HyperbandPruner(1, 9, 3)),
        (partial(RefinementSampler, n_startup_trials=6), RungPruner(3)),
        (partial(NSGAIISampler, population_size=6), RungPruner(3)),
        (partial(CmaEsSampler, n_startup_trials=6, warn_independent_sampling=False), NopPruner()),
    ],
    ids=["tpe", "hyperband", "refinement", "nsga", "cmaes"],
)
def test_a_storage_changes_no_result(
    table: Table,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    version: str,
    sampler: Callable[..., BaseSampler],
    pruner: BasePruner,
) -> None:
    """Attributes that samplers and pruners write are included, also on enqueued trials."""

    def contents(storage: Any) -> list[tuple[Any, ...]]:
        study = optuna.create_study(
            study_name="same",  # Hyperband hashes it to choose brackets
            storage=storage,
            direction="maximize",
            sampler=sampler(seed=1),
            pruner=pruner,
        )
        study.enqueue_trial({"widths": "12", "learning_rate": 0.01}, user_attrs={"whose": "mine"})
        optimize(study, *table, SPACE, n_trials=20, batch_size=6, max_epochs=9)
        study.enqueue_trial({"learning_rate": 0.02})
        optimize(study, *table, SPACE, n_trials=4, batch_size=2, max_epochs=9)
        assert study.trials[20].params["learning_rate"] == 0.02
        return [
            (t.number, t.params, t.intermediate_values, t.value, t.state, *attributes(t))
            for t in study.trials
        ]

    def attributes(trial: FrozenTrial) -> tuple[dict[str, Any], dict[str, Any]]:
        own = ("worker", "train_seconds")
        user = {name: value for name, value in trial.user_attrs.items() if name not in own}
        # pickles of equal states may differ
        pickled = {name: len(value) > 0 for name, value in trial.system_attrs.items() if "optimizer" in name}
        return user, trial.system_attrs | pickled

    monkeypatch.setattr(optuna, "__version__", version)
    assert contents(None) == contents(open_storage(place.format(tmp_path)))
