"""The programs of docs/search_cv.md run, one after the other, as a reader would run them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_programs_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "docs" / "search_cv.md").read_text(encoding="utf-8")
    programs = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(programs) == 3
    monkeypatch.chdir(ROOT)
    names: dict[str, object] = {"__name__": "docs"}
    for program in programs:
        exec(compile(program, "search_cv.md", "exec"), names)
    shown = capsys.readouterr().out
    assert "rank_test_score" in shown
    assert "MLPConfig(" in shown
