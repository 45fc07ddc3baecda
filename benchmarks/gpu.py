"""Packed training on one GPU: the paper's population, as CUDA graphs and in the persistent kernel.

``python -m benchmarks.gpu`` trains the 10,000 networks of the paper (widths 1 to 100, ten activations, ten
repetitions) on 10,000 rows. It times whole epochs with the device synchronized, against one network at a time
and against ``vmap`` on the same card in the same run, and relates bytes and FLOPs to the rates of the card,
which it measures first. It prints a table and writes ``gpu.json`` into a folder (``--out``, by default
``benchmarks/results``) after every row. ``--card`` only measures the card. Both are stages of ``make gpu``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_cases import Case, Work, count_work, make_rows, paper_population, quantiles, timed
from benchmarks.gpu_rivals import sequential_step, vmap_step
from benchmarks.publishing import ROOT, describe_machine
from parallelmlp_search.engine import BatchStream, Population, TrainingSettings
from parallelmlp_search.engine.acceleration import choose_acceleration
from parallelmlp_search.engine.device.training import DeviceTraining
from parallelmlp_search.engine.settings import Capture
from parallelmlp_search.packing import DataShape

NO_GPU = "benchmarks.gpu needs a CUDA device that torch can use, but found none; run `make test` instead"

WARM_UP_EPOCHS = 2
TOTAL_EPOCHS = 1000
"""Length of the schedules, far beyond the timed epochs."""


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
        acceleration=acceleration,
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
    parser.add_argument("--card", action="store_true", help="only measure the card")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
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
    card = measure_card(device)
    report: dict[str, Any] = {"machine": describe(device), "card": card, "cases": []}
    print(", ".join(f"{name} {rate:.3g}" for name, rate in card.items()))
    given.out.mkdir(parents=True, exist_ok=True)
    if given.card:
        (given.out / "gpu_card.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        return 0
    for n_outputs in given.outputs:
        case = Case(given.members, given.rows, given.inputs, n_outputs, given.batch_size)
        work = count_work(paper_population(case), case)
        rivals = {
            "sequential": sequential_step(case, device, n_networks=20, n_steps=300),
            "vmap": vmap_step(case, device, n_networks=min(1000, case.n_members), n_steps=20),
        }
        rows: list[dict[str, Any]] = []
        report["cases"].append({"case": vars(case), "work": vars(work), **rivals, "packed": rows})
        print(
            f"\n{case.n_members:,} members, {case.n_rows:,} rows, {case.n_inputs} inputs, {n_outputs} outputs"
        )
        alone, together = (one["step_seconds"]["median"] for one in rivals.values())
        print(f"us per step: {1e6 * alone:.0f} one network at a time, {1e6 * together:.2f} with vmap")
        for switch in ("highest", "high"):
            torch.set_float32_matmul_precision(switch)
            for acceleration in ("persistent", "graph"):
                row = packed_epochs(case, acceleration, device, given.repetitions)
                account(row, work, card, alone, case.n_members)
                row["times_vmap"] = together * work.steps * case.n_members / row["epoch_seconds"]["median"]
                rows.append(row)
                text = json.dumps(report, indent=1) + "\n"
                (given.out / "gpu.json").write_text(text, encoding="utf-8")
                torch.cuda.empty_cache()
        torch.set_float32_matmul_precision("highest")
        print(table(rows), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
