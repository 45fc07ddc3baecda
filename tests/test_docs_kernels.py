"""The programs in docs/kernels.md run, and the table names every backend."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from parallelmlp_search.engine.acceleration import ACCELERATIONS
from parallelmlp_search.kernels import BACKENDS

TEXT = (Path(__file__).parents[1] / "docs" / "kernels.md").read_text(encoding="utf-8")


def test_the_programs_run(capsys: pytest.CaptureFixture[str]) -> None:
    multiply, training = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    exec(compile(multiply, "kernels.md", "exec"), {"__name__": "docs"})
    assert capsys.readouterr().out == "(7, 32) (55,)\n"
    exec(compile(training, "kernels.md", "exec"), {"__name__": "docs"})
    # 200 rows in batches of 32, twice
    assert capsys.readouterr().out == "13 39\n"


def test_names_are_those_of_the_program() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", TEXT, flags=re.MULTILINE)
    assert sorted(rows) == sorted(set(BACKENDS) - {"auto"})
    assert all(f'"{name}"' in TEXT for name in ACCELERATIONS)
