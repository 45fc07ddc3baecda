"""Optuna's plots of a run that was copied into a study show the contents of the run."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna import visualization
from optuna.trial import TrialState

from parallelmlp_search import ParallelMLPClassifier
from parallelmlp_search.integrations.optuna import study_from_run
from parallelmlp_search.search import RunDirectory
from tests.integrations.conftest import SPACE

FREE = ["dropout", "learning_rate", "widths"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(240, 5))
    y = (X[:, 0] + X[:, 1] * X[:, 2] + 0.5 * rng.normal(size=240) > 0).astype(int)
    folder = tmp_path_factory.mktemp("runs") / "run"
    model = ParallelMLPClassifier(
        SPACE, n_trials=18, max_epochs=4, n_folds=2, n_finalists=6, random_state=0, run_directory=folder
    )
    model.fit(X, y)
    return RunDirectory.open(folder)


@pytest.fixture(scope="module")
def study(run: RunDirectory) -> optuna.Study:
    return study_from_run(run)


def test_the_history_shows_the_finalists(study: optuna.Study, run: RunDirectory) -> None:
    points, best, *_ = visualization.plot_optimization_history(study).data
    complete = [trial for trial in study.trials if trial.state is TrialState.COMPLETE]
    assert len(complete) == 6
    assert list(points.x) == [trial.number for trial in complete]
    assert list(points.y) == [trial.value for trial in complete]
    assert best.y[-1] == run.leaderboard()["score"][: len(complete)].max()


def test_intermediate_values_are_the_rungs(study: optuna.Study, run: RunDirectory) -> None:
    lines = visualization.plot_intermediate_values(study).data
    frame: pd.DataFrame = run.trials()
    assert len(lines) == 18
    for line, (_, rows) in zip(lines, frame.groupby("trial"), strict=True):
        rows = rows.sort_values("rung")
        assert list(line.x) == rows["rung"].tolist()
        assert list(line.y) == pytest.approx(rows["score"].tolist())
    assert len({len(line.x) for line in lines}) > 1


def test_importances_are_shares_of_the_free_parameters(study: optuna.Study) -> None:
    evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=8, seed=0)
    (bars,) = visualization.plot_param_importances(study, evaluator=evaluator).data
    assert set(FREE) <= set(bars.y)
    assert sum(bars.x) == pytest.approx(1.0)
    shares = dict(zip(bars.y, bars.x, strict=True))
    assert shares.get("batch_size", 0.0) == 0.0  # a single value


def test_parallel_coordinates_contain_every_parameter(study: optuna.Study) -> None:
    figure = visualization.plot_parallel_coordinate(study, params=FREE)
    if figure.data[0].type == "parcoords":  # Optuna 4
        (coordinates,) = figure.data
        assert [dimension.label for dimension in coordinates.dimensions[1:]] == FREE
        assert {len(dimension["values"]) for dimension in coordinates.dimensions} == {6}
        return
    lines = [line for line in figure.data if line.x[0] is not None]
    assert [len(line.x) for line in lines] == [1 + len(FREE)] * 6  # the score, then the parameters
    assert list(figure.layout.xaxis.ticktext[1:]) == FREE


def test_slices_show_values_and_scores(study: optuna.Study) -> None:
    panels = visualization.plot_slice(study, params=FREE).data
    complete = [trial for trial in study.trials if trial.state is TrialState.COMPLETE]
    for name, panel in zip(FREE, panels, strict=True):
        # choices are shown as text
        shown = sorted((str(x).strip("'"), y) for x, y in zip(panel.x, panel.y, strict=True))
        assert shown == sorted((str(trial.params[name]), trial.value) for trial in complete)


@pytest.mark.parametrize(
    "plot",
    [
        visualization.plot_edf,
        visualization.plot_rank,
        visualization.plot_timeline,
        visualization.plot_contour,
    ],
)
def test_other_plots_can_be_drawn(study: optuna.Study, plot: Callable, tmp_path: Path) -> None:  # type: ignore[type-arg]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        figure = plot(study)
    figure.write_html(tmp_path / "plot.html", include_plotlyjs=False)
    assert len(figure.data) > 0
    assert (tmp_path / "plot.html").stat().st_size > 1000
