"""Damaged run directories: each command ends with its result or with one sentence."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import Result

from parallelmlp_search.cli import runs
from parallelmlp_search.exceptions import RunDirectoryError
from parallelmlp_search.explain import Explanation
from parallelmlp_search.search.run import journal
from tests.faults.damage import damage
from tests.faults.small import SEARCH

Pmlp = Callable[..., Result]

N_DAMAGES = 60


def copied(run: Path, tmp_path: Path) -> Path:
    """A copy of a run, some levels below the folder of the test."""
    return Path(shutil.copytree(run, tmp_path / "some" / "where" / "run"))


def failure(result: Result) -> str:
    """The single sentence of a command that failed because of damage."""
    assert isinstance(result.exception, SystemExit), result.exc_info
    assert result.exit_code == 2, result.output
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("error: "))
    return line


# ---------------------------------------------------------------------- known kinds of damage


def _json(**changes: Any) -> Callable[[Path], object]:
    return lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _text(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text)


def _tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
        change(tensors)
        save_file(tensors, path)

    return write


def _frame(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], object]:
    return lambda path: change(pd.read_parquet(path)).to_parquet(path)


@pytest.mark.parametrize(
    ("file", "change", "command", "problem"),
    [
        ("leaderboard.parquet", lambda path: os.truncate(path, 1000), ["leaderboard"], "Parquet"),
        ("leaderboard.parquet", _text(""), ["leaderboard"], "Parquet file size is 0 bytes"),
        ("leaderboard.parquet", _frame(lambda frame: pd.concat([frame, frame])), ["report"],
         "it has a trial twice"),
        ("trials.parquet", _frame(lambda frame: frame[["error"]]), ["show", "0"], "no column 'trial'"),
        ("trials.parquet", _frame(lambda frame: frame.head(0)), ["show", "0"], "it has no rows"),
        (
            "trials.parquet",
            _frame(lambda frame: frame.assign(config_widths="a-b")),
            ["show", "0"],
            "invalid literal",
        ),
        ("run.json", _text("[" * 100_000), ["resume"], "recursion"),
        ("run.json", _text('{"a":' * 300 + "1" + "}" * 300), ["resume"], "more than 64 levels"),
        ("run.json", _text("7"), ["resume"], "the content must be a mapping, but got 7"),
        ("run.json", _json(status="5"), ["resume"], "status must be one of running, interrupted"),
        ("run.json", _json(source={"data": "../../a.csv", "target": "b"}, status="failed"), ["resume"],
         "'../../a.csv' is not the absolute path of a table"),
        ("run.json", _json(settings={}, status="failed"), ["resume"], "it lacks 'search_space'"),
        ("result.json", _json(honest=5), ["resume"], "honest must be a mapping, but got 5"),
        ("result.json", _json(elapsed_seconds=float("nan")), ["resume"], "elapsed_seconds must be a finite"),
        ("model/model.json", _json(trials=[1]), ["predict"], "trials must be of length 2, but got"),
        ("model/model.json", _json(task="regression"), ["predict"], "the task of a fold must be"),
        ("model/weights.safetensors", _text("x" * 1000), ["predict"], "deserializing header"),
        ("model/weights.safetensors", _tensors(lambda all: all["fold0"].fill_(float("nan"))), ["predict"],
         "'fold0' must hold finite numbers"),
        ("model/weights.safetensors", _tensors(lambda all: all.update(fold1=all["fold1"][1:].clone())),
         ["evaluate"], "'fold1' must be of float32 and shape"),
        ("model/weights.safetensors", _tensors(lambda all: all.update(fold1=all["fold1"].double())),
         ["predict"], "'fold1' must be of float32 and shape"),
        ("model/weights.safetensors", _tensors(lambda all: all.pop("weights")), ["predict"],
         "it has no tensor 'weights'"),
    ],
)  # fmt: skip
def test_damage_is_one_sentence_with_file_problem_and_remedy(
    file: str,
    change: Callable[[Path], object],
    command: list[str],
    problem: str,
    finished: Path,
    table: Path,
    pmlp: Pmlp,
    tmp_path: Path,
) -> None:
    run = copied(finished, tmp_path)
    change(run / file)
    name, *rest = command
    rest = [*rest, table] if name in ("predict", "evaluate") else rest
    rest = [*rest, "--output", "-"] if name == "predict" else rest
    message = failure(pmlp(name, run, *rest))
    assert f"could not read '{run / file}'" in message
    assert problem in message
    assert "restore it from a copy, or search again" in message


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"unknown": 1}, "unexpected keyword argument 'unknown'"),
        ({"memory": {"room": 5}}, "plan.memory must have 'limit', but lacks it"),
        ({"rungs": [1.0, -3.0]}, r"plan.rungs[1] must be a finite number > 0, but got -3.0"),
    ],
)
def test_a_damaged_plan_is_one_sentence(
    change: dict[str, Any], problem: str, interrupted: Path, pmlp: Pmlp, tmp_path: Path
) -> None:
    run = copied(interrupted, tmp_path)
    entries = json.loads((run / "journal.json").read_text())
    _json(plan=entries["plan"] | change)(run / "journal.json")
    message = failure(pmlp("resume", run))
    assert f"could not read '{run / 'journal.json'}'" in message
    assert problem in message


@pytest.mark.parametrize("file", ["result.json", "trials.parquet", "leaderboard.parquet", "model/model.json"])
def test_a_lost_file_of_a_finished_run_is_named(
    file: str, finished: Path, table: Path, pmlp: Pmlp, tmp_path: Path
) -> None:
    run = copied(finished, tmp_path)
    (run / file).unlink()
    command = {"trials.parquet": ["show", run, 0], "model/model.json": ["evaluate", run, table]}
    message = failure(pmlp(*command.get(file, ["resume", run])))
    assert f"has lost its {file}: restore it from a copy, or search again" in message


def test_folds_that_the_model_lacks_are_one_sentence(
    finished: Path, table: Path, pmlp: Pmlp, tmp_path: Path
) -> None:
    run = copied(finished, tmp_path)
    _tensors(lambda all: all["folds"].fill_(7))(run / "oof.safetensors")
    message = failure(pmlp("explain", run, "--quiet"))
    assert f"could not read '{run / 'oof.safetensors'}' (its folds do not belong to the model)" in message


def test_an_explanation_of_other_classes_is_made_again(finished: Path, pmlp: Pmlp, tmp_path: Path) -> None:
    run = copied(finished, tmp_path)
    assert pmlp("explain", run, "--quiet").exit_code == 0
    stored = run / "explain"
    _json(outputs=["x", "y"])(stored / "explanation.json")
    with pytest.raises(RunDirectoryError, match=r"its outputs are not those of dependence\.parquet"):
        Explanation.load(stored)
    assert pmlp("report", run, "--quiet").exit_code == 0
    assert Explanation.load(stored).summary["outputs"] == ["yes"]


def test_a_damaged_checkpoint_can_be_deleted(
    interrupted: Path, finished: Path, pmlp: Pmlp, tmp_path: Path
) -> None:
    run = copied(interrupted, tmp_path)
    os.truncate(run / "checkpoints" / "round-002.safetensors", 100)
    message = failure(pmlp("resume", run))
    folder = run / "checkpoints"
    assert f"delete the folder '{folder}' and resume; networks are trained again" in message
    shutil.rmtree(folder)
    assert pmlp("resume", run).exit_code == 0
    first, second = (pd.read_parquet(path / "leaderboard.parquet") for path in (finished, run))
    timed = ["train_seconds"]
    pd.testing.assert_frame_equal(first.drop(columns=timed), second.drop(columns=timed))


def test_a_round_whose_checkpoint_alone_was_deleted_is_not_trained_from_the_start(
    interrupted: Path, pmlp: Pmlp, tmp_path: Path
) -> None:
    run = copied(interrupted, tmp_path)
    (run / "checkpoints" / "round-001.safetensors").unlink()
    message = failure(pmlp("resume", run))
    assert "there is no file" in message
    assert "round-001.safetensors', which has been written: delete the folder" in message


def test_columns_of_whole_numbers_are_no_damage(table: Path, pmlp: Pmlp, tmp_path: Path) -> None:
    search = ["search", table, "--target", "sold", "--space", "small", "--trials", 2, "--jobs", 1]
    assert pmlp(*search, "--max-epochs", 2, "--output", tmp_path / "run").exit_code == 0
    assert pd.read_parquet(tmp_path / "run" / "leaderboard.parquet")["epochs"].dtype.kind == "i"
    for command in (["leaderboard", tmp_path / "run"], ["show", tmp_path / "run", 0]):
        assert pmlp(*command).exit_code == 0


# ---------------------------------------------------------------------- links, pipes, deleted folders


@pytest.mark.parametrize("place", ["run.json", "log.jsonl", "checkpoints", "model/model.json"])
def test_links_out_of_a_run_are_not_followed(
    place: str, interrupted: Path, finished: Path, pmlp: Pmlp, tmp_path: Path
) -> None:
    run = copied(finished if place.startswith("model") else interrupted, tmp_path)
    outside = tmp_path / "outside"
    shutil.move(run / place, outside)
    (run / place).symlink_to(outside)
    before = outside.read_bytes() if outside.is_file() else sorted(os.listdir(outside))
    message = failure(pmlp("resume", run))
    assert f"'{run / place}' is a link out of the run, to '{outside}'" in message
    assert before == (outside.read_bytes() if outside.is_file() else sorted(os.listdir(outside)))


def test_a_run_behind_a_link_and_links_inside_it_are_fine(finished: Path, pmlp: Pmlp, tmp_path: Path) -> None:
    run = copied(finished, tmp_path)
    (run / "best.json").symlink_to("result.json")
    (tmp_path / "link").symlink_to(run)
    assert pmlp("leaderboard", tmp_path / "link").exit_code == 0


def test_a_pipe_in_place_of_a_file_is_refused(finished: Path, pmlp: Pmlp, tmp_path: Path) -> None:
    run = copied(finished, tmp_path)
    (run / "oof.safetensors").unlink()
    os.mkfifo(run / "oof.safetensors")
    assert "is neither a file nor a folder: remove it" in failure(pmlp("leaderboard", run))


@pytest.mark.parametrize("stage", ["screening", "cross-fitting", "saving"])
def test_a_folder_that_is_deleted_during_a_search_is_not_created_again(
    stage: str, table: Path, pmlp: Pmlp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, whole = tmp_path / "run", runs.run
    monkeypatch.setattr(journal, "MIN_KEPT_SECONDS", 0.0)

    def delete(progress: Any) -> None:
        if progress.stage == stage:
            shutil.rmtree(run, ignore_errors=True)

    monkeypatch.setattr(runs, "run", lambda *a, callbacks=(), **o: whole(*a, callbacks=[delete], **o))
    message = failure(pmlp("search", table, *SEARCH, "--output", run, "--quiet"))
    assert "its folder was deleted or moved; search again" in message or "there is no file" in message
    assert not run.exists()


def test_files_have_the_permissions_of_the_umask(
    table: Path, pmlp: Pmlp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "MIN_KEPT_SECONDS", 0.0)
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)  # checkpoints stay
    before = os.umask(0o027)
    try:
        assert pmlp("search", table, *SEARCH, "--output", tmp_path / "run").exit_code == 0
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file() and path.name != ".lock"]
    assert {path.suffix for path in files} == {".json", ".jsonl", ".parquet", ".safetensors"}
    assert len({path.parent.name for path in files}) == 3
    assert {oct(path.stat().st_mode & 0o777) for path in files} == {"0o640"}


# ---------------------------------------------------------------------- escape sequences


def test_escape_sequences_are_not_printed(finished: Path, pmlp: Pmlp, tmp_path: Path) -> None:
    run = copied(finished, tmp_path)
    evil = "\x1b]0;title\x07\x1b[31mred\r\x9b2J"
    frame = pd.read_parquet(run / "leaderboard.parquet").assign(metric=evil)
    frame.to_parquet(run / "leaderboard.parquet")
    _json(metric=evil, left_out=[evil])(run / "result.json")
    for command in (["leaderboard", run], ["resume", run], ["show", run, 0], ["leaderboard", evil]):
        output = pmlp(*command).output
        assert "red" in output
        assert all(character.isprintable() or character == "\n" for character in output), command


# ---------------------------------------------------------------------- random damage


@pytest.mark.parametrize("seed", range(N_DAMAGES))
def test_random_damage_is_a_result_or_one_sentence(
    seed: int, finished: Path, interrupted: Path, table: Path, pmlp: Pmlp, tmp_path: Path
) -> None:
    rng = random.Random(seed)
    is_finished = rng.random() < 0.65
    run = copied(finished if is_finished else interrupted, tmp_path)
    files = [path for path in run.rglob("*") if path.is_file() and path.name not in (".lock", "log.jsonl")]
    path = rng.choice(sorted(files))
    words = f"{path.name}: {damage(path, rng)}"
    commands: list[list[object]] = [["resume", run]]
    if is_finished:
        study = ["study", run, "--storage", f"journal:{tmp_path / 'study'}", "--name", "copy"]
        commands += [
            ["leaderboard", run],
            ["show", run, 0, "--json"],
            ["predict", run, table, "--output", "-"],
            ["evaluate", run, table],
            ["promote", run, "--dry-run", "--gflops", 10],
            ["explain", run, "--quiet"],
            ["report", run, "--quiet"],
            ["explain", run, table, "--output", tmp_path / "explained", "--quiet"],
            study,
        ]
        commands = rng.sample(commands, 3)
    for command in commands:
        result = pmlp(*command)
        assert "\x1b" not in result.output
        if result.exit_code != 0:
            assert failure(result), (words, command)
