"""Estimators, runs and leaderboards in notebooks, and live progress there."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import config_context
from sklearn.pipeline import make_pipeline

from parallelmlp_search import ParallelMLPClassifier, Run, load
from parallelmlp_search.exceptions import DataWarning
from parallelmlp_search.report.notebook import NotebookReport, in_notebook
from parallelmlp_search.search import Progress, Standing
from tests.test_html import EVIL, parsed

STANDINGS = tuple(Standing(trial, 0.9, 3.0, 1, f"net {trial} {EVIL}") for trial in range(9))


class Cell:
    """Output of a cell."""

    def __init__(self) -> None:
        self.contents: list[str] = []

    def __call__(self, html: str) -> Cell:
        self.contents.append(html)
        return self

    def update(self, content: str) -> None:
        self.contents.append(content)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> ParallelMLPClassifier:
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"age": rng.normal(size=120), f"city{EVIL}": rng.choice([EVIL, "Graz"], size=120)})
    y = np.where(X["age"] > 0, EVIL, "no")
    settings: dict[str, Any] = {"n_trials": 12, "max_epochs": 3, "n_folds": 2, "random_state": 0}
    run = tmp_path_factory.mktemp("runs") / "run"
    return ParallelMLPClassifier("small", **settings, run_directory=run).fit(X, y)


class TestEstimators:
    def test_a_fitted_one_shows_its_result_and_the_diagram(self, fitted: ParallelMLPClassifier) -> None:
        html = fitted._repr_html_()
        assert fitted.result_ is not None
        assert fitted.result_.honest is not None
        for words in ("honest score", "baselines", "Leaderboard (10 of 12 trials)", "Columns (2)", "roc_auc"):
            assert words in html
        assert f"{fitted.result_.honest.score:.2f}"[:4] in html
        assert "sk-top-container" in html  # scikit-learn's diagram of the parameters
        own = html[: html.index("Parameters")]
        assert "<script" not in own
        assert "http" not in own
        bundle = fitted._repr_mimebundle_()
        assert bundle["text/html"][:2000] == html[:2000]
        assert bundle["text/plain"] == repr(fitted)

    def test_one_that_is_not_fitted_is_left_to_scikit_learn(self, fitted: ParallelMLPClassifier) -> None:
        fresh = ParallelMLPClassifier()
        assert "sk-top-container" in fresh._repr_html_()
        assert "pmlp" not in fresh._repr_html_()
        assert "pmlp" not in fresh._repr_mimebundle_()["text/html"]
        assert "sk-top-container" in make_pipeline(fitted)._repr_html_()
        with config_context(display="text"):
            assert not hasattr(fitted, "_repr_html_")
            assert list(fitted._repr_mimebundle_()) == ["text/plain"]

    def test_a_loaded_one_reads_its_run_only_when_it_is_shown(
        self, fitted: ParallelMLPClassifier, tmp_path: Path
    ) -> None:
        run = shutil.copytree(fitted.run_directory or "", tmp_path / "run")
        loaded = load(run)
        assert "Leaderboard (10 of 12 trials)" in loaded._repr_html_()
        assert isinstance(loaded._result, Path)
        assert "result_" not in dir(loaded)
        shutil.rmtree(run)
        gone = loaded._repr_html_()
        own = gone[gone.index("</style>") : gone.index("Parameters")]
        assert "is not a run" in own
        assert "sk-top-container" in make_pipeline(loaded)._repr_html_()

    def test_a_model_without_a_run(self, fitted: ParallelMLPClassifier, tmp_path: Path) -> None:
        fitted.model_.save(tmp_path / "model")  # type: ignore[union-attr]
        assert "without the results of a search" in load(tmp_path / "model")._repr_html_()

    def test_a_constant(self) -> None:
        with pytest.warns(DataWarning, match="no informative column"):
            constant = ParallelMLPClassifier().fit(np.ones((20, 1)), np.arange(20) % 2)
        assert "predict" in dir(constant)
        assert "without the results of a search" in constant._repr_html_()
        assert "sk-top-container" in make_pipeline(constant)._repr_html_()


class TestRuns:
    def test_a_finished_and_an_unfinished_run(self, fitted: ParallelMLPClassifier, tmp_path: Path) -> None:
        path = shutil.copytree(fitted.run_directory or "", tmp_path / "run")
        run = Run(path)
        assert repr(run) == f"Run({str(path)!r})"
        html = run._repr_html_()
        parsed(html)
        assert "<script" not in html
        assert "Leaderboard (10 of 12 trials)" in html
        run.directory.update(status="interrupted")
        assert "is interrupted" in Run(path)._repr_html_()

    def test_a_leaderboard(self, fitted: ParallelMLPClassifier) -> None:
        assert fitted.result_ is not None
        html = fitted.result_.leaderboard._repr_html_()
        parsed(html)
        assert html.count("<tr") == 13
        assert "ensemble_weight" in html


class TestProgress:
    def test_one_block_is_redrawn_at_most_four_times_a_second(self) -> None:
        cell, clock = Cell(), [0.0]
        with NotebookReport("Classifier", display=cell, now=lambda: clock[0]) as report:
            for second in range(40):
                clock[0] = 0.05 * second
                report(Progress("screening", "roc_auc", n_rungs=3, done=second, total=40, n_trials=second))
            assert 8 <= len(cell.contents) <= 10
            report(Progress("screening", "roc_auc", rung_completed=True, standings=STANDINGS))
            shown = cell.contents[-1]
        parsed(shown)
        assert "<script" not in shown
        assert shown.count("<tr") == 6  # the head and the five best
        assert "finished" in cell.contents[-1]

    def test_stages_bar_and_advice(self) -> None:
        cell = Cell()
        report = NotebookReport("Classifier", display=cell)
        report(
            Progress("cross-fitting", "rmse", done=1, total=4, best_score=3.0, path="plain", advice="do x")
        )
        html = cell.contents[-1]
        for words in ("✓ screening", "● cross-fitting", "○ saving", "width:25%", "best rmse", "plain; do x"):
            assert words in html
        report(Progress("refitting", "rmse", elapsed_seconds=30.0, seconds_left=90.0))
        assert "● refitting" in cell.contents[-1]
        assert "width:25%" in cell.contents[-1]
        assert "1:30 left" in cell.contents[-1]

        report(Progress("screening", "rmse", elapsed_seconds=25.0, forecast_seconds=74.0))
        assert "about 1:15 left" in cell.contents[-1]
        assert "width:25%" in cell.contents[-1]
        report(Progress("preparing", "rmse", detail="compiling the training loops"))
        assert "compiling the training loops" in cell.contents[-1]

    def test_an_interrupt_leaves_a_line(self) -> None:
        cell = Cell()
        report = NotebookReport("Classifier", display=cell)
        with report:
            report(Progress("screening", "roc_auc", n_trials=1))
        assert cell.contents[-1].endswith("1 trial</div></div>")
        assert "finished" in cell.contents[-1]
        report.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
        assert "stopped while screening" in cell.contents[-1]

    def test_notebooks_are_recognised(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delitem(sys.modules, "IPython", raising=False)
        assert not in_notebook()
        for shell, expected in ((None, False), (SimpleNamespace(), False), (SimpleNamespace(kernel=1), True)):
            monkeypatch.setitem(
                sys.modules, "IPython", SimpleNamespace(get_ipython=lambda shell=shell: shell)
            )
            assert in_notebook() is expected

    def test_fit_shows_it_in_a_notebook(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        shown: list[Any] = []

        def display(content: str, *, display_id: bool) -> Any:
            assert display_id
            shown.append(content)
            return SimpleNamespace(update=shown.append)

        shell = SimpleNamespace(kernel=1)
        monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
        displays = SimpleNamespace(display=display, HTML=str)
        monkeypatch.setitem(sys.modules, "IPython.display", displays)
        rng = np.random.default_rng(0)
        X = rng.normal(size=(60, 2))
        settings: dict[str, Any] = {"n_trials": 2, "max_epochs": 1, "n_folds": 2, "random_state": 0}
        ParallelMLPClassifier("small", **settings, verbose=1).fit(X, (X[:, 0] > 0).astype(int))
        assert "finished" in shown[-1]
        assert capsys.readouterr() == ("", "")
