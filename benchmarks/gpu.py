"""Packed training on one GPU: the paper's population, as CUDA graphs and in the persistent kernel.

``python -m benchmarks.gpu`` trains the 10,000 networks of the paper (widths 1 to 100, ten activations, ten
repetitions) on 10,000 rows. It times whole epochs with the device synchronized, against one network at a time
on the same card in the same run, and relates bytes and FLOPs to the rates of the card, which it measures
first. It prints a table and writes ``benchmarks/results/gpu.json``. ``--check`` only checks for a GPU. ``make
gpu`` runs the tests of the kernels on the device before it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.publishing import ROOT, describe_machine
from parallelmlp_search.engine import BatchStream, Population, TrainingRows, TrainingSettings
from parallelmlp_search.engine.acceleration import choose_acceleration
from parallelmlp_search.engine.device.training import DeviceTraining
from parallelmlp_search.engine.settings import Capture
from parallelmlp_search.packing import DataShape
from parallelmlp_search.packing.pack import build_module
from parallelmlp_search.space import ACTIVATIONS, MLPConfig

RESULTS = ROOT / "benchmarks" / "results" / "gpu.json"
NO_GPU = "benchmarks.gpu needs a CUDA device that torch can use, but found none; run `make test` instead"

PAPER_ACTIVATIONS = ACTIVATIONS[:10]
WARM_UP_EPOCHS = 2
TOTAL_EPOCHS = 1000
"""Length of the schedules, far beyond the timed epochs."""


@dataclass(frozen=True)
class Case:
    """Size of the task, and number of members of the paper's population."""

    n_members: int = 10_000
    n_rows: int = 10_000
    n_inputs: int = 100
    n_outputs: int = 1
    batch_size: int = 32

    @property
    def loss(self) -> str:
        """Loss for the number of outputs."""
        return "binary_logits" if self.n_outputs == 1 else "cross_entropy"


def paper_population(case: Case) -> list[MLPConfig]:
    """Return the first members of the paper's population, all widths and activations before repetitions."""
    configs = []
    for number in range(case.n_members):
        repetition, place = divmod(number, 1000)
        width, activation = divmod(place, len(PAPER_ACTIVATIONS))
        configs.append(
            MLPConfig(
                widths=(width + 1,),
                activation=PAPER_ACTIVATIONS[activation],
                batch_size=case.batch_size,
                seed=repetition,
            )
        )
    return configs


def make_rows(case: Case, device: str) -> TrainingRows:
    """Return rows with the labels of a random network."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(case.n_rows, case.n_inputs, generator=generator)
    hidden = torch.tanh(inputs @ torch.randn(case.n_inputs, 16, generator=generator) / case.n_inputs**0.5)
    scores = hidden @ torch.randn(16, max(2, case.n_outputs), generator=generator)
    return TrainingRows(inputs.to(device), scores.argmax(dim=1).to(device))


@dataclass(frozen=True)
class Work:
    """Counted work of an epoch of the whole population.

    Attributes
    ----------
    flops
        Two per multiplication in the products, and twenty per parameter for the optimizer.
    weight_bytes
        Traffic of weights, gradients and moments if they pass through device memory at each step: the passes
        read the weights and write the gradients, and the optimizer reads four arrays and writes three.
    n_parameters, steps
        Parameters of the population, and steps of an epoch.
    """

    flops: float
    weight_bytes: float
    n_parameters: int
    steps: int


def count_work(configs: Sequence[MLPConfig], case: Case) -> Work:
    """Count the work of an epoch."""
    steps = -(-case.n_rows // case.batch_size)
    hidden = sum(config.widths[0] for config in configs)
    n_parameters = hidden * (case.n_inputs + 1 + case.n_outputs) + len(configs) * case.n_outputs
    products = hidden * case.batch_size * (4.0 * case.n_inputs + 6.0 * case.n_outputs)
    return Work(
        flops=steps * (products + 20.0 * n_parameters),
        weight_bytes=steps * 9.0 * 4.0 * n_parameters,
        n_parameters=n_parameters,
        steps=steps,
    )


def synchronize(device: str) -> None:
    """Wait for the device."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def timed(work: Callable[[], object], device: str, repetitions: int) -> list[float]:
    """Return the seconds of each call of ``work``, with the device idle before and after."""
    seconds = []
    for _ in range(repetitions):
        synchronize(device)
        started = time.perf_counter()
        work()
        synchronize(device)
        seconds.append(time.perf_counter() - started)
    return seconds


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """Return minimum, median and maximum."""
    return {"least": min(values), "median": statistics.median(values), "greatest": max(values)}


