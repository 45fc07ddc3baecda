"""Training on a device in windows of steps, between which the host reads nothing.

A window ends where members are evaluated, and often enough to meet a deadline or an interrupt within a
fraction of a second. The end of a window does not change a result.
"""

from __future__ import annotations

import time
import warnings

import torch
from torch import Tensor

from parallelmlp_search.engine.acceleration import AccelerationPlan
from parallelmlp_search.engine.device.cuda_graph import GraphedStep, capture_on_cuda
from parallelmlp_search.engine.device.step import DeviceStep
from parallelmlp_search.engine.device.step_tables import step_tables
from parallelmlp_search.engine.population import FLAT_NAMES, Population
from parallelmlp_search.engine.rows import as_tensor
from parallelmlp_search.engine.settings import TrainingRows, TrainingSettings
from parallelmlp_search.engine.step_coefficients import StepCoefficients, constant_table, is_averaging
from parallelmlp_search.exceptions import DeviceWarning
from parallelmlp_search.kernels.triton.lanes import KernelError
from parallelmlp_search.kernels.triton.launch import PersistentTraining, StepTables
from parallelmlp_search.packing.pack import block_rows

MAX_STEPS = 512
MAX_TABLE_ELEMENTS = 1 << 22
"""Maximum of steps times members of a window: its coefficients take 64 MiB in float32."""

FIRST_WINDOW = 16
"""Steps of the first window before a deadline, whose duration is not known."""

WINDOW_SECONDS = 0.2
"""Duration of a window before a deadline."""

FAILED_KERNELS: dict[str, str] = {}
"""Kernels that failed in this process, with the reason: they are not tried again, nor warned of again."""


