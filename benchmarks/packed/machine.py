"""What this machine can do at best: a large matrix product, and a copy that no cache can hold."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

__all__ = ["copy_bandwidth", "describe", "gemm_peak"]


def _best(run: Callable[[], object], count: int) -> float:
    run()
    times = []
    for _ in range(count):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return min(times)


def gemm_peak(threads: int, size: int = 1024, count: int = 12) -> float:
    """FLOP per second of a square float32 product, the best of some runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        left, right, out = (torch.randn(size, size) for _ in range(3))
        return 2.0 * size**3 / _best(lambda: torch.mm(left, right, out=out), count)
    finally:
        torch.set_num_threads(before)


def copy_bandwidth(threads: int, size: int = 1 << 25, count: int = 5) -> float:
    """Bytes per second, read and written, of a copy of 128 MiB."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        source = torch.ones(size)
        target = torch.empty_like(source)
        return 8.0 * size / _best(lambda: target.copy_(source), count)
    finally:
        torch.set_num_threads(before)


def describe() -> dict[str, Any]:
    """Where and with what the figures were measured."""
    root = Path(__file__).parent.parent.parent
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True, check=False
    ).stdout.strip()
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = next((line.split(":")[1].strip() for line in flags.splitlines() if "model name" in line), "")
    return {
        "processor": model or platform.processor() or platform.machine(),
        "avx512": "avx512f" in flags,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": commit,
    }
