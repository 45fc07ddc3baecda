"""Program of the ranks of :mod:`benchmarks.parareal`.

torchrun starts it as ``parareal_ranks.py KIND OUTPUT SPEC``.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe

from parallelmlp_search.parareal import (
    Communicator,
    DistributedParareal,
    PararealNetwork,
    Recipe,
    decompose,
    deep_mlp,
    exit_rank,
    init_communicator,
    measure_device_speed,
    output_gradient,
    predict_steps,
    resnet1001,
    vgg16,
)
from parallelmlp_search.parareal.method.cost import Link, simulate_step
from parallelmlp_search.parareal.method.network import OutputGradient, Slice, SlicePass
from parallelmlp_search.parareal.method.optimizer import FlatOptimizer, FlatParameters
from parallelmlp_search.parareal.method.profiling import SliceTimes, cpu_wait_seconds
from parallelmlp_search.space import MLPConfig

ROOT = Path(__file__).parent.parent
CLASSES, INPUTS = 26, 64
FREE_SECONDS = 5e-5
"""Longest wait for a core, in seconds, of a step that counts as undisturbed by other programs."""


def config_of(spec: dict[str, int]) -> MLPConfig:
    """Return the configuration of the timed network."""
    return MLPConfig(widths=(spec["width"],) * spec["depth"], residual=True, normalization="layer")


def serial_model(spec: dict[str, int]) -> nn.Sequential:
    """Return the serial network, with the same weights on every rank."""
    torch.manual_seed(1)
    return deep_mlp(config_of(spec), n_inputs=INPUTS, n_outputs=CLASSES)


def seconds_of(step: Callable[[], object], repeats: int) -> tuple[list[float], list[float]]:
    """Return the seconds of each step after a warm-up, and the part that this rank waited for a core."""
    took, waited = [], []
    for number in range(repeats + 5):
        before, started = cpu_wait_seconds(), time.perf_counter()
        step()
        if number >= 5:
            took.append(time.perf_counter() - started)
            waited.append(cpu_wait_seconds() - before)
    return took, waited


def link_of(communicator: Communicator, n_bytes: int) -> Link:
    """Measure latency and bandwidth between ranks 0 and 1 with round trips."""
    found = []
    for size in (1, max(64, n_bytes // 4)):
        tensor = torch.zeros(size)
        communicator.barrier()
        times = []
        for _ in range(200):
            started = time.perf_counter()
            if communicator.rank == 0:
                communicator.send(1, tensor)
                communicator.start_receive(1, tensor)
                communicator.wait_receive()
            elif communicator.rank == 1:
                communicator.start_receive(-1, tensor)
                communicator.wait_receive()
                communicator.send(-1, tensor)
            communicator.end_step()
            times.append((time.perf_counter() - started) / 2)
        found.append(statistics.median(times))
    latency, long = found
    return Link(latency, 4.0 * size / max(1e-6, long - latency))


def steps(communicator: Communicator, spec: dict[str, int]) -> dict[str, Any]:
    """Time the steps of two ranks, of one process and of the rivals, and predict them with the cost model."""
    n_rows = spec["rows"]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n_rows, INPUTS, generator=generator)
    y = torch.randint(0, CLASSES, (n_rows,), generator=generator)
    times, rounds, disturbed = _time_rounds(communicator, spec, x, y)
    message_bytes = 4 * n_rows * spec["width"]
    link = link_of(communicator, message_bytes)
    model = serial_model(spec)
    communicator.barrier()
    busy = measure_device_speed(model, x, repeats=30)  # on both ranks at once
    communicator.barrier()
    if communicator.rank != 0:
        communicator.barrier()
        return {}
    quiet = measure_device_speed(model, x, repeats=30)
    by_rank = {}
    for slices in (2, 4):
        function = output_gradient("cross_entropy", y)
        measured = measure_slices(_sliced(spec, slices, x), x, function)
        by_rank[slices] = {
            "step": simulate_step(measured, [link.seconds(message_bytes)] * (slices - 1)),
            "ranks": [asdict(times) for times in measured],
        }
    communicator.barrier()
    curves = {
        name: [
            {"slices": p.slices, "step": p.step, "speedup": p.speedup, "communication": p.communication,
             "fine": p.fine, "sweep": p.sweep, "serial": p.serial}
            for p in predict_steps(model, x, (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64), speed=speed, link=link)
        ]
        for name, speed in (("quiet", quiet), ("busy", busy))
    }  # fmt: skip
    return {
        "spec": spec,
        "rounds": rounds,
        "disturbed": disturbed,
        "quantiles": {n: [quantile(v, q) for q in (0.1, 0.25, 0.5, 0.75, 0.9)] for n, v in times.items()},
        "link": {"latency": link.latency, "bandwidth": link.bandwidth},
        "predictions": curves,
        "rank_by_rank": by_rank,
    }


def measure_slices(
    network: PararealNetwork, x: Tensor, output_gradient: OutputGradient, repeats: int = 30
) -> list[SliceTimes]:
    """Measure the work of each slice in this process, one slice after the other.

    Parameters
    ----------
    network
        The network; its weights are trained.
    x
        A minibatch.
    output_gradient
        Loss.
    repeats
        Number of steps, after two to warm up.

    Returns
    -------
    list of SliceTimes
        Medians over the steps.
    """
    found = []
    corrected: Tensor | None = None
    for part in network.parts:
        previous = corrected
        with torch.no_grad():
            corrected = SlicePass(part, x).correct(previous)
        optimizer = FlatOptimizer(FlatParameters([part]), _recipe())
        function = output_gradient if part is network.parts[-1] else None
        steps = [_measure_step(part, x, previous, optimizer, function) for _ in range(repeats + 2)]
        found.append(SliceTimes(*(statistics.median(column) for column in zip(*steps[2:], strict=True))))
    return found


def _measure_step(
    part: Slice,
    x: Tensor,
    previous: Tensor | None,
    optimizer: FlatOptimizer,
    output_gradient: OutputGradient | None,
) -> tuple[float, ...]:
    """Fields of :class:`SliceTimes`; ``output_gradient`` is None in all slices but the last."""
    times = [time.perf_counter()]

    def lap() -> float:
        times.append(time.perf_counter())
        return times[-1] - times[-2]

    optimizer.zero_grad()
    zero = lap()
    slice_pass = SlicePass(part, x)
    forward = lap()
    gradient = torch.ones_like(slice_pass.correct(previous))
    sweep = lap()
    head = 0.0
    if output_gradient is not None:
        gradient = slice_pass.backward_head(output_gradient)[1]
        head = lap()
    slice_pass.backward_coarse(gradient)
    sweep_back = lap()
    slice_pass.backward_fine()
    backward = lap()
    optimizer.step()
    update = zero + lap()
    if previous is None:
        sweep = sweep_back = 0.0
    return forward, backward, sweep, sweep_back, head, update


def _recipe() -> Recipe:
    return Recipe(total_steps=100_000, schedule="constant")


def _sliced(spec: dict[str, int], slices: int, x: Tensor) -> PararealNetwork:
    torch.manual_seed(2)
    return decompose(serial_model(spec), slices, x)


def _time_rounds(
    communicator: Communicator, spec: dict[str, int], x: Tensor, y: Tensor
) -> tuple[dict[str, list[float]], list[dict[str, float]], float]:
    """Time all sides in turns.

    Returns
    -------
    tuple
        Seconds of all steps by side, medians of each round by side (on the first rank), and the mean share of
        steps in which a rank waited for a core.
    """
    repeats = spec["repeats"]
    function = output_gradient("cross_entropy", y)
    alone = DistributedParareal(_sliced(spec, 1, x), Communicator(), _recipe(), x)
    ranked = DistributedParareal(_sliced(spec, 2, x), communicator, _recipe(), x)
    parallel, pipelines = data_parallel(communicator, spec, x, y), pipeline_steps(communicator, spec, x, y)
    times: dict[str, list[float]] = {}
    disturbed: list[float] = []

    def add(name: str, step: Callable[[], object], only: int | None = None) -> None:
        """Add the times of undisturbed steps, or of all steps if too few are undisturbed."""
        communicator.barrier()
        mine = only is None or only == communicator.rank
        took, waited = seconds_of(step, repeats) if mine else ([0.0] * repeats, [0.0] * repeats)
        waits = torch.tensor(waited, dtype=torch.float64)
        dist.all_reduce(waits, op=dist.ReduceOp.MAX)
        free = [seconds for seconds, wait in zip(took, waits.tolist(), strict=True) if wait < FREE_SECONDS]
        disturbed.append(1.0 - len(free) / repeats)
        if mine:
            times.setdefault(name, []).extend(free if len(free) >= repeats // 4 else took)
        communicator.barrier()

    rounds = []
    for _ in range(spec["rounds"]):
        before = {name: len(values) for name, values in times.items()}
        add("serial", lambda: alone.step(x, function), only=0)
        add("parareal", lambda: ranked.step(x, function))
        add("serial, both cores busy", lambda: alone.step(x, function))
        add("data parallel", parallel)
        for name, step in pipelines.items():
            add(name, step)
        if communicator.rank == 0:
            rounds.append({n: statistics.median(v[before.get(n, 0) :]) for n, v in times.items()})
    return times, rounds, statistics.mean(disturbed)


def quantile(values: list[float], share: float) -> float:
    """Return a quantile without interpolation."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def data_parallel(
    communicator: Communicator, spec: dict[str, int], x: Tensor, y: Tensor
) -> Callable[[], object]:
    """Return a step of torch's DistributedDataParallel with fused AdamW.

    Parameters
    ----------
    communicator
        Ranks; each takes its part of the minibatch.
    spec
        Depth and width of the network.
    x, y
        Inputs and classes of the minibatch.

    Returns
    -------
    callable
    """
    model = nn.parallel.DistributedDataParallel(serial_model(spec), gradient_as_bucket_view=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    mine = torch.arange(len(x)).tensor_split(communicator.world_size)[communicator.rank]
    rows, target = x[mine], y[mine]

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(rows), target).backward()
        optimizer.step()

    return step


