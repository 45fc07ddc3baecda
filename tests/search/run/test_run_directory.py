"""Files of a run directory, and its lock."""

from __future__ import annotations

import contextlib
import errno
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from parallelmlp_search.exceptions import InvalidParameterError, RunDirectoryError
from parallelmlp_search.search import Problem, Progress, RunDirectory, SearchResult, SearchSettings, run
from parallelmlp_search.search.finalists.result import trials_frame
from parallelmlp_search.search.run import run_directory
from parallelmlp_search.search.run.budget import Throughput
from parallelmlp_search.search.run.journal import Journal
from parallelmlp_search.search.run.trial import RungRecord, Trial, TrialState, config_of_row
from parallelmlp_search.selection import Entry, Leaderboard, get_metric
from parallelmlp_search.space import MLPConfig


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "run")


def test_a_new_run_is_running(directory: RunDirectory) -> None:
    info = directory.info()
    assert info["status"] == "running"
    assert {"python", "torch", "numpy", "pandas", "scikit-learn"} <= set(info["versions"])
    assert info["machine"]["cores"] >= 1
    assert info["machine"]["system"]
    assert info["created"].endswith("+00:00")


def test_a_new_run_needs_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    RunDirectory.create(tmp_path / "empty").update(settings={})
    with pytest.raises(RunDirectoryError, match="already exists and is not empty: choose another folder"):
        RunDirectory.create(tmp_path / "empty")
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunDirectoryError, match="already exists"):
        RunDirectory.create(tmp_path / "file")
    RunDirectory.create(tmp_path / "deep" / "er")


def test_one_of_several_programs_creates_a_run(tmp_path: Path) -> None:
    """Creations of one folder at the same time: one succeeds, and its ``run.json`` stays."""
    n_programs, n_races = 4, 40
    barrier = threading.Barrier(n_programs)

    def start(program: int, race: int) -> RunDirectory | None:
        barrier.wait()
        with contextlib.suppress(RunDirectoryError):
            return RunDirectory.create(tmp_path / str(race), program=program)
        return None

    with ThreadPoolExecutor(n_programs) as pool:
        for race in range(n_races):
            created = list(pool.map(start, range(n_programs), [race] * n_programs))
            (winner,) = [program for program, directory in enumerate(created) if directory is not None]
            assert RunDirectory.open(tmp_path / str(race)).info()["program"] == winner


def test_a_created_run_is_locked_until_its_search_ends(directory: RunDirectory) -> None:
    with pytest.raises(RunDirectoryError, match="another process is writing to"):
        RunDirectory.create(directory.path)
    with directory.locked():
        pass
    with RunDirectory.open(directory.path).locked():
        pass


def test_a_run_that_never_began_is_created_again(directory: RunDirectory) -> None:
    (directory.path / ".run.json.7.part").write_text("{")
    with directory.locked():
        pass
    again = RunDirectory.create(directory.path, source={"data": "a.csv"})
    again.update(settings={})
    with again.locked():
        pass
    with pytest.raises(RunDirectoryError, match="already exists and is not empty"):
        RunDirectory.create(directory.path)


def test_folders_of_killed_exports_are_deleted(directory: RunDirectory) -> None:
    directory.update(status="finished")
    with directory.locked():
        pass
    for folder in (directory.path / ".model-numpy.7.part", directory.checkpoints):
        folder.mkdir()
        (folder / ".model.npz.7.part").write_text("")
    outside = directory.path.with_name("outside")
    outside.mkdir()
    (directory.path / ".link.7.part").symlink_to(outside)
    directory.tidy()
    assert outside.is_dir()
    assert {path.name for path in directory.path.iterdir()} == {".lock", "run.json"}


def test_a_folder_that_cannot_be_created_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunDirectoryError, match=r"could not create .*: choose another folder"):
        RunDirectory.create(tmp_path / "file" / "run")


