"""Searches whose regression target single precision cannot hold: as good as with an ordinary one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from parallelmlp_search import PackedSearchCV, ParallelMLPRegressor, SingleMLPRegressor
from parallelmlp_search.cli.app import app
from parallelmlp_search.exceptions import DataError
from parallelmlp_search.runs import Run

GENERATOR = np.random.default_rng(0)
X = pd.DataFrame(GENERATOR.normal(size=(160, 3)), columns=["a", "b", "c"])
Y = (2.0 * X["a"] - X["b"] + 0.1 * GENERATOR.normal(size=160)).to_numpy()


def search(y: np.ndarray, metric: str = "rmse", max_epochs: int = 6) -> ParallelMLPRegressor:
    settings = {"n_trials": 3, "max_epochs": max_epochs, "n_folds": 2, "random_state": 0, "n_jobs": 1}
    return ParallelMLPRegressor("small", metric=metric, **settings).fit(X, y)


@pytest.fixture(scope="module")
def ordinary() -> ParallelMLPRegressor:
    return search(Y)


@pytest.mark.parametrize("power", [-1000, -664, -140, 126, 130, 990])
def test_the_result_scales_with_the_target(ordinary: ParallelMLPRegressor, power: int) -> None:
    """2 ** -664 is 1e-200, 2 ** 126 is 1e38 and 2 ** 990 is 1e298."""
    factor = 2.0**power
    model = search(Y * factor)
    np.testing.assert_allclose(model.predict(X) / factor, ordinary.predict(X), rtol=1e-6, atol=1e-6)
    assert model.honest_score_ == pytest.approx(factor * ordinary.honest_score_, rel=1e-6)
    assert model.result_ is not None
    assert ordinary.result_ is not None
    expected = factor * ordinary.result_.honest.standard_error
    assert model.result_.honest.standard_error == pytest.approx(expected, rel=1e-6)
    assert model.leaderboard_["score"][0] == pytest.approx(
        factor * ordinary.leaderboard_["score"][0], rel=1e-6
    )


def test_a_far_offset_is_no_loss(ordinary: ParallelMLPRegressor) -> None:
    predicted = search(Y + 1e10).predict(X) - 1e10
    np.testing.assert_allclose(predicted, ordinary.predict(X), atol=1e-3)


def test_r2_does_not_depend_on_the_unit() -> None:
    assert search(Y * 1e-200, "r2").honest_score_ == pytest.approx(search(Y, "r2").honest_score_, abs=1e-4)


def test_outputs_of_different_sizes() -> None:
    factors = np.array([1.0, 1e-200, 1e200])
    model = search(Y[:, None] * factors, max_epochs=40)
    for output, factor in enumerate(factors):
        residuals = model.predict(X)[:, output] / factor - Y
        assert np.sqrt(np.mean(residuals**2)) < 0.7 * Y.std()


def test_other_estimators() -> None:
    single = SingleMLPRegressor(widths=(8,), max_epochs=6, random_state=0)
    y, factor = Y, 2.0**332  # 1e100: scikit-learn squares the scores. A power of two rounds nothing
    expected = single.fit(X, y).predict(X)
    found = single.fit(X, y * factor).predict(X) / factor
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    rates, scoring = {"learning_rate": [1e-3, 1e-2]}, "neg_mean_absolute_error"
    packed = PackedSearchCV(single, rates, cv=2, n_trials=2, scoring=scoring, random_state=0)
    scores = [packed.fit(X, y * size).cv_results_["mean_test_score"] / size for size in (1.0, factor)]
    np.testing.assert_allclose(scores[1], scores[0], rtol=1e-7)  # of predictions in single precision
    assert abs(scores[0][0] - scores[0][1]) > 1e-3
    with pytest.warns(UserWarning, match="no informative column"):
        constant = ParallelMLPRegressor(n_trials=2).fit(X[["a"]] * 0.0, np.full(160, 9e299) * np.sign(Y))
    assert np.isfinite(constant.predict(X[["a"]])).all()


def test_saved_models_and_their_evaluation(tmp_path: Path) -> None:
    table = X.assign(y=Y * 1e200)
    table.to_csv(tmp_path / "t.csv", index=False)
    command = (
        f"search {tmp_path}/t.csv --target y --space small --trials 3 --max-epochs 6 --output {tmp_path}/r"
    )
    result = CliRunner().invoke(app, command.split())
    assert result.exit_code == 0, result.output
    assert "e+200 ±" in result.stdout
    model = Run(tmp_path / "r").model()
    assert np.abs(model.predict(X) - table["y"]).mean() < 2e200
    result = CliRunner().invoke(app, ["evaluate", f"{tmp_path}/r", f"{tmp_path}/t.csv", "--json"])
    assert result.exit_code == 0, result.output
    scores = json.loads(result.stdout)["scores"]
    assert 0.0 < scores["rmse"] < 2e200
    assert scores["r2"] < 1.0


def test_integers_beyond_all_floats_are_refused() -> None:
    with pytest.raises(DataError, match="y must hold finite numbers, but has a number beyond 1e308"):
        ParallelMLPRegressor(n_trials=2).fit(X, [10**400, *range(159)])
