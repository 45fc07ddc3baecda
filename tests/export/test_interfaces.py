"""``pmlp export``, ``estimator.export``, and models that cannot be exported."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors import safe_open

from parallelmlp_search import ParallelMLPClassifier, ParallelMLPRegressor, __version__, load
from parallelmlp_search import _files as files
from parallelmlp_search.cli.completion import CHOICES
from parallelmlp_search.cli.export import OUTPUTS
from parallelmlp_search.exceptions import (
    DataError,
    DataWarning,
    InvalidParameterError,
    MissingDependencyError,
    RunDirectoryError,
)
from parallelmlp_search.export import FORMATS, export_model
from parallelmlp_search.inference import TrainedModel
from parallelmlp_search.parareal.promotion.model import PromotedModel
from tests.cli.test_commands import pmlp
from tests.export.models import CONFIGS, TOLERANCE, every_kind, feeds, random_model, session_of

SMALL: dict[str, Any] = {"n_trials": 4, "max_epochs": 2, "n_finalists": 2, "n_folds": 2, "random_state": 0}


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """Cells of money, lengths, durations, lists and other dates, besides plain columns."""
    rng = np.random.default_rng(0)
    lengths, days = rng.integers(1, 90, 100), rng.integers(13, 28, 200)
    price = rng.lognormal(3.0, 1.0, 200)
    frame = pd.DataFrame(
        {
            "price": [f"${value:,.2f}" for value in price],
            "length": [f"{value} {unit}" for value in lengths for unit in ("cm", "mm")],
            "took": [f"{hours}h {minutes}m" for hours, minutes in rng.integers(1, 9, (200, 2))],
            "tags": ["|".join(rng.choice(["red", "green", "blue"], 2, replace=False)) for _ in range(200)],
            "day": [f"{day:02d}.{1 + day % 7:02d}.2024" for day in days],
            "x": rng.normal(size=200),
        }
    )  # fmt: skip
    frame["y"] = np.where(price * rng.lognormal(0, 0.3, 200) > 20, "dear", "cheap")
    return frame


@pytest.fixture(scope="module")
def run(table: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    table.to_csv(folder / "table.csv", index=False)
    pmlp(
        "search", folder / "table.csv", "--target", "y", "--space", "small", "--trials", 4, "--max-epochs", 2,
        "--finalists", 2, "--folds", 2, "--output", folder / "run", "--quiet",
    )  # fmt: skip
    return folder / "run"


def test_cells_are_inputs_that_are_read(run: Path, table: pd.DataFrame) -> None:
    printed = pmlp("export", run).stderr
    assert "export:" in printed
    assert "model.onnx (" in printed
    session = session_of(run / "model.onnx")
    model = TrainedModel.load(run / "model")
    columns = {one["name"]: one for one in json.loads(session.get_modelmeta().custom_metadata_map["columns"])}
    assert columns["length"] == {
        "name": "length", "kind": "number", "of": "length", "reading": "quantity: number, in cm",
    }  # fmt: skip
    assert columns["day"]["kind"] == "date"
    assert columns["tags__red"]["of"] == "tags"
    plain = model.read(table)
    found = session.run(["probabilities"], feeds(session, plain))[0]
    np.testing.assert_allclose(found, model.predictions(table).T, atol=TOLERANCE, rtol=0)
    result = json.loads((run / "result.json").read_text())
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["honest_score"]) == result["honest"]["score"]
    assert (metadata["metric"], metadata["target"], metadata["version"]) == ("roc_auc", "y", __version__)


def test_all_formats_on_the_command_line(run: Path, tmp_path: Path) -> None:
    assert tuple(OUTPUTS) == FORMATS == CHOICES["format"]
    for format, name in OUTPUTS.items():
        path = tmp_path / name
        assert pmlp("export", run, "--format", format, "--output", path, "--quiet").stdout.strip() == str(
            path
        )
        assert path.exists()
    again = pmlp("export", run, "--format", "numpy", "--output", tmp_path / OUTPUTS["numpy"], code=2)
    assert "must be a new folder" in again.stderr
    wrong = pmlp("export", run, "--format", "onxx", code=2)
    assert "did you mean 'onnx'" in wrong.stderr


def test_safetensors_hold_weights_and_description(tmp_path: Path) -> None:
    model = random_model(every_kind(), "binary", 2)
    path = export_model(model, tmp_path / "model.safetensors", "safetensors")
    with safe_open(path, "numpy") as file:
        description = json.loads(file.metadata()["metadata"])
        weight = file.get_tensor("group0.member4.layer1.weight")
    assert description["classes"] == ["class 0", "class 1"]
    layer = model.ensemble.groups[0].networks[4].layers[1]
    np.testing.assert_array_equal(weight, layer.weight)
    assert description["groups"][0]["members"][4]["layers"][1]["activation"] == layer.activation


def test_estimators(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    array = rng.normal(size=(120, 3))
    model = ParallelMLPRegressor("small", **SMALL).fit(array, array[:, 0] * 2.0)
    session = session_of(model.export(tmp_path / "model.onnx"))
    found = session.run(["prediction"], {"X": array})[0]
    np.testing.assert_allclose(found, model.predict(array), atol=TOLERANCE)
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["metric"] == "rmse"
    assert json.loads(metadata["honest_score"]) == model.honest_score_


def test_a_loaded_run_is_exported(run: Path, tmp_path: Path) -> None:
    loaded = load(run)
    first = loaded.export(tmp_path / "a.safetensors", format="safetensors").read_bytes()
    pmlp("export", run, "--format", "safetensors", "--output", tmp_path / "b.safetensors")
    assert (tmp_path / "b.safetensors").read_bytes() == first


def test_what_cannot_be_exported_writes_nothing(tmp_path: Path) -> None:
    frame = every_kind()
    model = random_model(frame, "binary", 2, configs=CONFIGS[:1])
    path = tmp_path / "model.onnx"
    promoted = PromotedModel.of(model, model.weights, [])
    with pytest.raises(InvalidParameterError, match="promoted networks"):
        export_model(promoted, path)
    kinds = [None, {"digit": "numeric"}]
    with pytest.raises(DataError, match="'digit' is a category in one fold and a number in another"):
        export_model(random_model(frame, "binary", 2, kinds=kinds), path)
    unnamed = random_model(frame.rename(columns={"x": ""}), "binary", 2, configs=CONFIGS[:1])
    with pytest.raises(DataError, match="without a name"):
        export_model(unnamed, path)
    mixed = replace(model, classes=np.array([1, 0.5], dtype=object))
    with pytest.raises(DataError, match="classes must be all texts"):
        export_model(mixed, path)
    with pytest.warns(DataWarning, match="no informative column"):
        constant = ParallelMLPClassifier(**SMALL).fit(np.ones((40, 1)), [0, 1] * 20)
    with pytest.raises(InvalidParameterError, match="predicts a constant"):
        constant.export(path)
    assert list(tmp_path.iterdir()) == []


def test_free_text_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    words = ["river", "house", "stone", "cloud", "green", "walk", "sing", "paper", "light", "water"]
    frame = pd.DataFrame(
        {"note": [" ".join(rng.choice(words, 6)) for _ in range(150)], "x": rng.normal(size=150)}
    )
    model = ParallelMLPClassifier("small", **SMALL).fit(frame, rng.integers(0, 2, 150))
    with pytest.raises(DataError, match=r"'note' holds free text.*--columns ignore=note"):
        model.export(tmp_path / "model", format="numpy")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "format", "words"),
    [
        ("model.pb", "onnx", r"must end in .onnx for the format onnx, but got '.*pb'$"),
        ("model.pt2", "onnx", r"did you mean the format torch\?"),
        ("model", "safetensors", r"did you mean the format numpy\?"),
        ("none/model.onnx", "onnx", "in a folder that exists"),
        ("model.onnx", "pickle", "one of onnx"),
        ("folder", "numpy", "must be a new folder"),
        ("folder.onnx", "onnx", "must be a file"),
    ],
)
def test_paths_and_formats(name: str, format: str, words: str, tmp_path: Path) -> None:
    for folder in ("folder", "folder.onnx"):
        (tmp_path / folder).mkdir()
    with pytest.raises(InvalidParameterError, match=words):
        export_model(random_model(every_kind(), "binary", 2, configs=CONFIGS[:1]), tmp_path / name, format)


@pytest.mark.parametrize("format", [name for name in FORMATS if name != "torch"])  # written as ONNX is
def test_a_full_disk_leaves_nothing(format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    model = random_model(every_kind(), "binary", 2, configs=CONFIGS[:1])
    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(RunDirectoryError, match="free some space"):
        export_model(model, tmp_path / OUTPUTS[format], format)
    assert list(tmp_path.iterdir()) == []


def test_onnx_is_optional(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingDependencyError, match=r"parallelmlp-search\[export\]"):
        export_model(random_model(every_kind(), "binary", 2, configs=CONFIGS[:1]), tmp_path / "model.onnx")
