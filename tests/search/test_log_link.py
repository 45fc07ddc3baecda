"""Searches with a log link: counts and positive amounts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import mean_poisson_deviance, mean_tweedie_deviance

from parallelmlp_search import ParallelMLPRegressor, SingleMLPRegressor
from parallelmlp_search.cli.predictions import _applies
from parallelmlp_search.distill.soft_targets import soft_targets
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.export import export_model
from parallelmlp_search.export.standalone import Model
from parallelmlp_search.inference.intervals import predicted_intervals
from parallelmlp_search.search import Problem, RunDirectory, SearchResult, TrainedModel, run
from parallelmlp_search.search.finalists.baseline_models import MODELS, BaselineModel, TrainingTable
from parallelmlp_search.selection import METRICS
from parallelmlp_search.space import Categorical, SearchSpace

Make = Callable[..., Any]

SPACE = SearchSpace(
    {
        "width": Categorical((8, 16)),
        "learning_rate": Categorical((0.01, 0.03)),
        "batch_size": Categorical((64,)),
        "numeric_embedding": Categorical(("none",)),
    }
)


def counts(n_rows: int = 600, seed: int = 0, unit: float = 1.0) -> Problem:
    """Counts whose mean is a product of effects; many are zero."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.normal(size=(n_rows, 3)), columns=list("abc"))
    mean = np.exp(-0.5 + 0.9 * frame["a"] - 0.6 * frame["b"])
    return Problem(frame, unit * rng.poisson(mean).astype(float), "regression")


@pytest.fixture(scope="module")
def counted(
    tmp_path_factory: pytest.TempPathFactory, make_settings: Make
) -> tuple[SearchResult, RunDirectory]:
    directory = RunDirectory.create(tmp_path_factory.mktemp("runs") / "run")
    settings = make_settings(search_space=SPACE, loss="poisson", n_trials=6, max_epochs=12, n_finalists=3)
    return run(counts(), settings, directory=directory, n_jobs=1), directory


def test_a_search_minimises_the_deviance(counted: tuple[SearchResult, RunDirectory]) -> None:
    result, directory = counted
    assert result.metric == "poisson_deviance"
    assert directory.settings().loss == "poisson"
    new = counts(seed=1)
    predicted = result.model.predictions(new.frame)[0]
    assert predicted.min() > 0
    assert predicted.mean() == pytest.approx(new.target.mean(), rel=0.15)
    assert result.honest is not None
    deviance = mean_poisson_deviance(new.target, predicted)
    assert deviance == pytest.approx(result.honest.score, abs=0.25)
    prior = mean_poisson_deviance(new.target, np.full(len(predicted), new.target.mean()))
    assert deviance < 0.8 * prior


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0])
@pytest.mark.parametrize("model", MODELS, ids=lambda one: one.name)
def test_baselines_have_the_same_loss(model: BaselineModel, power: float) -> None:
    problem, new = counts(), counts(seed=1)
    target = (problem.target + (power == 2))[:, None]  # relative to the mean, as networks learn it
    mean = target.mean()
    seen = TrainingTable(
        problem.frame.to_numpy(), target / mean, None, np.zeros(3, dtype=bool), level=None, power=power
    )
    predicted = mean * model.fit(seen, "regression", 60)(new.frame.to_numpy())[0]
    truth = new.target + (power == 2)
    deviance, prior = (
        mean_tweedie_deviance(truth, values, power=power) for values in (predicted, np.full(600, mean))
    )
    assert predicted.min() > 0
    assert deviance < 0.95 * prior


def test_the_stored_model_predicts_the_same(
    counted: tuple[SearchResult, RunDirectory], tmp_path: Path
) -> None:
    result, directory = counted
    new = counts(seed=1).frame
    again = TrainedModel.load(directory.model_folder)
    assert again.folds[0].head.link == "log"
    np.testing.assert_array_equal(again.predictions(new), result.model.predictions(new))
    written = Model(export_model(result.model, tmp_path / "numpy", "numpy"))
    np.testing.assert_allclose(written.predict(new), result.model.predict(new), rtol=1e-4)
    ends = predicted_intervals(result.model, new, (0.8,))
    assert ends.min() >= 0
    np.testing.assert_allclose(np.exp(soft_targets(again, new)[:, 0]), again.predict(new))


@pytest.mark.parametrize(
    ("name", "metric", "target", "expected"),
    [
        ("rmse", "rmse", [-1.0], True),
        ("poisson_deviance", "rmse", [1.0], False),
        ("poisson_deviance", "d2_tweedie:1.5", [1.0], True),
        ("gamma_deviance", "poisson_deviance", [0.0], False),
        ("d2_gamma", "gamma_deviance", [1.0], True),
    ],
)
def test_evaluation_shows_deviances_where_they_belong(
    name: str, metric: str, target: list[float], expected: bool
) -> None:
    model = SimpleNamespace(task="regression", costs=None)
    assert _applies(METRICS[name], cast(Any, model), {"metric": metric}, np.array(target)) == expected


def test_tiny_amounts_have_the_predictions_of_large_ones(make_settings: Make) -> None:
    settings = make_settings(search_space=SPACE, loss="tweedie:1.5", n_trials=2, max_epochs=4, n_finalists=1)
    plain, tiny = (run(counts(unit=unit), settings, n_jobs=1) for unit in (1.0, 2.0**-140))
    new = counts(seed=1)
    scale = plain.model.predictions(new.frame)
    np.testing.assert_allclose(tiny.model.predictions(new.frame), 2.0**-140 * scale, rtol=1e-6)
    assert plain.honest is not None
    assert tiny.honest is not None
    assert tiny.honest.score == pytest.approx(2.0**-70 * plain.honest.score, rel=1e-6)
    deviance = mean_tweedie_deviance(new.target, scale[0], power=1.5)
    assert deviance == pytest.approx(plain.honest.score, rel=0.2)


def test_the_estimators() -> None:
    problem = counts()
    options = {"widths": (8,), "learning_rate": 0.02, "max_epochs": 20, "random_state": 0}
    single = SingleMLPRegressor(loss="poisson", **options).fit(problem.frame, problem.target)
    squared = SingleMLPRegressor(**options).fit(problem.frame, problem.target)
    new = counts(seed=1)
    errors = [
        mean_poisson_deviance(new.target, np.maximum(model.predict(new.frame), 1e-9))
        for model in (single, squared)
    ]
    assert errors[0] < 0.95 * errors[1]
    with pytest.raises(
        InvalidParameterError, match="log link, which takes no target_transform, but got 'log'"
    ):
        SingleMLPRegressor(loss="poisson", target_transform="log").fit(problem.frame, problem.target)
    with pytest.raises(InvalidParameterError, match="loss 'gamma' needs a target > 0, but row"):
        ParallelMLPRegressor("small", loss="gamma").fit(problem.frame, problem.target)


def test_distributions_of_both_outputs(make_settings: Make) -> None:
    problem = counts()
    both = np.column_stack([problem.target + 1.0, 100.0 * problem.target + 1.0])
    settings = make_settings(search_space=SPACE, loss="gamma", n_trials=2, max_epochs=6, n_finalists=1)
    result = run(Problem(problem.frame, both, "regression"), settings, n_jobs=1)
    predicted = result.model.predict(problem.frame)
    assert predicted.shape == both.shape
    assert (predicted >= both.min(axis=0)).all()
    np.testing.assert_allclose(predicted.mean(axis=0), both.mean(axis=0), rtol=0.2)
