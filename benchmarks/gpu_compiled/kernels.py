"""Kernels compiled by the real launch code: registers, spills, shared memory, instructions, variants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch

from benchmarks.gpu import Case, paper_population
from benchmarks.gpu_compiled.machine_code import disassemble, step_instructions
from benchmarks.gpu_compiled.stand_in import CompiledKernel, stand_in
from parallelmlp_search.engine import BatchStream, Population, TrainingRows, TrainingSettings
from parallelmlp_search.engine import acceleration as acceleration_module
from parallelmlp_search.engine.acceleration import choose_acceleration
from parallelmlp_search.engine.device.training import DeviceTraining
from parallelmlp_search.kernels.precision import PRECISIONS, product_precision
from parallelmlp_search.packing import DataShape
from parallelmlp_search.space import MLPConfig

CAPABILITIES = (80, 90, 100)

WIDTHS = (16, 32, 64, 128)
"""Width classes of the persistent kernel."""

N_INPUTS, BATCH_SIZE = 100, 32

MULTIPROCESSORS, CLOCK_HZ, SCHEDULERS = 132, 1.98e9, 4
"""Of an H200: each scheduler starts at most one instruction of a warp per cycle."""


@dataclass(frozen=True)
class Run:
    """Size of a training that is launched once."""

    configs: Sequence[MLPConfig]
    n_rows: int = 64
    n_inputs: int = N_INPUTS
    batch_size: int = BATCH_SIZE
    first_step: int = 0


def launch(run: Run) -> None:
    """Launch a training of one window with the driver in use."""
    generator = torch.Generator().manual_seed(0)
    rows = TrainingRows(
        torch.randn(run.n_rows, run.n_inputs, generator=generator), torch.zeros(run.n_rows).long()
    )
    configs = [config.replace(batch_size=run.batch_size) for config in run.configs]
    population = Population.create(configs, DataShape(run.n_inputs, 1), rows=rows.inputs)
    population.step = run.first_step
    epochs = 1e6 + run.first_step
    settings = TrainingSettings(
        stream=BatchStream(run.n_rows, run.batch_size, seed=0),
        loss="binary_logits",
        until_epoch=epochs,
        total_epochs=epochs,
        acceleration="persistent",
        capture=lambda work: work,
    )
    with mock.patch.object(acceleration_module, "runs_on", return_value=True):
        chosen = choose_acceleration(
            population.layout,
            population.row_configs(),
            loss=settings.loss,
            dtype=torch.float32,
            device="cpu",
            acceleration="persistent",
        )
    DeviceTraining(population, rows, settings, chosen).advance(2)


def variants(runs: Sequence[Run]) -> int:
    """Return the number of kernels that are compiled for all of these trainings together."""
    with stand_in() as driver:
        for run in runs:
            launch(run)
        return len(driver.kernels)


def recompilation_runs() -> dict[str, list[Run]]:
    """Return pairs of trainings that differ in one number and shall share their kernel."""
    few = [MLPConfig(widths=(8,), seed=seed) for seed in range(32)]
    return {
        "32 or 31 members": [Run(few, n_inputs=10), Run(few[:31], n_inputs=10)],
        "1,600 or 1,601 rows": [Run(few, 1600, 10), Run(few, 1601, 10)],
        "batches of 32 or 20 rows": [Run(few, n_inputs=10), Run(few, n_inputs=10, batch_size=20)],
        "positions below or above 2^31": [Run(few, n_inputs=10), Run(few, n_inputs=10, first_step=1 << 27)],
    }


def compiled(configs: Sequence[MLPConfig], capability: int, precision: str) -> list[CompiledKernel]:
    """Return the kernels with which a GPU trains members."""
    with stand_in(capability) as driver, product_precision(precision, torch.device("cuda")):
        launch(Run(configs))
        return driver.kernels


def describe(kernel: CompiledKernel) -> dict[str, Any]:
    """Return a row of the results for a kernel."""
    usage, instructions = disassemble(kernel.cubin)
    settings = kernel.settings
    row = {
        "kernel": kernel.name,
        "capability": kernel.capability,
        "precision": settings["PRECISION"],
        "width": settings["H1_PAD"],
        "n_inputs": settings["D"],
        "activation": settings["ACTIVATION"],
        "warps": kernel.n_warps,
        "registers": usage.registers,
        "spill_bytes": usage.spill_bytes,
        "shared_bytes": kernel.shared_bytes,
    }
    if settings["ACTIVATION"] != "any":
        n_tiles = -(-BATCH_SIZE // settings["ROWS"])
        steps, products = step_instructions(instructions, n_tiles)
        row |= {"instructions_per_step": steps, "products_per_step": products}
    return row


def kernel_rows() -> list[dict[str, Any]]:
    """Return rows for the kernels of the paper's population: mixed activations, and one for instructions."""
    mixed = [
        MLPConfig(widths=(width,), activation=activation)
        for width in WIDTHS
        for activation in ("relu", "tanh")
    ]
    rows = []
    for precision in PRECISIONS:
        for capability in CAPABILITIES:
            rows += [describe(kernel) for kernel in compiled(mixed, capability, precision)]
        rows += [describe(kernel) for kernel in compiled(mixed[1::2], 90, precision)]
    return rows


def epoch_bound(rows: Sequence[dict[str, Any]], precision: str, case: Case | None = None) -> float:
    """Return the least seconds of an epoch of the paper's case on an H200, by instructions.

    Parameters
    ----------
    rows
        Result of :func:`kernel_rows`.
    precision
        Precision of the products.
    case
        Case, by default the paper's.

    Returns
    -------
    float
    """
    case = case or Case()
    costs = {
        row["width"]: row["instructions_per_step"] * row["warps"]
        for row in rows
        if "instructions_per_step" in row and row["precision"] == precision
    }
    classes = [
        next(width for width in WIDTHS if config.widths[0] <= width) for config in paper_population(case)
    ]
    n_steps = -(-case.n_rows // case.batch_size)
    issued = sum(costs[width] for width in classes) * n_steps
    return issued / (MULTIPROCESSORS * SCHEDULERS * CLOCK_HZ)
