"""Small searches whose models are explained."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from parallelmlp_search.search import Problem, SearchResult, SearchSettings, run
from parallelmlp_search.space import Categorical, Float, SearchSpace

SPACE = SearchSpace(
    {
        "width": Categorical((8, 16)),
        "activation": Categorical(("relu", "tanh")),
        "learning_rate": Float(5e-3, 3e-2, log=True),
        "batch_size": Categorical((32,)),
    }
)


def _mixed(n_rows: int = 600, seed: int = 0) -> pd.DataFrame:
    """Numbers, categories, dates and missing values; ``twin`` repeats ``size``."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"size": rng.normal(size=n_rows)})
    frame["twin"] = frame["size"] * 2 + rng.normal(scale=0.05, size=n_rows)
    frame["colour"] = rng.choice(["red", "green", "blue"], n_rows)
    frame.loc[rng.random(n_rows) < 0.1, "colour"] = None
    frame["day"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 700, n_rows), unit="D")
    frame["noise"] = rng.normal(size=n_rows)
    return frame


def _searched(
    frame: pd.DataFrame, target: np.ndarray, task: str, **values: object
) -> tuple[Problem, SearchResult]:
    problem = Problem(frame, target, task)  # type: ignore[arg-type]
    settings = SearchSettings(
        **{"search_space": SPACE, "n_trials": 4, "max_epochs": 12, "n_folds": 3, "n_finalists": 2} | values
    )
    return problem, run(problem, settings, n_jobs=1)


@pytest.fixture(scope="session")
def mixed() -> Callable[..., pd.DataFrame]:
    return _mixed


@pytest.fixture(scope="session")
def searched() -> Callable[..., tuple[Problem, SearchResult]]:
    return _searched


@pytest.fixture(scope="session")
def binary() -> tuple[Problem, SearchResult]:
    """Classes that follow from size and colour."""
    frame, rng = _mixed(), np.random.default_rng(1)
    odds = 2.0 * frame["size"] + 1.5 * (frame["colour"] == "red") - 0.5
    return _searched(
        frame, np.where(rng.random(600) < 1 / (1 + np.exp(-odds)), "yes", "no").astype(object), "binary"
    )
