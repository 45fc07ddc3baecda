"""Figures of the coverage benchmark, its rows and its table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import shipping


def test_figures_are_the_coverage_and_the_relative_width() -> None:
    target = np.array([0.0, 2.0, 4.0, 6.0])
    ends = np.stack([target - 1.0, target + 1.0], axis=1)
    ends[3] += 5.0
    assert shipping.figures(ends, target) == {
        "coverage": 0.75,
        "width": round(2.0 / float(np.std(target)), 4),
    }


def test_the_noise_of_the_made_table_depends_on_a_column() -> None:
    table = shipping.load_table("heteroscedastic")
    x = table.features.to_numpy()
    noise = table.target - np.sin(3.0 * x[:, 0]) - x[:, 2]
    is_large = np.abs(x[:, 1]) > 0.5
    assert np.std(noise[is_large]) > 1.8 * np.std(noise[~is_large])
    assert shipping.load_table("diabetes").task == "regression"


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "shipping.json"
    monkeypatch.setattr(shipping, "RESULTS", path)
    monkeypatch.setattr(shipping, "TABLES", ("friedman", "diabetes"))
    monkeypatch.setattr(shipping, "SEEDS", (0,))
    return path


def test_rows_are_measured_in_several_calls(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured: list[Any] = []

    def measure(*case: Any) -> dict[str, Any]:
        measured.append(case)
        width = 1.0 if case[1] == "ours" else 2.0
        return {"coverage": 0.9, "width": width, "seconds": 1.0, "held_out": 10}

    monkeypatch.setattr(shipping, "measure", measure)
    shipping.measure_rows(3)
    assert "1 rows are left" in capsys.readouterr().out
    shipping.measure_rows(None)
    assert measured == [(name, tool, 0) for name in ("friedman", "diabetes") for tool in ("ours", "mapie")]
    shipping.measure_rows(None)
    assert len(measured) == 4
    rows = json.loads(results.read_text())["rows"]
    assert shipping.missing(rows, "another version") != []
    table = shipping.summary(rows).splitlines()
    assert table[2] == "| friedman | 90.0 % | 90.0 % | 1.000 | 2.000 | 0.50 |"
    assert table[-1] == "| mean | 90.0 % | 90.0 % | 1.000 | 2.000 | 0.50 |"


def test_the_page_holds_the_table_of_the_results() -> None:
    rows = shipping._read_rows()
    text = shipping.PAGE.read_text(encoding="utf-8")
    assert shipping.between(text, shipping.marks("coverage")).strip() == shipping.summary(rows)


def test_parts_are_measured_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Any] = []
    for part in shipping.PARTS:
        monkeypatch.setitem(shipping.PARTS, part, lambda most, part=part: called.append((part, most)))
    monkeypatch.setattr("os.sched_setaffinity", lambda *_: None, raising=False)
    monkeypatch.setattr("sys.argv", ["shipping", "--part", "export", "--part", "distillation", "--runs", "2"])
    shipping.main()
    assert called == [("export", 2), ("distillation", 2)]
