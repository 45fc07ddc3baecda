"""A small table, and runs of it that take a fraction of a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from parallelmlp_search.cli import runs
from parallelmlp_search.cli.app import app
from parallelmlp_search.search.run import journal

SEARCH = (
    "--target", "sold", "--space", "small", "--trials", "3", "--max-epochs", "3", "--folds", "2",
    "--jobs", "1",
)  # fmt: skip

Pmlp = Callable[..., Result]


def small_table(rows: int = 60) -> pd.DataFrame:
    """A number, a number with missing values, a category, a date; two classes."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=rows).round(3), "b": rng.normal(size=rows).round(3)})
    frame["colour"] = rng.choice(["red", "green", "blue"], rows)
    frame["day"] = pd.date_range("2024-01-01", periods=rows).strftime("%Y-%m-%d")
    signal = frame["a"] - frame["b"] + (frame["colour"] == "red") + 0.5 * rng.normal(size=rows)
    frame.loc[::11, "b"] = np.nan
    frame["sold"] = np.where(signal > 0.4, "yes", "no")
    return frame


@pytest.fixture(scope="session")
def pmlp() -> Pmlp:
    """Run a command in this process."""

    def invoke(*arguments: object, **options: Any) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments], **options)

    return invoke


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "sold.csv"
    small_table().to_csv(path, index=False)
    return path


@pytest.fixture(scope="session")
def finished(table: Path, pmlp: Pmlp) -> Path:
    """A finished run."""
    run = table.parent / "finished"
    result = pmlp("search", table, *SEARCH, "--output", run)
    assert result.exit_code == 0, (result.output, result.exception)
    return run


@pytest.fixture(scope="session")
def interrupted(table: Path, pmlp: Pmlp) -> Path:
    """A run that was interrupted after the first fold of its finalists, with checkpoints of all shards."""
    run = table.parent / "interrupted"
    whole = runs.run

    def stop(progress: Any) -> None:
        if progress.stage == "cross-fitting":
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "MIN_KEPT_SECONDS", 0.0)
        patch.setattr(runs, "run", lambda *a, callbacks=(), **o: whole(*a, callbacks=[*callbacks, stop], **o))
        result = pmlp("search", table, *SEARCH, "--output", run)
    assert result.exit_code == 130, (result.output, result.exception)
    assert (run / "checkpoints" / "finalists-00-00-0000.safetensors").is_file()
    return run
