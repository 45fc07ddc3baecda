"""Runs that the tests serve."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from parallelmlp_search import ParallelMLPClassifier, ParallelMLPRegressor
from parallelmlp_search.serve.app import create_app
from parallelmlp_search.serve.bodies import Limits
from parallelmlp_search.serve.metrics import Metrics
from tests.serve.client import Client

SEARCH = {"search_space": "small", "n_trials": 3, "max_epochs": 2, "n_folds": 2, "random_state": 0}


def people(n_rows: int = 400) -> pd.DataFrame:
    """Numbers, missing values, categories, booleans and dates."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "age": rng.integers(18, 90, n_rows).astype(float),
            "hours": rng.normal(40, 9, n_rows).round(1),
            "town": rng.choice(["Bern", "Genf", "Zürich", "Chur"], n_rows),
            "member": rng.random(n_rows) < 0.4,
            "since": pd.date_range("2019-03-01", periods=n_rows, freq="31h").strftime("%Y-%m-%d"),
        }
    )
    frame.loc[::11, "age"] = np.nan
    frame.loc[5::13, "town"] = None
    return frame


def offers(n_rows: int = 300) -> pd.DataFrame:
    """Money, durations, lists, texts and dates in another format, which have readers."""
    rng = np.random.default_rng(1)
    words = np.array(["small", "large", "red", "old", "new", "fast", "slow", "warm", "cold", "dry"])
    return pd.DataFrame(
        {
            "price": [f"€{value:,.2f}" for value in rng.gamma(3, 900, n_rows)],
            "drive": [f"{value} min" for value in rng.integers(3, 90, n_rows)],
            "tags": [
                "|".join(sorted(rng.choice(words[:6], rng.integers(1, 4), False))) for _ in range(n_rows)
            ],
            "sold": pd.date_range("2021-01-01", periods=n_rows, freq="2D").strftime("%d.%m.%Y"),
            "text": [" ".join(rng.choice(words, 7)) for _ in range(n_rows)],
        }
    )


@pytest.fixture(scope="package")
def people_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    frame = people()
    target = np.where(frame["hours"] + 5 * frame["member"] + (frame["town"] == "Bern") > 41, "yes", "no")
    folder = tmp_path_factory.mktemp("serve") / "people"
    ParallelMLPClassifier(**SEARCH, run_directory=folder).fit(frame, pd.Series(target, name="pays"))
    return folder


@pytest.fixture(scope="package")
def offers_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    frame = offers()
    target = pd.Series(np.random.default_rng(2).normal(size=len(frame)).round(3), name="days")
    folder = tmp_path_factory.mktemp("serve") / "offers"
    ParallelMLPRegressor(**SEARCH, run_directory=folder).fit(frame, target)
    return folder


@pytest.fixture
def client_of(tmp_path: Path) -> Callable[..., Client]:
    """Function that makes an application of a run."""

    def make(run: Path, *, max_bytes: int = 1_000_000, max_rows: int = 500) -> Client:
        return Client(create_app(run, Limits(max_bytes, max_rows), Metrics(tmp_path)))

    return make
