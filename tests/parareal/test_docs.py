"""The programs in docs/parareal.md run, and its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

from typer.testing import CliRunner

from parallelmlp_search.cli.app import app

TEXT = (Path(__file__).parents[2] / "docs" / "parareal.md").read_text(encoding="utf-8")


def test_programs_run() -> None:
    programs = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert programs
    for program in programs:
        exec(compile(program, "docs/parareal.md", "exec"), {})


def test_options_exist() -> None:
    shown = CliRunner().invoke(app, ["promote", "--help"], env={"COLUMNS": "200"}).output
    options = set(re.findall(r"(--[a-z][a-z-]+)", TEXT)) - {"--nproc-per-node", "--target", "--space"}
    options -= {"--time-limit", "--output"}
    assert len(options) > 8
    assert not [option for option in options if option not in shown]
