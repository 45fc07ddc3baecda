"""Searches in which networks learn transformed targets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from parallelmlp_search.export import export_model
from parallelmlp_search.search import Problem, RunDirectory, SearchResult, TrainedModel, run
from parallelmlp_search.search.run.trial import config_of_row
from parallelmlp_search.space import Categorical, SearchSpace

Make = Callable[..., Any]
NOISE = 0.7


def skewed(n_rows: int = 600, seed: int = 0, **values: Any) -> Problem:
    """A log-normal target with log-normal noise."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.normal(size=(n_rows, 3)), columns=list("abc"))
    target = np.exp(2.0 + frame["a"] + 0.5 * frame["b"] + NOISE * rng.normal(size=n_rows)).to_numpy()
    return Problem(frame, target, "regression", **values)


def space(*transforms: str) -> SearchSpace:
    return SearchSpace(
        {
            "width": Categorical((8, 16)),
            "learning_rate": Categorical((0.01, 0.03)),
            "batch_size": Categorical((64,)),
            "numeric_embedding": Categorical(("none",)),
            "target_transform": Categorical(transforms),
        }
    )


EVERY = ("none", "log", "yeo_johnson", "quantile")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory, make_settings: Make) -> tuple[SearchResult, RunDirectory]:
    directory = RunDirectory.create(tmp_path_factory.mktemp("runs") / "run")
    settings = make_settings(search_space=space(*EVERY), n_trials=16, max_epochs=20, n_finalists=8)
    return run(skewed(), settings, directory=directory, n_jobs=1), directory


def test_members_with_different_targets_compete_in_one_search(
    mixed: tuple[SearchResult, RunDirectory],
) -> None:
    result, _ = mixed
    board = result.leaderboard.to_frame()
    best = board.groupby("config_target_transform")["score"].min()
    assert set(best.index) == set(EVERY)
    assert result.model.n_members > 1
    assert len({config.target_transform for config in result.model.configs}) > 1
    # scores are in the units of the target
    assert best.max() < 2.0 * best.min()


def test_the_model_predicts_what_was_scored(mixed: tuple[SearchResult, RunDirectory]) -> None:
    result, directory = mixed
    problem, model = skewed(), result.model
    new = skewed(seed=1).frame
    again = TrainedModel.load(directory.model_folder)
    np.testing.assert_array_equal(again.predictions(new), model.predictions(new))
    predicted = np.full(problem.n_rows, np.nan)
    for fold in range(len(model.folds)):
        rows = np.flatnonzero(result.oof_folds == fold)
        predicted[rows] = model.of_fold(fold).predictions(problem.frame.iloc[rows])[0]
    known = ~np.isnan(predicted)
    rmse = np.sqrt(np.mean((predicted - problem.target)[known] ** 2))
    assert result.honest is not None
    assert rmse == pytest.approx(result.honest.naive, rel=1e-4)


def test_files_of_other_formats_predict_alike(
    mixed: tuple[SearchResult, RunDirectory], tmp_path: Path
) -> None:
    from tests.export.models import feeds, session_of

    model, new = mixed[0].model, skewed(seed=1).frame
    session = session_of(export_model(model, tmp_path / "model.onnx"))
    (found,) = session.run(None, feeds(session, new))
    np.testing.assert_allclose(found, model.predict(new), rtol=1e-4)


@pytest.mark.parametrize("transform", ["log", "yeo_johnson", "quantile"])
@pytest.mark.parametrize("held_out", [False, True])
def test_means_are_predicted_without_bias(transform: str, held_out: bool, make_settings: Make) -> None:
    # rows in time hold out the validation rows from every fold
    time = {"time": np.arange(1500)} if held_out else {}
    problem, new = skewed(1500, **time), skewed(4000, seed=1)
    settings = make_settings(search_space=space(transform), n_trials=3, max_epochs=30, n_finalists=2)
    mean = run(problem, settings, n_jobs=1).model.predict(new.frame).mean()
    assert mean == pytest.approx(new.target.mean(), rel=0.12)
    settings = make_settings(
        search_space=space(transform), n_trials=3, max_epochs=30, n_finalists=2, metric="mae"
    )
    median = run(problem, settings, n_jobs=1).model.predict(new.frame).mean()
    # the mean of a transformed target that is not quite symmetric is not quite the median
    assert median / mean == pytest.approx(np.exp(-0.5 * NOISE**2), rel=0.16)


def test_a_refit_keeps_the_curves(make_settings: Make) -> None:
    problem, new = skewed(1500), skewed(4000, seed=1)
    settings = make_settings(search_space=space("log"), n_trials=3, max_epochs=30, n_finalists=2, refit=True)
    model = run(problem, settings, n_jobs=1).model
    assert model.refitted
    assert model.predict(new.frame).mean() == pytest.approx(new.target.mean(), rel=0.12)


def test_a_resumed_search_has_the_same_result(
    tmp_path: Path, mixed: tuple[SearchResult, RunDirectory], make_settings: Make
) -> None:
    result, directory = mixed
    again, calls = RunDirectory.create(tmp_path / "run"), []

    def interrupt(progress: Any) -> None:
        calls.append(progress)
        if progress.stage == "cross-fitting":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(skewed(), directory.settings(), directory=again, callbacks=[interrupt], n_jobs=1)
    resumed = run(skewed(), again.settings(), directory=again, n_jobs=2)
    new = skewed(seed=1).frame
    np.testing.assert_array_equal(resumed.model.predictions(new), result.model.predictions(new))
    assert resumed.honest == result.honest


def test_the_default_space_tries_transformations_of_a_skewed_target(
    tmp_path: Path, make_settings: Make
) -> None:
    directory = RunDirectory.create(tmp_path / "run")
    settings = make_settings(search_space="default", n_trials=12, max_epochs=1, n_finalists=2)
    result = run(skewed(), settings, directory=directory, n_jobs=1)
    tried = {config_of_row(row).target_transform for row in result.trials.to_dict("records")}
    assert len(tried) > 1
    assert "target_transform" in directory.settings().space.domains


def test_several_outputs(make_settings: Make) -> None:
    one = skewed()
    target = np.stack([one.target, 100.0 - one.target], axis=1)
    settings = make_settings(search_space=space("log", "quantile"), n_trials=4, max_epochs=20, n_finalists=2)
    model = run(Problem(one.frame, target, "regression"), settings, n_jobs=1).model
    predicted = model.predict(one.frame)
    assert predicted.shape == target.shape
    for output in range(2):
        assert np.corrcoef(predicted[:, output], target[:, output])[0, 1] > 0.6


def test_weighted_rows_and_a_tiny_table(make_settings: Make) -> None:
    weight = np.random.default_rng(0).integers(1, 4, 600).astype(float)
    for problem in (skewed(weight=weight), skewed(15)):
        settings = make_settings(search_space=space("log"), n_trials=2, max_epochs=10, n_finalists=2)
        predicted = run(problem, settings, n_jobs=1).model.predict(problem.frame)
        assert np.isfinite(predicted).all()
        assert predicted.min() >= problem.target.min()
        assert predicted.max() <= problem.target.max()
