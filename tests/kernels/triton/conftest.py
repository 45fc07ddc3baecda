"""Populations trained twice: by the ordinary loop, and by the persistent kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from parallelmlp_search.engine import BatchStream, Population, TrainingRows, TrainingSettings, train
from parallelmlp_search.engine.device.step_tables import step_tables
from parallelmlp_search.engine.step_coefficients import StepCoefficients, constant_table
from parallelmlp_search.kernels.triton.launch import PersistentTraining
from parallelmlp_search.packing import DataShape
from parallelmlp_search.space import MLPConfig

TOTAL_STEPS = 12


@dataclass
class Kernel:
    """Population, losses and failures after training in the persistent kernel."""

    population: Population
    losses: Tensor
    failed_at: Tensor
    training: PersistentTraining


@dataclass
class Case:
    """Training rows, loss and batch size of all members."""

    rows: TrainingRows
    loss: str
    n_outputs: int
    batch_size: int
    device: str

    def population(self, configs: Sequence[MLPConfig]) -> Population:
        """Return a new population."""
        return Population.create(
            configs,
            DataShape(self.rows.inputs.shape[1], self.n_outputs),
            rows=self.rows.inputs.to(self.device),
        )

    def stream(self, batch_size: int | None = None) -> BatchStream:
        """Return the batches of the rows."""
        return BatchStream(self.rows.inputs.shape[0], batch_size or self.batch_size, seed=3)

    def plainly(self, configs: Sequence[MLPConfig], n_steps: int) -> Population:
        """Train a population in the ordinary loop."""
        population, stream = self.population(configs), self.stream()
        train(
            population,
            self.rows,
            TrainingSettings(
                stream=stream,
                loss=self.loss,
                until_epoch=n_steps * stream.batch_size / stream.n_rows,
                total_epochs=TOTAL_STEPS * stream.batch_size / stream.n_rows,
                acceleration="none",
            ),
        )
        assert population.step == n_steps
        return population

    def in_kernel(self, configs: Sequence[MLPConfig], windows: Sequence[int]) -> Kernel:
        """Train a population in the kernel; ``windows`` holds the number of steps of each launch."""
        population, stream = self.population(configs), self.stream()
        dtype = self.rows.inputs.dtype
        training = PersistentTraining(
            population.layout,
            range(len(population.layout.buckets)),
            loss=self.loss,
            batch_sizes=[stream.batch_size] * len(configs),
            weighted=self.rows.weight is not None,
            device=self.device,
            dtype=dtype,
        )
        constants = constant_table(population.row_configs(), population.parameters)
        coefficients = StepCoefficients(population.row_configs(), TOTAL_STEPS, self.device)
        losses = torch.zeros(len(configs), dtype=dtype, device=self.device)
        failed_at = torch.full((len(configs),), -1, device=self.device)
        for n_steps in windows:
            tables = step_tables(
                coefficients, stream, range(population.step, population.step + n_steps),
                frozen=failed_at >= 0, dtype=dtype,
            )  # fmt: skip
            training.run(
                population.flats, (self.rows.inputs, self.rows.target, self.rows.weight), tables,
                constants, losses, failed_at, first_steps=population.step,
            )  # fmt: skip
            population.step += n_steps
        return Kernel(population, losses.cpu(), failed_at.cpu(), training)


@pytest.fixture
def case(device: str) -> Callable[..., Case]:
    """Return a function that makes a case: ``case(loss, n_outputs, ...)``."""

    def make(
        loss: str,
        n_outputs: int,
        *,
        n_inputs: int = 7,
        n_rows: int = 45,
        batch_size: int = 20,
        weighted: bool = False,
        dtype: torch.dtype | None = None,
    ) -> Case:
        # float64 in the interpreter allows a tight tolerance; a device trains in float32
        dtype = dtype or (torch.float32 if device == "cuda" else torch.float64)
        generator = torch.Generator().manual_seed(n_inputs)

        def random(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64).to(device, dtype)

        inputs = random(n_rows, n_inputs)
        weight = random(n_rows).abs() if weighted else None
        if loss == "squared_error":
            target = random(n_outputs, n_rows)
        else:
            target = torch.randint(0, max(2, n_outputs), (n_rows,), generator=generator).to(device)
        return Case(TrainingRows(inputs, target, weight), loss, n_outputs, batch_size, device)

    return make
