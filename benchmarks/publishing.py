"""Description of the machine for files of results, and insertion of tables into documents.

Needs only torch, so that it works on a machine with a GPU where little else is installed.
"""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

__all__ = ["ROOT", "between", "current_commit", "describe_machine", "fill", "git_output", "marks"]

ROOT = Path(__file__).parent.parent

Marks = tuple[str, str]


def git_output(*words: str) -> str:
    """Return what git prints in the checkout; empty without git or outside of a repository."""
    try:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()


def current_commit() -> str:
    """Return the short hash of the checkout, or ``"unknown"`` where git cannot tell."""
    return git_output("rev-parse", "--short", "HEAD") or "unknown"


def describe_machine() -> dict[str, Any]:
    """Return the processor, the versions and the commit that figures were measured with."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": current_commit(),
    }


def marks(name: str) -> Marks:
    """Return the comment lines of a document that enclose the table of this name."""
    return f"<!-- {name} -->\n", f"<!-- /{name} -->"


def between(text: str, marks: Marks) -> str:
    """Return the text between the marks.

    Raises
    ------
    ValueError
        If one of them is missing.
    """
    return _parts(text, marks)[1]


def fill(path: Path, marks: Marks, text: str) -> None:
    """Replace the text between the marks of a document.

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
            f"the document must contain the marks {marks[0].strip()} and {marks[1]}, in this order"
        )
    return before, inside, after
