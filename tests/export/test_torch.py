"""Programs of ``torch.export`` against the predictions of the model."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from parallelmlp_search.data.target_scaling import TargetScaling
from parallelmlp_search.export import export_model
from parallelmlp_search.export.parts import model_parts
from parallelmlp_search.export.torch_module import ExportedModule
from parallelmlp_search.inference import TrainedModel
from tests.export.models import (
    CONFIGS,
    PLAIN_CONFIGS,
    TOLERANCE,
    every_kind,
    new_rows,
    random_model,
    with_log_link,
)


def tensors(inputs: Mapping[str, Any], frame: pd.DataFrame) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs of a module, as documented."""
    numbers = frame[inputs["numbers"]].to_numpy(dtype=np.float64, na_value=np.nan)
    codes = np.zeros((len(frame), len(inputs["categories"])), dtype=np.int64)
    for place, (name, known) in enumerate(inputs["categories"].items()):
        codes[:, place] = [known.get(str(cell), 0) for cell in frame[name]]
    dates = np.zeros((len(frame), len(inputs["dates"])), dtype=np.int64)
    for place, name in enumerate(inputs["dates"]):
        dates[:, place] = frame[name].to_numpy(dtype="datetime64[s]").astype(np.int64)
    return torch.tensor(numbers), torch.tensor(codes), torch.tensor(dates)


def check_equal(model: TrainedModel, frame: pd.DataFrame) -> None:
    module = ExportedModule(model_parts(model, {}))
    with torch.no_grad():
        found = module(*tensors(module.inputs, frame)).numpy()
    np.testing.assert_allclose(found, model.predictions(frame).T, atol=TOLERANCE, rtol=1e-6)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel", "regression"])
def test_every_kind_of_column_and_layer(task: str, shared: bool) -> None:
    check_equal(random_model(every_kind(), task, shared=shared), new_rows())


def test_each_layer_alone() -> None:
    for config in CONFIGS:
        check_equal(random_model(every_kind(), "binary", 2, configs=[config]), new_rows().head(40))


def test_postprocessing() -> None:
    check_equal(random_model(every_kind(), "multiclass", temperature=0.3), new_rows())
    check_equal(random_model(every_kind(), "multilabel", temperature=0.3), new_rows())
    scaling = TargetScaling((100.0,), (4.0,))
    check_equal(random_model(every_kind(), "regression", n_predictions=1, target_scaling=scaling), new_rows())


def test_a_log_link() -> None:
    check_equal(with_log_link(random_model(every_kind(), "regression", configs=PLAIN_CONFIGS)), new_rows())


def test_folds_that_use_other_columns() -> None:
    kinds = [None, {"town": "constant", "x": "constant"}, None]
    check_equal(random_model(every_kind(), "binary", kinds=kinds), new_rows())


@pytest.mark.alone
def test_a_saved_program_needs_torch_alone(tmp_path: Path) -> None:
    model = random_model(every_kind(), "binary", 2, configs=CONFIGS[2:3])
    path = export_model(model, tmp_path / "model.pt2", "torch", {"metric": "roc_auc"})
    files = {"metadata.json": ""}
    torch.export.load(path, extra_files=files)
    metadata = json.loads(files["metadata.json"])
    assert (metadata["metric"], metadata["classes"]) == ("roc_auc", ["class 0", "class 1"])
    torch.save(tensors(metadata["inputs"], new_rows()), tmp_path / "inputs.pt")
    program = """
import sys
sys.modules["parallelmlp_search"] = None
import torch
module = torch.export.load("model.pt2").module()
inputs = torch.load("inputs.pt")
torch.save((module(*inputs).detach(), module(*(part[:1] for part in inputs)).detach()), "found.pt")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found, first = torch.load(tmp_path / "found.pt")
    np.testing.assert_allclose(found, model.predictions(new_rows()).T, atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(first, found[:1], atol=TOLERANCE, rtol=0)
