"""Figures of the benchmark of latency."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.latency import (
    LOAD,
    MANY,
    ONE_ARRAY,
    ONNX,
    OURS,
    TREES,
    OnnxModel,
    TorchModel,
    calls_table,
    missed,
    published,
    quantiles,
    run_process,
)
from parallelmlp_search import SingleMLPClassifier

CALLS = [
    {"what": ONE_ARRAY, "tool": OURS, "p50": 0.0004, "p95": 0.0009, "n": 3},
    {"what": MANY, "tool": OURS, "p50": 1.5, "p95": 1.6, "n": 3},
    {"what": MANY, "tool": TREES, "p50": 9.0, "p95": 9.5, "n": 3},
]
PROCESSES = [{"what": LOAD, "p50": 1.7, "p95": 2.0, "n": 3, "cpu": 0.6, "peak_mb": 120.0}]


def test_tables_and_missed_targets() -> None:
    assert calls_table(CALLS).splitlines()[2:4] == [
        f"| one row, array | {OURS} | 0.40 ms | 0.90 ms |",
        f"| 100,000 rows | {OURS} | 1.50 s | 1.60 s |",
    ]
    slow = {"what": ONE_ARRAY, "tool": ONNX, "p50": 0.00035, "p95": 0.0004, "n": 3}
    assert missed([slow]) == ["one row, array: the median is 0.35 ms, the target is 0.30 ms"]
    assert missed([*CALLS, *PROCESSES]) == [
        "100,000 rows: the median is 1.50 s, the target is 1.00 s",
        "import, load a run, predict one row: the median is 1.70 s, the target is 1.50 s",
    ]
    assert quantiles([1.0, 2.0, 3.0]) == {"p50": 2.0, "p95": pytest.approx(2.9), "n": 3}


@pytest.mark.parametrize(("load", "is_noted"), [(0.2, False), (9.0, True)])
def test_a_busy_machine_is_noted(load: float, is_noted: bool) -> None:
    machine = {"load_before": load, "cores": 2}
    tables = published({"machine": machine, "calls": CALLS, "processes": PROCESSES})
    assert ("The machine was busy" in tables["latency"]) is is_noted
    assert tables["start_up"].splitlines()[2] == f"| {LOAD} | 1.70 s | 0.60 s | 120 MB |"


def test_the_rivals_predict_the_same(tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(60, 3))
    model = SingleMLPClassifier((8,), max_epochs=2, random_state=0).fit(X, X[:, 0] > 0)
    exported = OnnxModel(model.export(tmp_path / "model.onnx"))
    np.testing.assert_allclose(exported(exported.inputs(X)), model.predict_proba(X), atol=1e-6)
    for n_rows in (1, 60):
        found = TorchModel(model.model_)(X[:n_rows])
        np.testing.assert_allclose(found.T, model.predict_proba(X[:n_rows]), atol=1e-6)
    assert abs(found[0] - found[1]).max() > 1e-3


def test_programs_are_measured_alone() -> None:
    seconds, cpu, peak = run_process([sys.executable, "-c", "pass"])
    assert seconds > 0
    assert cpu > 0
    assert peak < 60  # this process takes several hundred MB
    with pytest.raises(RuntimeError, match="no such thing"):
        run_process([sys.executable, "-c", "raise SystemExit('no such thing')"])
