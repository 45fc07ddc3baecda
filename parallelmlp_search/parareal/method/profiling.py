"""Speed of a device on a network: measured times of each slice, and seconds per operation."""

from __future__ import annotations

import contextlib
import copy
import statistics
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from parallelmlp_search._checks import check_positive
from parallelmlp_search.parareal.method.blocks import counted_cost, synchronized_time
from parallelmlp_search.parareal.method.network import OutputGradient, PararealNetwork, Slice, SlicePass
from parallelmlp_search.parareal.method.optimizer import FlatOptimizer, FlatParameters, Recipe

__all__ = ["DeviceSpeed", "SliceTimes", "cpu_wait_seconds", "measure_device_speed", "measure_slices"]

N_WARM_UP = 2


@dataclass(frozen=True)
class SliceTimes:
    """Seconds of the work of one slice in one step."""

    forward: float  # preprocessor and fine network
    backward: float
    sweep: float = 0.0  # coarse network; 0 in the first slice
    sweep_back: float = 0.0
    head: float = 0.0  # head, loss and its gradient; 0 in all slices but the last
    update: float = 0.0


@dataclass(frozen=True)
class DeviceSpeed:
    """Speed of a device on a network.

    Attributes
    ----------
    per_operation
        Seconds per counted operation of the forward and backward pass.
    forward_share
        Share of the forward pass in both.
    per_parameter
        Seconds of the optimizer per parameter.
    """

    per_operation: float
    forward_share: float = 1.0 / 3.0
    per_parameter: float = 0.0

    @classmethod
    def of_device(cls, flops: float, bandwidth: float = 1e11) -> DeviceSpeed:
        """Return the speed of a device from its operations and bytes moved per second."""
        check_positive("flops", flops)
        # AdamW reads four buffers and writes three, of four bytes an element
        return cls(1.0 / flops, per_parameter=28.0 / check_positive("bandwidth", bandwidth))


def measure_device_speed(
    model: nn.Sequential,
    example: Tensor,
    output_gradient: OutputGradient | None = None,
    *,
    repeats: int = 7,
    recipe: Recipe | None = None,
) -> DeviceSpeed:
    """Measure the device of ``example`` by training steps of a serial network.

    Parameters
    ----------
    model
        The network; a copy of it is trained.
    example, output_gradient, repeats, recipe
        As for :func:`measure_slices`; the loss is the sum of the outputs by default.

    Returns
    -------
    DeviceSpeed
    """
    network = PararealNetwork([Slice(copy.deepcopy(model))])
    function = output_gradient or (lambda y: (y.sum(), torch.ones_like(y)))
    times = measure_slices(network, example, function, repeats=repeats, recipe=recipe)[0]
    both = times.forward + times.backward
    n_parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return DeviceSpeed(
        per_operation=(both + times.head) / counted_cost(model, example),
        forward_share=times.forward / max(1e-12, both),
        per_parameter=times.update / max(1, n_parameters),
    )


def measure_slices(
    network: PararealNetwork,
    example: Tensor,
    output_gradient: OutputGradient,
    *,
    repeats: int = 7,
    recipe: Recipe | None = None,
) -> list[SliceTimes]:
    """Measure the work of each slice, one after the other.

    Parameters
    ----------
    network
        The network; its weights are trained.
    example
        A minibatch ``(N, ...)``.
    output_gradient
        Loss.
    repeats
        Number of steps.
    recipe
        Optimizer; AdamW by default.

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
            corrected = SlicePass(part, example).correct(previous)
        optimizer = FlatOptimizer(FlatParameters([part]), recipe or Recipe(total_steps=1000))
        function = output_gradient if part is network.parts[-1] else None
        steps = [
            _measure_step(part, example, previous, optimizer, function) for _ in range(repeats + N_WARM_UP)
        ]
        columns = zip(*steps[N_WARM_UP:], strict=True)
        found.append(SliceTimes(*(statistics.median(column) for column in columns)))
    return found


def _measure_step(
    part: Slice,
    example: Tensor,
    previous: Tensor | None,
    optimizer: FlatOptimizer,
    output_gradient: OutputGradient | None,
) -> tuple[float, ...]:
    """Fields of :class:`SliceTimes`; ``output_gradient`` is None in all slices but the last."""
    times = [synchronized_time(example.device)]

    def lap() -> float:
        times.append(synchronized_time(example.device))
        return times[-1] - times[-2]

    optimizer.zero_grad()
    zero = lap()
    slice_pass = SlicePass(part, example)
    forward = lap()
    gradient = torch.ones_like(slice_pass.correct(previous))
    sweep = lap()
    head = 0.0
    if output_gradient is not None:
        gradient = slice_pass.backward_head(output_gradient)[1]
        head = lap()
    back = None if previous is None else slice_pass.backward_coarse(gradient)
    sweep_back = lap()
    slice_pass.backward_fine(gradient, back)
    backward = lap()
    optimizer.step()
    update = zero + lap()
    if previous is None:
        sweep = sweep_back = 0.0
    return forward, backward, sweep, sweep_back, head, update


def cpu_wait_seconds() -> float:
    """Return the seconds for which this thread was ready but had no core; 0 if they are not counted."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        return 1e-9 * int(Path("/proc/thread-self/schedstat").read_text(encoding="ascii").split()[1])
    return 0.0