def pipeline_steps(
    communicator: Communicator, spec: dict[str, int], x: Tensor, y: Tensor
) -> dict[str, Callable[[], object]]:
    """Return steps of torch.distributed.pipelining over both halves of the network, with fused AdamW.

    Parameters
    ----------
    communicator
        Two ranks, one for each half.
    spec
        Depth and width of the network.
    x, y
        Inputs and classes of the minibatch.

    Returns
    -------
    dict of callable
        By the name of the schedule.
    """
    found: dict[str, Callable[[], object]] = {}
    kinds = [("GPipe", ScheduleGPipe, 2), ("GPipe", ScheduleGPipe, 4), ("1F1B", Schedule1F1B, 4)]
    for name, schedule_type, pieces in kinds:
        blocks = list(serial_model(spec))
        half = len(blocks) // 2
        module = nn.Sequential(*(blocks[:half] if communicator.rank == 0 else blocks[half:]))
        stage = PipelineStage(module, communicator.rank, 2, torch.device("cpu"))
        schedule = schedule_type(stage, pieces, loss_fn=nn.functional.cross_entropy)
        optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, fused=True)

        def step(schedule: Any = schedule, optimizer: torch.optim.Optimizer = optimizer) -> None:
            optimizer.zero_grad()
            if communicator.rank == 0:
                schedule.step(x)
            else:
                schedule.step(target=y, losses=[])
            optimizer.step()

        found[f"pipeline, {name}, {pieces} pieces"] = step
    return found


