"""A resumed search continues where it stopped and has the result of an uninterrupted one."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from parallelmlp_search.exceptions import RunDirectoryError
from parallelmlp_search.search import Problem, Progress, RunDirectory, SearchResult, TrainedModel, run
from parallelmlp_search.search.run import journal

Make = Callable[..., Any]
Same = Callable[[pd.DataFrame, pd.DataFrame], None]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def keep_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep outcomes of all shards; by default those of short ones are not stored."""
    monkeypatch.setattr(journal, "MIN_KEPT_SECONDS", 0.0)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys of the shards that are trained."""
    keys: list[str] = []
    train = journal.run_shards

    def recording(tasks: Any, **values: Any) -> Any:
        def seen() -> Any:
            for task in tasks:
                keys.append(task.key)
                yield task

        return train(seen(), **values)

    monkeypatch.setattr(journal, "run_shards", recording)
    return keys


def _interrupt_at(call: int, seen: list[Progress]) -> Callable[[Progress], None]:
    def callback(progress: Progress) -> None:
        seen.append(progress)
        if len(seen) == call + 1 and progress.stage != "finished":
            raise KeyboardInterrupt

    return callback


def _assert_same(
    directory: RunDirectory, result: SearchResult, found: SearchResult, spam: Problem, same: Same
) -> None:
    same(result.trials, found.trials)
    same(result.leaderboard.to_frame(), found.leaderboard.to_frame())
    assert result.honest == found.honest
    assert result.member_steps == found.member_steps
    expected = found.model.predictions(spam.frame)
    assert np.array_equal(result.model.predictions(spam.frame), expected)
    assert np.array_equal(TrainedModel.load(directory.model_folder).predictions(spam.frame), expected)
    assert directory.info()["status"] == "finished"


# ---------------------------------------------------------------------- Ctrl-C


@pytest.fixture(scope="module")
def uninterrupted(spam: Problem, make_settings: Make) -> list[Progress]:
    seen: list[Progress] = []
    run(spam, make_settings(), callbacks=[seen.append], n_jobs=1)
    return seen


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.7, 0.95])
@pytest.mark.parametrize("kept", ["rounds", "shards"])
def test_a_resumed_search_has_the_same_result(
    share: float,
    kept: str,
    found: SearchResult,
    uninterrupted: list[Progress],
    spam: Problem,
    make_settings: Make,
    assert_same_table: Same,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if kept == "shards":
        monkeypatch.setattr(journal, "MIN_KEPT_SECONDS", 0.0)
    n_jobs = 1 if kept == "rounds" else 2
    directory = RunDirectory.create(tmp_path / "run")
    seen: list[Progress] = []
    callback = _interrupt_at(int(share * (len(uninterrupted) - 2)), seen)
    with pytest.raises(KeyboardInterrupt):
        run(spam, make_settings(), directory=directory, callbacks=[callback], n_jobs=n_jobs)
    info = directory.info()
    assert info["status"] == "interrupted"
    assert info["spent_seconds"] > 0
    result = run(spam, make_settings(), directory=RunDirectory.open(tmp_path / "run"), n_jobs=n_jobs)
    _assert_same(directory, result, found, spam, assert_same_table)


@pytest.mark.usefixtures("keep_everything")
def test_stored_shards_are_not_trained_again(
    found: SearchResult,
    spam: Problem,
    make_settings: Make,
    assert_same_table: Same,
    tmp_path: Path,
    trained: list[str],
) -> None:
    directory = RunDirectory.create(tmp_path / "run")
    for call in range(3, 200, 4):  # each attempt ends a few calls later
        try:
            result = run(
                spam, make_settings(), directory=directory, callbacks=[_interrupt_at(call, [])], n_jobs=1
            )
            break
        except KeyboardInterrupt:
            pass
    else:
        pytest.fail("the search does not advance")
    _assert_same(directory, result, found, spam, assert_same_table)
    # at most the shards that were ready or running at the interrupt
    assert len(trained) <= len(set(trained)) + 3 * (call // 4)
    assert max(trained.count(key) for key in set(trained)) <= 3


def test_an_interrupt_after_everything_is_saved_leaves_a_finished_run(
    found: SearchResult, spam: Problem, make_settings: Make, tmp_path: Path
) -> None:
    directory = RunDirectory.create(tmp_path / "run")

    def late(progress: Progress) -> None:
        if progress.stage == "finished":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(spam, make_settings(), directory=directory, callbacks=[late], n_jobs=1)
    assert directory.info()["status"] == "finished"
    assert directory.result()["best_trial"] == found.best_trial


@pytest.mark.usefixtures("keep_everything")
def test_screening_ended_by_a_callback_is_not_continued(
    spam: Problem, make_settings: Make, assert_same_table: Same, tmp_path: Path
) -> None:
    """Finalists stay the same if cross-fitting is interrupted after a callback ended the screening."""

    def enough(progress: Progress) -> bool:
        return progress.stage == "screening" and progress.rung_completed and progress.round == 1

    expected = run(spam, make_settings(), callbacks=[enough], n_jobs=1)
    directory = RunDirectory.create(tmp_path / "run")

    def interrupt(progress: Progress) -> None:
        if progress.stage == "cross-fitting" and progress.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(spam, make_settings(), directory=directory, callbacks=[enough, interrupt], n_jobs=1)
    result = run(spam, make_settings(), directory=directory, n_jobs=1)
    _assert_same(directory, result, expected, spam, assert_same_table)


def test_an_error_of_a_callback_fails_the_run_and_can_be_resumed(
    found: SearchResult, spam: Problem, make_settings: Make, assert_same_table: Same, tmp_path: Path
) -> None:
    directory = RunDirectory.create(tmp_path / "run")

    def broken(progress: Progress) -> None:
        if progress.stage == "cross-fitting":
            raise ValueError("error of a callback")

    with pytest.raises(ValueError, match="error of a callback"):
        run(spam, make_settings(), directory=directory, callbacks=[broken], n_jobs=1)
    assert directory.info()["status"] == "failed"
    log = [json.loads(line) for line in (directory.path / "log.jsonl").read_text().splitlines()]
    assert "error of a callback" in log[-1]["reason"]
    _assert_same(
        directory, run(spam, make_settings(), directory=directory, n_jobs=1), found, spam, assert_same_table
    )


# ---------------------------------------------------------------------- kill -9

SCRIPT = """
import importlib.util, sys, time
from pathlib import Path
specification = importlib.util.spec_from_file_location("tables", sys.argv[1])
tables = importlib.util.module_from_spec(specification)
specification.loader.exec_module(tables)
from parallelmlp_search.search import RunDirectory, run
from parallelmlp_search.search.run import journal
journal.MIN_KEPT_SECONDS = 0.0
folder = Path(sys.argv[2])

