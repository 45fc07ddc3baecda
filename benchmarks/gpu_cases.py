"""The paper's population and task, counted work, and timing on a device."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from parallelmlp_search.engine import TrainingRows
from parallelmlp_search.space import ACTIVATIONS, MLPConfig

PAPER_ACTIVATIONS = ACTIVATIONS[:10]


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
