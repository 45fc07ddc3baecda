"""ONNX files against the predictions of the model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest

from parallelmlp_search.data.target_scaling import TargetScaling
from parallelmlp_search.export import export_model, onnx_encoding
from parallelmlp_search.export.onnx_model import onnx_model
from parallelmlp_search.export.parts import model_parts
from parallelmlp_search.inference import TrainedModel
from parallelmlp_search.space import MLPConfig
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

DATASETS = Path(__file__).parents[2] / "datasets"
ADULT_LIKE = (
    MLPConfig(widths=(16, 16), numeric_embedding="piecewise"),
    MLPConfig(widths=(16,), numeric_scaling="quantile", category_embedding="learned"),
    MLPConfig(widths=(16, 8), submembers=4, numeric_embedding="periodic"),
)


def check_equal(model: TrainedModel, frame: pd.DataFrame, path: Path) -> Any:
    """Export, run, and compare all outputs; return the session."""
    session = session_of(export_model(model, path / "model.onnx"))
    first, *rest = session.run(None, feeds(session, frame))
    expected = model.predictions(frame).T
    if model.classes is None:
        size = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(
            first.reshape(expected.shape) / size, expected / size, atol=TOLERANCE, rtol=0
        )
        assert first.shape == model.predict(frame).shape
    else:
        np.testing.assert_allclose(first, expected, atol=TOLERANCE, rtol=0)
        assert first.dtype == np.float32
        assert rest[0].tolist() == model.predict(frame).tolist()
    return session


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel", "regression"])
def test_every_kind_of_column_and_layer(task: str, shared: bool, tmp_path: Path) -> None:
    model = random_model(every_kind(), task, shared=shared)
    session = check_equal(model, new_rows(), tmp_path)
    assert {one.name: one.type for one in session.get_inputs()} == {
        "x": "tensor(double)",
        "offset": "tensor(double)",
        "ties": "tensor(double)",
        "income": "tensor(double)",
        "town": "tensor(string)",
        "many": "tensor(string)",
        "size": "tensor(string)",
        "digit": "tensor(string)",
        "flag": "tensor(string)",
        "yes": "tensor(string)",
        "day": "tensor(int64)",
        "old": "tensor(int64)",
    }


def test_each_layer_alone(tmp_path: Path) -> None:
    # in an ensemble, an error of one network is divided by their number
    frame = new_rows()
    for config in CONFIGS:
        check_equal(random_model(every_kind(), "binary", 2, configs=[config]), frame, tmp_path)


def test_another_weight_is_seen(tmp_path: Path) -> None:
    model, frame = random_model(every_kind(), "binary"), new_rows()
    session = session_of(export_model(model, tmp_path / "model.onnx"))
    other = replace(model, weights=model.weights[::-1])
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(
            session.run(None, feeds(session, frame))[0], other.predictions(frame).T, atol=TOLERANCE, rtol=0
        )


def test_postprocessing_of_classes(tmp_path: Path) -> None:
    model = random_model(
        every_kind(), "multiclass", temperature=0.3, decision_weights=(0.2, 0.5, 2.3), target_name=None
    )
    check_equal(model, new_rows(), tmp_path)
    matrix = ((1.0, 0.5, 0.0), (0.0, 0.2, 0.1), (0.0, 0.9, 0.3))
    decided = replace(model, decision_weights=matrix)
    check_equal(decided, new_rows(), tmp_path)
    assert (decided.predict(new_rows()) != model.predict(new_rows())).any()
    without = replace(model, decision_weights=None)
    assert (without.predict(new_rows()) != model.predict(new_rows())).any()


def test_postprocessing_of_labels(tmp_path: Path) -> None:
    weights = (0.6, 1.0, 1.9, 1.2)
    model = random_model(every_kind(), "multilabel", temperature=0.3, decision_weights=weights)
    session = check_equal(model, new_rows(), tmp_path)
    assert [one.name for one in session.get_outputs()] == ["probabilities", "labels"]
    without = replace(model, decision_weights=None)
    assert (without.predict(new_rows()) != model.predict(new_rows())).any()


@pytest.mark.parametrize("labels", [[0, 1, 5], [0.5, 1.5, 2.5], [False, True], ["é", "b"]])
def test_types_of_classes(labels: list[Any], tmp_path: Path) -> None:
    task = "binary" if len(labels) == 2 else "multiclass"
    model = random_model(every_kind(), task, 2, configs=CONFIGS[:1], classes=np.array(labels))
    check_equal(model, new_rows(), tmp_path)


def test_one_output_of_a_scaled_target(tmp_path: Path) -> None:
    scaling = TargetScaling((1e12,), (2.0**20,))
    model = random_model(every_kind(), "regression", n_predictions=1, target_scaling=scaling)
    check_equal(model, new_rows(), tmp_path)


def test_a_log_link(tmp_path: Path) -> None:
    plain = random_model(every_kind(), "regression", configs=PLAIN_CONFIGS)
    model = with_log_link(plain)
    check_equal(model, new_rows(), tmp_path)
    assert not np.allclose(model.predict(new_rows()), plain.predict(new_rows()), atol=0.1)


def test_quantiles_are_found_alike_step_by_step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = random_model(every_kind(), "binary")
    check_equal(model, new_rows(), tmp_path)
    monkeypatch.setattr(onnx_encoding, "MAX_COMPARED", 0)
    check_equal(model, new_rows(), tmp_path)


def test_folds_of_few_rows_have_fewer_quantiles(tmp_path: Path) -> None:
    model = random_model(every_kind(90), "binary")
    assert len({len(fold.encoder.numeric["scores"].grid) for fold in model.folds}) == 1
    small = random_model(every_kind(80), "binary", 2)
    mixed = replace(model, folds=[*model.folds, *small.folds])
    check_equal(mixed, new_rows(), tmp_path)


def test_folds_that_use_other_columns(tmp_path: Path) -> None:
    kinds = [None, {"town": "constant"}, None]
    model = random_model(every_kind(), "regression", kinds=kinds)
    assert len(model.ensemble.groups) == 2
    check_equal(model, new_rows(), tmp_path)


def test_a_table_that_was_an_array_is_one_input(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    array = rng.normal(size=(200, 5))
    array[:, 3] = 1.0
    array[::9, 1] = np.nan
    frame = pd.DataFrame(array, columns=[f"x{number}" for number in range(5)])
    model = random_model(frame, "binary")
    session = session_of(export_model(model, tmp_path / "model.onnx"))
    assert [(one.name, one.shape) for one in session.get_inputs()] == [("X", ["n", 5])]
    found = session.run(["probabilities"], {"X": array})[0]
    np.testing.assert_allclose(found, model.predictions(frame).T, atol=TOLERANCE, rtol=0)


def test_spellings_of_categories_and_blank_cells(tmp_path: Path) -> None:
    model = random_model(every_kind(), "binary")
    session = session_of(export_model(model, tmp_path / "model.onnx"))
    inputs = dict(feeds(session, new_rows().iloc[:1]))
    probabilities = {}
    for digit in ("3", "3.0", "", "nan"):
        inputs["digit"] = np.array([[digit]], dtype=object)
        probabilities[digit] = session.run(None, inputs)[0].tolist()
    assert probabilities["3"] == probabilities["3.0"] != probabilities[""] == probabilities["nan"]


def test_no_rows(tmp_path: Path) -> None:
    model = random_model(every_kind(), "binary")
    session = session_of(export_model(model, tmp_path / "model.onnx"))
    probabilities, label = session.run(None, feeds(session, new_rows().head(0)))
    assert (probabilities.shape, label.shape) == ((0, 2), (0,))


def test_names_of_outputs_that_are_columns(tmp_path: Path) -> None:
    frame = every_kind().rename(columns={"x": "label", "town": "v7", "flag": "probabilities"})
    renamed = new_rows().rename(columns={"x": "label", "town": "v7", "flag": "probabilities"})
    session = check_equal(random_model(frame, "binary"), renamed, tmp_path)
    assert [one.name for one in session.get_outputs()] == ["probabilities_", "label_"]


def test_metadata(tmp_path: Path) -> None:
    model = random_model(every_kind(), "binary")
    facts = {"metric": "roc_auc", "honest_score": 0.875}
    loaded = onnx.load(export_model(model, tmp_path / "model.onnx", "onnx", facts))
    metadata = {entry.key: entry.value for entry in loaded.metadata_props}
    assert metadata["metric"] == "roc_auc"
    assert json.loads(metadata["honest_score"]) == 0.875
    assert json.loads(metadata["classes"]) == ["class 0", "class 1"]
    assert json.loads(metadata["columns"])[0] == {"name": "x", "kind": "number"}
    assert (metadata["target"], loaded.producer_version) == ("y", metadata["version"])


def test_networks_of_the_same_shapes_share_nodes() -> None:
    frame, config = every_kind(), CONFIGS[0]

    def n_nodes(n_members: int) -> int:
        parts = model_parts(random_model(frame, "binary", configs=[config] * n_members), {"version": "0"})
        return len(onnx_model(parts).graph.node)

    assert n_nodes(2) == n_nodes(8) <= n_nodes(1) + 1  # one node joins their outputs


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("adult", "binary"),
        ("telco_churn", "binary"),
        ("letter", "multiclass"),
        ("diamonds", "regression"),
        ("mnist5k", "multiclass"),
    ],
)
def test_bundled_tables(name: str, task: str, tmp_path: Path) -> None:
    table = pd.read_csv(DATASETS / f"{name}.csv.gz", keep_default_na=False, na_values=[""])
    frame = table.iloc[:: len(table) // 700, :-1].reset_index(drop=True)
    n_predictions = {"letter": 26, "mnist5k": 10, "diamonds": 1}.get(name, 2)
    model = random_model(frame.iloc[:500], task, 2, configs=ADULT_LIKE, n_predictions=n_predictions)
    check_equal(model, frame.iloc[450:], tmp_path)