def slowly(progress):
    # leaves the test time to find the file and kill the process
    if list((folder / "checkpoints").glob(sys.argv[3])):
        time.sleep(0.5)

directory = RunDirectory.create(folder)
run(tables._problem("spambase"), tables._settings(), directory=directory, callbacks=[slowly], n_jobs=2)
"""


@pytest.mark.parametrize("pattern", ["round-001.safetensors", "finalists-*"], ids=["screening", "finalists"])
def test_a_killed_search_has_the_same_result_after_resuming(
    pattern: str,
    found: SearchResult,
    spam: Problem,
    make_settings: Make,
    assert_same_table: Same,
    tmp_path: Path,
    trained: list[str],
) -> None:
    folder = tmp_path / "run"
    arguments = [
        sys.executable,
        "-c",
        SCRIPT,
        str(Path(__file__).with_name("conftest.py")),
        str(folder),
        pattern,
    ]
    searching = subprocess.Popen(arguments, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        until = time.monotonic() + 60
        while not list((folder / "checkpoints").glob(pattern)):
            assert searching.poll() is None, "the search ended before it could be killed"
            assert time.monotonic() < until
            time.sleep(0.02)
        # no other process may write while it runs
        with pytest.raises(RunDirectoryError, match="another process is writing to"):
            run(spam, make_settings(), directory=RunDirectory.open(folder))
        searching.send_signal(signal.SIGKILL)
        assert searching.wait(30) == -signal.SIGKILL
    finally:
        if searching.poll() is None:
            searching.kill()
            searching.wait(30)
    directory = RunDirectory.open(folder)
    assert directory.info()["status"] == "running"
    result = run(spam, make_settings(), directory=directory, n_jobs=1)
    _assert_same(directory, result, found, spam, assert_same_table)
    assert trained
    assert not [key for key in trained if key.startswith(("round-000", "round-001"))]


# ---------------------------------------------------------------------- a full disk


@pytest.mark.usefixtures("keep_everything")
@pytest.mark.parametrize("writes", [0, 7])
@pytest.mark.parametrize("kind", ["OSError", "SafetensorError"])
def test_a_full_disk_is_an_error_and_the_search_can_be_resumed(
    writes: int,
    kind: str,
    found: SearchResult,
    spam: Problem,
    make_settings: Make,
    assert_same_table: Same,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import safetensors.torch
    from safetensors import SafetensorError

    save, count = safetensors.torch.save_file, 0

    def filling(tensors: Any, path: Any, **values: Any) -> None:
        nonlocal count
        count += 1
        if count <= writes:
            save(tensors, path, **values)
            return
        Path(path).write_bytes(b"half")
        if kind == "OSError":
            raise OSError(errno.ENOSPC, "No space left on device")
        raise SafetensorError(
            'IoError(Os { code: 28, kind: StorageFull, message: "No space left on device" })'
        )

    directory = RunDirectory.create(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(safetensors.torch, "save_file", filling)
        with pytest.raises(
            RunDirectoryError, match=r"could not write .*No space left.*: free some space there"
        ):
            run(spam, make_settings(), directory=directory, n_jobs=1)
    assert directory.info()["status"] == "failed"
    assert not list(directory.path.rglob("*.part"))
    result = run(spam, make_settings(), directory=directory, n_jobs=1)
    _assert_same(directory, result, found, spam, assert_same_table)


def test_a_disk_that_fills_up_while_saving_the_outcome(
    found: SearchResult,
    spam: Problem,
    make_settings: Make,
    assert_same_table: Same,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    directory = RunDirectory.create(tmp_path / "run")

    def full(*arguments: Any, **values: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pd.DataFrame, "to_parquet", full)
        with pytest.raises(RunDirectoryError, match="free some space"):
            run(spam, make_settings(), directory=directory, n_jobs=1)
    with pytest.raises(RunDirectoryError, match="failed and has no result"):
        directory.result()
    result = run(spam, make_settings(), directory=directory, n_jobs=1)
    _assert_same(directory, result, found, spam, assert_same_table)


# ---------------------------------------------------------------------- errors on resuming


@pytest.fixture
def unfinished(spam: Problem, make_settings: Make, tmp_path: Path) -> RunDirectory:
    directory = RunDirectory.create(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        run(spam, make_settings(), directory=directory, callbacks=[_interrupt_at(4, [])], n_jobs=1)
    return directory


@pytest.mark.parametrize("change", ["frame", "column", "target", "weight", "groups", "class_weight", "task"])
def test_other_data_are_an_error(
    change: str, unfinished: RunDirectory, spam: Problem, make_settings: Make
) -> None:
    frame, target = spam.frame.copy(), spam.target.copy()
    if change == "frame":
        frame.iloc[17, 3] += 1e-9
    if change == "column":
        frame = frame.rename(columns={"address": "adress"})
    target[0] = "spam" if target[0] == "nonspam" else "nonspam"
    changes: dict[str, Any] = {
        "frame": {"frame": frame},
        "column": {"frame": frame},
        "target": {"target": target},
        "weight": {"weight": np.ones(400)},
        "groups": {"groups": np.arange(400)},
        "class_weight": {"class_weight": "balanced"},
        "task": {"task": "multiclass"},
    }
    with pytest.raises(RunDirectoryError, match="was started on other data: resume it with the same table"):
        run(replace(spam, **changes[change]), make_settings(), directory=unfinished)


def test_another_index_of_the_same_data_is_accepted(
    unfinished: RunDirectory, found: SearchResult, spam: Problem, make_settings: Make, assert_same_table: Same
) -> None:
    moved = spam.frame.set_axis(np.arange(1000, 1400), axis=0)
    result = run(replace(spam, frame=moved), make_settings(), directory=unfinished, n_jobs=1)
    assert_same_table(result.trials, found.trials)


@pytest.mark.parametrize(
    ("name", "value"), [("seed", 1), ("n_trials", 21), ("refinement", 0.1), ("search_space", "small")]
)
def test_other_settings_are_an_error(
    name: str, value: Any, unfinished: RunDirectory, spam: Problem, make_settings: Make
) -> None:
    with pytest.raises(
        RunDirectoryError, match=rf"was started with {name}=.*resume it with the same settings"
    ):
        run(spam, make_settings(**{name: value}), directory=unfinished)
    # the run is not changed
    assert unfinished.info()["status"] == "interrupted"


def test_resuming_a_finished_run_is_an_error(spam: Problem, make_settings: Make, tmp_path: Path) -> None:
    directory = RunDirectory.create(tmp_path / "run")
    run(spam, make_settings(n_trials=3), directory=directory, n_jobs=1)
    with pytest.raises(RunDirectoryError, match="is finished: choose another folder"):
        run(spam, make_settings(n_trials=3), directory=directory)
    assert directory.info()["status"] == "finished"


def test_resuming_a_locked_run_is_an_error(
    unfinished: RunDirectory, spam: Problem, make_settings: Make
) -> None:
    with (
        RunDirectory.open(unfinished.path).locked(),
        pytest.raises(RunDirectoryError, match=r"another process is writing to .*: wait for it"),
    ):
        run(spam, make_settings(), directory=unfinished)
