"""``verbose`` and the logger ``parallelmlp_search``."""

from __future__ import annotations

import logging
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from parallelmlp_search import ParallelMLPClassifier
from parallelmlp_search.exceptions import InvalidParameterError

LOGGER = logging.getLogger("parallelmlp_search")
SETTINGS: dict[str, Any] = {"n_trials": 6, "max_epochs": 3, "n_folds": 2, "random_state": 0}


def fit(verbose: Any, **changes: Any) -> ParallelMLPClassifier:
    X = np.random.default_rng(0).normal(size=(80, 3))
    model = ParallelMLPClassifier("small", **SETTINGS | changes, verbose=verbose)
    return model.fit(X, (X[:, 0] > 0).astype(int))


def test_nothing_is_printed_at_0(capfd: pytest.CaptureFixture[str]) -> None:
    fit(0)
    assert capfd.readouterr() == ("", "")


def test_a_line_per_rung_at_1(capfd: pytest.CaptureFixture[str]) -> None:
    fit(1)
    out, err = capfd.readouterr()
    assert not out
    assert "screening rung 1/2" in err
    assert "cross-fitting" in err
    assert "plan:" not in err


def test_messages_of_all_stages_at_2(capfd: pytest.CaptureFixture[str]) -> None:
    level = LOGGER.level
    model = fit(2)
    out, err = capfd.readouterr()
    assert not out
    assert model.result_ is not None
    assert model.result_.honest is not None
    expected = (
        "80 rows, 3 columns: binary classification, metric roc_auc, 16 rows for validation",
        "training with",
        "plan: 6 trials, rungs of 1, 3 epochs, 2 finalists on 2 folds",
        "screening, round 1, rung 1 of 2: ",
        "cross-fitting: 2 finalists trained, best roc_auc",
        "selecting",
        "saving",
        "baseline prior: roc_auc 0.5",
        "baseline linear: left out, the search is too short",
        "best single network: trial",
        f"honest score: roc_auc {model.result_.honest.score:.5g}, 95 % interval",
        "finished after",
    )
    lines = err.splitlines()
    places = [next(n for n, line in enumerate(lines) if words in line) for words in expected]
    assert places == sorted(places)
    assert all(line[:8].strip()[0].isdigit() for line in lines)
    assert not LOGGER.handlers
    assert LOGGER.level == level


def test_a_handler_of_the_user_receives_messages_without_verbose(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="parallelmlp_search"):
        fit(0, refit=True)
    levels = {record.levelname for record in caplog.records}
    assert levels == {"INFO", "DEBUG"}
    assert {record.name for record in caplog.records} == {"parallelmlp_search"}
    texts = [record.getMessage() for record in caplog.records]
    assert "refitting" in texts
    assert any(text.startswith("screening: 1 of") for text in texts)
    caplog.clear()
    fit(0)
    assert not caplog.records


def test_failed_trials_are_named(caplog: pytest.LogCaptureFixture) -> None:
    from parallelmlp_search import MLPConfig, SearchSpace
    from parallelmlp_search.space import Categorical

    space = SearchSpace({"optimizer": Categorical(("sgd",)), "learning_rate": Categorical((1e30, 0.01))})
    bad = MLPConfig(optimizer="sgd", learning_rate=1e30)
    X = np.random.default_rng(0).normal(size=(80, 3))
    model = ParallelMLPClassifier(space, **SETTINGS | {"n_trials": 4}, initial_configs=[bad])
    with caplog.at_level(logging.INFO, logger="parallelmlp_search"):
        model.fit(X, (X[:, 0] > 0).astype(int))
    assert (model.leaderboard(details=True)["state"] == "failed").any()
    assert any("failed, the first because: " in record.getMessage() for record in caplog.records)


def test_messages_and_progress_in_a_notebook(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    shown: list[Any] = []

    def display(content: str, *, display_id: bool) -> Any:
        shown.append(content)
        return SimpleNamespace(update=shown.append)

    shell = SimpleNamespace(kernel=1)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display, HTML=str))
    fit(2)
    assert "finished" in shown[-1]
    assert "honest score: roc_auc" in capfd.readouterr().err


@pytest.mark.parametrize("verbose", [-1, 0.5, "yes", None])
def test_other_values_are_refused(verbose: Any) -> None:
    with pytest.raises(InvalidParameterError, match="verbose must be 0, 1 or 2, but got"):
        fit(verbose)
