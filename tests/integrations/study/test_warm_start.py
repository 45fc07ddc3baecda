"""Searches that start from the best configurations of a study or a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
from sklearn.base import clone
from typer.testing import CliRunner

from parallelmlp_search import ParallelMLPClassifier
from parallelmlp_search.cli.app import app
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.integrations.optuna import (
    PackedObjective,
    configs_from_study,
    open_study,
    optimize,
    study_from_run,
)
from parallelmlp_search.search import RunDirectory
from parallelmlp_search.space import Categorical, MLPConfig, SearchSpace
from tests.integrations.conftest import SPACE, Table

WIDER = SearchSpace(dict(SPACE.domains) | {"widths": Categorical(((8,), (12,), (8, 8), (32,)))})


def _model(space: SearchSpace = SPACE, **values: Any) -> ParallelMLPClassifier:
    return ParallelMLPClassifier(
        search_space=space, n_trials=8, max_epochs=4, n_folds=2, n_finalists=2, random_state=0, **values
    )


def _first(model: ParallelMLPClassifier, origin: str = "initial") -> list[float]:
    assert model.result_ is not None
    rows = model.result_.trials.drop_duplicates("trial")
    return rows[rows["origin"] == origin]["config_learning_rate"].tolist()


@pytest.fixture
def study(table: Table) -> optuna.Study:
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.RandomSampler(seed=0),
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3),
    )
    optimize(study, PackedObjective(*table, SPACE, max_epochs=9), n_trials=18)
    return study


def test_the_best_configurations_of_a_study_come_in_order(study: optuna.Study) -> None:
    complete = [t for t in study.trials if t.state is optuna.trial.TrialState.COMPLETE]
    pruned = [t for t in study.trials if t.state is optuna.trial.TrialState.PRUNED]
    assert len(complete) >= 1
    assert len(pruned) >= 8
    expected = sorted(complete, key=lambda t: -(t.value or 0.0))
    expected += sorted(pruned, key=lambda t: (-(t.last_step or 0), -t.intermediate_values[t.last_step or 0]))
    rates = [config.learning_rate for config in configs_from_study(study, SPACE, 6)]
    assert rates == [trial.params["learning_rate"] for trial in expected[:6]]


def test_a_search_starts_from_a_study(study: optuna.Study, table: Table) -> None:
    model = _model(WIDER, initial_configs=study).fit(*table)
    best = [config.learning_rate for config in configs_from_study(study, WIDER, 32)]
    assert _first(model) == best[: len(_first(model))]
    assert len(_first(model)) == 8  # the study has more, but n_trials is 8


def test_a_search_starts_from_a_run(table: Table, tmp_path: Path) -> None:
    first = _model(run_directory=tmp_path / "run").fit(*table)
    second = _model(WIDER, initial_configs=tmp_path / "run").fit(*table)
    board = first.leaderboard(details=True)
    board = board[board["state"] != "failed"]
    rates = first.result_.trials.drop_duplicates("trial").set_index("trial")["config_learning_rate"]  # type: ignore[union-attr]
    assert _first(second) == [rates[trial] for trial in board["trial"]]


def test_a_search_starts_from_configurations(table: Table) -> None:
    config = MLPConfig(widths=(12,), learning_rate=0.02, dropout=0.2, batch_size=32, seed=4)
    model = clone(_model(initial_configs=[config])).fit(*table)
    assert _first(model) == [0.02]
    with pytest.raises(InvalidParameterError, match="widths"):
        _model(initial_configs=[config.replace(widths=(13,))]).fit(*table)
    with pytest.raises(InvalidParameterError, match="initial_configs must be a list"):
        _model(initial_configs=3).fit(*table)


def test_a_study_of_another_space_is_refused(study: optuna.Study, table: Table) -> None:
    other = SearchSpace({"width": Categorical((4,))})
    with pytest.raises(InvalidParameterError, match="has none: use the space of that search"):
        _model(other, initial_configs=study).fit(*table)
    two = optuna.create_study(directions=["maximize", "minimize"])
    with pytest.raises(InvalidParameterError, match="one direction"):
        configs_from_study(two, SPACE, 3)


def test_a_search_starts_from_a_study_on_the_command_line(table: Table, tmp_path: Path) -> None:
    frame = pd.DataFrame(table[0], columns=list("abcde")).assign(y=table[1])
    frame.to_csv(tmp_path / "table.csv", index=False)
    SPACE.save(tmp_path / "space.json")

    def search(output: str, *arguments: str, code: int = 0) -> str:
        data = [
            "search",
            str(tmp_path / "table.csv"),
            "--target",
            "y",
            "--space",
            str(tmp_path / "space.json"),
        ]
        budget = ["--trials", "8", "--max-epochs", "3", "--folds", "2", "--quiet"]
        result = CliRunner().invoke(app, [*data, *budget, "--output", str(tmp_path / output), *arguments])
        assert result.exit_code == code, result.output
        return result.output

    def origins(output: str) -> dict[str, int]:
        trials = RunDirectory.open(tmp_path / output).trials().drop_duplicates("trial")
        return dict(trials["origin"].value_counts())

    search("first", "--sampler", "tpe")
    assert origins("first") == {"random": 2, "tpe": 6}
    storage = f"sqlite:///{tmp_path}/study.db"
    study_from_run(tmp_path / "first", storage)
    for number, source in enumerate(
        [[str(tmp_path / "first")], [storage], [storage, "--start-study", "first"]]
    ):
        search(f"next-{number}", "--start-from", *source)
        assert origins(f"next-{number}") == {"initial": 8}
    assert "did you mean 'first'" in search("no", "--start-from", storage, "--start-study", "fist", code=2)
    assert "needs the URL" in search("no", "--start-study", "first", code=2)
    assert "is not a run" in search("no", "--start-from", str(tmp_path), code=2)
    assert not (tmp_path / "no").exists()
    assert open_study(storage).study_name == "first"
    study_from_run(tmp_path / "first", storage, study_name="second")
    with pytest.raises(InvalidParameterError, match=r"must be named, since .* holds 2: first, second"):
        open_study(storage)
