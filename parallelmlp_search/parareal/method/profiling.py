"""How fast a device is on a network: the work of each slice, timed alone, and what an operation takes.

A core is not always ours. :func:`core_wait` tells how long a thread was ready and had none, so that a
measurement can say by how much others have disturbed it.
"""

from __future__ import annotations

import contextlib
import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.parareal.method.blocks import counted_cost
from parallelmlp_search.parareal.method.network import OutputGradient, PararealNetwork, Passage, Slice
from parallelmlp_search.parareal.method.recipe import FlatOptimizer, FlatParameters, Recipe

__all__ = ["Pace", "SliceTimes", "core_wait", "measure_pace", "measure_slices"]

FORWARD_SHARE = 1.0 / 3.0
"""Of forward and backward together: one product of three."""


@dataclass(frozen=True)
class SliceTimes:
    """Seconds of one slice's work in one step.

    Attributes
    ----------
    forward, backward
        Preprocessor and fine network.
    sweep, sweep_back
        Coarse network; 0 in the first slice.
    head
        Head, loss and its gradient; 0 but in the last slice.
    update
        Optimiser.
    """

    forward: float
    backward: float
    sweep: float = 0.0
    sweep_back: float = 0.0
    head: float = 0.0
    update: float = 0.0

    @property
    def total(self) -> float:
        """All of them."""
        return self.forward + self.backward + self.sweep + self.sweep_back + self.head + self.update


@dataclass(frozen=True)
class Pace:
    """How fast a device is on a network.

    Attributes
    ----------
    per_operation
        Seconds per counted operation of forward and backward.
    forward_share
        Share of the forward pass in both.
    per_parameter
        Seconds of the optimiser per parameter.
    """

    per_operation: float
    forward_share: float = FORWARD_SHARE
    per_parameter: float = 0.0

    @classmethod
    def of_device(cls, flops: float, bandwidth: float = 1e11) -> Pace:
        """The pace of a device that does so many operations, and moves so many bytes, a second."""
        if not (flops > 0 and bandwidth > 0):
            raise InvalidParameterError(f"flops and bandwidth must be > 0, but got {flops} and {bandwidth}")
        # AdamW reads four buffers and writes three, of four bytes an element
        return cls(1.0 / flops, per_parameter=28.0 / bandwidth)


def measure_pace(
    model: nn.Sequential,
    example: Tensor,
    output_gradient: OutputGradient | None = None,
    *,
    repeats: int = 7,
    recipe: Recipe | None = None,
) -> Pace:
    """The pace of the device that ``example`` is on, from steps of the serial network.

    The sum of outputs stands in for a loss, and AdamW for the recipe, where none is given.
    """
    network = PararealNetwork([Slice(copy.deepcopy(model))])
    counted = counted_cost(model, example)
    function = output_gradient or (lambda y: (y.sum(), torch.ones_like(y)))
    times = measure_slices(network, example, function, repeats=repeats, recipe=recipe)[0]
    passes = times.forward + times.backward + times.head
    n_parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    share = times.forward / max(1e-12, times.forward + times.backward)
    return Pace(passes / counted, share, times.update / max(1, n_parameters))


def measure_slices(
    network: PararealNetwork,
    example: Tensor,
    output_gradient: OutputGradient,
    *,
    repeats: int = 7,
    recipe: Recipe | None = None,
) -> list[SliceTimes]:
    """Seconds of each slice's work, one rank after the other, alone on this device; medians.

    Weights move as in training: pass a copy if that matters.
    """
    parts = network.parts
    flats = [FlatParameters([part]) for part in parts]
    optimizers = [FlatOptimizer(flat, recipe or Recipe(total_steps=1000)) for flat in flats]
    corrected: Tensor | None = None
    inputs_of: list[Tensor | None] = []
    with torch.no_grad():
        for part in parts:
            inputs_of.append(corrected)
            start = part.start(example)
            end = part.fine(start)
            corrected = end if corrected is None else end + part.correction(corrected - start)
    found = []
    for part, before, optimizer in zip(parts, inputs_of, optimizers, strict=True):
        rounds = [
            _one_round(part, example, before, optimizer, output_gradient, part is parts[-1])
            for _ in range(repeats + 2)
        ][2:]
        found.append(SliceTimes(*(statistics.median(column) for column in zip(*rounds, strict=True))))
    return found


def _one_round(
    part: Slice,
    example: Tensor,
    before: Tensor | None,
    optimizer: FlatOptimizer,
    output_gradient: OutputGradient,
    last: bool,
) -> tuple[float, ...]:
    clock = _Clock(example.device)
    optimizer.zero()
    zero = clock.lap()
    passage = Passage(part, example)
    forward = clock.lap()
    corrected = passage.correct(before)
    sweep = clock.lap()
    gradient = passage.finish(output_gradient)[1] if last else torch.ones_like(corrected)
    head = clock.lap() if last else 0.0 * clock.lap()
    back = passage.adjoint_coarse(gradient) if before is not None else None
    sweep_back = clock.lap()
    passage.adjoint_fine(gradient, back)
    backward = clock.lap()
    optimizer.step()
    update = zero + clock.lap()
    if before is None:
        sweep = sweep_back = 0.0
    return forward, backward, sweep, sweep_back, head, update


class _Clock:
    """Laps that wait for the device."""

    def __init__(self, device: torch.device) -> None:
        self._wait: Callable[[], object] = torch.cuda.synchronize if device.type == "cuda" else lambda: None
        self._wait()
        self._last = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the lap before."""
        self._wait()
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        return seconds


def core_wait() -> float:
    """Seconds for which this thread was ready to run and waited for a core, so far; 0 where nobody counts."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        return 1e-9 * int(Path("/proc/thread-self/schedstat").read_text(encoding="ascii").split()[1])
    return 0.0
