"""A short soak: cases that failed once, then new tables and faults. ``make soak`` is the long one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.alone
def test_a_short_soak_finds_nothing() -> None:
    options = ["--minutes", "4", "--faults", "20", "--tables", "20", "--seed", "0", "--no-limits"]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.faults.soak", *options, "--no-keeping"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    counts = dict(part.rsplit(" ", 1) for part in done.stdout.splitlines()[-1].split(", "))
    assert int(counts.pop("tables")) >= 20
    assert int(counts.pop("faults")) >= 20
    assert int(counts.pop("resumes")) > 0
    assert set(counts.values()) == {"0"}
