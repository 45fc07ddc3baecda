"""Speed of a device on a network: seconds per operation and per parameter."""

from __future__ import annotations

import contextlib
import copy
import itertools
import statistics
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from parallelmlp_search._checks import check_positive
from parallelmlp_search.parareal.method.blocks import counted_cost, synchronized_time
from parallelmlp_search.parareal.method.network import OutputGradient, Slice, SlicePass
from parallelmlp_search.parareal.method.optimizer import FlatOptimizer, FlatParameters, Recipe

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
    """Speed of a device on a network."""

    per_operation: float  # seconds per counted operation of the forward and backward pass
    forward_share: float = 1.0 / 3.0  # of both passes
    per_parameter: float = 0.0  # seconds of the optimizer

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
    example
        A minibatch ``(N, ...)``.
    output_gradient
        Loss; the sum of the outputs by default.
    repeats
        Number of steps, of which the median counts.
    recipe
        Optimizer; AdamW by default.

    Returns
    -------
    DeviceSpeed
    """
    part = Slice(copy.deepcopy(model))
    optimizer = FlatOptimizer(FlatParameters([part]), recipe or Recipe(total_steps=1000))
    function = output_gradient or (lambda y: (y.sum(), torch.ones_like(y)))
    rounds = []
    for _ in range(repeats + N_WARM_UP):
        times = [synchronized_time(example.device)]
        slice_pass = SlicePass(part, example)
        slice_pass.correct(None)
        times.append(synchronized_time(example.device))
        gradient = slice_pass.backward_head(function)[1]
        times.append(synchronized_time(example.device))
        slice_pass.backward_coarse(gradient)
        slice_pass.backward_fine()
        times.append(synchronized_time(example.device))
        optimizer.step()
        optimizer.zero_grad()
        times.append(synchronized_time(example.device))
        rounds.append([end - start for start, end in itertools.pairwise(times)])
    forward, head, backward, update = (statistics.median(c) for c in zip(*rounds[N_WARM_UP:], strict=True))
    return DeviceSpeed(
        per_operation=(forward + head + backward) / counted_cost(model, example),
        forward_share=forward / max(1e-12, forward + backward),
        per_parameter=update / max(1, len(optimizer.flat.values)),
    )


def cpu_wait_seconds() -> float:
    """Return the seconds for which this thread was ready but had no core; 0 if they are not counted."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        return 1e-9 * int(Path("/proc/thread-self/schedstat").read_text(encoding="ascii").split()[1])
    return 0.0
