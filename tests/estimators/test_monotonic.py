"""Monotone columns through whole estimators: preprocessing, missing values, numbers far from training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from parallelmlp_search import ParallelMLPClassifier, ParallelMLPRegressor, load
from parallelmlp_search.distill import DistillSettings, distill
from parallelmlp_search.exceptions import InvalidParameterError, RunDirectoryError
from parallelmlp_search.search import RunDirectory

SIGNS = {"area": 1, "age": -1}
BUDGET: dict[str, Any] = {"n_trials": 6, "max_epochs": 8, "baselines": False, "random_state": 0, "n_jobs": 1}
ROUNDING = 1e-6
"""Largest fall, relative to the range of predictions, that counts as rounding of float32."""


def table(n: int = 500, seed: int = 0) -> pd.DataFrame:
    """Rows with a target of few signals and much noise, so that free networks do not become monotone."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "area": rng.gamma(2.0, 40.0, n),
            "age": rng.uniform(0.0, 80.0, n),
            "noise": rng.normal(size=n),
            "town": rng.choice(["north", "south", "west"], n),
        }
    )
    signal = np.sqrt(frame["area"]) - 0.05 * frame["age"] + (frame["town"] == "west") + frame["noise"] ** 2
    frame.loc[rng.random(n) < 0.1, ["area"]] = np.nan
    frame.loc[rng.random(n) < 0.1, ["noise"]] = np.nan
    return frame.assign(price=signal + 3.0 * rng.normal(size=n))


