"""Start of the process: before the imports, and the first import where the system does not tell."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from parallelmlp_search.cli import process_start

PROGRAM = """
import time
time.sleep(0.5)
from parallelmlp_search.cli.process_start import process_start
print(time.monotonic() - process_start())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the start of a process")
def test_time_before_the_first_import_counts() -> None:
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert 0.45 <= float(done.stdout) <= time.monotonic() - started + 0.02


def test_the_first_import_counts_where_the_start_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for content in (None, "12 (a program) S 1"):
        if content is not None:
            (tmp_path / "stat").write_text(content, encoding="utf-8")
        monkeypatch.setattr(process_start, "_STAT", tmp_path / "stat")
        assert process_start.process_start() == process_start._IMPORTED
