"""Searches under a memory limit: equal for any number of workers, resumable, and within the limit."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.search import Problem, Progress, RunDirectory, SearchSettings, run
from parallelmlp_search.search.problem import memory_room
from parallelmlp_search.search.run import memory

Make = Callable[..., Any]
Same = Callable[[pd.DataFrame, pd.DataFrame], None]
ROOT = Path(__file__).parents[2]
MB = 10**6


@pytest.fixture
def in_use(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Function that sets the memory that the process seems to use."""

    def use(n_bytes: int) -> None:
        for module in (memory, memory_room):
            monkeypatch.setattr(module, "resident_bytes", lambda: n_bytes)

    use(600 * MB)
    return use


@pytest.mark.usefixtures("in_use")
def test_the_result_does_not_depend_on_the_number_of_workers(
    spam: Problem, make_settings: Make, assert_same_table: Same
) -> None:
    settings = make_settings(memory_limit="800M")
    one, two = (run(spam, settings, n_jobs=n_jobs) for n_jobs in (1, 2))
    assert_same_table(one.trials, two.trials)
    assert one.honest == two.honest


def test_a_resumed_search_keeps_its_plan_of_the_memory(
    spam: Problem,
    make_settings: Make,
    in_use: Callable[[int], None],
    assert_same_table: Same,
    tmp_path: Path,
) -> None:
    settings = make_settings(memory_limit="800M")
    expected = run(spam, settings, n_jobs=1)

    def interrupt(progress: Progress) -> None:
        if progress.stage == "cross-fitting":
            raise KeyboardInterrupt

    directory = RunDirectory.create(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        run(spam, settings, directory=directory, callbacks=[interrupt], n_jobs=1)
    planned = directory.entries()["plan"]["memory"]
    assert planned["limit"] == 800 * MB
    in_use(660 * MB)
    result = run(spam, settings, directory=directory, n_jobs=1)
    assert directory.entries()["plan"]["memory"] == planned
    assert_same_table(expected.trials, result.trials)
    assert directory.info()["memory"].keys() == {"peak", "limit", "estimate"}


def test_a_limit_below_the_minimum_is_refused(spam: Problem, make_settings: Make, in_use: Any) -> None:
    with pytest.raises(InvalidParameterError, match=r"memory_limit must be at least \d+M, but got 640M"):
        run(spam, make_settings(memory_limit="640M"))
    in_use(620 * MB)
    # there is room for a start, but not for training the largest networks of this space
    settings = SearchSettings("default", n_trials=4, max_epochs=1, memory_limit="726M")
    with pytest.raises(InvalidParameterError, match=r"but got 726M: .* training needs \d+M more"):
        run(spam, settings)


@pytest.mark.alone
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from Linux")
def test_the_peak_stays_below_the_limit(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "parallelmlp_search", "search", str(ROOT / "datasets/adult.csv.gz")]
    command += ["--target", "income", "--trials", "24", "--max-epochs", "1", "--folds", "2", "--quiet"]
    command += ["--finalists", "3", "--output", str(tmp_path / "run"), "--memory-limit"]
    refused = subprocess.run([*command, "450M"], capture_output=True, text=True, check=False, cwd=ROOT)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: --memory-limit must be at least")
    assert not (tmp_path / "run").exists()
    subprocess.run([*command, "900M"], capture_output=True, check=True, cwd=ROOT)
    used = json.loads((tmp_path / "run/run.json").read_text(encoding="utf-8"))["memory"]
    assert used["peak"] <= used["limit"] == 900 * MB
    assert 0.8 <= used["estimate"] / used["peak"] <= 1.2
