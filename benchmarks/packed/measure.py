"""Measurement of all contenders of a case in turns, so that a disturbance affects all of them."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Protocol

import torch

from benchmarks.packed.cases import Case
from benchmarks.packed.extra_rivals import make
from benchmarks.packed.machine import ProductRates, copy_bandwidth, product_rates
from benchmarks.packed.ours import Packed, steps_a_call
from benchmarks.packed.rivals import M3, OneAtATime, Vmap

__all__ = ["measure", "quantiles"]

VMAP_CHUNKS = (32, 256)


class Contender(Protocol):
    """Way to train the networks of a case."""

    name: str

    def sample(self) -> float:
        """Return the seconds per member-step."""
        ...

    def close(self) -> None:
        """End all processes."""
        ...


def quantiles(values: list[float]) -> dict[str, float]:
    """Return the median and the tenth and ninetieth percentiles, interpolated."""
    ordered = sorted(values)

    def at(share: float) -> float:
        place = share * (len(ordered) - 1)
        low = math.floor(place)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (place - low) * (ordered[high] - ordered[low])

    return {"median": at(0.5), "q10": at(0.1), "q90": at(0.9)}


def contenders(case: Case, cores: int, extra: tuple[str, ...], brief: bool) -> list[Contender]:
    """Return the contenders of a case; rivals run with one thread and with all threads.

    Parameters
    ----------
    case
        Names its rivals.
    cores
        Cores of this machine.
    extra
        Names of optional rivals.
    brief
        Leave out our side without the compiled loops, and M3 in parts.

    Returns
    -------
    list of Contender
    """
    found: list[Contender] = [Packed(case, workers) for workers in sorted({1, cores})]
    if find_spec("numba") is not None and not brief:
        found.append(Packed(case, 1, compiled=False))
    for threads in sorted({1, cores}):
        if "sequential" in case.rivals:
            found.append(OneAtATime(case, threads))
        if "m3" in case.rivals:
            many, few = case.m3_members
            found.append(M3(case, threads, many))
            if not brief:
                found.append(M3(case, threads, few, "parts"))
        if "vmap" in case.rivals:
            sizes = VMAP_CHUNKS if case.group == "uniform" else (VMAP_CHUNKS[-1],)
            found.extend(Vmap(case, threads, chunk) for chunk in sizes)
    found.extend(make(name, case) for name in extra)
    return found


def measure(case: Case, *, rounds: int, extra: tuple[str, ...] = (), brief: bool = False) -> dict[str, Any]:
    """Measure the seconds per member-step of every contender, and the speed-up of ours.

    Ours runs on all cores. Each rival counts with the better of one thread and all threads, vmap also with
    the better of two sizes of its stacks. Fractions of the peak (:class:`.machine.ProductRates`) count the
    FLOP of the matrix products, divided by the time of the whole step, optimizer included.

    Parameters
    ----------
    case
        Population and table.
    rounds
        Turns of each contender.
    extra, brief
        As of :func:`contenders`.

    Returns
    -------
    dict
        Row of the results file.
    """
    cores = os.cpu_count() or 1
    started = time.monotonic()
    torch.manual_seed(0)
    compared = contenders(case, cores, extra, brief)
    samples: dict[str, list[float]] = {contender.name: [] for contender in compared}
    rates = {threads: ProductRates() for threads in sorted({1, cores})}
    for _ in range(rounds):
        for threads, known in rates.items():
            rates[threads] = known.best(product_rates(threads))
        for contender in compared:
            samples[contender.name].append(contender.sample())
    megabytes = {c.name: c.megabytes for c in compared if isinstance(c, Packed)}
    for contender in compared:
        contender.close()
    bandwidths = {threads: copy_bandwidth(threads) for threads in rates}
    configs = case.configs()
    flops, steps = case.product_flops(configs), steps_a_call(case, configs)
    own = samples[f"packed_{cores}"]
    return {
        "case": case.name,
        "group": case.group,
        "members": len(configs),
        "inputs": case.inputs,
        "outputs": case.outputs,
        "batch": case.batch,
        "rows": case.rows,
        "optimizer": case.optimizer,
        "m3_members": case.m3_members,
        "product_flops": flops,
        "microseconds": {name: quantiles([1e6 * s for s in values]) for name, values in samples.items()},
        "epoch_seconds": statistics.median(own) * len(configs) * math.ceil(case.rows / case.batch),
        "ratios": _ratios(samples, cores),
        "gemm_fraction": {
            str(threads): quantiles(
                [flops / seconds / known.peak for seconds in samples[f"packed_{threads}"]]
            )
            for threads, known in rates.items()
        },
        "steps_a_call": steps,
        "bandwidth_fraction": _shares(case.kept_bytes(configs, steps), samples, bandwidths),
        "streamed_fraction": _shares(case.state_bytes(configs), samples, bandwidths),
        "product_gflops": {str(threads): known.gflops() for threads, known in rates.items()},
        "copy_gigabytes": {str(threads): value / 1e9 for threads, value in bandwidths.items()},
        "megabytes": megabytes,
        "rounds": rounds,
        "seconds": time.monotonic() - started,
    }


def _ratios(samples: Mapping[str, list[float]], cores: int) -> dict[str, dict[str, float]]:
    """Return quantiles over rounds of the speed-up of ours over each rival, of workers, and of numba."""

    def over(slow: list[float], fast: list[float]) -> dict[str, float]:
        return quantiles([one / other for one, other in zip(slow, fast, strict=True)])

    own, alone = samples[f"packed_{cores}"], samples["packed_1"]
    ratios = {}
    for kind in ("sequential", "m3", "parts", "vmap", "sklearn", "jax"):
        runs = [values for name, values in samples.items() if name.startswith(kind)]
        if runs:
            ratios[kind] = over(min(runs, key=statistics.median), own)
    if cores > 1:
        ratios["workers"] = over(alone, own)
    if "plain_1" in samples:
        ratios["compiled"] = over(samples["plain_1"], alone)
    return ratios


def _shares(
    n_bytes: float, samples: Mapping[str, list[float]], bandwidths: Mapping[int, float]
) -> dict[str, float]:
    """Return the share of the copy bandwidth that ``n_bytes`` per member-step need, by threads."""
    return {
        str(threads): n_bytes / (statistics.median(samples[f"packed_{threads}"]) * bandwidth)
        for threads, bandwidth in bandwidths.items()
    }
