"""The NumPy folder and the ONNX file where neither this package nor torch can be imported."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from parallelmlp_search.data.normal import normal_quantile
from parallelmlp_search.data.target_scaling import TargetScaling
from parallelmlp_search.export import export_model, standalone
from parallelmlp_search.inference import TrainedModel
from tests.export.models import (
    CONFIGS,
    PLAIN_CONFIGS,
    TOLERANCE,
    every_kind,
    feeds,
    new_rows,
    random_model,
    session_of,
    with_log_link,
)

CLEAN = """
import importlib.abc
import sys

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in {blocked}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Refuse())
for name in {blocked}:
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    raise AssertionError(name)
"""
"""Start of a program that cannot import some packages."""

PACKAGES = ["torch", "parallelmlp_search", "sklearn", "scipy", "safetensors"]


def run_clean(program: str, blocked: list[str], *arguments: object, cwd: Path) -> str:
    whole = CLEAN.replace("{blocked}", repr(blocked)) + program
    command = [sys.executable, "-c", whole, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def check_equal(model: TrainedModel, frame: pd.DataFrame, folder: Path) -> None:
    written = standalone.Model(export_model(model, folder, "numpy"))
    expected = model.predictions(frame).T
    if model.classes is None:
        found = written.predict(frame)
        assert found.shape == model.predict(frame).shape
        np.testing.assert_allclose(found.reshape(expected.shape), expected, atol=TOLERANCE, rtol=1e-6)
        with pytest.raises(ValueError, match="a regression has no probabilities"):
            written.predict_proba(frame)
    else:
        np.testing.assert_allclose(written.predict_proba(frame), expected, atol=TOLERANCE, rtol=0)
        assert written.predict(frame).tolist() == model.predict(frame).tolist()


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel", "regression"])
def test_every_kind_of_column_and_layer(task: str, tmp_path: Path) -> None:
    check_equal(random_model(every_kind(), task), new_rows(), tmp_path / "model")


def test_each_layer_alone(tmp_path: Path) -> None:
    for number, config in enumerate(CONFIGS):
        model = random_model(every_kind(), "binary", 2, configs=[config])
        check_equal(model, new_rows().head(40), tmp_path / str(number))


def test_postprocessing(tmp_path: Path) -> None:
    weights = (0.2, 0.5, 2.3)
    model = random_model(every_kind(), "multiclass", temperature=0.3, decision_weights=weights, shared=True)
    check_equal(model, new_rows(), tmp_path / "classes")
    matrix = ((1.0, 0.5, 0.0), (0.0, 0.2, 0.1), (0.0, 0.9, 0.3))
    check_equal(replace(model, decision_weights=matrix), new_rows(), tmp_path / "costs")
    weights = (0.6, 1.0, 1.9, 1.2)
    model = random_model(every_kind(), "multilabel", temperature=0.3, decision_weights=weights)
    check_equal(model, new_rows(), tmp_path / "labels")
    scaling = TargetScaling((100.0,), (4.0,))
    model = random_model(every_kind(), "regression", n_predictions=1, target_scaling=scaling)
    check_equal(model, new_rows(), tmp_path / "values")


def test_a_log_link(tmp_path: Path) -> None:
    model = with_log_link(random_model(every_kind(), "regression", configs=PLAIN_CONFIGS))
    check_equal(model, new_rows(), tmp_path / "model")


def test_more_rows_than_a_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standalone, "ROWS", 100)
    check_equal(random_model(every_kind(), "binary", 2), new_rows(), tmp_path / "model")


def test_an_array_and_mistakes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(150, 3)), columns=["x0", "x1", "x2"])
    model = random_model(frame, "regression", 2, configs=CONFIGS[:1])
    written = standalone.Model(export_model(model, tmp_path / "array", "numpy"))
    np.testing.assert_allclose(written.predict(frame.to_numpy()), model.predict(frame), atol=TOLERANCE)
    with pytest.raises(ValueError, match="an array of 3 columns"):
        written.predict(np.zeros((2, 4)))
    with pytest.raises(ValueError, match="no column 'x1'"):
        written.predict({"x0": [1.0]})
    with pytest.raises(ValueError, match="of one length"):
        written.predict({"x0": [1.0], "x1": [1.0, 2.0], "x2": [1.0]})


@pytest.mark.parametrize(
    ("cell", "seconds"),
    [
        ("2024-02-29", 1_709_164_800),
        ("2024/02/29", 1_709_164_800),
        ("2024-02-29T12:30:15.9", 1_709_209_815),
        ("2024-02-29 12:30:15+01:00", 1_709_206_215),
        (1_709_164_800, 1_709_164_800),
        ("soon", np.iinfo(np.int64).min),
        (None, np.iinfo(np.int64).min),
        (pd.NaT, np.iinfo(np.int64).min),
        (pd.Timestamp("2024-02-29 00:00:01").to_pydatetime().date(), 1_709_164_800),
    ],
)
def test_dates_in_cells(cell: Any, seconds: int) -> None:
    assert standalone._dates(np.array([cell], dtype=object)).tolist() == [seconds]


def test_numbers_and_texts_in_cells() -> None:
    cells = np.array(["1.5", " 2 ", "1_000", "", None, True], dtype=object)
    expected = [1.5, 2.0, np.nan, np.nan, np.nan, 1.0]
    np.testing.assert_array_equal(standalone._READERS["number"](cells), expected)
    cells = np.array([" a ", 7.0, 7, True, None, np.nan, 0.5, pd.NA], dtype=object)
    assert standalone._READERS["category"](cells).tolist() == ["a", "7", "7", "True", "", "", "0.5", ""]


def test_polynomial_of_normal_quantiles() -> None:
    x = np.linspace(-255 / 256, 255 / 256, 1001)
    found = x * np.polyval(standalone.NORMAL_POLYNOMIAL, np.log(1.0 - x**2))
    np.testing.assert_allclose(found, normal_quantile((1.0 + x) / 2.0), atol=4e-9)


@pytest.mark.alone
def test_a_clean_environment(tmp_path: Path) -> None:
    model, frame = random_model(every_kind(), "binary"), new_rows()
    export_model(model, tmp_path / "numpy", "numpy")
    path = export_model(model, tmp_path / "model.onnx")
    expected = model.predictions(frame).T

    inputs = feeds(session_of(path), frame)
    texts = {name: part.astype("U") for name, part in inputs.items() if part.dtype == object}
    np.savez(tmp_path / "inputs.npz", **{**inputs, **texts})
    program = """
