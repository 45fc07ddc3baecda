"""Promotion by the command and by the estimators."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

import parallelmlp_search
from parallelmlp_search import MLPConfig, ParallelMLPClassifier
from parallelmlp_search.cli.app import app
from parallelmlp_search.exceptions import DistributedError, RunDirectoryError
from parallelmlp_search.parareal.ranks.jobs import Job, Task
from parallelmlp_search.parareal.ranks.launch import launch_job
from parallelmlp_search.search import RunDirectory

DATASETS = Path(__file__).parents[3] / "datasets"
ROOT = Path(parallelmlp_search.__file__).parents[1]
BUDGET = ["--trials", "6", "--max-epochs", "3", "--folds", "2", "--space", "small", "--quiet"]
DEEPER = ["--slices", "2", "--depth-factor", "5", "--epochs", "8"]


def pmlp(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    assert "Traceback" not in result.output
    return result


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interfaces")
    frame = pd.read_csv(DATASETS / "satimage.csv.gz").sample(500, random_state=0)
    frame.head(400).to_csv(folder / "train.csv", index=False)
    frame.tail(100).to_csv(folder / "new.csv", index=False)
    pmlp("search", folder / "train.csv", "--target", "classes", *BUDGET, "--output", folder / "run")
    return folder


def test_a_dry_run_predicts_and_writes_nothing(searched: Path) -> None:
    files = sorted(searched.rglob("*"))
    page = pmlp("promote", searched / "run", "--dry-run", "--gflops", "40").stdout
    assert "recommended" in page
    rows = json.loads(
        pmlp("promote", searched / "run", "--dry-run", "--json", "--latency", "1e6", "--gflops", "40").stdout
    )
    assert rows[0]["recommended"] == 1
    assert [row["slices"] for row in rows[0]["predictions"]][:3] == [2, 3, 4]
    assert sorted(searched.rglob("*")) == files


def test_promote_and_predict(searched: Path, tmp_path: Path) -> None:
    run = searched / "run"
    pmlp("predict", run, searched / "new.csv", "--proba", "--output", tmp_path / "before.csv")
    found = json.loads(pmlp("promote", run, *DEEPER, "--json").stdout)
    assert [row["slices"] for row in found["contenders"]] == [1, 2]
    page = pmlp("promote", run, *DEEPER).stdout  # trains nothing
    assert "parareal" in page
    assert "remarks" in page
    pmlp("predict", run, searched / "new.csv", "--proba", "--output", tmp_path / "after.csv")
    before, after = (pd.read_csv(tmp_path / f"{name}.csv") for name in ("before", "after"))
    assert found["used"] == (not np.allclose(before.select_dtypes("number"), after.select_dtypes("number")))
    scores = json.loads(pmlp("evaluate", run, searched / "new.csv", "--json").stdout)
    assert scores["honest"]["score"] == found["honest_after"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--slices", "1"], "--slices must be an integer >= 2"),
        (["--dry-run", "--gflops", "0"], "--gflops must be > 0"),
        (["--dry-run", "--bandwidth", "0"], "--bandwidth > 0"),
        (["--replicas", "2"], "replicas and restarts are for ranks"),
        (["--devices", "tpu", "--launch", *DEEPER], "--devices must be one of auto, cpu, cuda"),
    ],
)
def test_mistakes_are_reported_in_one_sentence(searched: Path, arguments: list[str], words: str) -> None:
    result = pmlp("promote", searched / "run", *arguments, "--quiet", code=2)
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("finished", [True, False])
def test_a_rank_may_die_after_all_tasks_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: bool
) -> None:
    """As one that aborts while its interpreter shuts down."""
    task = Task("shallow", MLPConfig(widths=(4,)), fold=0, slices=2, epochs=1.0)
    job = Job(tmp_path, (task,), slices=2)
    if finished:
        (tmp_path / task.key).mkdir()
        (tmp_path / task.key / "outcome.json").write_text("{}")
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with contextlib.nullcontext() if finished else pytest.raises(DistributedError, match="same command"):
        launch_job(job)


def test_launched_ranks_reach_the_scores_of_one_process(searched: Path) -> None:
    """The command as a user enters it."""
    run = searched / "run"
    arguments = ["promote", str(run), "--slices", "2", "--depth-factor", "4", "--epochs", "2", "--json"]
    here = json.loads(pmlp(*arguments).stdout)
    for outcome in run.glob("promotion/*/*-2-slices-*/outcome.json"):
        outcome.unlink()
    done = subprocess.run(
        [sys.executable, "-m", "parallelmlp_search", *arguments, "--launch"],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    launched = json.loads(done.stdout)
    assert [row["ranks"] for row in launched["contenders"]] == [1, 2]
    dry = ["promote", str(run), "--depth-factor", "4", "--dry-run", "--gflops", "40"]
    (forecast,) = json.loads(pmlp(*dry, "--json").stdout)
    measured = {row["slices"]: row["measured"] for row in forecast["predictions"]}
    assert measured == dict.fromkeys(measured) | {2: launched["contenders"][1]["step_seconds"]}
    assert forecast["measured_serial"] == launched["contenders"][0]["step_seconds"]
    assert f"{1000 * measured[2]:.2f} ms" in pmlp(*dry).stdout
    (other,) = json.loads(pmlp(*dry, "--depth-factor", "5", "--json").stdout)  # another network
    assert other["measured_serial"] is None
    for one, other in zip(here["contenders"], launched["contenders"], strict=True):
        assert one["score"] == pytest.approx(other["score"], rel=1e-3)
    assert "over 2 ranks" in " ".join(launched["remarks"])


def test_estimators_promote(tmp_path: Path) -> None:
    frame = pd.read_csv(DATASETS / "satimage.csv.gz").sample(400, random_state=1)
    y = frame.pop("classes")
    model = ParallelMLPClassifier(
        "small", n_trials=6, max_epochs=3, n_folds=2, random_state=0, run_directory=tmp_path / "run"
    )
    model.fit(frame, y)
    before = model.predict_proba(frame)
    assert model.promote(frame, y, slices=2, depth_factor=4, epochs=8) is model
    assert model.promotion_.contenders[1].slices == 2
    assert model.honest_score_ == model.promotion_.honest_after
    assert model.promotion_.used == (not np.allclose(before, model.predict_proba(frame)))
    assert RunDirectory.open(tmp_path / "run").result()["promotion"]["used"] == model.promotion_.used
    with pytest.raises(RunDirectoryError, match="searched on other data"):
        model.promote(frame, y.to_numpy()[::-1], slices=2)
    with pytest.raises(ValueError, match="replicas and restarts are for ranks"):
        model.promote(frame, y, slices=2, replicas=2)
    with pytest.raises(RunDirectoryError, match="fit with a run_directory"):
        ParallelMLPClassifier("small", n_trials=4, max_epochs=2, random_state=0).fit(frame, y).promote(
            frame, y
        )
