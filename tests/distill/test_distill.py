"""Distillation: soft targets, students, and the run that is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from parallelmlp_search import load
from parallelmlp_search.cli.app import app
from parallelmlp_search.distill.soft_targets import (
    MAX_LOGIT,
    augmented,
    out_of_fold_targets,
    rows_of,
    soft_targets,
)
from parallelmlp_search.distill.students import Lesson, train_students
from parallelmlp_search.inference import TrainedModel
from parallelmlp_search.inference.fold_model import architecture_of
from parallelmlp_search.packing import Head
from parallelmlp_search.search import Problem, SearchSettings
from parallelmlp_search.search import run as search
from parallelmlp_search.search.finalists.model import fold_model
from parallelmlp_search.search.problem.preparation import Preparation
from parallelmlp_search.space import Categorical, MLPConfig, SearchSpace

SPACE = SearchSpace({"width": Categorical((8, 16)), "learning_rate": Categorical((0.01, 0.02))})
CONFIG = MLPConfig(widths=(16,), activation="silu", learning_rate=0.01)


def table(task: str, n: int = 300) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=n), "b": rng.normal(size=n), "c": rng.choice(list("uvw"), n)})
    signal = frame["a"] + (frame["c"] == "u") + 0.1 * rng.normal(size=n)
    targets = {
        "binary": np.where(signal > 0.3, "yes", "no"),
        "multiclass": pd.cut(signal, [-9, -0.5, 0.7, 9], labels=["low", "mid", "top"]).astype(str),
        "regression": 1e6 + 1e5 * signal,
    }
    return frame.assign(y=targets[task])


@pytest.fixture(scope="module", params=["binary", "multiclass", "regression"])
def taught(request: pytest.FixtureRequest) -> tuple[Problem, Any, SearchSettings]:
    frame = table(request.param)
    problem = Problem.from_table(frame, "y")
    settings = SearchSettings(
        search_space=SPACE, n_trials=4, max_epochs=12, n_folds=2, n_finalists=2, baselines=False
    )
    return problem, search(problem, settings, n_jobs=1), settings


def test_soft_targets_give_the_predictions_back(taught: Any) -> None:
    problem, result, _ = taught
    model: TrainedModel = result.model
    target, predictions = soft_targets(model, problem.frame), model.predictions_of_read(problem.frame)
    if problem.task == "regression":
        assert np.allclose(target.T, predictions)
    elif problem.task == "binary":
        assert target.shape == (300, 1)
        assert np.allclose(1 / (1 + np.exp(-target[:, 0])), predictions[1], atol=1e-5)
    else:
        assert np.abs(target).max() <= MAX_LOGIT
        powers = np.exp(target.T)
        assert np.allclose(powers / powers.sum(axis=0), predictions, atol=1e-4)


def test_rows_are_labelled_by_networks_that_have_not_seen_them(taught: Any) -> None:
    problem, result, _ = taught
    folds = result.oof_folds
    found = out_of_fold_targets(result.model, problem.frame, folds)
    for number in (-1, 0, 1):
        rows = np.flatnonzero(folds == number)
        model = result.model if number < 0 else result.model.of_fold(number)
        assert np.allclose(found[rows], soft_targets(model, problem.frame.iloc[rows]))


def test_augmented_rows_keep_columns_and_most_cells() -> None:
    frame = table("binary").drop(columns="y").astype({"c": "category"})
    rows = augmented(frame, np.random.default_rng(0), share=0.2)
    assert len(rows) == 3 * len(frame)
    pd.testing.assert_series_equal(rows.dtypes, frame.dtypes)
    same = [(rows[name].to_numpy() == np.tile(frame[name].to_numpy(), 3)).mean() for name in ("a", "b")]
    assert all(0.75 < share < 0.85 for share in same)
    assert set(rows["a"]) <= set(frame["a"])


def test_a_student_predicts_what_it_was_taught(taught: Any) -> None:
    """The rescaled outputs of a student are close to the ensemble, in the model as in the shard."""
    problem, result, settings = taught
    part = Preparation(problem, settings).whole()
    rows = rows_of(result.model, problem.frame, None, np.random.default_rng(0))
    lesson = Lesson(rows, part, 0)
    (student,) = train_students([lesson], CONFIG, 60.0, n_workers=1)
    expected = result.model.predictions_of_read(problem.frame)
    model = TrainedModel(
        task=problem.task, classes=result.model.classes, configs=(CONFIG,), trials=(0,), weights=np.ones(1),
        folds=[fold_model(part.preprocessor.encoder_, part.head, (CONFIG,), [student.vector])],
        feature_names=list(problem.frame.columns), target_scaling=result.model.target_scaling,
    )  # fmt: skip
    found = model.predictions_of_read(problem.frame)
    spread = expected.std() if problem.task == "regression" else 1.0
    assert np.abs(found - expected).mean() < 0.05 * spread


def test_scaled_outputs_are_those_of_the_head() -> None:
    from parallelmlp_search.data import RegressionTarget
    from parallelmlp_search.distill.soft_targets import SoftRows
    from parallelmlp_search.distill.students import with_scaled_outputs

    problem = Problem.from_table(table("multiclass"), "y")
    part = Preparation(problem, SearchSettings()).whole()
    rng = np.random.default_rng(0)
    target = rng.normal(3.0, 5.0, (300, 3))
    lesson = Lesson(SoftRows(problem.frame, target), part, 0)
    scaler = RegressionTarget.fit(target)
    architecture = architecture_of(CONFIG, lesson.encoder, part.head)
    vector = torch.from_numpy(rng.normal(size=architecture.n_parameters)).float()
    head = Head("regression", 3, scaler.mean_.tolist(), scaler.scale_.tolist(), [-1e9] * 3, [1e9] * 3)
    plain = fold_model(lesson.encoder, head, (CONFIG,), [vector])
    scaled = fold_model(
        lesson.encoder, part.head, (CONFIG,), [with_scaled_outputs(vector, CONFIG, lesson, scaler)]
    )
    common = dict(configs=(CONFIG,), trials=(0,), weights=np.ones(1), feature_names=["a", "b", "c"])  # noqa: C408
    values = TrainedModel(task="regression", classes=None, folds=[plain], **common).predictions(problem.frame)
    classes = np.array(["low", "mid", "top"])
    found = TrainedModel(task="multiclass", classes=classes, folds=[scaled], **common).predictions(
        problem.frame
    )
    powers = np.exp(values - values.max(axis=0))
    assert np.allclose(found, powers / powers.sum(axis=0), atol=1e-5)


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("distill")
    table("binary").to_csv(folder / "t.csv", index=False)
    run = folder / "run"
    done = invoke(
        "search", folder / "t.csv", "--target", "y", "--trials", 4, "--max-epochs", 8, "--folds", 2,
        "--finalists", 2, "--output", run, "--quiet",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    return run


def test_the_command_writes_a_run_that_predicts(run: Path) -> None:
    done = invoke("distill", run, "--trials", 3, "--jobs", 1)
    assert done.exit_code == 0, done.output
    small = run.with_name("run-distilled")
    result = json.loads((small / "result.json").read_text())
    assert result["distilled"]["student_seconds"] > 0
    assert 0.5 < result["honest"]["score"] <= 1.0
    assert result["honest"]["averaging"] == 0
    model = load(small)
    frame = table("binary").drop(columns="y")
    teacher = load(run).predict_proba(frame)
    assert len(model.model_.folds) == 1
    assert np.abs(model.predict_proba(frame) - teacher).mean() < 0.1
    for command in ("leaderboard", "show"):
        assert invoke(command, small, *(["0"] if command == "show" else [])).exit_code == 0
    assert invoke("evaluate", small, run.with_name("t.csv")).exit_code == 0


def test_an_output_that_exists_and_runs_without_folds_are_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    done = invoke("distill", run, "--output", tmp_path / "full")
    assert done.exit_code == 2
    assert "already exists" in done.output
    again = invoke(
        "search", run.with_name("t.csv"), "--target", "y", "--trials", 3, "--max-epochs", 3, "--folds", 2,
        "--refit", "--output", tmp_path / "refit", "--quiet",
    )  # fmt: skip
    assert again.exit_code == 0
    done = invoke("distill", tmp_path / "refit", "--output", tmp_path / "new")
    assert done.exit_code == 2
    assert "search without refit" in " ".join(done.output.split())
    assert not (tmp_path / "new").exists()
