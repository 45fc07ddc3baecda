"""Compilation of the kernels of ``make gpu`` on all cores, and a short training for ``compute-sanitizer``.

Triton keeps compiled kernels on disk, so that later stages do not wait for them. ``--smoke`` trains a few
members on both paths instead.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

import torch

from benchmarks.gpu import Case, make_rows, packed_epochs
from parallelmlp_search.engine import BatchStream, Population, TrainingSettings
from parallelmlp_search.engine.acceleration import choose_acceleration
from parallelmlp_search.engine.device.training import DeviceTraining
from parallelmlp_search.kernels.precision import PRECISIONS, product_precision
from parallelmlp_search.packing import DataShape
from parallelmlp_search.space import MLPConfig

WIDTHS = (16, 32, 64, 128)


def compile_kernel(width: int, n_outputs: int, precision: str, device: str = "cuda") -> float:
    """Compile the kernel of a class of widths for the paper's case.

    Parameters
    ----------
    width, n_outputs
        Width and outputs of the members.
    precision, device
        Precision of the products, and device.

    Returns
    -------
    float
        Seconds.
    """
    started = time.perf_counter()
    case = Case(n_members=2, n_rows=64, n_outputs=n_outputs)
    configs = [
        MLPConfig(widths=(width,), activation=activation, batch_size=case.batch_size)
        for activation in ("relu", "tanh")
    ]
    rows = make_rows(case, device)
    population = Population.create(configs, DataShape(case.n_inputs, n_outputs), rows=rows.inputs)
    settings = TrainingSettings(
        stream=BatchStream(case.n_rows, case.batch_size, seed=0),
        loss=case.loss,
        until_epoch=1,
        total_epochs=1,
        acceleration="persistent",
    )
    plan = choose_acceleration(
        population.layout,
        population.row_configs(),
        loss=case.loss,
        dtype=torch.float32,
        device=device,
        acceleration="persistent",
    )
    with product_precision(precision, torch.device(device)):
        DeviceTraining(population, rows, settings, plan)
    return time.perf_counter() - started


def main(arguments: Sequence[str] | None = None) -> int:
    """Compile all kernels at once, or train a few members."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="train a few members on both paths")
    given = parser.parse_args(arguments)
    if given.smoke:
        for acceleration in ("persistent", "graph"):
            case = Case(n_members=20, n_rows=64, n_inputs=10)
            row = packed_epochs(case, acceleration, "cuda", 1)
            print(f"{acceleration}: loss {row['loss_of_timed_epochs']:.4f}")
        return 0
    jobs = [(w, c, p) for c in (1, 10) for p in PRECISIONS for w in WIDTHS]
    workers = min(len(jobs), os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        seconds = list(pool.map(compile_kernel, *zip(*jobs, strict=True)))
    print(f"{len(jobs)} kernels compiled by {workers} processes, the slowest in {max(seconds):.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
