"""Training of a population up to an epoch, with failures, snapshots and history per member."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

import torch
from torch import Tensor

from parallelmlp_search.engine.acceleration import choose_acceleration
from parallelmlp_search.engine.device.training import DeviceTraining
from parallelmlp_search.engine.host_training import HostTraining
from parallelmlp_search.engine.network import PackedNetwork, window_rows
from parallelmlp_search.engine.population import Population
from parallelmlp_search.engine.rows import Rows
from parallelmlp_search.engine.settings import Evaluation, TrainingRows, TrainingSettings
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.packing.pack import block_rows

EVALUATION_ROWS = 512
"""Rows that are predicted at once."""


@dataclass
class History:
    """History of a training, in stacked-row order.

    Attributes
    ----------
    epochs, errors, train_losses
        For each evaluation: completed epochs, validation errors ``(P,)`` of the averaged weights, and mean
        training losses ``(P,)`` since the evaluation before.
    path_steps
        Training steps, summed over members that were alive, by the path that took them: one of
        :data:`~parallelmlp_search.engine.execution.PATHS`.
    loop_seconds
        Seconds of the training loop itself, without preparing batches and evaluating members: CPU time of the
        thread on the host, elapsed time on a device.
    cut
        True if the deadline ended training early.
    """

    epochs: list[float] = field(default_factory=list)
    errors: list[Tensor] = field(default_factory=list)
    train_losses: list[Tensor] = field(default_factory=list)
    path_steps: Counter[str] = field(default_factory=Counter)
    loop_seconds: float = 0.0
    cut: bool = False

    @property
    def member_steps(self) -> int:
        """Training steps of all paths."""
        return self.path_steps.total()


def predict(population: Population, inputs: Rows, *, which: str = "parameters") -> Tensor:
    """Predict rows with all members.

    Parameters
    ----------
    population, which
        Population, and the flat buffer with its weights.
    inputs
        Rows ``(n, D)``.

    Returns
    -------
    Tensor
        Outputs ``(P, C, n)`` in stacked-row order.
    """
    return _network_for(population, inputs).predict(population.flats[which], inputs)


def _network_for(population: Population, inputs: Rows) -> PackedNetwork:
    """Network that predicts rows ``(n, D)`` with all members of a population."""
    n_rows = window_rows(inputs.shape[0], EVALUATION_ROWS)
    return PackedNetwork(population.layout, n_rows, dtype=inputs.dtype, device=inputs.device)


def train(population: Population, rows: TrainingRows, settings: TrainingSettings) -> History:
    """Train a population from its current step on.

    Parameters
    ----------
    population
        Trained in place.
    rows, settings
        Training rows and settings.

    Returns
    -------
    History

    Raises
    ------
    InvalidParameterError
        If the rows do not fit the population or the loss, or a setting is not possible here.
    DeviceError
        If the acceleration is ``"persistent"`` and the kernel fails.
    MissingDependencyError
        If the compiled loops are wanted and numba is not installed.
    """
    started = time.monotonic()
    _check_rows(population, rows, settings.loss)
    deadline, stream = settings.deadline, settings.stream
    plan = choose_acceleration(
        population.layout,
        population.row_configs(),
        loss=settings.loss,
        dtype=rows.inputs.dtype,
        device=rows.inputs.device,
        acceleration=settings.acceleration,
        seconds_left=None if deadline is None else deadline - started,
    )
    training: HostTraining | DeviceTraining
    if plan.is_plain:
        training = HostTraining(population, rows, settings)
    else:
        training = DeviceTraining(population, rows, settings, plan)
    history = History()
    evaluation_epochs = settings.evaluation_epochs()
    evaluator = None if settings.evaluation is None else _Evaluator(population, settings.evaluation)
    steps_since = 0
    while population.step < settings.last_step and not settings.stopped():
        until = min(step for step in evaluation_epochs if step > population.step)
        n_steps = training.window(until, deadline)
        history.path_steps += Counter(training.advance(n_steps))
        steps_since += n_steps
        late = deadline is not None and time.monotonic() >= deadline
        history.cut = late and population.step < settings.last_step
        if population.step in evaluation_epochs or history.cut:
            done = population.step * stream.batch_size / stream.n_rows
            history.epochs.append(evaluation_epochs.get(population.step, done))
            history.train_losses.append(training.take_losses() / steps_since)
            steps_since = 0
            if evaluator is not None:
                history.errors.append(evaluator.evaluate(history.epochs[-1]))
        if late:
            break
    history.loop_seconds = training.loop_seconds
    return history


def _check_rows(population: Population, rows: TrainingRows, loss: str) -> None:
    """Refuse rows that do not fit: compiled loops check no bounds and would write beyond the end."""
    shape = population.layout.buckets[0].shape
    inputs, target = rows.inputs, rows.target
    if len(inputs.shape) != 2 or inputs.shape[1] != shape.n_inputs:
        raise InvalidParameterError(
            f"inputs must have shape (n, {shape.n_inputs}), but got {tuple(inputs.shape)}"
        )
    if inputs.dtype != population.parameters.dtype:
        raise InvalidParameterError(
            f"inputs must have the dtype of the population, {population.parameters.dtype}, "
            f"but got {inputs.dtype}"
        )
    n_rows = inputs.shape[0]
    of_classes = loss == "cross_entropy" or (loss == "binary_logits" and shape.n_outputs == 1)
    expected = (n_rows,) if of_classes else (shape.n_outputs, n_rows)
    for name, tensor, wanted in (("target", target, expected), ("weight", rows.weight, (n_rows,))):
        if tensor is not None and tuple(tensor.shape) != wanted:
            raise InvalidParameterError(f"{name} must have shape {wanted}, but got {tuple(tensor.shape)}")
    if loss == "cross_entropy" and target.numel():
        lowest, highest = (int(value) for value in torch.aminmax(target))
        if lowest < 0 or highest >= shape.n_outputs:
            raise InvalidParameterError(
                f"target must hold classes from 0 to {shape.n_outputs - 1}, "
                f"but got {lowest if lowest < 0 else highest}"
            )


class _Evaluator:
    """Evaluates a population during its training, with one network for all evaluations."""

    def __init__(self, population: Population, evaluation: Evaluation) -> None:
        self._population, self._evaluation = population, evaluation
        self._network: PackedNetwork | None = None

    def evaluate(self, epoch: float) -> Tensor:
        """Return the errors ``(P,)`` of the averaged weights; copy the best so far to ``best``."""
        population, evaluation = self._population, self._evaluation
        if self._network is None:
            self._network = _network_for(population, evaluation.inputs)
        outputs = self._network.predict(population.flats["average"], evaluation.inputs)
        errors = evaluation.error(outputs).detach().to("cpu", torch.float64)
        errors = torch.where(population.failed_at < 0, errors, torch.nan)
        better = errors <= population.best_error
        if bool(better.any()):
            _keep_best(population, better, errors, epoch)
        return errors


def _keep_best(population: Population, better: Tensor, errors: Tensor, epoch: float) -> None:
    """Copy averaged weights to ``best`` for the stacked rows ``better`` (P,)."""
    population.best_error = torch.where(better, errors, population.best_error)
    population.best_epoch[better] = epoch
    average, best = population.flats["average"], population.flats["best"]
    for number, bucket in enumerate(population.layout.buckets):
        own = better[population.layout.stacked_rows(number)]
        chosen = own.nonzero().view(-1).to(average.device)
        if len(chosen) == 0:
            continue
        for block in bucket.blocks:
            block_rows(best, bucket, block)[chosen] = block_rows(average, bucket, block)[chosen]