def falls(predict: Any, frame: pd.DataFrame, column: str, sign: int, n: int) -> NDArray[np.float64]:
    """Falls of predictions ``(n,)``, relative to their range, where a column is moved towards its sign.

    Its numbers lie within the training range, far outside of it, and at infinity.
    """
    rng = np.random.default_rng(1)
    rows = frame.sample(n, replace=True, random_state=0, ignore_index=True)
    for other in set(frame.columns) - {column}:
        rows.loc[rng.random(n) < 0.2, other] = None
    spread = frame[column].max() - frame[column].min()
    numbers = frame[column].mean() + spread * rng.standard_t(2, (n, 2))
    numbers[rng.random((n, 2)) < 0.02] = np.inf
    numbers[rng.random((n, 2)) < 0.02] = -np.inf
    numbers[: n // 4, 1] = numbers[: n // 4, 0] + 1e-3 * spread * rng.random(n // 4)  # close to each other
    numbers.sort(axis=1)
    before, after = (predict(rows.assign(**{column: numbers[:, place]})) for place in (0, 1))
    found: NDArray[np.float64] = sign * (before - after) / (np.ptp(before) + np.ptp(after) + 1e-12)
    return found


def predictions(model: Any) -> Any:
    """Function from rows to predictions, or to the probability of the second class."""
    return (
        model.predict if isinstance(model, ParallelMLPRegressor) else lambda X: model.predict_proba(X)[:, 1]
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("monotone") / "run"
    frame = table()
    ParallelMLPRegressor(
        "small", monotonic=SIGNS, initial_configs=None, run_directory=folder, **BUDGET
    ).fit(frame.drop(columns="price"), frame["price"])  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def classifier() -> ParallelMLPClassifier:
    frame = table()
    target = np.where(frame["price"] > frame["price"].median(), "yes", "no")
    model = ParallelMLPClassifier(monotonic=[1, -1, 0, 0], metric="accuracy", **BUDGET)
    return model.fit(frame.drop(columns="price"), target)


@pytest.mark.parametrize("column", SIGNS)
def test_predictions_keep_the_signs_for_all_rows(run: Path, classifier: Any, column: str) -> None:
    X = table().drop(columns="price")
    for model in (load(run), classifier):
        found = falls(predictions(model), X, column, SIGNS[column], 4000)
        assert found.max() <= ROUNDING
        assert found.min() < -0.05  # the column matters


def test_predicted_classes_keep_the_signs(classifier: ParallelMLPClassifier) -> None:
    X = table().drop(columns="price")
    predict = lambda rows: (classifier.predict(rows) == "yes").astype(float)  # noqa: E731
    assert falls(predict, X, "area", 1, 2000).max() == 0.0


def test_without_signs_predictions_fall() -> None:
    frame = table(200)
    X = frame.drop(columns="price")
    model = ParallelMLPRegressor("small", **BUDGET | {"max_epochs": 40}).fit(X, frame["price"])
    assert falls(model.predict, X, "area", 1, 1000).max() > 0.01


@pytest.mark.slow
def test_a_million_pairs(run: Path, classifier: Any) -> None:
    X = table().drop(columns="price")
    for model in (load(run), classifier):
        found = [falls(predictions(model), X, column, sign, 250_000).max() for column, sign in SIGNS.items()]
        assert max(found) <= ROUNDING


def test_other_settings_keep_the_signs() -> None:
    frame = table(300)
    X, y = (
        frame.drop(columns="price"),
        np.exp(frame["price"] / 4.0),
    )  # so skewed that a transformation is tried
    space = {
        "depth": {"type": "int", "low": 1, "high": 2},
        "activation": ["relu", "selu", "silu"],
        "submembers": [2],
        "sharing": ["mini", "full"],
        "input_scale_rate": [3.0],
        "numeric_scaling": ["common", "quantile"],
        "numeric_embedding": ["piecewise", "periodic"],
        "target_transform": ["none", "log", "quantile"],
        "learning_rate": {"type": "float", "low": 0.01, "high": 0.1},
    }
    model = ParallelMLPRegressor(space, monotonic=SIGNS, refit=True, **BUDGET).fit(X, y)
    configs = model.leaderboard(details=True)
    assert set(configs["config_activation"]) <= {"relu", "selu"}
    for column, sign in SIGNS.items():
        assert falls(model.predict, X, column, sign, 1000).max() <= ROUNDING


def test_a_distilled_network_keeps_the_signs(run: Path, tmp_path: Path) -> None:
    frame = table()
    model = load(run)
    X, y = frame.drop(columns="price"), frame["price"]
    problem = model._problem(X, y, names=model._columns)
    output = RunDirectory.create(tmp_path / "student")
    result = distill(RunDirectory.open(run), problem, output, DistillSettings(n_trials=1), n_jobs=1)
    assert result.best_config.activation == "relu"
    predict = lambda rows: result.model.predict(rows)  # noqa: E731
    for column, sign in SIGNS.items():
        assert falls(predict, X, column, sign, 1000).max() <= ROUNDING


def test_promotion_is_refused(run: Path) -> None:
    frame, model = table(), load(run)
    with pytest.raises(
        RunDirectoryError, match="has monotone columns, which promoted networks would not keep"
    ):
        model.promote(frame.drop(columns="price"), frame["price"])


def test_a_loaded_estimator_has_the_signs(run: Path) -> None:
    assert load(run).monotonic == SIGNS
    assert RunDirectory.open(run).settings().monotonic == SIGNS


@pytest.mark.parametrize(
    ("monotonic", "message"),
    [
        ({"aera": 1}, r"monotonic must name columns of the table, but got 'aera'.*'area'"),
        ({"town": 1}, "monotonic must name columns of numbers, but 'town' is categorical"),
        ({"area": 2}, "monotonic must be -1, 0 or 1 for 'area', but got 2"),
        ([1, 0], r"one sign for each of the 4 columns, .* but has the shape \(2,\)"),
    ],
)
def test_signs_that_cannot_be_kept_are_refused(monotonic: Any, message: str, tmp_path: Path) -> None:
    frame = table(60)
    model = ParallelMLPRegressor("small", monotonic=monotonic, run_directory=tmp_path / "run", **BUDGET)
    with pytest.raises(InvalidParameterError, match=message):
        model.fit(frame.drop(columns="price"), frame["price"])
    assert not (tmp_path / "run").exists()


def test_several_classes_are_refused() -> None:
    frame = table(60)
    model = ParallelMLPClassifier("small", monotonic=SIGNS, **BUDGET)
    with pytest.raises(InvalidParameterError, match="a regression or two classes, but the target has 3"):
        model.fit(frame.drop(columns=["price", "town"]), frame["town"])


def test_zeros_are_no_constraint() -> None:
    frame = table(60)
    model = ParallelMLPRegressor("small", monotonic=[0, 0, 0, 0], **BUDGET | {"n_trials": 8})
    model.fit(frame.drop(columns="price"), frame["price"])
    assert "silu" in set(model.leaderboard(details=True)["config_activation"])
    assert model.model_.folds[0].encoder.groups.signs == ()