def packed_epochs(
    case: Case, acceleration: str, device: str, repetitions: int, capture: Capture | None = None
) -> dict[str, Any]:
    """Train the population and time its epochs.

    Parameters
    ----------
    case
        Sizes of the task.
    acceleration
        Path of training, as of ``train``.
    device
        Device of the population.
    repetitions
        Timed epochs.
    capture
        Replacement for CUDA graphs, in tests.

    Returns
    -------
    dict
        Seconds per epoch, losses before and during the timed epochs, and the paths of the buckets.
    """
    configs = paper_population(case)
    rows = make_rows(case, device)
    population = Population.create(configs, DataShape(case.n_inputs, case.n_outputs), rows=rows.inputs)
    stream = BatchStream(case.n_rows, case.batch_size, seed=0)
    settings = TrainingSettings(
        stream=stream,
        loss=case.loss,
        until_epoch=TOTAL_EPOCHS,
        total_epochs=TOTAL_EPOCHS,
        capture=capture,
    )
    plan = choose_acceleration(
        population.layout,
        population.row_configs(),
        loss=case.loss,
        dtype=torch.float32,
        device=device,
        acceleration=acceleration,
    )
    started = time.perf_counter()
    training = DeviceTraining(population, rows, settings, plan)
    epochs = 0

    def epoch() -> None:
        nonlocal epochs
        epochs += 1
        last = stream.steps(epochs)
        while population.step < last:
            training.advance(training.window(last, None))

    epoch()
    first_loss = training.take_losses() / population.step
    preparing = time.perf_counter() - started
    for _ in range(WARM_UP_EPOCHS - 1):
        epoch()
    training.take_losses()
    before = population.step
    seconds = timed(epoch, device, repetitions)
    last_loss = training.take_losses() / (population.step - before)
    return {
        "acceleration": acceleration,
        "precision": torch.get_float32_matmul_precision(),
        "persistent_buckets": len(training.plan.persistent),
        "graph_buckets": len(training.plan.graph),
        "obstacles": sorted(set(training.plan.obstacles.values())),
        "first_epoch_seconds": preparing,
        "epoch_seconds": quantiles(seconds),
        "loss_of_first_epoch": float(first_loss.nanmean()),
        "loss_of_timed_epochs": float(last_loss.nanmean()),
        "failed_members": int((population.failed_at >= 0).sum()),
    }


