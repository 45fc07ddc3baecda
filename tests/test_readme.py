"""The README keeps its word: its program runs, its commands exist, its figures are those on file."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.end_to_end import MARKS, RESULTS, table
from benchmarks.publishing import between

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_programs_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    estimator, study = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    monkeypatch.chdir(ROOT)
    names: dict[str, object] = {"__name__": "readme"}
    exec(compile(estimator, "README.md", "exec"), names)
    lines = capsys.readouterr().out.splitlines()
    assert 0.6 < float(lines[0]) < 0.9  # seven in ten credits are good
    assert lines[-1].startswith("MLPConfig(")
    exec(compile(study, "README.md", "exec"), names)
    value, _, params = capsys.readouterr().out.partition(" ")
    assert 0.6 < float(value) < 0.9
    assert "learning_rate" in params


def test_the_figures_are_those_on_file() -> None:
    rows = json.loads(RESULTS.read_text(encoding="utf-8"))["rows"]
    shown = between(README, MARKS)
    assert len(rows) == 5
    assert shown == table(rows) + "\n"


@pytest.mark.parametrize("command", sorted(set(re.findall(r"^pmlp (\w+)", README, flags=re.MULTILINE))))
def test_the_commands_exist(command: str) -> None:
    from parallelmlp_search.cli.app import app

    assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0


@pytest.mark.parametrize(
    "option", sorted(set(re.findall(r" (--[a-z-]+)", README.partition("From a shell")[2])))
)
def test_the_options_exist(option: str) -> None:
    text = "".join(
        path.read_text(encoding="utf-8") for path in sorted((ROOT / "parallelmlp_search").rglob("*.py"))
    )
    assert f'"{option}"' in text or option.removeprefix("--").replace("-", "_") in text
