"""Scorers of scikit-learn and functions as metrics of whole searches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.metrics import get_scorer, jaccard_score, make_scorer, mean_absolute_percentage_error
from typer.testing import CliRunner

from parallelmlp_search import ParallelMLPClassifier, ParallelMLPRegressor, load
from parallelmlp_search.cli.app import app
from parallelmlp_search.exceptions import InvalidParameterError, RunDirectoryError
from parallelmlp_search.search import Progress
from parallelmlp_search.search.run import workers

SMALL: dict[str, Any] = {"n_trials": 6, "max_epochs": 3, "n_folds": 2, "random_state": 0, "baselines": False}
N = 240


def profit_score(y_true: Any, y_pred: Any) -> float:
    """Gain of a promise kept, loss of one broken; without bounds."""
    yes = y_pred == "yes"
    return float(100 * np.sum(yes & (y_true == "yes")) - 300 * np.sum(yes & (y_true == "no"))) / len(y_true)


@pytest.fixture(scope="module")
def table() -> tuple[pd.DataFrame, pd.Series]:
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(N, 3)), columns=["a", "b", "c"])
    noisy = X["a"] + 0.5 * X["b"] + 0.5 * rng.normal(size=N)
    return X, pd.Series(np.where(noisy > 0, "yes", "no"), name="answer")


def classifier(metric: Any, **changes: Any) -> ParallelMLPClassifier:
    return ParallelMLPClassifier("small", **SMALL | {"metric": metric} | changes)


def test_a_function_ranks_selects_and_scores(table: tuple[pd.DataFrame, pd.Series], tmp_path: Path) -> None:
    X, y = table
    model = classifier(profit_score, run_directory=tmp_path / "run").fit(X, y)
    board, result = model.leaderboard_, model.result_
    assert result is not None
    assert result.metric == "profit_score"
    finalists = board.dropna(subset="standard_error")
    assert len(finalists) >= 2
    assert finalists["score"].is_monotonic_decreasing
    assert (finalists["standard_error"] > 0).all()
    assert result.honest is not None
    assert result.honest.low < result.honest.score < result.honest.high
    # thresholds are tuned for metrics of our own only
    assert result.model.decision_weights is None
    explanation = model.explain(X, y, n_repeats=2)
    assert "profit_score" in str(explanation.summary.get("metric", explanation.summary))
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert info["settings"]["metric"] == "python:profit_score"
    np.testing.assert_array_equal(load(tmp_path / "run").predict(X), model.predict(X))
    with pytest.raises(
        InvalidParameterError, match="'profit_score' is a Python object, which a run does not"
    ):
        load(tmp_path / "run").explain(X, y)
    assert load(tmp_path / "run").set_params(metric=profit_score).explain(X, y, n_repeats=2) is not None


def test_a_scorer_and_our_own_metric_rank_alike(table: tuple[pd.DataFrame, pd.Series]) -> None:
    """The score of a scorer of errors is the negative of our metric."""
    X, y = table
    own = classifier("log_loss").fit(X, y)
    other = classifier(get_scorer("neg_log_loss")).fit(X, y)
    assert own.leaderboard_["trial"].tolist() == other.leaderboard_["trial"].tolist()
    np.testing.assert_allclose(own.leaderboard_["score"], -other.leaderboard_["score"], rtol=1e-5)
    assert own.honest_score_ is not None
    assert other.honest_score_ is not None
    # the range of our metric is known, so that corrections differ a little
    assert own.honest_score_ == pytest.approx(-other.honest_score_, rel=0.02)


@pytest.mark.slow
def test_processes_give_the_same_result(
    table: tuple[pd.DataFrame, pd.Series], monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = table
    scorer = make_scorer(lambda y_true, y_pred: float(np.mean(y_true == y_pred)))  # pickle cannot hold it
    threads = classifier(scorer, n_jobs=2).fit(X, y)
    started: list[int] = []
    for name, value in (("MIN_PROCESS_SECONDS", 0.0), ("BUSY_LOAD", 1e9), ("COMPILED_FACTOR", 0.0)):
        monkeypatch.setattr(workers, name, value)
    begin = workers.worker_processes
    monkeypatch.setattr(workers, "worker_processes", lambda n, *rest: started.append(n) or begin(n, *rest))
    processes = classifier(scorer, n_jobs=2).fit(X, y)
    assert started
    assert threads.honest_score_ == processes.honest_score_
    columns = ["trial", "score", "standard_error", "ensemble_weight"]
    pd.testing.assert_frame_equal(threads.leaderboard_[columns], processes.leaderboard_[columns])


def test_a_search_resumes_with_the_same_function_only(
    table: tuple[pd.DataFrame, pd.Series], tmp_path: Path
) -> None:
    X, y = table

    def interrupt(progress: Progress) -> None:
        if progress.stage == "cross-fitting":
            raise KeyboardInterrupt

    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        classifier(profit_score, run_directory=run, callbacks=[interrupt]).fit(X, y)
    with pytest.raises(RunDirectoryError, match="started with metric='python:profit_score', but got None"):
        classifier(None, run_directory=run).fit(X, y)
    resumed = classifier(profit_score, run_directory=run).fit(X, y)
    whole = classifier(profit_score).fit(X, y)
    assert resumed.honest_score_ == whole.honest_score_
    columns = ["trial", "score", "standard_error", "ensemble_weight"]
    pd.testing.assert_frame_equal(resumed.leaderboard_[columns], whole.leaderboard_[columns])


def test_values_are_scored_in_the_units_of_the_target() -> None:
    """A target far from 0 is scaled for the networks."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N, 3))
    y = 5e6 + 100 * X[:, 0] + 10 * rng.normal(size=N)
    metric = make_scorer(mean_absolute_percentage_error, greater_is_better=False)
    model = ParallelMLPRegressor("small", **SMALL | {"metric": metric}).fit(X, y)
    assert model.result_ is not None
    assert model.result_.metric == "neg_mean_absolute_percentage_error"
    found = mean_absolute_percentage_error(y, model.predict(X))
    assert model.honest_score_ == pytest.approx(-found, rel=0.5)


def test_names_of_scikit_learn_work_on_the_command_line(
    table: tuple[pd.DataFrame, pd.Series], tmp_path: Path
) -> None:
    X, y = table
    X.assign(answer=y).to_csv(tmp_path / "table.csv", index=False)
    search = f"search {tmp_path / 'table.csv'} --target answer --trials 4 --max-epochs 3 --no-baselines"
    wrong = CliRunner().invoke(app, [*search.split(), "--metric", "neg_max_error", "--output", "unused"])
    assert wrong.exit_code == 2
    run = str(tmp_path / "run")
    done = CliRunner().invoke(app, [*search.split(), "--metric", "jaccard", "--output", run, "--json"])
    assert done.exit_code == 0, done.output
    evaluated = CliRunner().invoke(app, ["evaluate", run, str(tmp_path / "table.csv"), "--json"])
    scores = json.loads(evaluated.stdout)["scores"]
    assert next(iter(scores)) == "jaccard"
    # scikit-learn's default pos_label=1 is the second class
    assert scores["jaccard"] == pytest.approx(jaccard_score(y, load(run).predict(X), pos_label="yes"))


def test_clones_and_parameters_keep_the_metric(table: tuple[pd.DataFrame, pd.Series]) -> None:
    model = classifier(profit_score)
    assert clone(model).metric is profit_score
    assert model.get_params()["metric"] is profit_score
