"""Memory that processes use."""

from __future__ import annotations

import subprocess
import sys

import pytest

from parallelmlp_search._memory import peak_bytes, resident_bytes

MB = 10**6


def test_resident_memory_grows_with_what_is_used() -> None:
    before = resident_bytes()
    block = bytearray(b"x") * (80 * MB)
    after, peak = resident_bytes(), peak_bytes()
    assert before is not None
    assert after is not None
    assert peak is not None
    assert 60 * MB < after - before < 120 * MB
    assert peak >= after - 10 * MB
    assert len(block) == 80 * MB


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists the processes that a process started")
def test_resident_memory_includes_child_processes() -> None:
    before = resident_bytes()
    program = "block = bytearray(b'x') * 80_000_000; print('ready', flush=True); input()"
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdin is not None
    assert child.stdout.readline() == "ready\n"
    during = resident_bytes()
    child.communicate("\n")
    assert before is not None
    assert during is not None
    assert during - before > 75 * MB
    assert child.returncode == 0
