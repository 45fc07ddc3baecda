"""Pages keep their word: their programs run, and their figures are those on file."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks import optuna_bridge
from benchmarks.publishing import between

ROOT = Path(__file__).parents[1]
PAGES = {"optuna": "learning_rate"}
"""Pages whose programs are run here, and what they must print."""


@pytest.mark.parametrize("page", sorted(PAGES))
def test_the_programs_run(
    page: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    programs = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / f"{page}.md").read_text("utf-8"), flags=re.DOTALL
    )
    assert programs
    monkeypatch.chdir(ROOT)
    for program in programs:
        exec(compile(program, page, "exec"), {"__name__": page})
    assert PAGES[page] in capsys.readouterr().out


def test_figures_of_the_bridge() -> None:
    shown = between(optuna_bridge.DOCS.read_text(encoding="utf-8"), optuna_bridge.MARKS)
    assert shown == optuna_bridge.table(json.loads(optuna_bridge.RESULTS.read_text())) + "\n"
