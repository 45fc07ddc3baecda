"""``ParallelMLPClassifier`` and the other classifiers with several labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import make_multilabel_classification
from sklearn.metrics import get_scorer
from sklearn.model_selection import cross_val_score
from sklearn.neural_network import MLPClassifier

from parallelmlp_search import (
    PackedSearchCV,
    ParallelMLPClassifier,
    ParallelMLPRegressor,
    SingleMLPClassifier,
    load,
)
from parallelmlp_search.exceptions import DataError, DataWarning

SMALL: dict[str, Any] = {"n_trials": 5, "max_epochs": 8, "n_folds": 2, "random_state": 0}
X, Y = make_multilabel_classification(160, 6, n_classes=3, allow_unlabeled=True, random_state=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("multilabel") / "run"


@pytest.fixture(scope="module")
def fitted(folder: Path) -> ParallelMLPClassifier:
    labels = pd.DataFrame(Y, columns=["sun", "rain", "wind"])
    return ParallelMLPClassifier("small", run_directory=folder, metric="f1_micro", **SMALL).fit(X, labels)


def test_predictions_have_the_form_of_scikit_learns_network(fitted: ParallelMLPClassifier) -> None:
    twin = MLPClassifier((4,), solver="lbfgs", max_iter=9000, random_state=0).fit(X, Y)
    assert fitted.predict_proba(X).shape == twin.predict_proba(X).shape == (160, 3)
    predicted = fitted.predict(X)
    assert predicted.dtype == twin.predict(X).dtype
    assert fitted.score(X, Y) == (predicted == Y).all(axis=1).mean()
    assert fitted.predict_log_proba(X) == pytest.approx(np.log(fitted.predict_proba(X)))
    assert [one.tolist() for one in fitted.classes_] == [[0, 1]] * 3


@pytest.mark.parametrize("name", ["roc_auc", "f1_macro", "average_precision", "accuracy", "jaccard_samples"])
def test_scorers_of_scikit_learn_take_the_estimator(name: str, fitted: ParallelMLPClassifier) -> None:
    assert 0.3 < get_scorer(name)(fitted, X, Y) <= 1.0


def test_a_loaded_run_is_the_same(fitted: ParallelMLPClassifier, folder: Path, tmp_path: Path) -> None:
    again = load(folder)
    assert isinstance(again, ParallelMLPClassifier)
    np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
    np.testing.assert_array_equal(again.predict(X), fitted.predict(X))
    assert [one.tolist() for one in again.classes_] == [[0, 1]] * 3
    assert again.result_ is not None
    assert again.result_.to_dict()["thresholds"] == fitted.model_.postprocessing()["thresholds"]
    written = fitted.export(tmp_path / "numpy", format="numpy")
    assert (written / "predict.py").is_file()


def test_sets_of_classes_are_refused(fitted: ParallelMLPClassifier) -> None:
    with pytest.raises(DataError, match="sets of classes need a target of classes, but this model predicts"):
        fitted.predict_set(X)
    assert fitted.result_.uncertainty is None


@pytest.mark.parametrize("dtype", [bool, np.int8, np.float64])
def test_one_network_and_the_dtype_of_labels(dtype: Any) -> None:
    model = SingleMLPClassifier((8,), max_epochs=60, learning_rate=0.02, random_state=0).fit(
        X, Y.astype(dtype)
    )
    predicted = model.predict(X)
    assert predicted.dtype == dtype
    assert (predicted == Y.astype(dtype)).mean() > 0.75


def test_packed_candidates_are_scored_like_single_ones() -> None:
    single = SingleMLPClassifier((8,), max_epochs=30, learning_rate=0.02, random_state=0)
    found = PackedSearchCV(single, {"dropout": [0.0]}, sampler="grid", cv=2, scoring="f1_macro", n_jobs=1)
    found.fit(X, Y)
    expected = cross_val_score(single, X, Y, cv=2, scoring="f1_macro").mean()
    assert found.best_score_ == pytest.approx(expected, abs=1e-6)
    assert found.predict(X).shape == Y.shape


def test_optuna_trains_several_labels() -> None:
    optuna = pytest.importorskip("optuna")
    from parallelmlp_search.integrations.optuna import optimize

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize")
    optimize(study, X, Y, "small", n_trials=4, max_epochs=20, metric="f1_micro")
    assert 0.4 < study.best_value <= 1.0


def test_a_table_without_columns_that_differ() -> None:
    with pytest.warns(DataWarning, match="no informative column"):
        model = ParallelMLPClassifier(**SMALL).fit(np.ones((40, 2)), Y[:40])
    np.testing.assert_allclose(model.predict_proba(np.ones((3, 2))), [Y[:40].mean(axis=0)] * 3)
    np.testing.assert_array_equal(model.predict(np.ones((3, 2))), [Y[:40].mean(axis=0) > 0.5] * 3)


def test_labels_that_are_none() -> None:
    with pytest.raises(DataError, match="target column 'x1' has 2"):
        ParallelMLPClassifier(**SMALL).fit(X, Y + np.arange(3))
    with pytest.raises(ValueError, match="Input y contains NaN"):
        ParallelMLPClassifier(**SMALL).fit(X, np.where(Y, np.nan, 0.0))
    numbers = ParallelMLPRegressor("small", **SMALL).fit(X, Y)  # which takes them as numbers
    assert numbers.predict(X).shape == (160, 3)


def test_explanations_know_the_labels(fitted: ParallelMLPClassifier) -> None:
    found = fitted.explain(X, Y)
    assert found.summary["task"] == "multilabel"
    assert found.summary["outputs"] == ["sun", "rain", "wind"]
    assert found.summary["loss"] == "log loss"
    assert set(found.dependence["output"]) == {"sun", "rain", "wind"}
    texts = set(found.worst_rows["target"])
    assert texts <= {"", *(", ".join(part) for part in _subsets(["sun", "rain", "wind"]))}


def _subsets(names: list[str]) -> list[list[str]]:
    return [[one for bit, one in enumerate(names) if number >> bit & 1] for number in range(1 << len(names))]
