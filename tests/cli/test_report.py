"""The command ``pmlp report``."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tarfile
import webbrowser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.cli.test_commands import BUDGET, mistake, pmlp


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(300, 3)), columns=["a", "b", "c"])
    frame["y"] = np.where(frame["a"] - frame["b"] + 0.5 * rng.normal(size=300) > 0, "good", "bad")
    path = tmp_path_factory.mktemp("report") / "table.csv"
    frame.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def run(table: Path) -> Path:
    folder = table.parent / "run"
    pmlp("search", table, "--target", "y", *BUDGET, "--output", folder, "--quiet")
    return folder


def figures(path: Path) -> set[str]:
    """Names of the figures in a page."""
    text = path.read_text(encoding="utf-8")
    start = text.index('id="data">') + len('id="data">')
    return set(json.loads(text[start : text.index("</script>", start)])["figures"])


def test_two_commands_lead_from_a_table_to_a_page(run: Path) -> None:
    result = pmlp("report", run)
    assert "report:" in result.stderr
    page = run / "report.html"
    assert {"roc", "calibration", "confusion", "importance", "dependence-0", "size"} <= figures(page)
    # the explanation is stored for the next report and for `Run.explanation`
    stored = run / "explain" / "explanation.json"
    before = stored.stat().st_mtime_ns
    assert pmlp("report", run, "--quiet").stdout.strip() == str(page)
    assert stored.stat().st_mtime_ns == before


def test_other_rows_and_another_file(run: Path, table: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    pd.read_csv(table).iloc[:80].to_csv(other, index=False)
    page = tmp_path / "page.html"
    stored = (run / "explain" / "explanation.json").read_bytes()
    pmlp("report", run, other, "--output", page)
    assert "80 rows that the search has not seen" in page.read_text(encoding="utf-8")
    assert (run / "explain" / "explanation.json").read_bytes() == stored


def test_a_run_whose_table_has_gone_has_a_page_with_the_reason(
    run: Path, table: Path, tmp_path: Path
) -> None:
    moved = table.rename(table.with_name("moved.csv"))
    try:
        page = tmp_path / "page.html"
        pmlp("report", run, "--output", page)
    finally:
        moved.rename(table)
    text = page.read_text(encoding="utf-8")
    assert "The table of the run could not be used" in text
    assert "roc" not in figures(page)
    assert {"importance", "learning-curves"} <= figures(page)  # the stored explanation
    assert '"column-report"' in text  # the stored facts about columns


def test_facts_of_a_table_that_has_changed_are_left_out(run: Path, table: Path, tmp_path: Path) -> None:
    frame, page = pd.read_csv(table), tmp_path / "page.html"
    original = table.read_bytes()
    frame.assign(added_later=1.5).to_csv(table, index=False)
    try:
        pmlp("report", run, "--output", page)
    finally:
        table.write_bytes(original)
    text = page.read_text(encoding="utf-8")
    assert "has changed since the search" in text
    assert '"column-report"' in text  # the stored facts about columns
    assert "added_later" not in text


def test_an_explanation_of_an_earlier_model_is_computed_anew(run: Path, tmp_path: Path) -> None:
    pmlp("report", run, "--quiet")
    stored = run / "explain" / "explanation.json"
    before = stored.stat().st_mtime_ns
    os.utime(run / "model" / "model.json", ns=(before + 10**9, before + 10**9))
    pmlp("report", run, "--quiet")
    assert stored.stat().st_mtime_ns > before


def test_a_metric_that_was_a_python_object_is_not_one_of_the_same_name(
    run: Path, table: Path, tmp_path: Path
) -> None:
    copied = Path(shutil.copytree(run, tmp_path / "run"))
    info = json.loads((copied / "run.json").read_text())
    info["settings"]["metric"] = "python:roc_auc"
    (copied / "run.json").write_text(json.dumps(info))
    other = tmp_path / "other.csv"
    pd.read_csv(table).iloc[:80].to_csv(other, index=False)
    assert "metric 'roc_auc' is a Python object" in mistake("report", copied, other)


def test_runs_of_released_versions_have_a_page(tmp_path: Path) -> None:
    with tarfile.open(Path(__file__).parents[1] / "data" / "formats" / "0.1.0.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    finished = tmp_path / "0.1.0" / "finished"
    pmlp("report", finished, "--quiet")
    assert {"ensemble", "size", "learning-curves"} <= figures(finished / "report.html")


def test_open_shows_the_page(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda address: shown.append(address))
    pmlp("report", run, "--open", "--quiet")
    assert shown == [(run / "report.html").resolve().as_uri()]


def test_mistakes_are_one_line(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "is not a run" in mistake("report", tmp_path / "absent")
    assert "absent" in mistake("report", run, "--output", tmp_path / "absent" / "page.html")
    monkeypatch.setitem(sys.modules, "plotly", None)
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    assert "pip install 'parallelmlp-search[plots]'" in mistake("report", run)
