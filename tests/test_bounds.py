"""The lower bounds in pyproject.toml are the versions that constraints-oldest.txt tests."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def bounds(requirements: list[str]) -> dict[str, str]:
    """Lower bound of each requirement that has one, without trailing zeros: ``{"numpy": "2"}``."""
    found = {}
    for requirement in requirements:
        if match := re.match(r"([\w.-]+)(?:\[[\w,]+\])?\s*(?:>=|==)\s*([\d.]+)", requirement):
            found[match[1].lower()] = re.sub(r"(\.0)+$", "", match[2])
    return found


def test_oldest_constraints_are_the_declared_bounds() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = bounds(project["dependencies"]) | bounds(project["optional-dependencies"]["test"])
    lines = (ROOT / "constraints-oldest.txt").read_text(encoding="utf-8").splitlines()
    tested = bounds([line for line in lines if not line.startswith("#")])
    assert declared == {name: tested.get(name) for name in declared}
    assert tested.keys() == declared.keys()


def test_bounds_are_read() -> None:
    assert bounds(["numpy>=2.0", "Pandas==2.2.2", "joblib", "triton>=3.2; platform_system == 'Linux'"]) == {
        "numpy": "2",
        "pandas": "2.2.2",
        "triton": "3.2",
    }
