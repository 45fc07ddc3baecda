"""What this machine can do at best: multiply and add, and copy what no cache can hold."""

from __future__ import annotations

import os
import platform
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmarks.publishing import ROOT

__all__ = ["ProductRates", "copy_bandwidth", "describe", "product_rates"]

LIBRARY_SIZES = (256, 512, 1024)
"""Sides of the library's square products, of which the best counts: 512 was on the machine of the table, with
113 to 118 GFLOP/s from 128 to 4,096."""

LOOP_SECONDS = 0.01
"""What a run of a compiled loop takes at least."""


@dataclass(frozen=True)
class ProductRates:
    """FLOP per second in float32, by who multiplies; 0 for what was not measured.

    Attributes
    ----------
    library
        Torch's best square product.
    own
        The products of the member loop, of 64 by 64 weights with 128 rows.
    multiply_adds
        Vectors that stay in registers. No product can be faster.
    """

    library: float = 0.0
    own: float = 0.0
    multiply_adds: float = 0.0

    @property
    def peak(self) -> float:
        """The most that was reached: what a fraction of the peak is a fraction of."""
        return max(astuple(self))

    def best(self, other: ProductRates) -> ProductRates:
        """The higher of both, each by itself: a slow moment of the machine must not flatter anybody."""
        return ProductRates(*map(max, astuple(self), astuple(other)))

    def gflops(self) -> dict[str, float]:
        """All of them and the peak, in units of 1e9, as they are stored."""
        names = ("library", "own", "multiply_adds", "peak")
        return {name: getattr(self, name) / 1e9 for name in names}


def _best(run: Callable[[], object], count: int) -> float:
    run()
    times = []
    for _ in range(count):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return min(times)


def _together(run: Callable[[int], float], times: int, threads: int) -> float:
    """FLOP per second of as many threads that run at once; ``run`` tells the FLOP of so many times."""
    found = [0.0] * threads

    def work(place: int) -> None:
        found[place] = run(times)

    workers = [threading.Thread(target=work, args=(place,)) for place in range(threads)]
    started = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(found) / (time.perf_counter() - started)


def _loop_rate(run: Callable[[int], float], threads: int, count: int) -> float:
    run(1)  # compiled here, and in nobody's time
    times = 1
    while True:
        started = time.perf_counter()
        run(times)
        if time.perf_counter() - started > LOOP_SECONDS:
            break
        times *= 2
    return max(_together(run, times, threads) for _ in range(count))


def _library_rate(threads: int, count: int) -> float:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        rates = []
        for size in LIBRARY_SIZES:
            left, right, out = (torch.randn(size, size) for _ in range(3))
            seconds = _best(lambda out=out, left=left, right=right: torch.mm(left, right, out=out), count)
            rates.append(2.0 * size**3 / seconds)
        return max(rates)
    finally:
        torch.set_num_threads(before)


def product_rates(threads: int, count: int = 8) -> ProductRates:
    """Each rate on so many cores at once, the best of ``count`` runs."""
    library = _library_rate(threads, count)
    if find_spec("numba") is None:
        return ProductRates(library)
    from benchmarks.packed.multiply_adds import layer_products, register_multiply_adds

    own = _loop_rate(layer_products, threads, count)
    return ProductRates(library, own, _loop_rate(register_multiply_adds, threads, count))


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

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    # what a benchmark has just written does not make its code another one
    changed = git("status", "--porcelain", "--", "benchmarks", "parallelmlp_search", ":!benchmarks/results")
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = next((line.split(":")[1].strip() for line in flags.splitlines() if "model name" in line), "")
    return {
        "processor": model or platform.processor() or platform.machine(),
        "avx512": "avx512f" in flags,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": git("rev-parse", "--short", "HEAD") + ("-dirty" if changed else ""),
    }