def test_a_folder_without_a_run_is_an_error_with_a_suggestion(
    directory: RunDirectory, tmp_path: Path
) -> None:
    assert RunDirectory.open(tmp_path / "run").info() == directory.info()
    with pytest.raises(RunDirectoryError, match=r"is not a run: it holds no run\.json; did you mean 'run'\?"):
        RunDirectory.open(tmp_path / "runn")
    with pytest.raises(RunDirectoryError, match="is not a run"):
        RunDirectory.open(tmp_path / "nowhere" / "else")


def test_entries_and_the_source_are_stored(directory: RunDirectory) -> None:
    directory.update(source={"data": "a.csv", "target": "y"})
    directory.update(status="interrupted")
    again = RunDirectory.open(directory.path).info()
    assert again["source"] == {"data": "a.csv", "target": "y"}
    assert again["status"] == "interrupted"
    assert again["created"] == directory.info()["created"]


def test_settings_that_are_not_stored_yet_are_an_error(directory: RunDirectory) -> None:
    with pytest.raises(RunDirectoryError, match="stopped before it began"):
        directory.settings()
    directory.update(settings=SearchSettings("small", seed=3).to_dict())
    assert directory.settings().seed == 3


@pytest.mark.parametrize("method", ["result", "leaderboard", "trials", "model_folder"])
def test_an_unfinished_run_has_no_outcome(directory: RunDirectory, method: str) -> None:
    directory.update(status="interrupted")
    with pytest.raises(RunDirectoryError, match=r"is interrupted and has no .* yet: .*pmlp resume"):
        getattr(directory, method)()


def test_a_run_has_one_writer(directory: RunDirectory) -> None:
    with (
        directory.locked(),
        pytest.raises(RunDirectoryError, match="another process is writing to"),
        RunDirectory.open(directory.path).locked(),
    ):
        pass
    with directory.locked():
        pass


def test_the_lock_is_released_by_an_error(directory: RunDirectory) -> None:
    with pytest.raises(KeyboardInterrupt), directory.locked():
        raise KeyboardInterrupt
    with directory.locked():
        pass


