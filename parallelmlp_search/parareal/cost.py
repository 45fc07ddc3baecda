"""What slices over devices would cost: critical path, communication, efficiency, before anything is cut.

A step of a parareal network on ``T`` devices is played through, event by event: preprocessors and fine
networks at once, the coarse sweep from slice to slice, head and loss, the sweep back, all fine backward
passes and updates at once. A message costs latency plus bytes over bandwidth.
"""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.parareal.blocks import counted_cost, dry_run
from parallelmlp_search.parareal.bridges import automatic_coarse, automatic_preprocessor
from parallelmlp_search.parareal.decompose import plan_cuts
from parallelmlp_search.parareal.network import OutputGradient, PararealNetwork, Passage, Slice
from parallelmlp_search.parareal.recipe import FlatOptimizer, FlatParameters, Recipe

__all__ = [
    "LOOPBACK",
    "Link",
    "Pace",
    "Prediction",
    "SliceTimes",
    "measure_pace",
    "measure_slices",
    "play",
    "predict_slices",
    "predictions",
    "recommended",
]

FORWARD_SHARE = 1.0 / 3.0
"""Of forward and backward together: one product of three."""

LEAST_EFFICIENCY, LEAST_SPEEDUP = 0.5, 1.15


@dataclass(frozen=True)
class Link:
    """A connection between two devices.

    Attributes
    ----------
    latency
        Seconds of an empty message, one way.
    bandwidth
        Bytes a second.
    """

    latency: float
    bandwidth: float

    def __post_init__(self) -> None:
        if not (self.latency >= 0 and self.bandwidth > 0):
            raise InvalidParameterError(
                f"a link must have latency >= 0 and bandwidth > 0, "
                f"but got {self.latency} and {self.bandwidth}"
            )

    def seconds(self, n_bytes: float) -> float:
        """Seconds of a message."""
        return self.latency + n_bytes / self.bandwidth


LOOPBACK = Link(8e-5, 4e9)
"""gloo between two processes of one host, as measured on two cores of an AMD EPYC."""


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
class Prediction:
    """A step on ``slices`` devices.

    Attributes
    ----------
    serial, step
        Seconds of a step of the serial network on one device, and of this one on ``slices``.
    fine, sweep, communication, update
        What the critical path is made of, seconds: the dearest slice's fine work, the coarse sweeps with head
        and
        loss, messages, the dearest update.
    parameters
        Trainable numbers of the parareal network, 0 if unknown.
    """

    slices: int
    serial: float
    step: float
    fine: float
    sweep: float
    communication: float
    update: float
    parameters: int = 0

    @property
    def speedup(self) -> float:
        """How many times faster than the serial network."""
        return self.serial / self.step

    @property
    def efficiency(self) -> float:
        """Speed-up per device."""
        return self.speedup / self.slices


def play(times: Sequence[SliceTimes], messages: Sequence[float]) -> float:
    """Seconds of one step on as many devices as there are slices.

    Parameters
    ----------
    times
        Work of each slice.
    messages
        Seconds of a message between slices ``j`` and ``j + 1``, one way, ``T - 1`` of them.
    """
    ready = times[0].forward
    for j in range(1, len(times)):
        ready = max(times[j].forward, ready + messages[j - 1]) + times[j].sweep
    back = ready + times[-1].head
    ends = []
    for j in range(len(times) - 1, -1, -1):
        back += times[j].sweep_back
        ends.append(back + times[j].backward + times[j].update)
        if j:
            back += messages[j - 1]
    return max(ends)


def predict_slices(
    times: Sequence[SliceTimes],
    serial: float,
    interface_bytes: Sequence[float],
    link: Link,
    parameters: int = 0,
) -> Prediction:
    """A prediction from the work of each slice and the bytes of each interface."""
    messages = [link.seconds(size) for size in interface_bytes]
    return Prediction(
        slices=len(times),
        serial=serial,
        step=play(times, messages),
        fine=max(t.forward for t in times) + max(t.backward for t in times),
        sweep=sum(t.sweep + t.sweep_back + t.head for t in times),
        communication=2.0 * sum(messages),
        update=max(t.update for t in times),
        parameters=parameters,
    )


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


