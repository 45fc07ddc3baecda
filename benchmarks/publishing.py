"""What benchmarks keep beside their figures, and how tables get into documents; needs nothing but torch."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

__all__ = ["ROOT", "between", "describe_machine", "fill", "marks"]

ROOT = Path(__file__).parent.parent

Marks = tuple[str, str]


def describe_machine() -> dict[str, Any]:
    """Where and with what figures were measured."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": commit,
    }


def marks(name: str) -> Marks:
    """The lines of a document between which a table of this name stands."""
    return f"<!-- {name} -->\n", f"<!-- /{name} -->"


def between(text: str, marks: Marks) -> str:
    """What stands between the marks.

    Raises
    ------
    ValueError
        If one of them is missing.
    """
    return _parts(text, marks)[1]


def fill(path: Path, marks: Marks, text: str) -> None:
    """Put a text between the marks of a document.

    Raises
    ------
    ValueError
        If one of them is missing.
    """
    before, _, after = _parts(path.read_text(encoding="utf-8"), marks)
    path.write_text(before + marks[0] + text.rstrip("\n") + "\n" + marks[1] + after, encoding="utf-8")


def _parts(text: str, marks: Marks) -> tuple[str, str, str]:
    before, opened, rest = text.partition(marks[0])
    inside, closed, after = rest.partition(marks[1])
    if not (opened and closed):
        raise ValueError(
            f"a document must hold the marks {marks[0].strip()} and {marks[1]}, but one is missing"
        )
    return before, inside, after
