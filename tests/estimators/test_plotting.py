"""Figures of fitted estimators."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import confusion_matrix

from parallelmlp_search import ParallelMLPClassifier, ParallelMLPRegressor, load
from parallelmlp_search.exceptions import DataError, DataWarning, InvalidParameterError

BUDGET = {
    "search_space": "small",
    "n_trials": 4,
    "max_epochs": 3,
    "n_folds": 3,
    "random_state": 0,
    "n_jobs": 1,
}


def table(n_rows: int = 240) -> tuple[pd.DataFrame, pd.Series]:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(n_rows, 3)), columns=["a", "b", "c"])
    return frame, frame["a"] + 0.5 * rng.normal(size=n_rows)


@pytest.fixture(scope="module")
def classifier() -> ParallelMLPClassifier:
    X, y = table()
    return ParallelMLPClassifier(**BUDGET).fit(X, y > 0)


def test_figures_of_the_search_need_no_rows(classifier: ParallelMLPClassifier) -> None:
    plot = classifier.plot
    drawn = {score for trace in plot.score_by_size().data if trace.mode == "markers" for score in trace.y}
    assert drawn == set(classifier.leaderboard_["score"])
    assert plot.baselines().data[0].x[0] == classifier.honest_score_
    for draw in (
        plot.ensemble_weights,
        plot.learning_curves,
        plot.score_by_latency,
        plot.phases,
        plot.hyperparameter_importance,
        plot.parallel_coordinates,
    ):
        assert draw().layout.title.text


def test_rows_of_fit_are_predicted_out_of_fold_and_other_rows_by_the_model(
    classifier: ParallelMLPClassifier,
) -> None:
    X, y = table()
    mine = classifier.plot.confusion_matrix(X, y > 0)
    assert "out-of-fold rows" in mine.layout.meta["caption"]
    other, labels = X.iloc[:60] + 0.01, (y > 0).iloc[:60]
    figure = classifier.plot.confusion_matrix(other, labels)
    assert "60 new rows" in figure.layout.meta["caption"]
    expected = confusion_matrix(labels, classifier.predict(other))
    np.testing.assert_allclose(figure.data[0].customdata, expected)
    assert len(classifier.plot.roc(X, y > 0).data) == 3
    assert classifier.plot.precision_recall(X, y > 0).data[-1].name == "predicted class"
    assert "12 bins" in classifier.plot.calibration(X, y > 0).layout.meta["caption"]


def test_an_explanation_is_drawn(classifier: ParallelMLPClassifier) -> None:
    X, y = table()
    found = classifier.explain(X, y > 0)
    assert classifier.plot.importance(found).data[0].y[0] == "a"
    assert classifier.plot.dependence(found).layout.title.text == "Dependence on a"
    assert classifier.plot.dependence(found, "b").layout.title.text == "Dependence on b"


def test_a_regression_has_residuals() -> None:
    X, y = table()
    model = ParallelMLPRegressor(**BUDGET).fit(X, y)
    figure = model.plot.residuals(X.iloc[:50] + 0.01, y[:50])
    np.testing.assert_allclose(figure.data[0].y, y[:50] - model.predict(X.iloc[:50] + 0.01))
    assert model.plot.predicted_and_actual(X, y).data[0].y is not None
    with pytest.raises(InvalidParameterError, match="roc needs classes"):
        model.plot.roc(X, y)


def test_mistakes(classifier: ParallelMLPClassifier) -> None:
    X, y = table()
    with pytest.raises(NotFittedError):
        _ = ParallelMLPClassifier().plot
    assert not hasattr(ParallelMLPClassifier(), "plot")
    with pytest.raises(InvalidParameterError, match="figures have no option 'weights'"):
        classifier.plot.roc(X, y > 0, weights=np.ones(len(y)))
    with pytest.warns(DataWarning, match="no informative column"):
        constant = ParallelMLPClassifier(**BUDGET).fit(np.ones((20, 1)), np.arange(20) % 2)
    with pytest.raises(DataError, match="predicts a constant"):
        _ = constant.plot


def test_loaded_estimators_have_the_figures_of_their_run(tmp_path: Path) -> None:
    X, y = table()
    fitted = ParallelMLPClassifier(**BUDGET, run_directory=tmp_path / "run").fit(X, y > 0)
    loaded = load(tmp_path / "run")
    expected, found = fitted.plot, loaded.plot
    assert found.score_by_size().data[0].y == expected.score_by_size().data[0].y
    assert found.phases().data[0].x == expected.phases().data[0].x
    np.testing.assert_allclose(found.roc(X, y > 0).data[1].y, expected.roc(X, y > 0).data[1].y)
    fitted.model_.save(tmp_path / "model")
    alone = load(tmp_path / "model").plot
    assert len(alone.roc(X, y > 0).data) == 3
    with pytest.raises(DataError, match="the estimator was loaded from a model"):
        alone.phases()
    with pytest.raises(DataError, match="the estimator was loaded from a model"):
        load(tmp_path / "model").explain(X, y > 0)


def test_figures_are_no_state_of_the_estimator(classifier: ParallelMLPClassifier) -> None:
    before = set(vars(classifier))
    _ = classifier.plot.phases()
    assert set(vars(classifier)) == before
    assert (
        pickle.loads(pickle.dumps(classifier)).plot.phases().data[0].x == classifier.plot.phases().data[0].x
    )
    assert "plot" not in clone(classifier).get_params()
