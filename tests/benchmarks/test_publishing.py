"""Tables between their marks, and that publishing needs nothing that a machine with a GPU may lack."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.publishing import ROOT, between, describe_machine, fill, marks


def test_a_text_takes_the_place_of_another(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- a -->\nold\n<!-- /a -->\n<!-- b -->\nother\n<!-- /b -->\n")
    for text in ("| 1 |", "| 2 |\n"):
        fill(page, marks("a"), text)
        assert between(page.read_text(), marks("a")) == text.strip() + "\n"
    assert page.read_text() == "before\n<!-- a -->\n| 2 |\n<!-- /a -->\n<!-- b -->\nother\n<!-- /b -->\n"


@pytest.mark.parametrize("document", ["none\n", "<!-- a -->\n", "<!-- /a -->\n<!-- a -->\n"])
def test_a_document_without_the_marks_is_left_alone(tmp_path: Path, document: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(document)
    with pytest.raises(ValueError, match="<!-- a --> and <!-- /a -->"):
        fill(page, marks("a"), "text")
    assert page.read_text() == document


def test_a_machine_is_described() -> None:
    assert set(describe_machine()) == {"processor", "cores", "python", "torch", "commit"}


def test_the_benchmark_on_a_gpu_is_light() -> None:
    code = """
import sys
for name in ("optuna", "typer", "rich"):
    sys.modules[name] = None
import benchmarks.gpu
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
