"""Small table, quiet studies, storages."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import optuna
import pytest
from numpy.typing import NDArray
from optuna.storages import BaseStorage

from parallelmlp_search.integrations.optuna import open_storage
from parallelmlp_search.space import Categorical, Float, SearchSpace

Table = tuple[NDArray[np.float64], NDArray[np.int64]]

SPACE = SearchSpace(
    {
        "widths": Categorical(((8,), (12,), (8, 8))),
        "learning_rate": Float(1e-3, 1e-1, log=True),
        "dropout": Categorical((0.0, 0.2)),
        "batch_size": Categorical((32,)),
    }
)

UNTESTED_VERSION = "99.0.0"
"""Version of Optuna whose storages are written one by one."""


def open_existing(url: str) -> BaseStorage:
    """Open a storage that is not None."""
    storage = open_storage(url)
    assert storage is not None
    return storage


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(level)


@pytest.fixture
def table() -> Table:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(240, 5))
    y = (X[:, 0] + X[:, 1] * X[:, 2] + 0.5 * rng.normal(size=240) > 0).astype(np.int64)
    return X, y
