"""Files of every version stay readable, and files of newer versions are refused with a message."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from parallelmlp_search import Run, SearchSpace
from parallelmlp_search.cli.app import app
from parallelmlp_search.exceptions import InvalidParameterError, RunDirectoryError
from parallelmlp_search.parareal.promotion.model import load_promoted
from parallelmlp_search.search import RunDirectory, TrainedModel
from parallelmlp_search.search.run import journal

ARCHIVES = sorted((Path(__file__).parent / "formats").glob("*.tar.gz"))


@pytest.fixture(params=ARCHIVES, ids=lambda path: path.name.removesuffix(".tar.gz"))
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Files that `formats/make.py` wrote with a version."""
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    return folder


def pmlp(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, (result.output, result.exception)
    return result


def test_the_first_version_and_the_present_one_are_there() -> None:
    assert {"0.1.0.tar.gz", "unreleased.tar.gz"} <= {path.name for path in ARCHIVES}


def test_a_finished_run_is_read(files: Path, tmp_path: Path) -> None:
    run, table = files / "finished", files / "table.csv"
    assert len(json.loads(pmlp("leaderboard", run, "--json").stdout)) == 4
    assert json.loads(pmlp("show", run, 0, "--json").stdout)["trial"] == 0
    assert json.loads(pmlp("resume", run, "--json", "--quiet").stdout)["n_trials"] == 4
    assert "roc_auc" in json.loads(pmlp("evaluate", run, table, "--json").stdout)["scores"]
    pmlp("predict", run, table, "--proba", "--output", tmp_path / "predictions.csv")
    found, expected = (pd.read_csv(path / "predictions.csv") for path in (tmp_path, files))
    assert list(found) == list(expected) == ["no", "yes"]
    # float32 networks, on another CPU or with other compiled loops
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert Run(run).trials()["trial"].nunique() == 4


@pytest.mark.parametrize(
    ("old", "new", "value", "shown"),
    [
        ("cut", "left_out", ["Time was short."], "Time was short."),
        ("decision", "decision_weights", {"no": 0.5, "yes": 1.5}, "yes if its probability exceeds 0.25"),
    ],
)
def test_a_result_has_the_names_of_today(files: Path, old: str, new: str, value: Any, shown: str) -> None:
    path = files / "finished" / "result.json"
    stored = {key: value for key, value in json.loads(path.read_text()).items() if key not in (old, new)}
    path.write_text(json.dumps(stored | {old: value}))
    result = RunDirectory.open(files / "finished").result()
    assert result[new] == value
    assert old not in result
    assert shown in pmlp("resume", files / "finished").stdout
    path.write_text(json.dumps(stored | {old: None if old == "decision" else [], new: value}))
    assert RunDirectory.open(files / "finished").result()[new] == value


def test_a_run_without_errors_of_rows_is_one_sentence(files: Path) -> None:
    run, table = files / "finished", files / "table.csv"
    result = CliRunner().invoke(app, ["predict", str(run), str(table), "--interval", "80"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "saved by an older version" in " ".join(result.stderr.split())
    assert "search again" in result.stderr


def test_a_promotion_is_read(files: Path) -> None:
    model = load_promoted(RunDirectory.open(files / "finished"))
    assert model is not None
    assert [(member.slices, len(member.states)) for member in model.promoted] == [(1, 2), (2, 2)]


def test_an_interrupted_run_is_resumed(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, trained = files / "interrupted", []
    path = run / "run.json"
    path.write_text(path.read_text().replace('"/data/table.csv"', json.dumps(str(files / "table.csv"))))
    whole = journal.run_shards

    def recording(tasks: Any, **options: Any) -> Any:
        return whole((trained.append(task.key) or task for task in tasks), **options)

    monkeypatch.setattr(journal, "run_shards", recording)
    pmlp("resume", run, "--quiet", "--jobs", 1)
    assert trained == ["finalists-00-01-0000"]  # the rest was trained by the version that began
    assert RunDirectory.open(run).result()["n_trials"] == 4


def test_spaces_are_read(files: Path) -> None:
    spaces = [SearchSpace.load(files / f"space.{suffix}") for suffix in ("yaml", "toml", "json")]
    assert spaces[0] == spaces[1] == spaces[2]
    assert spaces[0].names == ("depth", "width", "activation", "learning_rate", "batch_size")


# ---------------------------------------------------------------------- newer versions


def newer(path: Path) -> None:
    """Give a JSON file a format that no version has."""
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))


def test_newer_runs_and_models_are_refused(files: Path) -> None:
    run = files / "finished"
    words = r"has format 99, but this version of parallelmlp-search reads formats up to \d: install a newer"
    newer(run / "promoted" / "promoted.json")
    with pytest.raises(RunDirectoryError, match=rf"promoted\.json' {words}"):
        load_promoted(RunDirectory.open(run))
    newer(run / "model" / "model.json")
    with pytest.raises(RunDirectoryError, match=rf"model\.json' {words}"):
        TrainedModel.load(run / "model")
    newer(run / "run.json")
    with pytest.raises(RunDirectoryError, match=rf"run\.json' {words}"):
        RunDirectory.open(run).info()
    result = CliRunner().invoke(app, ["leaderboard", str(run)])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "install a newer version" in result.stderr


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '{"format": 99, "width": 4}'),
        ("a.toml", "format = 99\nwidth = 4\n"),
        ("a.yaml", "format: 99"),
    ],
)
def test_newer_spaces_are_refused(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InvalidParameterError, match=r"has format 99.*reads formats up to 1: install a"):
        SearchSpace.load(tmp_path / name)


def test_the_format_of_a_space_must_be_a_number(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"format": "new", "width": 4}')
    with pytest.raises(InvalidParameterError, match=r"the format of .*a\.json' must be an integer >= 1"):
        SearchSpace.load(tmp_path / "a.json")
