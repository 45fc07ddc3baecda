"""Rounded weights of an exported graph, and the table of sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks import export_size


@pytest.fixture
def model() -> bytes:
    """Graph that multiplies a column by 12,000 weights and sums them."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    weights = np.linspace(-0.5, 1.0, 12_000, dtype=np.float32)
    nodes = [
        onnx.helper.make_node("Cast", ["x"], ["single"], to=onnx.TensorProto.FLOAT),
        onnx.helper.make_node("MatMul", ["single", "weights"], ["probabilities"]),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "product",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.DOUBLE, [None, 1])],
        [onnx.helper.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, [None, 12_000])],
        [onnx.numpy_helper.from_array(weights[None], "weights")],
    )
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9)
    content: bytes = made.SerializeToString()
    return content


def test_rounding_changes_predictions_and_size(model: bytes) -> None:
    frame = pd.DataFrame({"x": [1.0, -0.25]})
    exact, whole, floating, small = export_size.rounding_errors(model, frame)
    assert exact == {"storage": "32 bits, floating point", "bytes": len(model), "change": 0.0}
    assert whole["bytes"] == floating["bytes"] == len(model) - 24_000
    assert small["bytes"] == len(model) - 36_000
    assert 0 < whole["change"] <= 0.51 / 32_767  # half a unit of the row
    assert 0 < small["change"] <= 0.51 / 127
    assert 0 < floating["change"] <= 0.51 / 1024
    assert export_size.row_seconds(model, frame, 3) > 0


def test_the_table_names_sizes_and_changes() -> None:
    found: dict[str, Any] = {
        "networks": 15,
        "files": [
            {"model": "ensemble", "bytes": 6_900_000, "row_seconds": 0.00029},
            {"model": "distilled", "bytes": 510_000, "row_seconds": 0.0001},
        ],
        "storage": [{"storage": "8 bits, whole numbers", "bytes": 1_800_000, "change": 0.0014}],
    }
    lines = export_size.summary(found).splitlines()
    assert lines[2] == "| ensemble of 15 networks | 6.90 MB | 0.29 ms |"
    assert lines[3] == "| distilled network | 0.51 MB | 0.10 ms |"
    assert lines[-1] == "| 8 bits, whole numbers | 1.80 MB | 1e-03 |"
