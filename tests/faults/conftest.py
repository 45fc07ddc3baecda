"""Runs that take a fraction of a second, and commands in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from parallelmlp_search.cli import runs
from parallelmlp_search.cli.app import app
from parallelmlp_search.search.run import journal
from tests.faults.small import SEARCH, small_table

Pmlp = Callable[..., Result]


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
