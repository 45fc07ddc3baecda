"""Highest rates of this machine: multiply-adds, and copies of arrays that no cache can hold."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmarks.publishing import current_commit, git_output

__all__ = ["ProductRates", "copy_bandwidth", "describe", "product_rates"]

LIBRARY_SIZES = (256, 512, 1024)
"""Sides of the library's square products; the highest rate counts. On the machine of the table 512 was the
fastest, with 113 to 118 GFLOP/s for sides from 128 to 4,096."""

LOOP_SECONDS = 0.01
"""Shortest run of a compiled loop that is timed."""


@dataclass(frozen=True)
class ProductRates:
    """FLOP per second in float32 of three kinds of products; 0 for a kind that was not measured.

    Attributes
    ----------
    library
        Fastest square product of torch.
    own
        Products of the member loop, 64 by 64 weights with 128 rows.
    multiply_adds
        Multiply-adds of vectors that stay in registers. No product can be faster.
    """

    library: float = 0.0
    own: float = 0.0
    multiply_adds: float = 0.0

    @property
    def peak(self) -> float:
        """Highest of all rates, by which fractions of the peak divide."""
        return max(astuple(self))

    def best(self, other: ProductRates) -> ProductRates:
        """Return the higher value of each rate, so that a slow moment of the machine raises no fraction."""
        return ProductRates(*map(max, astuple(self), astuple(other)))

    def gflops(self) -> dict[str, float]:
        """Return all rates and the peak in GFLOP/s, as they are stored."""
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
    """Return FLOP per second of threads that run at once; ``run(times)`` returns the FLOP it computed."""
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
    run(1)  # compiles
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
    """Measure each rate on ``threads`` cores at once, the best of ``count`` runs."""
    library = _library_rate(threads, count)
    if find_spec("numba") is None:
        return ProductRates(library)
    from benchmarks.packed.multiply_adds import layer_products, register_multiply_adds

    own = _loop_rate(layer_products, threads, count)
    return ProductRates(library, own, _loop_rate(register_multiply_adds, threads, count))


def copy_bandwidth(threads: int, size: int = 1 << 25, count: int = 5) -> float:
    """Measure bytes per second, read and written, of copies of ``size`` float32 numbers (128 MiB)."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        source = torch.ones(size)
        target = torch.empty_like(source)
        return 8.0 * size / _best(lambda: target.copy_(source), count)
    finally:
        torch.set_num_threads(before)


def describe() -> dict[str, Any]:
    """Return the processor, the versions and the commit that figures were measured with."""
    # files of results are written by benchmarks and do not change what the code computes
    changed = git_output(
        "status", "--porcelain", "--", "benchmarks", "parallelmlp_search", ":!benchmarks/results"
    )
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = next((line.split(":")[1].strip() for line in flags.splitlines() if "model name" in line), "")
    return {
        "processor": model or platform.processor() or platform.machine(),
        "avx512": "avx512f" in flags,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": current_commit() + ("-dirty" if changed else ""),
    }