def sequential_step(case: Case, device: str, n_networks: int, n_steps: int) -> dict[str, Any]:
    """Time the steps of one network at a time: slices of tensors, fused Adam, no data loader.

    Parameters
    ----------
    case
        Sizes of the task.
    device
        Device of the networks.
    n_networks
        Networks, spread evenly over the population.
    n_steps
        Timed steps of each.

    Returns
    -------
    dict
        Quantiles of the seconds per step.
    """
    rows = make_rows(case, device)
    inputs, target = rows.inputs, rows.target
    configs = paper_population(case)
    chosen = [configs[(2 * i + 1) * len(configs) // (2 * n_networks)] for i in range(n_networks)]
    population = Population.create(chosen, DataShape(case.n_inputs, case.n_outputs))
    per_step = []
    for member in range(n_networks):
        module = build_module(population.layout.architecture(member)).to(device)
        optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=0.0, fused=True)
        loss_function: nn.Module = nn.CrossEntropyLoss()
        wanted = target
        if case.n_outputs == 1:
            loss_function, wanted = nn.BCEWithLogitsLoss(), target.float().unsqueeze(1)
        order = torch.randperm(case.n_rows, device=device)

        def steps(
            count: int,
            module: nn.Module = module,
            optimizer: torch.optim.Optimizer = optimizer,
            loss_function: nn.Module = loss_function,
            wanted: Tensor = wanted,
            order: Tensor = order,
        ) -> None:
            for step in range(count):
                start = step * case.batch_size % (case.n_rows - case.batch_size + 1)
                batch = order[start : start + case.batch_size]
                optimizer.zero_grad(set_to_none=True)
                loss_function(module(inputs[batch]), wanted[batch]).backward()
                optimizer.step()

        steps(20)
        per_step.extend(s / n_steps for s in timed(lambda run=steps: run(n_steps), device, 1))
    return {"networks": n_networks, "step_seconds": quantiles(per_step)}


def measure_card(device: str, size: int = 8192) -> dict[str, float]:
    """Measure bytes per second of a copy, read and written, and FLOP per second of a large product."""
    source = torch.empty(size * size * 4, device=device)
    copy = torch.empty_like(source)
    copy.copy_(source)
    copying = min(timed(lambda: copy.copy_(source), device, 5))
    left, right = (torch.randn(size, size, device=device) for _ in range(2))
    before = torch.get_float32_matmul_precision()
    rates = {}
    for name, switch in (("ieee", "highest"), ("tf32", "high")):
        torch.set_float32_matmul_precision(switch)
        torch.mm(left, right)
        rates[name] = 2.0 * size**3 / min(timed(lambda: torch.mm(left, right), device, 5))
    torch.set_float32_matmul_precision(before)
    return {
        "copy_bytes_per_second": 2.0 * source.numel() * source.element_size() / copying,
        "ieee_flops_per_second": rates["ieee"],
        "tf32_flops_per_second": rates["tf32"],
    }


def account(
    row: dict[str, Any], work: Work, card: dict[str, float], sequential: float, n_members: int
) -> None:
    """Add ratios and lower bounds of the time to a row; ``sequential`` is in seconds per step."""
    seconds = row["epoch_seconds"]["median"]
    precision = "ieee" if row["precision"] == "highest" else "tf32"
    peak = card[f"{precision}_flops_per_second"]
    row["times_one_at_a_time"] = sequential * work.steps * n_members / seconds
    row["us_per_member_step"] = 1e6 * seconds / (work.steps * n_members)
    row["flops_per_second"] = work.flops / seconds
    row["share_of_gemm_peak"] = work.flops / seconds / peak
    row["seconds_at_gemm_peak"] = work.flops / peak
    # the persistent kernel keeps weights on the multiprocessor, so this bound applies to graphs only
    row["seconds_for_weights_through_memory"] = work.weight_bytes / card["copy_bytes_per_second"]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return a Markdown table with one line per path."""
    lines = [
        "| training | precision | s per epoch | x one at a time | us per member-step | share of GEMM peak |"
        " lower bound: FLOPs | lower bound: weights through memory |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['acceleration']} | {row['precision']} | {row['epoch_seconds']['median']:.3f} "
        f"| {row['times_one_at_a_time']:,.0f} | {row['us_per_member_step']:.3f} "
        f"| {100 * row['share_of_gemm_peak']:.1f} % | {row['seconds_at_gemm_peak']:.3f} s "
        f"| {row['seconds_for_weights_through_memory']:.3f} s |"
        for row in rows
    ]
    return "\n".join(lines)


def describe(device: str) -> dict[str, Any]:
    """Return device, CUDA and Triton versions, and the machine."""
    try:
        import triton

        version = triton.__version__
    except ModuleNotFoundError:
        version = None
    name = torch.cuda.get_device_name(device)
    return {"device": name, "cuda": torch.version.cuda, "triton": version} | describe_machine()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write; return 1 without a GPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only check for a GPU")
    parser.add_argument("--members", type=int, default=Case.n_members)
    parser.add_argument("--rows", type=int, default=Case.n_rows)
    parser.add_argument("--inputs", type=int, default=Case.n_inputs)
    parser.add_argument("--outputs", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--batch-size", type=int, default=Case.batch_size)
    parser.add_argument("--repetitions", type=int, default=5)
    given = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print(NO_GPU, file=sys.stderr)
        return 1
    device = "cuda"
    print(f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}")
    if given.check:
        return 0
    card = measure_card(device)
    report: dict[str, Any] = {"machine": describe(device), "card": card, "cases": []}
    for n_outputs in given.outputs:
        case = Case(given.members, given.rows, given.inputs, n_outputs, given.batch_size)
        work = count_work(paper_population(case), case)
        sequential = sequential_step(case, device, n_networks=20, n_steps=300)
        rows = []
        for switch in ("highest", "high"):
            torch.set_float32_matmul_precision(switch)
            for acceleration in ("persistent", "graph"):
                row = packed_epochs(case, acceleration, device, given.repetitions)
                account(row, work, card, sequential["step_seconds"]["median"], case.n_members)
                rows.append(row)
                torch.cuda.empty_cache()
        torch.set_float32_matmul_precision("highest")
        report["cases"].append(
            {"case": vars(case), "work": vars(work), "sequential": sequential, "packed": rows}
        )
        print(
            f"\n{case.n_members:,} members, {case.n_rows:,} rows, {case.n_inputs} inputs, {n_outputs} outputs"
        )
        print(f"one network at a time: {1e6 * sequential['step_seconds']['median']:.0f} us per step")
        print(table(rows), flush=True)
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
