"""Counters and histograms in the text format of Prometheus."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from parallelmlp_search.serve import metrics
from parallelmlp_search.serve.metrics import COUNTERS, HISTOGRAMS, Metrics


def values_of(text: str) -> dict[str, float]:
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def test_counters_and_histograms(tmp_path: Path) -> None:
    numbers = Metrics(tmp_path)
    numbers.count("pmlp_requests_total", "422")
    numbers.count("pmlp_rows_total", amount=5)
    for seconds in (0.0005, 0.001, 0.004, 99.0):
        numbers.observe("pmlp_request_seconds", seconds)
    text = numbers.text()
    found = values_of(text)
    assert found['pmlp_requests_total{status="422"}'] == 1
    assert found['pmlp_requests_total{status="200"}'] == 0
    assert found["pmlp_rows_total"] == 5
    buckets = [found[f'pmlp_request_seconds_bucket{{le="{limit}"}}'] for limit in ("0.001", "0.005", "+Inf")]
    assert buckets == [2, 3, 4]
    assert found["pmlp_request_seconds_count"] == 4
    assert found["pmlp_request_seconds_sum"] == pytest.approx(99.0055)
    assert text.endswith("\n")
    name = r"[a-z_]+(\{[a-z]+=\"[^\"]*\"\})? \S+"
    assert all(re.fullmatch(name, line) for line in text.splitlines() if not line.startswith("#"))
    assert text.count("# TYPE ") == len(COUNTERS) + len(HISTOGRAMS)


def test_numbers_of_several_processes_are_summed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Metrics(tmp_path)
    monkeypatch.setattr(metrics.os, "getpid", lambda: os.getppid())
    second = Metrics(tmp_path)
    (tmp_path / "1.counters").touch()  # of a process that has just begun
    for one in (first, second, second):
        one.count("pmlp_errors_total", "malformed")
    assert first.text() == second.text()
    assert values_of(first.text())['pmlp_errors_total{kind="malformed"}'] == 3
