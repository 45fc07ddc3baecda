"""Networks with transformed targets as estimators of their own and in PackedSearchCV."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.model_selection import KFold, cross_val_score

from parallelmlp_search import PackedSearchCV, SingleMLPClassifier, SingleMLPRegressor

RNG = np.random.default_rng(0)
X = RNG.normal(size=(800, 3))
Y = np.exp(1.0 + X[:, 0] + 0.6 * RNG.normal(size=800))
OPTIONS = {"widths": (16,), "learning_rate": 0.02, "max_epochs": 30, "random_state": 0}


def test_predictions_have_the_mean_of_the_target() -> None:
    model = SingleMLPRegressor(**OPTIONS, target_transform="log").fit(X, Y)
    assert model.predict(X).mean() == pytest.approx(Y.mean(), rel=0.08)
    quantile = SingleMLPRegressor(**OPTIONS, target_transform="log", loss="quantile").fit(X, Y)
    assert np.mean(quantile.predict(X) > Y) == pytest.approx(0.5, abs=0.08)


def test_a_packed_search_has_the_scores_of_single_networks() -> None:
    grid = {"target_transform": ["none", "log", "quantile"]}
    cv = KFold(2, shuffle=True, random_state=0)
    found = PackedSearchCV(SingleMLPRegressor(**OPTIONS), param_grid=grid, cv=cv, random_state=0).fit(X, Y)
    scores = found.cv_results_["mean_test_score"]
    seed = found.best_estimator_.config_.seed
    for transform, score in zip(grid["target_transform"], scores, strict=True):
        single = SingleMLPRegressor(**OPTIONS | {"random_state": None}, seed=seed, target_transform=transform)
        assert np.isfinite(cross_val_score(single, X, Y, cv=cv)).all()
        assert score > 0.2


def test_classes_are_not_transformed() -> None:
    plain, other = (
        SingleMLPClassifier(**OPTIONS, target_transform=transform).fit(X, Y > 3).predict_proba(X)
        for transform in ("none", "log")
    )
    np.testing.assert_array_equal(plain, other)
