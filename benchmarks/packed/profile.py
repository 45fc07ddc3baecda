"""Profile of a training step: a clock around each of its parts, on one thread."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib.util import find_spec
from typing import Any

import torch

from benchmarks.packed.cases import Case
from benchmarks.packed.machine import product_rates
from benchmarks.packed.ours import Shards, cut
from parallelmlp_search.engine import (
    bucket_network,
    hidden_layer,
    host_training,
    optimizer,
    products,
    settings,
)
from parallelmlp_search.kernels.numba import compiled_members, dispatch
from parallelmlp_search.space import MLPConfig

__all__ = ["profile", "profile_table"]


class _Clock:
    """Seconds by part; time in a nested part counts for that part only."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self._inner = [0.0]

    def wrap(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function with its time added to ``part``."""

        def timed(*arguments: Any, **options: Any) -> Any:
            self._inner.append(0.0)
            started = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                spent = time.perf_counter() - started
                self.seconds[part] += spent - self._inner.pop()
                self.calls[part] += 1
                self._inner[-1] += spent

        return timed


PRODUCTS = {
    "shared_affine": "product: first layer forward",
    "affine": "product: deeper layers and head forward",
    "affine_weight_gradient": "product: gradient of weights, deeper layers and head",
    "affine_input_gradient": "product: gradient of inputs, deeper layers",
    "head_input_gradient": "product: gradient of inputs, head",
}


@contextmanager
def _timed(clock: _Clock) -> Iterator[None]:
    """Wrap the parts of a step in clocks, and restore them at the end."""
    undo: list[tuple[Any, str, Any]] = []

    def put(owner: Any, name: str, part: str) -> None:
        undo.append((owner, name, getattr(owner, name)))
        setattr(owner, name, clock.wrap(part, getattr(owner, name)))

    for name, part in PRODUCTS.items():
        put(bucket_network, name, part)
    put(products.FirstLayerGradient, "__call__", "product: gradient of weights, first layer")
    put(optimizer.PackedOptimizer, "step_bucket", "optimiser")
    put(settings.TrainingRows, "batch", "rows of the batch")
    put(dispatch.CompiledActivations, "forward", "activations forward")
    put(dispatch.CompiledActivations, "backward", "activations backward")
    put(compiled_members.CompiledMembers, "__call__", "one call: all of several steps")
    for name in ("get_loss", "compiled_loss"):
        original = getattr(host_training, name)
        undo.append((host_training, name, original))
        setattr(host_training, name, lambda loss, original=original: clock.wrap("loss", original(loss)))
    kernels = dict(hidden_layer.ACTIVATION_KERNELS)
    for name, kernel in kernels.items():
        hidden_layer.ACTIVATION_KERNELS[name] = replace(
            kernel,
            forward=clock.wrap("activations forward", kernel.forward),
            backward=clock.wrap("activations backward", kernel.backward),
        )
    put(bucket_network.BucketNetwork, "forward", "rest of forward")
    put(bucket_network.BucketNetwork, "backward", "rest of backward: sums for biases, calls")
    try:
        yield
    finally:
        hidden_layer.ACTIVATION_KERNELS.update(kernels)
        for owner, name, value in reversed(undo):
            setattr(owner, name, value)


def profile(case: Case, *, members: int = 2000, steps: int = 30) -> dict[str, Any]:
    """Measure the microseconds per member-step of each part, for shards spread over a population.

    Parameters
    ----------
    case
        Population and table.
    members
        Members to train, about.
    steps
        Steps to time.

    Returns
    -------
    dict
        Row of the results file.
    """
    torch.set_num_threads(1)
    configs = case.configs()
    shards = cut(case, configs)
    n_shards = max(1, members * len(shards) // len(configs))
    chosen = [shards[int((place + 0.5) * len(shards) / n_shards)] for place in range(n_shards)]
    count = sum(len(shard) for shard in chosen)
    plain = Shards(case, configs, chosen)
    plain.step(5)
    started = time.perf_counter()
    plain.step(steps)
    whole = time.perf_counter() - started
    clock = _Clock()
    with _timed(clock):
        timed = Shards(case, configs, chosen)
        timed.step(5)
        clock.seconds.clear()
        clock.calls.clear()
        started = time.perf_counter()
        timed.step(steps)
        observed = time.perf_counter() - started
    per = 1e6 / (count * steps)
    parts = {
        part: {"microseconds": seconds * per, "calls_a_step": clock.calls[part] / (steps * n_shards)}
        for part, seconds in sorted(clock.seconds.items(), key=lambda item: -item[1])
    }
    parts["the trainer's loop"] = {
        "microseconds": max(0.0, observed - sum(clock.seconds.values())) * per,
        "calls_a_step": 1.0,
    }
    flops = case.product_flops([configs[m] for shard in chosen for m in shard])
    rates = product_rates(1)
    return {
        "case": case.name,
        "members": count,
        "shards": n_shards,
        "microseconds": whole * per,
        "microseconds_with_clocks": observed * per,
        "parts": parts,
        "product_gflops": rates.gflops(),
        "product_floor_microseconds": flops / rates.peak * 1e6,
        "typical": _typical(case, configs) if find_spec("numba") is not None else None,
    }


def _typical(case: Case, configs: list[MLPConfig]) -> dict[str, Any]:
    """Profile the inside of the member loop for the median member of the population."""
    from benchmarks.packed.inside import inside

    middle = sorted(configs, key=lambda config: (case.product_flops([config]), config.activation))
    typical = middle[len(middle) // 2]
    sizes = (case.inputs, *typical.widths, case.outputs)
    parts = inside(sizes, case.batch, typical.activation)
    return {
        "sizes": sizes,
        "activation": typical.activation,
        "parts": {name: asdict(part) for name, part in parts.items()},
    }


def profile_table(row: dict[str, Any]) -> str:
    """Return the profile as Markdown tables."""
    total, rates = row["microseconds_with_clocks"], row["product_gflops"]
    lines = [
        f"**{row['case']}**: {row['microseconds']:.2f} us per member-step on one core, {total:.2f} with the "
        f"clocks; at the peak of {rates['peak']:.0f} GFLOP/s the products alone would take "
        f"{row['product_floor_microseconds']:.2f} us. The library's products reach {rates['library']:.0f}.",
        "",
        "| part of a step | us per member-step | share | calls per step and shard |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {part} | {value['microseconds']:.2f} | {value['microseconds'] / total:.0%} "
        f"| {value['calls_a_step']:.2g} |"
        for part, value in row["parts"].items()
    ]
    typical = row["typical"]
    if typical is None:
        return "\n".join(lines)
    parts = typical["parts"]
    own = sum(part["microseconds"] for part in parts.values())
    flop = sum(part["flop"] for part in parts.values())
    rate = flop / sum(part["microseconds"] for part in parts.values() if part["flop"]) / 1e3
    lines += [
        "",
        f"Inside the call, for one member of sizes {'-'.join(map(str, typical['sizes']))} "
        f"({typical['activation']}), part by part: {own:.2f} us. Its products run at {rate:.0f} GFLOP/s, "
        f"{rate / rates['peak']:.0%} of the peak.",
        "",
        "| part of the call | us | share | GFLOP/s |",
        "|---|---|---|---|",
    ]
    for name, part in sorted(parts.items(), key=lambda item: -item[1]["microseconds"]):
        gflops = f"{part['flop'] / part['microseconds'] / 1e3:.0f}" if part["flop"] else ""
        lines.append(f"| {name} | {part['microseconds']:.2f} | {part['microseconds'] / own:.0%} | {gflops} |")
    return "\n".join(lines)
