"""Rule of the time limits, figures of memory limits, and rows that are measured in several calls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import limits
from benchmarks.limits import Case, _memory_figures, is_kept, measure_rows, memory_cases, summary, time_cases


def test_a_quiet_machine_uses_the_time_and_ends_at_most_a_second_late() -> None:
    assert is_kept(10.0, 10.9)
    assert not is_kept(10.0, 11.1)
    assert is_kept(60.0, 61.1)
    assert not is_kept(60.0, 61.3)
    assert is_kept(30.0, 28.0)
    assert not is_kept(30.0, 27.8)
    assert is_kept(5.0, 3.0)  # at 5 s only lateness counts
    assert not is_kept(5.0, 6.1)


def test_a_busy_machine_ends_at_most_a_tenth_late() -> None:
    assert is_kept(20.0, 22.0, busy=True)
    assert not is_kept(20.0, 22.1, busy=True)


def test_below_the_minimum_the_minimum_is_taken() -> None:
    assert is_kept(10.0, 13.5, minimum=13.0)
    assert not is_kept(10.0, 14.1, minimum=13.0)
    assert not is_kept(10.0, 13.5)


def test_memory_figures_compare_the_measured_peak() -> None:
    memory = {"limit": 1000, "estimate": 990}
    assert _memory_figures(900, memory) == {"kept": True, "estimate_error": 0.1}
    assert _memory_figures(1001, memory)["kept"] is False
    assert _memory_figures(800, memory)["kept"] is False  # the estimate is 24 % off
    assert _memory_figures(800, memory, "promotion") == {"kept": True}
    assert _memory_figures(900, {}) == {"kept": False}


def test_there_are_a_hundred_runs_thirty_beside_a_busy_process_and_each_kind_of_work() -> None:
    identities = [case.identity for part in ("time", "busy") for case in time_cases(part)]
    assert [one["part"] for one in identities].count("time") == 100
    assert [one["part"] for one in identities].count("busy") == 30
    works = [case.identity["work"] for case in memory_cases()]
    assert {"large classification", "wide", "deep", "promotion"} <= set(works)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Path of a new file of results."""
    path = tmp_path / "limits.json"
    monkeypatch.setattr(limits, "RESULTS", path)
    return path


def _cases(measured: list[int]) -> list[Case]:
    def measure(seed: int) -> dict[str, Any]:
        measured.append(seed)
        return {"seconds": 10.0 + seed, "kept": seed < 2, "alone": len(measured) > 2}

    return [
        Case({"part": "time", "table": "a", "limit": 10.0, "seed": seed}, lambda seed=seed: measure(seed))  # type: ignore[misc]
        for seed in range(4)
    ]


def test_the_summary_has_a_row_for_each_limit() -> None:
    timed: dict[str, Any] = {"part": "time", "limit": 10.0, "kept": True, "alone": True, "seconds": 9.5}
    busy = timed | {"part": "busy", "limit": 20.0, "seconds": 24.0, "minimum": 24.0, "alone": False}
    memory = {
        "part": "memory",
        "work": "deep",
        "limit_used": "1GB",
        "peak_bytes": 8e8,
        "estimate_error": -0.05,
    }
    refused = memory | {"refused": True}
    del refused["estimate_error"]
    lines = summary([timed, busy, refused, memory]).splitlines()
    assert lines[2] == "| 10 s | 1 | 1 | 95.0% to 95.0% | 0 | 1 |"
    assert lines[3] == "| 20 s, beside a busy process | 1 | 1 |  | 1 | 0 |"
    assert lines[-2:] == ["| deep | 1GB | refused |  |", "| deep | 1GB | 800 MB | -5% |"]
    assert summary([]) == ""


def test_a_second_call_continues_and_a_changed_package_starts_again(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[int] = []
    monkeypatch.setattr(limits, "_version", lambda: "abc")
    monkeypatch.setattr(limits, "_same_package", lambda commit: commit == "abc")
    measure_rows(_cases(measured), 3)
    measure_rows(_cases(measured), 1)
    assert measured == [0, 1, 2, 3]
    measure_rows(_cases(measured), None)  # the first two were not alone
    assert measured == [0, 1, 2, 3, 0, 1]
    measure_rows(_cases(measured), None)
    rows = json.loads(results.read_text())["rows"]
    assert {"commit", "date", "machine", "alone"} <= rows[0].keys()
    assert summary(rows).splitlines()[2:] == ["| 10 s | 4 | 2 | 100.0% to 130.0% | 0 | 4 |"]
    monkeypatch.setattr(limits, "_same_package", lambda commit: False)
    measure_rows(_cases(measured), 1)
    assert measured == [0, 1, 2, 3, 0, 1, 0]
    assert len(json.loads(results.read_text())["rows"]) == 4
