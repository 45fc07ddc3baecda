"""Several workers on one study: nothing lost, nothing twice, and one question for all."""

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
from optuna.samplers import BaseSampler, CmaEsSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState
from typer.testing import CliRunner

from parallelmlp_search.cli.app import app
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.integrations.optuna import (
    PackedObjective,
    RefinementSampler,
    RungPruner,
    SharedStudy,
    open_storage,
    open_study,
    optimize,
    space_to_distributions,
)
from parallelmlp_search.integrations.optuna.study.batch import Batch
from parallelmlp_search.integrations.optuna.study.heartbeat import FIRST, RETRY_OF, Attendance, superfluous
from parallelmlp_search.search import Problem, RunDirectory, SearchSettings, screen
from parallelmlp_search.search.proposals.distributions import asked_of
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


Start = Callable[[str, int, int], subprocess.Popen[str]]


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Starts workers; none of them outlives the test."""
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
    assert not left, [worker.communicate() for worker in left.values() if worker.poll() is not None]
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
            if trial.number in superfluous(trials):  # two workers have found the same one dead
                assert (trial.state, trial.intermediate_values) == (TrialState.FAIL, {})
                continue
            assert lost.params.items() <= trial.params.items()  # it may have been asking still
            assert lost.user_attrs["worker"] != trial.user_attrs["worker"]
    return trials


@pytest.mark.parametrize("place", ["journal:{}/study.log", "sqlite:///{}/study.db"])
def test_a_killed_worker_loses_nothing(folder: Path, start: Start, place: str) -> None:
    storage = place.format(folder)
    workers = [start(storage, 24, 6561) for _ in range(2)]
    _kill_while_training(workers[:1], storage)
    out, _ = workers[1].communicate(timeout=120)
    assert workers[1].returncode == 0, out
    trials = _check_all_there(storage, 24)
    assert any(RETRY_OF in trial.user_attrs for trial in trials)


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


def _left_running(study: optuna.Study) -> optuna.Trial:
    """A trial of a worker that has gone."""
    with Attendance(study, 10.0) as victim:
        trial = _ask(study)
        for name, value in {**victim.marks, "seed": 7}.items():
            trial.set_user_attr(name, value)
    return trial


def test_a_sweeper_that_dies_in_between_loses_nothing(
    tmp_path: Path, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has enqueued the trial again, and could not end it any more."""
    storage = f"journal:{tmp_path}/study.log"
    study = optuna.create_study(storage=open_storage(storage), study_name="s", direction="maximize")
    lost = _left_running(study)
    with Attendance(study, 10.0) as sweeper, monkeypatch.context() as patch:
        patch.setattr(Attendance, "_end_trial", lambda *_: False)
        sweeper.sweep()
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING, TrialState.WAITING]
    optimize(study, *table, SPACE, n_trials=1, max_epochs=1)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.COMPLETE]
    assert study.trials[1].user_attrs["seed"] == 7  # and is the same network again
    assert study.trials[1].params == lost.params


def test_who_dies_before_it_has_asked_leaves_what_was_enqueued(tmp_path: Path) -> None:
    study = optuna.create_study(storage=f"sqlite:///{tmp_path}/study.db", study_name="s")
    study.enqueue_trial({"dropout": 0.2})
    with Attendance(study, 10.0) as victim:
        study.ask().set_user_attr("worker", victim.worker)
    with Attendance(study, 10.0) as sweeper:
        assert sweeper.sweep() == [0]
    assert _ask(study).params["dropout"] == 0.2


def test_of_two_repetitions_the_first_is_trained(tmp_path: Path, table: Table) -> None:
    storage = f"sqlite:///{tmp_path}/study.db"
    study = optuna.create_study(storage=storage, study_name="s", direction="maximize")
    lost = _left_running(study)
    with Attendance(study, 10.0) as one, Attendance(study, 10.0) as other:
        # both look before either writes
        one._enqueue_again(study.trials[0])
        other._enqueue_again(study.trials[0])
        assert one._end_trial(lost.number)
        assert not other._end_trial(lost.number)
    optimize(study, *table, SPACE, n_trials=2, max_epochs=1)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.COMPLETE, TrialState.FAIL]
    assert study.trials[2].intermediate_values == {}
    assert "repeats the same" in study.trials[2].user_attrs["failure"]


def test_what_was_finished_after_all_is_not_repeated(tmp_path: Path, table: Table) -> None:
    study = optuna.create_study(
        storage=open_storage(f"journal:{tmp_path}/study.log"), study_name="s", direction="maximize"
    )
    alive = _left_running(study)
    with Attendance(study, 10.0) as sweeper:
        sweeper._enqueue_again(study.trials[0])
        study.tell(alive, 0.5)
        assert not sweeper._end_trial(alive.number)
    optimize(study, *table, SPACE, n_trials=1, max_epochs=1)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE, TrialState.FAIL]
    assert study.trials[0].value == 0.5


def test_who_joins_while_the_study_is_being_made_waits(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its maker has enqueued initial trials, and not yet said what the study is about."""
    storage = f"journal:{tmp_path}/study.log"
    problem = Problem(pd.DataFrame(table[0], columns=list("abcde")), table[1], "binary")
    settings = SearchSettings(search_space=SPACE, n_trials=6, max_epochs=1)
    config = SPACE.sample(1, np.random.default_rng(0))[0]
    study = optuna.create_study(storage=open_storage(storage), study_name="s", direction="maximize")
    study.enqueue_trial(asked_of(SPACE, config)[0], user_attrs={"origin": "initial"})
    twin = SharedStudy("sqlite://", "twin")
    screen(problem, settings, twin, n_jobs=1)
    looks: list[bool] = []
    check = SharedStudy._terms

    def terms(self: SharedStudy, joined: optuna.Study) -> dict[str, Any]:
        """The maker goes on a little after the other has begun to wait."""
        looks.append("question" in joined.user_attrs)
        later = threading.Timer(0.3, study.set_user_attr, ["question", twin._study.user_attrs["question"]])
        later.start()
        return check(self, joined)

    monkeypatch.setattr(SharedStudy, "_terms", terms)
    assert screen(problem, settings, SharedStudy(storage, "s"), n_jobs=1) == 6
    assert looks == [False]
    assert study.trials[0].params["learning_rate"] == config.learning_rate


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


@pytest.mark.parametrize("moment", ["while it trains", "while it tells"])
@pytest.mark.parametrize("place", ["journal:{}/study.log", "sqlite:///{}/study.db"])
def test_a_worker_that_was_taken_for_dead_lets_go(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, moment: str
) -> None:
    """Its trials were finished by another; it goes on with the others and tells nothing twice."""
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

    advance = Batch.advance
    if moment == "while it trains":
        monkeypatch.setattr(Batch, "advance", lambda *args, **how: (take_over(), advance(*args, **how))[1])
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
    table: Table, tmp_path: Path, place: str, sampler: Callable[..., BaseSampler], pruner: BasePruner
) -> None:
    """What samplers and pruners write on trials, and on those that were enqueued, included."""

    def facts(storage: Any) -> list[tuple[Any, ...]]:
        study = optuna.create_study(
            study_name="same",  # Hyperband chooses brackets by it
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
        # pickles of the same state may differ
        pickled = {name: len(value) > 0 for name, value in trial.system_attrs.items() if "optimizer" in name}
        return user, trial.system_attrs | pickled

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
