"""``load``: fitted estimators from runs and saved models; the two forms of a leaderboard."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from typer.testing import CliRunner

from parallelmlp_search import MLPConfig, ParallelMLPClassifier, ParallelMLPRegressor, Run, load
from parallelmlp_search.cli.app import app
from parallelmlp_search.exceptions import RunDirectoryError
from parallelmlp_search.search.run.leaderboard_view import MAIN_COLUMNS

SMALL: dict[str, Any] = {"n_trials": 4, "max_epochs": 3, "n_folds": 2, "random_state": 0, "baselines": False}
ROWS, TARGET = 160, "buys"


@pytest.fixture(scope="module")
def people() -> tuple[pd.DataFrame, pd.Series]:
    """Numbers and categories, with two classes."""
    rng = np.random.default_rng(0)
    city = rng.choice(["Graz", "Linz", "Wien"], size=ROWS)
    frame = pd.DataFrame({"age": rng.integers(18, 80, size=ROWS).astype(float), "city": city})
    return frame, pd.Series(np.where((city == "Wien") | (frame["age"] > 60), "yes", "no"), name=TARGET)


@pytest.fixture(scope="module")
def fitted(
    people: tuple[pd.DataFrame, pd.Series], tmp_path_factory: pytest.TempPathFactory
) -> ParallelMLPClassifier:
    folder = tmp_path_factory.mktemp("runs") / "people"
    settings = SMALL | {"class_weight": {"yes": 2, "no": 1}, "column_types": {"city": "categorical"}}
    return ParallelMLPClassifier("small", **settings, run_directory=folder).fit(*people)


def test_a_loaded_classifier_equals_the_fitted_one(
    fitted: ParallelMLPClassifier, people: tuple[pd.DataFrame, pd.Series]
) -> None:
    X, y = people
    loaded = load(fitted.run_directory or "")
    assert isinstance(loaded, ParallelMLPClassifier)
    np.testing.assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))
    np.testing.assert_array_equal(loaded.predict(X), fitted.predict(X))
    assert loaded.classes_.tolist() == ["no", "yes"]
    assert loaded.feature_names_in_.tolist() == ["age", "city"]
    pd.testing.assert_frame_equal(loaded.leaderboard_, fitted.leaderboard_)
    pd.testing.assert_frame_equal(loaded.columns_, fitted.columns_)
    for name in ("best_config_", "honest_score_", "n_trials_", "n_features_in_"):
        assert getattr(loaded, name) == getattr(fitted, name)
    changed = {"search_space", "run_directory"}
    given, kept = fitted.get_params(), loaded.get_params()
    assert {name: kept[name] for name in given if name not in changed} == {
        name: given[name] for name in given if name not in changed
    }
    with pytest.raises(ValueError, match="feature names"):
        loaded.predict(X[["age"]])
    again = pickle.loads(pickle.dumps(loaded))
    np.testing.assert_array_equal(again.predict(X), loaded.predict(X))
    with pytest.raises(RunDirectoryError, match="holds a finished one"):
        clone(loaded).fit(X, y)


def test_the_result_of_a_loaded_run_is_read_on_demand(
    fitted: ParallelMLPClassifier, people: tuple[pd.DataFrame, pd.Series]
) -> None:
    loaded = load(fitted.run_directory or "")
    found, expected = loaded.result_, fitted.result_
    assert found is not None
    assert expected is not None
    assert loaded.result_ is found
    assert found.to_dict() == expected.to_dict()
    assert list(found.leaderboard) == list(expected.leaderboard)
    np.testing.assert_array_equal(found.oof_folds, expected.oof_folds)
    # the rows of fit are recognised, and explained by networks that have not seen them
    assert found.fingerprint == loaded._problem(*people, names=loaded._columns).fingerprint()
    with pytest.raises(AttributeError, match="result_"):
        _ = ParallelMLPClassifier().result_


def test_a_run_of_the_command_line_loads(people: tuple[pd.DataFrame, pd.Series], tmp_path: Path) -> None:
    X, y = people
    X.assign(buys=y).to_csv(tmp_path / "people.csv", index=False)
    run, out = tmp_path / "run", tmp_path / "predicted.csv"
    search = f"search {tmp_path / 'people.csv'} --target buys --trials 4 --max-epochs 3 --no-baselines"
    command = [*search.split(), "--class-weight", "balanced", "--output", str(run), "--quiet"]
    assert CliRunner().invoke(app, command).exit_code == 0
    predict = ["predict", str(run), str(tmp_path / "people.csv"), "--proba", "--output", str(out)]
    assert CliRunner().invoke(app, predict).exit_code == 0
    loaded = load(run)
    assert isinstance(loaded, ParallelMLPClassifier)
    assert loaded.class_weight == "balanced"
    assert loaded.columns_.index.tolist() == ["age", "city"]
    np.testing.assert_allclose(loaded.predict_proba(X), pd.read_csv(out).to_numpy(), rtol=1e-12)
    assert loaded.result_ is not None
    assert loaded.result_.fingerprint == loaded._problem(X, y, names=loaded._columns).fingerprint()


@pytest.mark.filterwarnings("error")
def test_a_regressor_of_an_array_with_two_outputs_loads(tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(80, 3))
    y = np.column_stack([X[:, 0], X[:, 1] + 1])
    fitted = ParallelMLPRegressor("small", **SMALL, run_directory=tmp_path / "run").fit(X, y)
    loaded = load(tmp_path / "run")
    assert isinstance(loaded, ParallelMLPRegressor)
    assert loaded.predict(X).shape == (80, 2)
    np.testing.assert_array_equal(loaded.predict(X), fitted.predict(X))
    assert not hasattr(loaded, "feature_names_in_")


def test_a_saved_model_predicts_without_its_run(
    fitted: ParallelMLPClassifier, people: tuple[pd.DataFrame, pd.Series], tmp_path: Path
) -> None:
    fitted.model_.save(str(tmp_path / "model"))  # type: ignore[union-attr]
    loaded = load(str(tmp_path / "model"))
    np.testing.assert_array_equal(loaded.predict(people[0]), fitted.predict(people[0]))
    assert loaded.result_ is loaded.best_config_ is loaded.honest_score_ is None
    assert loaded.leaderboard_.columns.tolist() == list(MAIN_COLUMNS)
    assert loaded.leaderboard_.empty
    assert loaded.columns_["kind"].tolist() == ["numeric", "categorical"]


def test_a_run_of_an_older_version_loads(fitted: ParallelMLPClassifier, tmp_path: Path) -> None:
    """It has neither facts about columns nor standard errors."""
    run = shutil.copytree(fitted.run_directory or "", tmp_path / "run")
    (run / "columns.parquet").unlink()
    board = pd.read_parquet(run / "leaderboard.parquet").drop(columns="standard_error")
    board.to_parquet(run / "leaderboard.parquet")
    loaded = load(run)
    assert loaded.columns_["kind"].tolist() == ["numeric", "categorical"]
    assert loaded.leaderboard_["standard_error"].isna().all()
    assert loaded.best_config_ == fitted.best_config_
    assert loaded.result_ is not None
    assert loaded.result_.leaderboard[0].standard_error is None


def _is_missing(run: Path) -> Path:
    return run.parent / "poeple"


def _is_a_file(run: Path) -> Path:
    return run / "run.json"


def _is_no_run(run: Path) -> Path:
    return run.parent


def _is_unfinished(run: Path) -> Path:
    info = json.loads((run / "run.json").read_text()) | {"status": "interrupted"}
    (run / "run.json").write_text(json.dumps(info))
    (run / "result.json").unlink()
    return run


def _is_newer(run: Path) -> Path:
    info = json.loads((run / "run.json").read_text()) | {"format": 99}
    (run / "run.json").write_text(json.dumps(info))
    return run


def _model_is_newer(run: Path) -> Path:
    (run / "run.json").unlink()
    model = json.loads((run / "model" / "model.json").read_text()) | {"format": 99}
    (run / "model" / "model.json").write_text(json.dumps(model))
    return run / "model"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_is_missing, "does not exist; did you mean 'people'"),
        (_is_a_file, "is a file: give the folder of a run"),
        (_is_no_run, "is not a run: it holds no run.json"),
        (_is_unfinished, "is interrupted and has no result.json yet: resume it with `pmlp resume"),
        (_is_newer, "has format 99, but this version of parallelmlp-search reads formats up to"),
        (_model_is_newer, "has format 99, but this version of parallelmlp-search reads formats up to"),
    ],
)
def test_paths_that_cannot_be_loaded(
    change: Any, message: str, fitted: ParallelMLPClassifier, tmp_path: Path
) -> None:
    run = shutil.copytree(fitted.run_directory or "", tmp_path / "people")
    with pytest.raises(RunDirectoryError, match=message) as caught:
        load(change(run))
    assert "\n" not in str(caught.value)


class TestLeaderboard:
    def test_ten_columns_by_default_and_all_on_demand(self, fitted: ParallelMLPClassifier) -> None:
        board, details = fitted.leaderboard_, fitted.leaderboard(details=True)
        assert board.columns.tolist() == list(MAIN_COLUMNS)
        assert len(MAIN_COLUMNS) == 10
        pd.testing.assert_frame_equal(fitted.leaderboard(), board)
        assert details["trial"].tolist() == board["trial"].tolist()
        assert {"state", "failure", "config_learning_rate"} <= set(details)
        widths = ["-".join(map(str, widths)) for widths in details["config_widths"]]
        assert board["widths"].tolist() == widths
        run = Run(fitted.run_directory or "")
        pd.testing.assert_frame_equal(run.leaderboard(), board)
        assert run.leaderboard(details=True).columns.tolist() == details.columns.tolist()
        assert load(run.directory.path).leaderboard(details=True).shape == details.shape

    def test_the_standard_error_is_that_of_the_scores_of_the_folds(
        self, fitted: ParallelMLPClassifier
    ) -> None:
        from sklearn.metrics import roc_auc_score

        from parallelmlp_search._reading import load_arrays

        path = Path(fitted.run_directory or "")
        stored, result = load_arrays(path / "oof.safetensors"), fitted.result_
        assert result is not None
        target = pd.read_parquet(path / "leaderboard.parquet")
        for place, trial in enumerate(stored["trials"]):
            scores = []
            for fold in range(result.n_folds):
                rows = stored["folds"] == fold
                truth = self._truth(stored["rows"][rows])
                scores.append(roc_auc_score(truth, stored["predictions"][place, 1, rows]))
            expected = np.std(scores, ddof=1) / np.sqrt(len(scores))
            found = target.loc[target["trial"] == trial, "standard_error"].item()
            assert found == pytest.approx(expected, rel=1e-6)
        assert target.loc[target["state"] == "pruned", "standard_error"].isna().all()

    @staticmethod
    def _truth(rows: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng(0)
        city = rng.choice(["Graz", "Linz", "Wien"], size=ROWS)
        age = rng.integers(18, 80, size=ROWS)
        return ((city == "Wien") | (age > 60))[rows]


def test_a_configuration_shows_what_differs_from_the_default() -> None:
    assert repr(MLPConfig()) == "MLPConfig()"
    config = MLPConfig(widths=(8, 4), activation="silu", dropout=0.1, seed=0)
    assert repr(config) == str(config) == "MLPConfig(widths=(8, 4), activation='silu', dropout=0.1)"
    assert eval(repr(config)) == config
    assert config.changes() == {"widths": (8, 4), "activation": "silu", "dropout": 0.1}
    assert len(config.to_dict()) > 20
