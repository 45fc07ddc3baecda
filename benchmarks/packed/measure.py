"""All contenders of a case in turn, round after round, so that a disturbance meets everyone."""

from __future__ import annotations

import math
import os
import statistics
import time
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
    """Somebody who trains networks."""

    name: str

    def sample(self) -> float:
        """Seconds a member-step."""
        ...

    def close(self) -> None:
        """End what was started."""
        ...


def quantiles(values: list[float]) -> dict[str, float]:
    """Median, and the tenth and ninetieth of a hundred parts, by interpolation."""
    ordered = sorted(values)

    def at(share: float) -> float:
        place = share * (len(ordered) - 1)
        low = math.floor(place)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (place - low) * (ordered[high] - ordered[low])

    return {"median": at(0.5), "q10": at(0.1), "q90": at(0.9)}


def contenders(case: Case, cores: int, extra: tuple[str, ...], brief: bool) -> list[Contender]:
    """Who takes part: rivals with one thread and with all of them."""
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
    """Seconds a member-step of every contender, and how many times faster ours is.

    Ours runs on all cores and is held against each rival's better of one thread and all threads; vmap also
    has the better of two sizes of its stacks. Fractions of the peak (:class:`.machine.ProductRates`) count
    the FLOP of the matrix products alone, while the time is that of the whole step, optimiser included.
    ``brief`` leaves out our side without its compiled loops, and M3 in parts.
    """
    cores = os.cpu_count() or 1
    started = time.monotonic()
    torch.manual_seed(0)
    everyone = contenders(case, cores, extra, brief)
    samples: dict[str, list[float]] = {contender.name: [] for contender in everyone}
    rates = {threads: ProductRates() for threads in sorted({1, cores})}
    for _ in range(rounds):
        for threads, known in rates.items():
            rates[threads] = known.best(product_rates(threads))
        for contender in everyone:
            samples[contender.name].append(contender.sample())
    megabytes = {c.name: c.megabytes for c in everyone if isinstance(c, Packed)}
    for contender in everyone:
        contender.close()
    bandwidths = {threads: copy_bandwidth(threads) for threads in rates}
    configs = case.configs()
    flops, state = case.product_flops(configs), case.state_bytes(configs)
    steps = steps_a_call(case, configs)
    kept = case.kept_bytes(configs, steps)
    own, alone = samples[f"packed_{cores}"], samples["packed_1"]

    def best_of(kind: str) -> list[float] | None:
        runs = [values for name, values in samples.items() if name.startswith(kind)]
        return min(runs, key=statistics.median) if runs else None

    ratios = {}
    for kind in ("sequential", "m3", "parts", "vmap", "sklearn", "jax"):
        rival = best_of(kind)
        if rival is not None:
            ratios[kind] = quantiles([theirs / ours for theirs, ours in zip(rival, own, strict=True)])
    if cores > 1:
        ratios["workers"] = quantiles([one / all_ for one, all_ in zip(alone, own, strict=True)])
    if "plain_1" in samples:
        plain = samples["plain_1"]
        ratios["compiled"] = quantiles([slow / fast for slow, fast in zip(plain, alone, strict=True)])
    fractions, shares, streams = {}, {}, {}
    for threads, known in rates.items():
        ours = samples[f"packed_{threads}"]
        fractions[str(threads)] = quantiles([flops / seconds / known.peak for seconds in ours])
        seconds = statistics.median(ours) * bandwidths[threads]
        shares[str(threads)], streams[str(threads)] = kept / seconds, state / seconds
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
        "ratios": ratios,
        "gemm_fraction": fractions,
        "steps_a_call": steps,
        "bandwidth_fraction": shares,
        "streamed_fraction": streams,
        "product_gflops": {str(threads): known.gflops() for threads, known in rates.items()},
        "copy_gigabytes": {str(threads): value / 1e9 for threads, value in bandwidths.items()},
        "megabytes": megabytes,
        "rounds": rounds,
        "seconds": time.monotonic() - started,
    }
