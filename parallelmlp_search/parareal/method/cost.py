"""What slices over devices would cost: critical path, communication, efficiency, before anything is cut.

A step of a parareal network on ``T`` devices is played through, event by event: preprocessors and fine
networks at once, the coarse sweep from slice to slice, head and loss, the sweep back, all fine backward
passes and updates at once. A message costs latency plus bytes over bandwidth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.parareal.method.blocks import counted_cost, dry_run
from parallelmlp_search.parareal.method.coarse_networks import automatic_coarse, automatic_preprocessor
from parallelmlp_search.parareal.method.decompose import plan_cuts
from parallelmlp_search.parareal.method.profiling import Pace, SliceTimes

__all__ = ["LOOPBACK", "Link", "Prediction", "play", "predict_slices", "predictions", "recommended"]

MIN_EFFICIENCY, MIN_SPEEDUP = 0.5, 1.15


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


LOOPBACK = Link(1e-5, 1e10)
"""Two processes of one host, each on a core of its own, over a Unix socket, as measured on two cores of an
AMD EPYC. Over gloo a message takes some 80 us."""


@dataclass(frozen=True)
class Prediction:
    """A step on ``slices`` devices.

    Attributes
    ----------
    serial, step
        Seconds of a step of the serial network on one device, and of this one on ``slices``.
    fine, sweep, communication, update
        What the critical path is made of, seconds: the dearest slice's fine work, the coarse sweeps with head
        and loss, messages, the dearest update.
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


def play(times: Sequence[SliceTimes], messages: Sequence[float], norm: float | None = None) -> float:
    """Seconds of one step on as many devices as there are slices.

    Parameters
    ----------
    times
        Work of each slice.
    messages
        Seconds of a message between slices ``j`` and ``j + 1``, one way, ``T - 1`` of them.
    norm
        Seconds of a message with a number, where gradients are clipped by the norm of the whole network,
        which is added up from slice to slice and sent back before anybody updates.
    """
    ready = times[0].forward
    for j in range(1, len(times)):
        ready = max(times[j].forward, ready + messages[j - 1]) + times[j].sweep
    back = ready + times[-1].head
    ends = []
    for j in range(len(times) - 1, -1, -1):
        back += times[j].sweep_back
        ends.append(back + times[j].backward)
        if j:
            back += messages[j - 1]
    ends.reverse()
    if norm is not None:
        summed = ends[0]
        for end in ends[1:]:
            summed = max(end, summed + norm)
        ends = [summed + norm * (len(times) - 1 - j) for j in range(len(times))]
    return max(end + slice_.update for end, slice_ in zip(ends, times, strict=True))


def predict_slices(
    times: Sequence[SliceTimes],
    serial: float,
    interface_bytes: Sequence[float],
    link: Link,
    parameters: int = 0,
    *,
    clipped: bool = False,
) -> Prediction:
    """A prediction from the work of each slice and the bytes of each interface."""
    messages = [link.seconds(size) for size in interface_bytes]
    norm = link.seconds(8.0) if clipped else None
    return Prediction(
        slices=len(times),
        serial=serial,
        step=play(times, messages, norm),
        fine=max(t.forward for t in times) + max(t.backward for t in times),
        sweep=sum(t.sweep + t.sweep_back + t.head for t in times),
        communication=2.0 * (sum(messages) + len(messages) * (norm or 0.0)),
        update=max(t.update for t in times),
        parameters=parameters,
    )


def predictions(
    model: nn.Sequential,
    example: Tensor,
    slices: Sequence[int],
    *,
    pace: Pace,
    link: Link,
    head: int = 1,
    clipped: bool = False,
) -> list[Prediction]:
    """Predictions for several numbers of slices, those left out that the network has too few blocks for.

    Cuts are those that suit the link. Nothing is built or trained: operations are counted, and a pace turns
    them into seconds. ``clipped`` says whether gradients are clipped, for which ranks exchange their norms.
    """
    facts = dry_run(list(model), example)
    n_blocks = len(model) - head
    middle = example.shape[0] * math.prod(facts[n_blocks // 2].inputs) * example.element_size()
    message = link.seconds(middle) / pace.per_operation
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
        cut = plan_cuts(model, count, example, head=head, message=message)
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
        found.append(predict_slices(times, serial, sizes, link, n_total, clipped=clipped))
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
        cost = counted_cost(bridge, rows, first=kind == "guess")
        known[key] = cost, sum(p.numel() for p in bridge.parameters())
    return known[key]


def recommended(found: Sequence[Prediction]) -> int:
    """Slices to use: the fastest that keep every device busy for half of the time, or 1 if none gains 15
    %."""
    good = [p for p in found if p.efficiency >= MIN_EFFICIENCY and p.speedup >= MIN_SPEEDUP]
    return min(good, key=lambda p: (p.step, p.slices)).slices if good else 1