def images(communicator: Communicator, spec: dict[str, Any]) -> dict[str, Any]:
    """Train an image network for a few steps, one rank per slice."""
    table = pd.read_csv(ROOT / "datasets" / "mnist5k.csv.gz").sample(frac=1.0, random_state=0)
    labels = torch.from_numpy(table.pop("target").to_numpy().copy())
    pixels = torch.from_numpy(table.to_numpy(dtype="float32").copy()).view(-1, 1, 28, 28) / 255.0
    torch.manual_seed(0)
    make = {"resnet1001": lambda: resnet1001(n_classes=10, channels=1),
            "vgg16": lambda: vgg16(n_classes=10, channels=1, size=28)}  # fmt: skip
    n_rows = spec["rows"]
    network = decompose(make[spec["network"]](), communicator.n_slices, pixels[:n_rows])
    n_parameters = sum(p.numel() for p in network.parameters())
    recipe = Recipe(
        total_steps=spec["steps"], learning_rate=spec["rate"], schedule="constant", averages=False
    )
    engine = DistributedParareal(network, communicator, recipe, pixels[:n_rows])
    losses, took = [], []
    for number in range(spec["steps"]):
        rows = torch.arange(number * n_rows, (number + 1) * n_rows) % len(pixels)
        started = time.perf_counter()
        loss = engine.step(pixels[rows], output_gradient("cross_entropy", labels[rows]))
        took.append(time.perf_counter() - started)
        losses.append(communicator.broadcast_from_last([float("nan") if loss is None else float(loss)])[0])
    return {
        "spec": spec,
        "slices": communicator.n_slices,
        "parameters": n_parameters,
        "losses": losses,
        "step_seconds": statistics.median(took),
        "blocks": [len(part.fine) for part in network.parts],  # type: ignore[arg-type]
    }


def main() -> None:
    """Run one rank."""
    kind, output, spec = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
    torch.set_num_threads(1)
    communicator = init_communicator(device="cpu", timeout=300)
    found = {"steps": steps, "images": images}[kind](communicator, spec)
    if communicator.rank == 0:
        output.write_text(json.dumps(found))
    communicator.barrier()
    exit_rank()


if __name__ == "__main__":
    main()
