"""Small real tables, a small space, and searches over them that take less than a second."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from parallelmlp_search.search import Problem, SearchResult, SearchSettings, run
from parallelmlp_search.search.problem.preparation import Preparation
from parallelmlp_search.search.run.budget import Clock, Throughput
from parallelmlp_search.search.run.context import SearchContext
from parallelmlp_search.search.run.journal import Journal
from parallelmlp_search.search.run.phases import PhaseClock
from parallelmlp_search.search.run.progress import Reporter
from parallelmlp_search.search.run.workers import Workers
from parallelmlp_search.space import Categorical, Float, SearchSpace

DATASETS = Path(__file__).parents[2] / "datasets"
TARGETS = {
    "spambase": ("type", "binary"),
    "letter": ("lettr", "multiclass"),
    "satimage": ("classes", "multiclass"),
    "diamonds": ("price", "regression"),
    "wine_quality": ("quality", "regression"),
    "credit_g": ("class", "binary"),
    "adult": ("income", "binary"),
}


@functools.cache
def _read(name: str) -> pd.DataFrame:
    return pd.read_csv(DATASETS / f"{name}.csv.gz")


def _table(name: str, n_rows: int, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray[Any, Any]]:
    """Features and target of a sample of a bundled table."""
    frame = _read(name)
    frame = frame.sample(min(n_rows, len(frame)), random_state=seed).reset_index(drop=True)
    target = frame.pop(TARGETS[name][0])
    regression = TARGETS[name][1] == "regression"
    return frame, target.to_numpy(dtype=np.float64 if regression else object)


def _problem(name: str, n_rows: int = 400, seed: int = 0, **values: Any) -> Problem:
    frame, target = _table(name, n_rows, seed)
    return Problem(frame, target, TARGETS[name][1], target_name=TARGETS[name][0], **values)  # type: ignore[arg-type]


SPACE = SearchSpace(
    {
        "width": Categorical((4, 8, 12)),
        "activation": Categorical(("relu", "tanh")),
        "learning_rate": Float(1e-3, 3e-2, log=True),
        "dropout": Categorical((0.0, 0.1)),
        "batch_size": Categorical((32, 64)),
        "numeric_embedding": Categorical(("none", "piecewise")),
    }
)


def _settings(**values: Any) -> SearchSettings:
    """Settings for about twenty trials, three rungs and three folds."""
    return SearchSettings(
        **{"search_space": SPACE, "n_trials": 20, "max_epochs": 4, "n_folds": 3, "n_finalists": 3} | values
    )


def _without_seconds(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop(columns=[name for name in frame.columns if name.endswith("_seconds")])


def _assert_same_table(first: pd.DataFrame, second: pd.DataFrame) -> None:
    """Assert that two tables are equal except for columns of seconds."""
    pd.testing.assert_frame_equal(_without_seconds(first), _without_seconds(second), check_exact=True)


def _context(problem: Problem, settings: SearchSettings, spent: float = 0.0) -> SearchContext:
    """Context of a search with one worker and without a run directory."""
    preparation, throughput = Preparation(problem, settings), Throughput(1)
    clock = Clock(settings.time_limit, spent=spent)
    reporter = Reporter((), preparation.metric, clock, throughput)
    workers = Workers(contextlib.ExitStack(), 1)
    data = preparation.screening().data
    phases = PhaseClock(throughput)
    return SearchContext(preparation, data, Journal(throughput), reporter, clock, workers, phases)


@pytest.fixture(scope="session")
def make_context() -> Callable[..., SearchContext]:
    return _context


@pytest.fixture(scope="session")
def make_problem() -> Callable[..., Problem]:
    return _problem


@pytest.fixture(scope="session")
def make_settings() -> Callable[..., SearchSettings]:
    return _settings


@pytest.fixture(scope="session")
def assert_same_table() -> Callable[[pd.DataFrame, pd.DataFrame], None]:
    return _assert_same_table


@pytest.fixture(scope="session")
def spam() -> Problem:
    return _problem("spambase")


@pytest.fixture(scope="session")
def found(spam: Problem) -> SearchResult:
    """One search over 400 rows of spambase."""
    return run(spam, _settings(), n_jobs=1)