def test_log_lines_are_json(directory: RunDirectory) -> None:
    directory.log("round", number=1, path=Path("x"))
    directory.log("line\nbreak")
    lines = [json.loads(line) for line in (directory.path / "log.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["round", "line\nbreak"]
    assert lines[0]["number"] == 1


def test_a_damaged_file_is_an_error(directory: RunDirectory) -> None:
    (directory.path / "run.json").write_text("{")
    with pytest.raises(RunDirectoryError, match=r"could not read .*run\.json"):
        directory.info()


def test_entries_of_the_journal_are_kept(directory: RunDirectory) -> None:
    assert directory.entries() == {}
    directory.write_entries({"draw-0": 12, "ended-1": False})
    assert RunDirectory.open(directory.path).entries() == {"draw-0": 12, "ended-1": False}


def test_entries_of_an_older_version_are_kept(directory: RunDirectory) -> None:
    (directory.path / "decisions.json").write_text('{"draw-0": 12}')
    assert directory.entries() == {"draw-0": 12}
    journal = Journal(Throughput(1), directory)
    assert journal.entry("draw-0", lambda: 99) == 12
    assert journal.entry("draw-1", lambda: 7) == 7
    assert RunDirectory.open(directory.path).entries() == {"draw-0": 12, "draw-1": 7}


def test_finishing_drops_checkpoints(directory: RunDirectory) -> None:
    directory.checkpoints.mkdir()
    directory.finish({"metric": "accuracy"})
    assert directory.info()["status"] == "finished"
    assert json.loads((directory.path / "result.json").read_text()) == {"metric": "accuracy"}
    assert not directory.checkpoints.exists()


def test_both_tables_have_a_column_for_each_hyperparameter(directory: RunDirectory) -> None:
    configs = [MLPConfig(widths=(8, 16), seed=7), MLPConfig(widths=()), MLPConfig(widths=(4,), clip_norm=0.5)]
    record = RungRecord(0, 0, 1.0, 0.5, 0.5, 0.1)
    trials = [Trial(n, config, "random", 0, records=[record]) for n, config in enumerate(configs)]
    directory.write_table("trials", trials_frame(trials, get_metric("rmse", "regression")))
    entries = [
        Entry(trial=0, metric="rmse", error=0.5, config=configs[0]),
        Entry(trial=1, metric="rmse", error=0.3, config=configs[1]),
        Entry(trial=2, metric="rmse", error=0.1, state=str(TrialState.FAILED), config=configs[2]),
    ]
    directory.write_table("leaderboard", Leaderboard(entries).to_frame())
    assert [config_of_row(row) for row in directory.trials().to_dict("records")] == configs
    assert directory.best_configs(3) == [configs[1], configs[0]]
    assert directory.best_configs(1) == [configs[1]]


def test_rows_of_an_older_version_are_read_unless_a_removed_field_changed_the_network() -> None:
    record = RungRecord(0, 0, 1.0, 0.5, 0.5, 0.1)
    config = MLPConfig(widths=(4,))
    (row,) = Trial(0, config, "random", 0, records=[record]).rows()
    old = {**row, "config_parametric_rate": 0.0, "config_feature_share": 1.0}
    assert config_of_row(old) == config_of_row(pd.Series(old)) == config
    with pytest.raises(InvalidParameterError, match="feature_share must be"):
        config_of_row({**old, "config_feature_share": 0.6})
    assert config_of_row({**old, "config_feature_share": 0.6}, to_show=True) == config


def test_a_full_disk_keeps_the_previous_file(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory.write_table("trials", pd.DataFrame({"a": [1]}))

    def full(*arguments: Any, **values: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", full)
    with pytest.raises(RunDirectoryError, match=r"trials\.parquet.*No space left.*free some space there"):
        directory.write_table("trials", pd.DataFrame({"a": [2]}))
    monkeypatch.undo()
    assert pd.read_parquet(directory.path / "trials.parquet")["a"].tolist() == [1]
    assert not list(directory.path.glob(".*.part"))


def test_a_log_that_cannot_be_written_is_a_clear_error(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    import builtins

    opening = builtins.open

    def full(path: Any, *arguments: Any, **values: Any) -> Any:
        if str(path).endswith("log.jsonl"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return opening(path, *arguments, **values)

    monkeypatch.setattr(builtins, "open", full)
    with pytest.raises(RunDirectoryError, match=r"log\.jsonl"):
        directory.log("round")


def test_a_read_only_folder_is_a_clear_error(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(self: Path, *arguments: Any, **values: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "write_text", denied)
    with pytest.raises(RunDirectoryError, match=r"Permission denied.*make the folder writable"):
        directory.update(status="failed")


def test_a_run_of_an_older_version_resumes_with_the_defaults(
    found: SearchResult, spam: Problem, make_settings: Callable[..., SearchSettings], tmp_path: Path
) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.stage == "cross-fitting":
            raise KeyboardInterrupt

    directory = RunDirectory.create(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        run(spam, make_settings(), directory=directory, callbacks=[interrupt], n_jobs=1)
    settings = directory.info()["settings"]
    for name in ("tune_thresholds", "calibration", "refit"):
        del settings[name]
    directory.update(settings=settings)
    with pytest.raises(RunDirectoryError, match="was started with refit=False, but got True"):
        run(spam, make_settings(refit=True), directory=directory, n_jobs=1)
    result = run(spam, make_settings(), directory=directory, n_jobs=1)
    assert result.honest == found.honest


def test_files_that_vanish_while_a_folder_is_opened_are_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search that runs renames its temporary files."""
    listed = [(str(tmp_path), [], [".tmpWYIgPG"])]
    monkeypatch.setattr(run_directory.os, "walk", lambda folder: listed)
    run_directory._check_kinds(tmp_path)
