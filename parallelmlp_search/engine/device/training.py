"""Training on a device in windows of steps: tables go there, steps are taken, the host looks at the end.

A window ends where members are judged, and often enough that a deadline or an interrupt is met within a
fraction of a second. Where windows end does not change a result.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from parallelmlp_search.engine.acceleration import AccelerationPlan
from parallelmlp_search.engine.batches import BatchStream
from parallelmlp_search.engine.device.cuda_graph import Capture, GraphedStep, capture_on_cuda
from parallelmlp_search.engine.device.step import DeviceStep
from parallelmlp_search.engine.device.step_tables import (
    MemberVectors,
    constant_table,
    is_averaging,
    step_tables,
)
from parallelmlp_search.engine.population import FLAT_NAMES, Population
from parallelmlp_search.exceptions import DeviceWarning
from parallelmlp_search.kernels.triton.launch import PersistentTraining, StepTables

__all__ = ["DeviceTraining", "train_in_windows"]

MAX_STEPS = 512
MAX_TABLE_ELEMENTS = 1 << 22
"""Steps times members of a window: its coefficients take 64 MiB in float32."""

FIRST_WINDOW = 16
WINDOW_SECONDS = 0.2
"""What a window should take where there is a deadline to meet."""


class DeviceTraining:
    """The members of a population on a device.

    Parameters
    ----------
    population
        Trained in place.
    rows
        Inputs (n, D), target and weights of the training rows, on the device.
    stream, loss, total_steps
        As for :func:`parallelmlp_search.engine.trainer.train`.
    plan
        Which buckets are trained how.
    capture
        How steps are captured; as CUDA graphs, if not given.
    """

    def __init__(
        self,
        population: Population,
        rows: tuple[Tensor, Tensor, Tensor | None],
        *,
        stream: BatchStream,
        loss: str,
        total_steps: int,
        plan: AccelerationPlan,
        capture: Capture | None = None,
    ) -> None:
        self.population = population
        self.plan = plan
        self._rows, self._stream, self._total_steps = rows, stream, total_steps
        inputs = rows[0]
        self._dtype, self._device = inputs.dtype, inputs.device
        configs = population.row_configs()
        self._vectors = MemberVectors.of(configs, self._device)
        n_members = population.n_members
        self._constants = constant_table(configs, dtype=self._dtype, device=self._device)
        self._most_steps = max(1, min(MAX_STEPS, MAX_TABLE_ELEMENTS // n_members))
        self._loss_sums = torch.zeros(n_members, dtype=self._dtype, device=self._device)
        self._failed_at = torch.full((n_members,), -1, dtype=torch.int64, device=self._device)
        self._persistent = self._prepare(loss) if plan.persistent else None
        self._step: DeviceStep | None = None
        if self.plan.graph:
            self._step = DeviceStep(
                population,
                self.plan.graph,
                rows,
                batch_size=stream.batch_size,
                seed=stream.seed,
                loss=loss,
                constants=self._constants,
                most_steps=self._most_steps,
                total_steps=total_steps,
            )
            self._graphed = GraphedStep(self._step.take, capture or capture_on_cuda(self._device))
        self._seconds_per_step = 0.0

    def _prepare(self, loss: str) -> PersistentTraining | None:
        """Compile and start the kernels once with no step to take; what does not fit goes to the graph."""
        training = PersistentTraining(
            self.population.layout,
            self.plan.persistent,
            loss=loss,
            batch_sizes=[self._stream.batch_size] * self.population.n_members,
            weighted=self._rows[2] is not None,
            device=self._device,
            dtype=self._dtype,
        )
        try:
            self._run(training, self._tables(1), n_steps=0)
            self._synchronize()
        except Exception as error:
            # by name, since triton may be missing; memory that runs out is the caller's to mend
            if not type(error).__module__.startswith("triton"):
                raise
            reason = f"Triton could not run the kernel ({type(error).__name__}: {error})"
            warnings.warn(f"{reason}; CUDA graphs are used instead", DeviceWarning, stacklevel=5)
            self.plan = self.plan.without_persistent(reason)
            return None
        return training

    def _tables(self, n_steps: int) -> StepTables:
        return step_tables(
            self._vectors,
            self._stream,
            self.population.step,
            n_steps,
            self._total_steps,
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

    def _synchronize(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def window(self, until_step: int, *, timed: bool) -> int:
        """Steps to take before the host looks again; fewer where time counts."""
        most = min(self._most_steps, until_step - self.population.step)
        if not timed:
            return most
        if self._seconds_per_step == 0.0:
            return min(most, FIRST_WINDOW)
        return max(1, min(most, int(WINDOW_SECONDS / self._seconds_per_step)))

    def advance(self, n_steps: int) -> int:
        """Take steps with all members, freeze those that failed, and count the steps of those alive."""
        started = time.monotonic()
        population = self.population
        first_step = population.step
        tables = self._tables(n_steps)
        if self._persistent is not None:
            self._run(self._persistent, tables, n_steps)
        if self._step is not None:
            self._step.load(tables, first_step)
            for step in range(first_step, first_step + n_steps):
                self._graphed(is_averaging(step))
        failed_at = self._failures()
        alive = population.failed_at < 0
        newly = alive & (failed_at >= 0)
        taken = torch.where(newly, failed_at - first_step, n_steps)[alive]
        population.failed_at[newly] = failed_at[newly]
        if bool(newly.any()):
            self._freeze(newly.to(self._device))
        population.step = first_step + n_steps
        self._seconds_per_step = (time.monotonic() - started) / n_steps
        return int(taken.sum())

    def _failures(self) -> Tensor:
        """Step of each member's failure, or -1, on the CPU; waits for the device."""
        failed = self._failed_at
        if self._step is not None:
            failed = torch.maximum(failed, self._step.failed_at)
        return failed.cpu()

    def _freeze(self, rows: Tensor) -> None:
        """Set everything about stacked rows ``(P,)`` bool to zero, but for the snapshot of their best."""
        layout = self.population.layout
        for number, bucket in enumerate(layout.buckets):
            first = layout.row_offsets[number]
            dead = rows[first : first + bucket.n_members].unsqueeze(1)
            for name in FLAT_NAMES[:4]:
                flat = self.population.flats[name]
                for block in bucket.blocks:
                    size = bucket.n_members * block.row_size
                    view = flat[block.offset : block.offset + size].view(bucket.n_members, -1)
                    view.masked_fill_(dead, 0.0)

    def take_losses(self) -> Tensor:
        """Sum of the losses ``(P,)`` of each member since the last call, on the CPU."""
        total = self._loss_sums.clone()
        self._loss_sums.zero_()
        if self._step is not None:
            total += self._step.loss_sums
            self._step.loss_sums.zero_()
        return total.cpu()


def train_in_windows(
    training: DeviceTraining,
    *,
    last_step: int,
    moments: dict[int, float],
    deadline: float | None,
    stopped: Callable[[], bool],
    record: Callable[[float, Tensor], None],
    epochs_at: Callable[[int], float],
) -> tuple[int, bool]:
    """Train up to ``last_step``; returns the steps of members taken, and whether the deadline cut it.

    ``record`` is called at each of ``moments`` with the epochs completed and the mean losses since the last.
    """
    population = training.population
    member_steps = steps_since = 0
    while population.step < last_step and not stopped():
        until = min(moment for moment in moments if moment > population.step)
        n_steps = training.window(until, timed=deadline is not None)
        member_steps += training.advance(n_steps)
        steps_since += n_steps
        late = deadline is not None and time.monotonic() >= deadline
        cut = late and population.step < last_step
        if population.step in moments or cut:
            epochs = moments.get(population.step, epochs_at(population.step))
            record(epochs, training.take_losses() / steps_since)
            steps_since = 0
        if late:
            return member_steps, cut
    return member_steps, False
