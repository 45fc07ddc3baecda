"""Publication of tables between marks, and the description of the machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import publishing
from benchmarks.packed import machine
from benchmarks.publishing import ROOT, between, current_commit, describe_machine, fill, marks


def test_a_text_replaces_another(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- a -->\nold\n<!-- /a -->\n<!-- b -->\nother\n<!-- /b -->\n")
    for text in ("| 1 |", "| 2 |\n"):
        fill(page, marks("a"), text)
        assert between(page.read_text(), marks("a")) == text.strip() + "\n"
    assert page.read_text() == "before\n<!-- a -->\n| 2 |\n<!-- /a -->\n<!-- b -->\nother\n<!-- /b -->\n"


@pytest.mark.parametrize("document", ["none\n", "<!-- a -->\n", "<!-- /a -->\n<!-- a -->\n"])
def test_a_document_without_the_marks_is_not_changed(tmp_path: Path, document: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(document)
    with pytest.raises(ValueError, match="<!-- a --> and <!-- /a -->"):
        fill(page, marks("a"), "text")
    assert page.read_text() == document


def test_the_machine_is_described() -> None:
    assert set(describe_machine()) == {"processor", "cores", "python", "torch", "commit"}


def test_the_commit_is_unknown_without_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert current_commit() == "unknown"
    assert describe_machine()["commit"] == "unknown"
    assert machine.describe()["commit"] == "unknown"


def test_the_commit_is_unknown_outside_of_a_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert current_commit() == "unknown"


def test_the_gpu_benchmark_needs_few_packages() -> None:
    code = """
import sys
for name in ("optuna", "typer", "rich"):
    sys.modules[name] = None
import benchmarks.gpu
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
