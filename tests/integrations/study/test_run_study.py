"""Runs as studies, also on the command line, and the callback for Optuna's own loop."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState
from typer.testing import CliRunner

from parallelmlp_search import ParallelMLPClassifier, Run
from parallelmlp_search.cli.app import app
from parallelmlp_search.data import as_frame
from parallelmlp_search.exceptions import InvalidParameterError, RunDirectoryError
from parallelmlp_search.integrations.optuna import OptunaCallback, open_storage, study_from_run, suggest
from parallelmlp_search.search import RunDirectory
from tests.integrations.conftest import SPACE, Table


@pytest.fixture
def finished(table: Table, tmp_path: Path) -> RunDirectory:
    model = ParallelMLPClassifier(
        search_space=SPACE,
        n_trials=12,
        max_epochs=4,
        n_folds=2,
        random_state=0,
        run_directory=tmp_path / "run",
    )
    model.fit(*table)
    return RunDirectory.open(tmp_path / "run")


@pytest.mark.parametrize("place", [None, "sqlite:///{}/study.db", "journal:{}/study.log"])
def test_a_run_becomes_a_study(finished: RunDirectory, tmp_path: Path, place: str | None) -> None:
    storage = place and place.format(tmp_path)
    study_from_run(finished, storage)
    study = (
        study_from_run(finished)
        if storage is None
        else optuna.load_study(study_name="run", storage=open_storage(storage))
    )
    frame = finished.trials()
    assert len(study.trials) == 12
    for number, rows in frame.groupby("trial"):
        trial, last = study.trials[number], rows.sort_values("rung").iloc[-1]
        assert trial.number == number
        assert list(trial.intermediate_values.values()) == pytest.approx(
            rows.sort_values("rung")["score"].tolist()
        )
        assert trial.state is (TrialState.COMPLETE if last["state"] == "complete" else TrialState.PRUNED)
        config = suggest(optuna.trial.FixedTrial(trial.params), SPACE, seed=trial.user_attrs["seed"])
        assert config.learning_rate == last["config_learning_rate"]
        assert "-".join(map(str, config.widths)) == last["config_widths"]
    board = finished.leaderboard()
    complete = board[board["state"] == "complete"]
    assert study.best_value == pytest.approx(complete["score"].max())
    assert study.user_attrs["honest_score"] == finished.result()["honest"]["score"]
    # a sampler can continue
    assert SPACE.contains(suggest(study.ask(), SPACE))


@pytest.mark.parametrize("place", ["sqlite:///{}/study.db", "journal:{}/study.log"])
def test_a_copy_is_completed_and_not_repeated(finished: RunDirectory, tmp_path: Path, place: str) -> None:
    storage = place.format(tmp_path)
    whole = study_from_run(finished, storage, study_name="whole")
    part = optuna.create_study(storage=open_storage(storage), study_name="part", direction="maximize")
    part.add_trials(whole.trials[:5])
    for name in ("whole", "part"):
        study = study_from_run(finished, storage, study_name=name)
        assert [trial.params for trial in study.trials] == [trial.params for trial in whole.trials]
        assert [trial.value for trial in study.trials] == [trial.value for trial in whole.trials]
    # trials that a sampler added later stay
    suggest(part.ask(), SPACE)
    assert len(study_from_run(finished, storage, study_name="part").trials) == 13


def test_another_study_of_the_name_is_refused(finished: RunDirectory, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/study.db"
    optuna.create_study(storage=storage, study_name="run").add_trial(optuna.create_trial(value=1.0))
    with pytest.raises(InvalidParameterError, match="the study 'run' has other trials"):
        study_from_run(finished, storage)
    assert study_from_run(finished, storage, study_name="again").study_name == "again"


def test_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    RunDirectory.create(tmp_path / "new").update(status="running")
    with pytest.raises(RunDirectoryError):
        study_from_run(tmp_path / "new")


def test_on_the_command_line(finished: RunDirectory, tmp_path: Path) -> None:
    run, storage = str(finished.path), f"journal:{tmp_path}/study.log"
    done = CliRunner().invoke(app, ["study", run, "--storage", storage, "--name", "mine", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {"study": "mine", "storage": storage, "trials": 12}
    assert len(optuna.load_study(study_name="mine", storage=open_storage(storage)).trials) == 12
    wrong = CliRunner().invoke(app, ["study", run, "--storage", "study.db"])
    assert wrong.exit_code == 2
    assert "sqlite:///study.db" in wrong.output


def _objective(table: Table, metric: str = "roc_auc") -> object:
    def objective(trial: optuna.Trial) -> float:
        model = ParallelMLPClassifier(
            search_space=SPACE,
            n_trials=6,
            max_epochs=9,
            n_folds=2,
            metric=metric,
            random_state=trial.number,
            callbacks=[OptunaCallback(trial)],
        )
        return float(model.fit(*table).honest_score_)

    return objective


def test_the_callback_reports_and_prunes(table: Table) -> None:
    study = optuna.create_study(
        direction="maximize", pruner=optuna.pruners.ThresholdPruner(lower=1.5, n_warmup_steps=1)
    )
    study.optimize(_objective(table), n_trials=1)  # type: ignore[arg-type]
    trial = study.trials[0]
    assert trial.state is TrialState.PRUNED
    assert sorted(trial.intermediate_values) == [0, 1]
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.NopPruner())
    study.optimize(_objective(table), n_trials=1)  # type: ignore[arg-type]
    assert study.trials[0].state is TrialState.COMPLETE
    assert len(study.trials[0].intermediate_values) >= 3


def test_the_callback_refuses_the_wrong_direction(table: Table) -> None:
    study = optuna.create_study(direction="maximize")
    with pytest.raises(InvalidParameterError, match="must minimize log_loss"):
        study.optimize(_objective(table, "log_loss"), n_trials=1)  # type: ignore[arg-type]


def test_a_run_from_python(finished: RunDirectory, table: Table, tmp_path: Path) -> None:
    run = Run(finished.path)
    study = run.to_study(f"journal:{tmp_path}/study.log", study_name="mine")
    assert study.study_name == "mine"
    assert len(study.trials) == len(run.leaderboard()) == run.trials()["trial"].nunique() == 12
    assert run.result()["honest"]["score"] == study.user_attrs["honest_score"]
    predictions = run.model().predictions(as_frame(table[0]))
    assert predictions.shape == (2, len(table[0]))
    assert np.allclose(predictions.sum(axis=0), 1.0)
    with pytest.raises(RunDirectoryError, match="is not a run"):
        Run(tmp_path)
