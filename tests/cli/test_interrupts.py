"""Ctrl-C and SIGTERM while a command starts, and folders named like modules in the working directory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from parallelmlp_search.cli.app import app
from parallelmlp_search.cli.interrupts import INTERRUPTED, interrupt
from parallelmlp_search.cli.terminal import CommandGroup

ROOT = Path(__file__).parents[2]


def start(*arguments: object, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "parallelmlp_search", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )


@pytest.fixture
def table(tmp_path: Path) -> Path:
    pd.DataFrame({"a": range(40), "b": [0, 1] * 20}).to_csv(tmp_path / "t.csv", index=False)
    return tmp_path / "t.csv"


@pytest.mark.alone
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("library", ["_multiarray_umath", "lib.cpython", "libtorch"])
def test_an_interrupt_of_the_imports_is_one_word(
    number: signal.Signals, library: str, table: Path, tmp_path: Path
) -> None:
    search = start("search", table, "--target", "b", "--output", tmp_path / "run", folder=tmp_path)
    maps = Path(f"/proc/{search.pid}/maps")
    if not maps.exists():
        pytest.skip("reads /proc")
    until = time.monotonic() + 60
    while search.poll() is None and library not in maps.read_text() and time.monotonic() < until:
        time.sleep(0.005)
    search.send_signal(number)
    output, message = search.communicate(timeout=60)
    assert (search.returncode, output, message) == (INTERRUPTED, "", "interrupted\n")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("place", ["make_context", "invoke"])
def test_an_interrupt_while_arguments_are_parsed_is_one_word(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(CommandGroup, place, interrupted, raising=False)
    result = CliRunner().invoke(app, ["info"])
    assert (result.exit_code, result.stdout) == (INTERRUPTED, "")
    assert result.stderr.strip() == "interrupted"


def test_an_interrupt_elsewhere_is_a_keyboard_interrupt() -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupt(signal.SIGINT, sys._getframe())


def test_folders_named_like_modules_are_not_imported(table: Path, tmp_path: Path) -> None:
    for name in ("numba", "numpy", "torch"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('not the module of this name')")
    command = start("leaderboard", tmp_path / "nothing", folder=tmp_path)
    _, message = command.communicate(timeout=60)
    assert "is not a run" in message
    assert command.returncode == 2
