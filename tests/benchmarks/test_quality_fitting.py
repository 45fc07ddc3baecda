from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from benchmarks.quality import fitting
from benchmarks.quality.__main__ import chosen_tools, main, parse
from benchmarks.quality.fitting import FitRunner, Job, jobs_of
from benchmarks.quality.tools import OURS, TOOLS, Tool

TREES = TOOLS["hist_gradient_boosting"]


def test_a_fit_runs_once_and_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = FitRunner(tmp_path, threads=1)
    job = Job("iris", 0, TREES, None)
    row = runner.row(job)
    assert row["task"] == "multiclass"
    assert 0.0 < row["error"] < 1.0
    assert row["seconds"] > 0
    assert row["version"][0].isdigit()
    assert (row["train_rows"], row["test_rows"]) == (112, 38)
    monkeypatch.setattr(FitRunner, "_run", lambda *_: pytest.fail("ran again"))
    assert runner.row(job) == row == runner.known(job)


def test_ours_reports_an_honest_and_a_naive_score(tmp_path: Path) -> None:
    settings = {"search_space": "small", "n_trials": 8, "max_epochs": 9}
    tool = Tool("ours, short", OURS.fit, OURS.package, timed=True, settings=settings)
    # the first process on a machine waits for the compiler
    row = FitRunner(tmp_path, threads=1).row(Job("breast_cancer", 0, tool, 90.0))
    assert row["error"] < 0.1
    assert row["seconds"] < 90.0
    notes = row["notes"]
    assert notes["trials"] == 8
    assert 0.0 <= notes["naive"] < 0.1
    assert 0.0 <= notes["honest"] < 0.1
    assert notes["naive"] != notes["honest"]


def test_the_loop_over_scikit_learn_keeps_its_time_limit(tmp_path: Path) -> None:
    row = FitRunner(tmp_path, threads=1).row(Job("diabetes", 0, TOOLS["optuna_mlp"], 4.0))
    assert row["error"] < 77.0, "worse than the mean of the target"
    assert row["seconds"] < 8.0
    assert row["notes"]["trials"] > 1


def test_a_failure_is_recorded_as_a_row(tmp_path: Path) -> None:
    wrong = Tool("wrong", "benchmarks.quality.boosters:nothing", "sklearn")
    row = FitRunner(tmp_path, threads=1).row(Job("iris", 0, wrong, None))
    assert "nothing" in row["failure"]
    assert "error" not in row


def test_a_fit_that_takes_too_long_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "UNTIMED_LIMIT", 0.1)
    started = time.monotonic()
    row = FitRunner(tmp_path, threads=1).row(Job("iris", 0, TREES, None))
    assert "not finished" in row["failure"]
    assert time.monotonic() - started < 10.0


def test_jobs_are_ordered_by_seed_and_table() -> None:
    jobs = jobs_of(["iris", "wine"], [0, 1], [OURS, TREES], [30.0, 120.0])
    assert [job.key for job in jobs[:4]] == [
        "iris.0.ours.30s",
        "iris.0.ours.120s",
        "iris.0.hist-gradient-boosting.untimed",
        "wine.0.ours.30s",
    ]
    assert len(jobs) == 12


def test_missing_tools_are_skipped_with_a_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tool = Tool("abacus", "benchmarks.quality.boosters:abacus", "abacus.of.beads")
    message = FitRunner(tmp_path).missing(tool)
    assert message is not None
    assert "abacus is left out" in message
    assert sys.executable in message
    assert FitRunner(tmp_path).missing(TREES) is None
    chosen = chosen_tools(parse(["--quick"]), FitRunner(tmp_path))
    assert chosen[0] is OURS
    assert 3 <= len(chosen) <= 4
    left_out = capsys.readouterr().out
    assert all(tool.name in left_out or tool in chosen for tool in (TOOLS["lightgbm"], TOOLS["catboost"]))


@pytest.mark.slow
def test_the_command_runs_and_continues(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--quick", "--sets", "iris", "wine", "--folder", str(tmp_path), "--threads", "1"]
    arguments += ["--tools", "hist_gradient_boosting", "optuna_mlp", "--seconds", "2"]
    main([*arguments, "--most", "1"])
    assert len(list(tmp_path.glob("*.json"))) == 1
    main(arguments)
    out = capsys.readouterr().out
    assert "| 2 sets | mean rank |" in out
    assert "optuna_mlp 2 s" in out
    rows = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    assert {row["set"] for row in rows} == {"iris", "wine"}
    assert len(rows) == 4
