"""Updates of fitted estimators on new rows."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from parallelmlp_search import ParallelMLPClassifier, ParallelMLPRegressor, load
from parallelmlp_search.exceptions import DataError, DataWarning, InvalidParameterError
from parallelmlp_search.packing.monotone import violations
from parallelmlp_search.search.update import MIN_ROWS

BUDGET: dict[str, Any] = {"n_trials": 6, "max_epochs": 20, "baselines": False, "random_state": 0, "n_jobs": 1}


def table(n: int, shift: float = 0.0, seed: int = 0) -> pd.DataFrame:
    """Rows whose target depends on ``a`` otherwise after a shift."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"a": rng.normal(size=n), "b": rng.normal(size=n), "c": rng.choice(list("uvw"), n)})
    frame.loc[rng.random(n) < 0.1, "b"] = np.nan
    signal = (1.0 - shift) * frame["a"] + frame["b"].fillna(0.0) * (frame["c"] == "u") + 2.0 * shift
    return frame.assign(y=signal + 0.2 * rng.normal(size=n))


def split(frame: pd.DataFrame) -> tuple[pd.DataFrame, Any]:
    return frame.drop(columns="y"), frame["y"]


def rmse(model: Any, frame: pd.DataFrame) -> float:
    X, y = split(frame)
    return float(np.sqrt(np.mean((model.predict(X) - y) ** 2)))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("update") / "run"
    ParallelMLPRegressor("small", monotonic={"b": 1}, run_directory=folder, **BUDGET).fit(*split(table(400)))
    return folder


def test_an_update_helps_where_the_rows_have_changed(run: Path, tmp_path: Path) -> None:
    model, drifted = load(run), table(2000, 1.5, seed=2)
    before, coverage = rmse(model, drifted), model.predict_interval(split(drifted)[0][:2])
    assert coverage.shape == (2, 2)
    assert model.update(*split(table(400, 1.5, seed=1))) is model
    found = model.update_
    assert found.used
    assert (found.n_rows, found.n_scored, found.n_networks) == (
        400,
        80,
        len(model.model_.folds) * model.model_.n_members,
    )
    assert 0 < found.n_changed <= found.n_networks
    assert found.score_after < 0.5 * found.score_before
    assert rmse(model, drifted) < 0.5 * before
    # what was measured on other networks is gone
    assert model.honest_score_ is None
    with pytest.raises(DataError, match="out-of-fold"):
        model.predict_interval(split(drifted)[0])
    html = model._repr_html_()
    assert "networks were updated: rmse" in html
    assert "onest" not in html
    # signs are kept, and so is the model on disk
    for fold in model.model_.folds:
        for number in range(fold.layout.n_members):
            vector = np.concatenate([block.ravel() for block in fold.networks().networks[number][1].values()])
            assert violations(vector, fold.layout.architecture(number)) == 0
    model.model_.save(tmp_path / "updated")
    assert rmse(load(tmp_path / "updated"), drifted) == rmse(model, drifted)
    assert rmse(load(run), drifted) == before


def test_a_model_without_need_stays_as_it_is(run: Path) -> None:
    model, same = load(run), table(2000, seed=3)
    before, honest, stored = rmse(model, same), model.honest_score_, model.model_
    with pytest.warns(
        DataWarning, match=r"the networks stay as they are, .*: rmse 0\.\d+ before and 1?0?\.?\d+ after on"
    ):
        # a learning rate at which every network gets worse
        model.update(*split(table(100, seed=4)), rate=1000.0, epochs=2)
    assert not model.update_.used
    assert model.model_ is stored
    assert model.honest_score_ == honest
    assert rmse(model, same) == before


def test_updates_on_unchanged_data_do_no_harm(run: Path) -> None:
    same = table(2000, seed=3)
    for seed in range(2):
        model = load(run)
        before = rmse(model, same)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)
            model.update(*split(table(200, seed=5 + seed)), seed=seed, epochs=40)
        assert model.update_.score_after <= model.update_.score_before or not model.update_.used
        assert rmse(model, same) < 1.05 * before


