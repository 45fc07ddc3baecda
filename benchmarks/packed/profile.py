"""Where the time of a training step goes: a clock around every part of it, on one thread."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from benchmarks.packed.cases import Case
from benchmarks.packed.inside import inside
from benchmarks.packed.machine import gemm_peak
from benchmarks.packed.ours import Shards, cut
from parallelmlp_search.engine import bucket_network, bucket_steps, optimizer, products, trainer
from parallelmlp_search.kernels import compiled

__all__ = ["profile", "profile_table"]


class _Clock:
    """Seconds by part; a part inside another one is counted once, for itself."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self._inner = [0.0]

    def wrap(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, its time booked on ``part``."""

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
    "plain_first_layer_gradient": "product: gradient of weights, first layer",
}


@contextmanager
def _timed(clock: _Clock) -> Iterator[None]:
    """Clocks around the parts of a step; everything is put back at the end."""
    undo: list[tuple[Any, str, Any]] = []

    def put(owner: Any, name: str, part: str) -> None:
        undo.append((owner, name, getattr(owner, name)))
        setattr(owner, name, clock.wrap(part, getattr(owner, name)))

    for name, part in PRODUCTS.items():
        put(bucket_network, name, part)
    put(products.FirstLayerGradient, "__call__", PRODUCTS["plain_first_layer_gradient"])
    put(optimizer.PackedOptimizer, "step_bucket", "optimiser")
    put(trainer.TrainingRows, "batch", "rows of the batch")
    put(compiled.CompiledActivations, "forward", "activations forward")
    put(compiled.CompiledActivations, "backward", "activations backward")
    put(compiled.CompiledMembers, "__call__", "one call: all of several steps")
    for name in ("get_loss", "compiled_loss"):
        original = getattr(bucket_steps, name)
        undo.append((bucket_steps, name, original))
        setattr(bucket_steps, name, lambda loss, original=original: clock.wrap("loss", original(loss)))
    kernels = dict(bucket_network.ACTIVATION_KERNELS)
    for name, kernel in kernels.items():
        bucket_network.ACTIVATION_KERNELS[name] = replace(
            kernel,
            forward=clock.wrap("activations forward", kernel.forward),
            backward=clock.wrap("activations backward", kernel.backward),
        )
    put(bucket_network.BucketNetwork, "forward", "rest of forward")
    put(bucket_network.BucketNetwork, "backward", "rest of backward: sums for biases, calls")
    try:
        yield
    finally:
        bucket_network.ACTIVATION_KERNELS.update(kernels)
        for owner, name, value in reversed(undo):
            setattr(owner, name, value)


def profile(case: Case, *, members: int = 2000, steps: int = 30) -> dict[str, Any]:
    """Microseconds a member-step by part, for shards from all over a population."""
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
    peak = gemm_peak(1)
    # the member in the middle of the population stands for all of them
    middle = sorted(configs, key=lambda config: (case.product_flops([config]), config.activation))
    typical = middle[len(middle) // 2]
    sizes = (case.inputs, *typical.widths, case.outputs)
    own = inside(sizes, case.batch, typical.activation)
    in_products = sum(value for part, value in own.items() if part.startswith("product"))
    own_flops = case.product_flops([typical])
    return {
        "case": case.name,
        "members": count,
        "shards": n_shards,
        "microseconds": whole * per,
        "microseconds_with_clocks": observed * per,
        "parts": parts,
        "gemm_gflops": peak / 1e9,
        "typical": {"sizes": sizes, "activation": typical.activation, "parts": own},
        "product_gflops": own_flops / in_products / 1e3,
        "product_floor_microseconds": flops / peak * 1e6,
    }


def profile_table(row: dict[str, Any]) -> str:
    """The profile as a Markdown table."""
    total = row["microseconds_with_clocks"]
    lines = [
        f"**{row['case']}**: {row['microseconds']:.2f} us a member-step on one core, "
        f"{row['microseconds_with_clocks']:.2f} with the clocks; at the peak the products alone would take "
        f"{row['product_floor_microseconds']:.2f} us.",
        "",
        "| part of a step | us a member-step | share | calls a step and shard |",
        "|---|---|---|---|",
    ]
    for part, value in row["parts"].items():
        lines.append(
            f"| {part} | {value['microseconds']:.2f} | {value['microseconds'] / total:.0%} "
            f"| {value['calls_a_step']:.2g} |"
        )
    typical = row["typical"]
    own = sum(typical["parts"].values())
    lines += [
        "",
        f"Inside the call, of one member of sizes {'-'.join(map(str, typical['sizes']))} "
        f"({typical['activation']}), part by part: {own:.2f} us. Its products run at "
        f"{row['product_gflops']:.0f} GFLOP/s; the library's product of 1,024 by 1,024 at "
        f"{row['gemm_gflops']:.0f}.",
        "",
        "| part of the call | us | share |",
        "|---|---|---|",
    ]
    lines += [
        f"| {part} | {value:.2f} | {value / own:.0%} |"
        for part, value in sorted(typical["parts"].items(), key=lambda item: -item[1])
    ]
    return "\n".join(lines)
