"""Return of freed memory to the system."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from parallelmlp_search.distribute import memory, return_free_memory

PROGRAM = """
import torch
from parallelmlp_search.distribute import return_free_memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20

# after a larger block is freed, the C library takes these blocks from its heap
torch.empty(7 << 20).fill_(1.0)
kept = [torch.ones(40_000) for _ in range(1500)]
before = resident()
kept = kept[::10]  # leaves free blocks between used ones
held = resident()
assert return_free_memory()
print(before, held, resident())
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc keeps freed blocks and can return them"
)
def test_free_blocks_are_returned() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    before, held, after = map(float, done.stdout.split())
    assert held > before - 100  # without a call, the process keeps the 200 MiB
    assert after < before - 150


def test_without_glibc_no_memory_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    memory._trim.cache_clear()
    try:
        assert return_free_memory() is False
    finally:
        memory._trim.cache_clear()
