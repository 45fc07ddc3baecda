"""Size of an exported ensemble, the time of one row, and the cost of storing fewer bits per weight.

``python -m benchmarks.shipping --part export`` searches the table adult for 60 seconds on one core, distills
the ensemble, exports both to ONNX, and measures the sizes of the files and single rows in onnxruntime. The
graph of the ensemble is then run with weights that are rounded to fewer bits, as a file with such weights
would hold them. It writes ``benchmarks/results/export.json`` and the table of ``docs/export.md``.
"""

from __future__ import annotations

import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.publishing import ROOT, describe_machine, fill, marks
from benchmarks.quality.sets import load, split
from parallelmlp_search._files import write_json
from parallelmlp_search.distill import DistillSettings, distill
from parallelmlp_search.export import export_model
from parallelmlp_search.search import Problem, RunDirectory, SearchSettings
from parallelmlp_search.search import run as search

RESULTS = ROOT / "benchmarks" / "results" / "export.json"
PAGE = ROOT / "docs" / "export.md"

SECONDS, N_ROWS, N_CALLS = 60.0, 2000, 2000
LARGE = 10_000
"""Values from which a tensor of the graph is rounded: weights, but not biases and tables of encodings."""

Floats = NDArray[np.float32]


def _by_row(bits: int) -> Callable[[Floats], Floats]:
    """Whole numbers of so many bits, with one factor per row of weights."""
    largest = 2 ** (bits - 1) - 1

    def rounded(values: Floats) -> Floats:
        unit = np.abs(values).max(axis=-1, keepdims=True) / largest
        unit = np.where(unit > 0, unit, 1.0)
        return (np.round(values / unit) * unit).astype(np.float32)

    return rounded


ROUNDING: Mapping[str, tuple[int, Callable[[Floats], Floats]]] = {
    "16 bits, whole numbers": (16, _by_row(16)),
    "16 bits, floating point": (16, lambda values: values.astype(np.float16).astype(np.float32)),
    "8 bits, whole numbers": (8, _by_row(8)),
}
"""Bits per weight and rounding of each kind of storage."""


def columns_of(frame: pd.DataFrame, session: Any) -> dict[str, NDArray[Any]]:
    """Return the inputs ``(n, 1)`` of a session for the rows of a table of numbers and categories."""
    inputs = {}
    for one in session.get_inputs():
        column = frame[one.name]
        if one.type == "tensor(double)":
            values = column.to_numpy(dtype=float, na_value=np.nan)
        else:
            values = column.astype(object).where(column.notna(), "").astype(str).to_numpy(dtype=object)
        inputs[one.name] = values.reshape(-1, 1)
    return inputs


def open_session(model: bytes) -> Any:
    """Return a session of onnxruntime on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options)


def row_seconds(model: bytes, frame: pd.DataFrame, n_calls: int) -> float:
    """Return the median time of one row."""
    session = open_session(model)
    rows = [columns_of(frame.iloc[[place]], session) for place in range(min(100, len(frame)))]
    seconds = []
    for call in range(n_calls):
        started = time.perf_counter()
        session.run(["probabilities"], rows[call % len(rows)])
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def rounding_errors(model: bytes, frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return, for each rounding, the size of the file and the largest change of a probability.

    Parameters
    ----------
    model
        ONNX file of a classifier.
    frame
        Rows to predict.

    Returns
    -------
    list of dict
        ``storage``, ``bytes`` and ``change``; the first is the file itself.
    """
    import onnx
    from onnx import numpy_helper

    session = open_session(model)
    inputs = columns_of(frame, session)
    (expected,) = session.run(["probabilities"], inputs)
    rows: list[dict[str, Any]] = [{"storage": "32 bits, floating point", "bytes": len(model), "change": 0.0}]
    for name, (bits, rounded) in ROUNDING.items():
        graph = onnx.load_from_string(model)
        saved = 0
        for tensor in graph.graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT and np.prod(tensor.dims) >= LARGE:
                values = numpy_helper.to_array(tensor)
                tensor.CopyFrom(numpy_helper.from_array(rounded(values), tensor.name))
                saved += values.nbytes * (32 - bits) // 32
        (found,) = open_session(graph.SerializeToString()).run(["probabilities"], inputs)
        change = float(np.abs(found - expected).max())
        rows.append({"storage": name, "bytes": len(model) - saved, "change": change})
    return rows


def measure() -> dict[str, Any]:
    """Search, distill, export, and return what the file of results holds."""
    table = load("adult")
    train, test = split(table, 0)
    new = table.rows(test).iloc[:N_ROWS]
    problem = Problem.from_table(table.rows(train), table.target[train], task=table.task)
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(name)
        teacher_run, student_run = (RunDirectory.create(folder / kind) for kind in ("teacher", "student"))
        settings = SearchSettings(time_limit=SECONDS, seed=0, device="cpu", baselines=False)
        teacher = search(problem, settings, directory=teacher_run, n_jobs=1)
        student = distill(teacher_run, problem, student_run, DistillSettings(seed=0))
        files = {}
        for kind, model in (("ensemble", teacher.model), ("distilled", student.model)):
            export_model(model, folder / f"{kind}.onnx")
            files[kind] = (folder / f"{kind}.onnx").read_bytes()
    return {
        "networks": len(teacher.model.trials) * len(teacher.model.folds),
        "files": [
            {"model": kind, "bytes": len(file), "row_seconds": row_seconds(file, new, N_CALLS)}
            for kind, file in files.items()
        ],
        "storage": rounding_errors(files["ensemble"], new),
        "machine": describe_machine(),
    }


def summary(found: Mapping[str, Any]) -> str:
    """Return the results as two tables in Markdown."""
    lines = ["| exported to ONNX | size | one row |", "|---|---|---|"]
    for one in found["files"]:
        name = (
            f"ensemble of {found['networks']} networks" if one["model"] == "ensemble" else "distilled network"
        )
        lines.append(f"| {name} | {one['bytes'] / 1e6:.2f} MB | {1e3 * one['row_seconds']:.2f} ms |")
    lines += ["", "| weights of the ensemble | size | largest change of a probability |", "|---|---|---|"]
    for one in found["storage"]:
        change = f"{one['change']:.0e}" if one["change"] else "0"
        lines.append(f"| {one['storage']} | {one['bytes'] / 1e6:.2f} MB | {change} |")
    return "\n".join(lines)


def publish() -> None:
    """Measure, write the results and the table of the page, and print it."""
    found = measure()
    write_json(RESULTS, found)
    text = summary(found)
    fill(PAGE, marks("size"), text)
    print(text)