import numpy as np, onnxruntime
inputs = {name: part.astype(object) if part.dtype.kind == "U" else part
          for name, part in np.load("inputs.npz").items()}
probabilities, label = onnxruntime.InferenceSession("model.onnx").run(None, inputs)
np.savetxt("found.txt", probabilities)
"""
    run_clean(program, PACKAGES, cwd=tmp_path)
    np.testing.assert_allclose(np.loadtxt(tmp_path / "found.txt"), expected, atol=TOLERANCE, rtol=0)

    frame.to_csv(tmp_path / "table.csv", index=False)
    program = "import runpy; runpy.run_path('numpy/predict.py', run_name='__main__')"
    output = run_clean(program, [*PACKAGES, "pandas", "onnxruntime"], "table.csv", cwd=tmp_path)
    rows = list(csv.DictReader(io.StringIO(output)))
    assert [row["prediction"] for row in rows] == model.predict(frame).tolist()
    found = [[float(row[f"probability of {label}"]) for label in ("class 0", "class 1")] for row in rows]
    np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=0)


def test_csv_files(tmp_path: Path) -> None:
    model = random_model(every_kind(), "regression", 2, configs=CONFIGS[:1])
    folder = export_model(model, tmp_path / "model", "numpy")

    def predict(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(folder / "predict.py"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)

    new_rows().to_csv(tmp_path / "table.csv", index=False)
    found = pd.read_csv(io.StringIO(predict("table.csv").stdout))
    assert found.columns.tolist() == ["prediction_0", "prediction_1"]
    np.testing.assert_allclose(found, model.predict(new_rows()), atol=TOLERANCE)
    new_rows().drop(columns="town").to_csv(tmp_path / "table.csv", index=False)
    assert "no column 'town'" in predict("table.csv").stderr
    assert "usage" in predict().stderr
