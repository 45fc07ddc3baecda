"""Output of the commands."""

from __future__ import annotations

import pytest

from parallelmlp_search.cli.terminal import Terminal


@pytest.mark.parametrize("method", ["show", "line", "json"])
def test_a_result_ends_the_line_that_says_what_a_command_does(
    method: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Terminal, "is_live", True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    screen = Terminal()
    screen.busy("reading table.csv")
    capsys.readouterr()
    getattr(screen, method)("result")
    shown = capsys.readouterr()
    assert "result" in shown.out
    assert shown.err.endswith("\x1b[2K")  # the line is erased