def test_a_loaded_model_without_its_run_is_updated(run: Path, tmp_path: Path) -> None:
    load(run).model_.save(tmp_path / "model")
    model = load(tmp_path / "model")
    rows = table(200, 1.5, seed=1)
    weight = np.ones(200)
    assert model.update(*split(rows), sample_weight=weight).update_.used


@pytest.mark.parametrize("given", [{"loss": "poisson"}, {"metric": "poisson_deviance"}])
def test_counts_are_updated(given: dict[str, str]) -> None:
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"a": rng.normal(size=300)})
    model = ParallelMLPRegressor("small", **given, **BUDGET).fit(X, rng.poisson(np.exp(X["a"])))
    model.update(X, rng.poisson(4.0 * np.exp(X["a"])))
    assert model.update_.used
    assert model.update_.metric == "poisson_deviance"
    assert 3.0 < model.predict(X).mean() / np.exp(X["a"]).mean() < 5.0
    with pytest.raises(InvalidParameterError, match="loss must be that of the search, but got 'huber'"):
        model.update(X, np.ones(300), loss="huber")


def labels(frame: pd.DataFrame) -> tuple[pd.DataFrame, Any]:
    return frame.drop(columns="y"), np.where(frame["y"] > 0.0, "yes", "no")


@pytest.fixture(scope="module")
def classifier() -> ParallelMLPClassifier:
    return ParallelMLPClassifier("small", metric="accuracy", **BUDGET).fit(*labels(table(400)))


def test_classes_are_updated(classifier: ParallelMLPClassifier) -> None:
    def shifted(n: int, seed: int) -> tuple[pd.DataFrame, Any]:
        frame = table(n, 2.0, seed)
        return labels(frame.assign(y=frame["y"] - 4.0))

    X, y = shifted(2000, 2)
    before = classifier.score(X, y)
    classes = classifier.classes_
    classifier.update(*shifted(400, 1))
    assert classifier.update_.metric == "accuracy"
    assert classifier.score(X, y) > before + 0.5
    assert np.array_equal(classifier.classes_, classes)


def test_several_labels_are_refused() -> None:
    X, y = split(table(60))
    labels = np.stack([y > 0.0, y > 0.5], axis=1).astype(int)
    model = ParallelMLPClassifier("small", **BUDGET | {"max_epochs": 2}).fit(X, labels)
    with pytest.raises(InvalidParameterError, match="the target has several labels: search again"):
        model.update(X, labels)


def test_rows_of_one_known_class_leave_the_classes(classifier: ParallelMLPClassifier) -> None:
    frame, classes = table(60), classifier.classes_
    with pytest.raises(DataError, match="class 'perhaps' was not in the training target"):
        classifier.update(frame.drop(columns="y"), ["yes", "perhaps"] * 30)
    assert np.array_equal(classifier.classes_, classes)


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (MIN_ROWS - 1, {}, "update needs at least 40 new rows, but got 39"),
        (60, {"epoch": 3}, "update has no option 'epoch'; did you mean 'epochs'"),
        (60, {"epochs": 0}, "epochs must be an integer >= 1, but got 0"),
        (60, {"rate": 0.0}, "rate must be"),
        (60, {"loss": "poisson"}, "loss"),
    ],
)
def test_mistakes_are_refused(run: Path, rows: int, options: dict[str, Any], message: str) -> None:
    with pytest.raises((InvalidParameterError, DataError), match=message):
        load(run).update(*split(table(rows)), **options)


def test_networks_of_transformed_targets_stay() -> None:
    frame = table(200).assign(y=lambda t: np.exp(t["y"]))
    space = {
        "width": [16],
        "learning_rate": [0.01, 0.02],
        "target_transform": ["none", "log"],
        "activation": ["tanh", "relu"],
    }
    model = ParallelMLPRegressor(space, **BUDGET).fit(*split(frame))
    curved = {
        number for number, config in enumerate(model.model_.configs) if config.target_transform == "log"
    }
    assert curved
    old = model.model_
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        model.update(*split(table(200, 1.5, seed=1).assign(y=lambda t: np.exp(t["y"]))))
    new = model.model_
    for fold, other in zip(old.folds, new.folds, strict=True):
        for number in curved:
            one, two = (dict(part.networks().networks[number][1]) for part in (fold, other))
            assert all(np.array_equal(one[key], two[key]) for key in one)
