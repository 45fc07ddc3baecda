"""``predict_interval`` and ``predict_set`` of estimators, and of ``load`` without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from parallelmlp_search import ParallelMLPClassifier, ParallelMLPRegressor, load

SMALL: dict[str, Any] = {"n_trials": 4, "max_epochs": 3, "n_folds": 2, "random_state": 0, "baselines": False}


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame({"a": rng.normal(size=200), "b": rng.choice(["x", "y"], 200)})


@pytest.fixture(scope="module")
def regressor(table: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> ParallelMLPRegressor:
    folder = tmp_path_factory.mktemp("runs") / "numbers"
    return ParallelMLPRegressor("small", **SMALL, run_directory=folder).fit(table, table["a"] ** 2)


def test_shapes_of_intervals(regressor: ParallelMLPRegressor, table: pd.DataFrame) -> None:
    ends = regressor.predict_interval(table)
    assert ends.shape == (200, 2)
    prediction = regressor.predict(table)
    assert ((ends[:, 0] <= prediction) & (prediction <= ends[:, 1])).all()
    several = regressor.predict_interval(table, coverage=[0.5, 0.9])
    assert several.shape == (200, 2, 2)
    assert np.array_equal(several[:, :, 1], ends)
    assert np.array_equal(regressor.predict_interval(table, coverage=[0.9])[:, :, 0], ends)
    both = ParallelMLPRegressor("small", **SMALL).fit(table, np.stack([table["a"], -table["a"]], axis=1))
    assert both.predict_interval(table.head(7)).shape == (7, 2, 2)
    assert both.predict_interval(table.head(7), coverage=(0.5, 0.8, 0.9)).shape == (7, 2, 2, 3)


def test_shapes_of_sets(table: pd.DataFrame) -> None:
    model = ParallelMLPClassifier("small", **SMALL).fit(table, np.digitize(table["a"], [-0.5, 0.5]))
    sets = model.predict_set(table)
    assert (sets.shape, sets.dtype) == ((200, 3), bool)
    assert sets[np.arange(200), model.predict(table)].all()
    several = model.predict_set(table, coverage=[0.5, 0.9])
    assert several.shape == (200, 3, 2)
    assert np.array_equal(several[:, :, 1], sets)


def test_mistakes_are_named(regressor: ParallelMLPRegressor, table: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match=r"coverage must be a number in \(0, 1\), such as 0\.9.* but got 90"):
        regressor.predict_interval(table, coverage=90)
    with pytest.raises(ValueError, match="feature names"):
        regressor.predict_interval(table[["a"]])
    with pytest.warns(UserWarning, match="no informative column"):
        constant = ParallelMLPRegressor("small", **SMALL).fit(np.ones((30, 2)), np.arange(30.0))
    with pytest.raises(ValueError, match="no informative column; search again"):
        constant.predict_interval(np.ones((2, 2)))


def test_a_loaded_model_makes_the_same_intervals_without_torch(
    regressor: ParallelMLPRegressor, table: pd.DataFrame, tmp_path: Path
) -> None:
    expected = regressor.predict_interval(table, coverage=[0.5, 0.9])
    loaded = load(regressor.run_directory or "")
    assert isinstance(loaded, ParallelMLPRegressor)
    assert np.array_equal(loaded.predict_interval(table, coverage=[0.5, 0.9]), expected)
    assert loaded.result_ is not None
    assert regressor.result_ is not None
    assert loaded.result_.uncertainty == regressor.result_.uncertainty
    regressor.model_.save(tmp_path / "model")
    table.to_csv(tmp_path / "table.csv", index=False)
    program = (
        "import sys, numpy as np, pandas as pd\n"
        "from parallelmlp_search import load\n"
        f"table = pd.read_csv({str(tmp_path / 'table.csv')!r})\n"
        f"ends = load({str(tmp_path / 'model')!r}).predict_interval(table)\n"
        "assert 'torch' not in sys.modules\n"
        "print(repr(float(ends.sum())))\n"
    )
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert float(output) == pytest.approx(float(expected[:, :, 1].sum()))