def measure_pace(model: nn.Sequential, example: Tensor, *, repeats: int = 7) -> Pace:
    """The pace of the device that ``example`` is on, from steps of the serial network."""
    network = PararealNetwork([Slice(copy.deepcopy(model))])
    counted = counted_cost(model, example)
    times = measure_slices(network, example, lambda y: (y.sum(), torch.ones_like(y)), repeats=repeats)[0]
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


def predictions(
    model: nn.Sequential,
    example: Tensor,
    slices: Sequence[int],
    *,
    pace: Pace,
    link: Link,
    head: int = 1,
) -> list[Prediction]:
    """Predictions for several numbers of slices, those left out that the network has too few blocks for.

    Nothing is built or trained: operations are counted, and a pace turns them into seconds.
    """
    facts = dry_run(list(model), example)
    n_blocks = len(model) - head
    tail = sum(fact.cost for fact in facts[n_blocks:])
    n_head = sum(fact.parameters for fact in facts[n_blocks:])
    n_serial = sum(fact.parameters for fact in facts)
    counted = sum(fact.cost for fact in facts)
    serial = counted * pace.per_operation + n_serial * pace.per_parameter
    bridges: dict[tuple[str, tuple[int, ...], tuple[int, ...]], tuple[float, int]] = {}
    found = []
    for count in slices:
        if count > n_blocks:
            continue
        cut = plan_cuts(model, count, example, head=head)
        bounds = (*cut.starts, cut.n_blocks)
        times, n_total = [], 0
        for j in range(count):
            n_mine = sum(fact.parameters for fact in facts[bounds[j] : bounds[j + 1]])
            operations, sweep = cut.costs[j], 0.0
            if j:
                before, after = cut.shapes[j], cut.shapes[j + 1]
                guess = _bridge_cost(bridges, "guess", cut.shapes[0], before, example)
                coarse = _bridge_cost(bridges, "coarse", before, after, example)
                operations += guess[0]
                sweep = coarse[0] * pace.per_operation
                n_mine += guess[1] + coarse[1]
            last = j == count - 1
            n_mine += n_head if last else 0
            n_total += n_mine
            seconds = operations * pace.per_operation
            times.append(
                SliceTimes(
                    forward=seconds * pace.forward_share,
                    backward=seconds * (1.0 - pace.forward_share),
                    sweep=sweep * pace.forward_share,
                    sweep_back=sweep * (1.0 - pace.forward_share),
                    head=tail * pace.per_operation if last else 0.0,
                    update=n_mine * pace.per_parameter,
                )
            )
        sizes = [example.shape[0] * math.prod(shape) * example.element_size() for shape in cut.shapes[1:-1]]
        found.append(predict_slices(times, serial, sizes, link, n_total))
    return found


def _bridge_cost(
    known: dict[tuple[str, tuple[int, ...], tuple[int, ...]], tuple[float, int]],
    kind: str,
    inputs: tuple[int, ...],
    outputs: tuple[int, ...],
    example: Tensor,
) -> tuple[float, int]:
    """Operations and parameters of an automatic preprocessor or coarse network."""
    key = (kind, inputs, outputs)
    if key not in known:
        make = automatic_preprocessor if kind == "guess" else automatic_coarse
        with torch.random.fork_rng(devices=[]):
            bridge = make(inputs, outputs).to(example.device, example.dtype)
        rows = example.new_zeros(example.shape[0], *inputs)
        known[key] = counted_cost(bridge, rows), sum(p.numel() for p in bridge.parameters())
    return known[key]


def recommended(found: Sequence[Prediction]) -> int:
    """Slices to use: the fastest that keep every device busy for half of the time, or 1 if none gains 15
    %."""
    good = [p for p in found if p.efficiency >= LEAST_EFFICIENCY and p.speedup >= LEAST_SPEEDUP]
    return min(good, key=lambda p: (p.step, p.slices)).slices if good else 1