class DeviceTraining:
    """Training of a population by a device.

    Parameters
    ----------
    population
        Trained in place.
    rows, settings
        As for :func:`~parallelmlp_search.engine.trainer.train`; the rows are on the device.
    plan
        Acceleration of each bucket.

    Attributes
    ----------
    loop_seconds
        Elapsed time of all windows.
    """

    def __init__(
        self,
        population: Population,
        rows: TrainingRows,
        settings: TrainingSettings,
        plan: AccelerationPlan,
    ) -> None:
        self.population = population
        self.plan = plan
        self._rows = (as_tensor(rows.inputs), rows.target, rows.weight)
        self._settings = settings
        self._dtype, self._device = rows.inputs.dtype, rows.inputs.device
        configs, n_members = population.row_configs(), population.n_members
        self._coefficients = StepCoefficients(configs, settings.total_steps, self._device)
        self._constants = constant_table(configs, self._rows[0])
        self._max_steps = max(1, min(MAX_STEPS, MAX_TABLE_ELEMENTS // n_members))
        self._loss_sums = torch.zeros(n_members, dtype=self._dtype, device=self._device)
        self._failed_at = torch.full((n_members,), -1, dtype=torch.int64, device=self._device)
        self._persistent = self._prepare() if plan.persistent else None
        self._in_kernel = torch.zeros(n_members, dtype=torch.bool)
        for number in self.plan.persistent:
            self._in_kernel[population.layout.stacked_rows(number)] = True
        self._step: DeviceStep | None = None
        if self.plan.graph:
            self._step = DeviceStep(
                population,
                self.plan.graph,
                self._rows,
                stream=settings.stream,
                loss=settings.loss,
                constants=self._constants,
                max_steps=self._max_steps,
                total_steps=settings.total_steps,
            )
            capture = settings.capture or capture_on_cuda(self._device)
            self._graphed = GraphedStep(self._step.take, capture)
        self._seconds_per_step = 0.0
        self.loop_seconds = 0.0

    def _prepare(self) -> PersistentTraining | None:
        """Compile the kernels and start them without a step.

        If one fails, it is an error where the kernel was asked for. Otherwise all buckets go to the graph.
        """
        training = PersistentTraining(
            self.population.layout,
            self.plan.persistent,
            loss=self._settings.loss,
            batch_sizes=[self._settings.stream.batch_size] * self.population.n_members,
            weighted=self._rows[2] is not None,
            device=self._device,
            dtype=self._dtype,
        )
        asked_for = self._settings.acceleration == "persistent"
        reason = next((FAILED_KERNELS[name] for name in training.kernels if name in FAILED_KERNELS), None)
        if asked_for or reason is None:
            try:
                self._run(training, self._tables(1), n_steps=0)
                if self._device.type == "cuda":
                    torch.cuda.synchronize(self._device)
                return training
            except KernelError as error:
                if asked_for:
                    raise
                reason = FAILED_KERNELS[error.kernel] = str(error)
                warnings.warn(f"{reason}; CUDA graphs are used instead", DeviceWarning, stacklevel=5)
        self.plan = self.plan.without_persistent(reason)
        return None

    def _tables(self, n_steps: int) -> StepTables:
        first = self.population.step
        return step_tables(
            self._coefficients,
            self._settings.stream,
            range(first, first + n_steps),
            frozen=self.population.failed_at >= 0,
            dtype=self._dtype,
        )

    def _run(self, training: PersistentTraining, tables: StepTables, n_steps: int) -> None:
        training.run(
            self.population.flats,
            self._rows,
            tables,
            self._constants,
            self._loss_sums,
            self._failed_at,
            first_steps=self.population.step,
            n_steps=n_steps,
        )

    def window(self, until_step: int, deadline: float | None) -> int:
        """Return the steps to take next: up to ``until_step``, and less before a deadline."""
        most = min(self._max_steps, until_step - self.population.step)
        if deadline is None:
            return most
        if self._seconds_per_step == 0.0:
            return min(most, FIRST_WINDOW)
        return max(1, min(most, int(WINDOW_SECONDS / self._seconds_per_step)))

    def advance(self, n_steps: int) -> dict[str, int]:
        """Take steps, freeze members whose loss is not finite, and return the member-steps of each path."""
        started = time.monotonic()
        population = self.population
        first_step = population.step
        tables = self._tables(n_steps)
        if self._persistent is not None:
            self._run(self._persistent, tables, n_steps)
        if self._step is not None:
            self._step.load(tables)
            for step in range(first_step, first_step + n_steps):
                self._graphed(is_averaging(step))
        failed = self._failed_at
        if self._step is not None:
            failed = torch.maximum(failed, self._step.failed_at)
        failed_at = failed.cpu()  # waits for the device
        alive = population.failed_at < 0
        newly = alive & (failed_at >= 0)
        taken = torch.where(newly, failed_at - first_step, n_steps) * alive
        population.failed_at[newly] = failed_at[newly]
        if bool(newly.any()):
            self._freeze(newly.to(self._device))
        population.step = first_step + n_steps
        seconds = time.monotonic() - started
        self._seconds_per_step = seconds / n_steps
        self.loop_seconds += seconds
        in_kernel = int(taken[self._in_kernel].sum())
        return {"persistent": in_kernel, "graph": int(taken.sum()) - in_kernel}

    def _freeze(self, rows: Tensor) -> None:
        """Set everything but the best snapshot of stacked rows ``(P,)`` bool to zero."""
        layout = self.population.layout
        for number, bucket in enumerate(layout.buckets):
            dead = rows[layout.stacked_rows(number)].unsqueeze(1)
            for name in FLAT_NAMES[:4]:
                for block in bucket.blocks:
                    block_rows(self.population.flats[name], bucket, block).masked_fill_(dead, 0.0)

    def take_losses(self) -> Tensor:
        """Return the sum of the losses ``(P,)`` since the last call, on the CPU."""
        total = self._loss_sums.clone()
        self._loss_sums.zero_()
        if self._step is not None:
            total += self._step.loss_sums
            self._step.loss_sums.zero_()
        return total.cpu()
