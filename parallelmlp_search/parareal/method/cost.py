"""Cost model: step time, communication and efficiency of slices over devices, without building them.

A step of a parareal network on ``T`` devices is simulated event by event: preprocessors and fine networks in
parallel, the coarse sweep from slice to slice, head and loss, the backward sweep, all fine backward passes
and updates in parallel. A message costs its latency plus its bytes divided by the bandwidth.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from parallelmlp_search._checks import check_non_negative, check_positive
from parallelmlp_search.parareal.method.blocks import ModelProfile, Shape, profile_model
from parallelmlp_search.parareal.method.coarse_networks import automatic_coarse, automatic_preprocessor
from parallelmlp_search.parareal.method.decompose import Partition, plan_partition
from parallelmlp_search.parareal.method.profiling import DeviceSpeed, SliceTimes

MIN_EFFICIENCY, MIN_SPEEDUP = 0.5, 1.15
"""Efficiency and speed-up from which a number of slices is recommended."""


@dataclass(frozen=True)
class Link:
    """Connection between two devices."""

    latency: float  # seconds of an empty message, one way
    bandwidth: float  # bytes per second

    def __post_init__(self) -> None:
        check_non_negative("latency", self.latency)
        check_positive("bandwidth", self.bandwidth)

    def seconds(self, n_bytes: float) -> float:
        """Return the seconds of a message."""
        return self.latency + n_bytes / self.bandwidth


LOOPBACK = Link(1e-5, 1e10)
"""Two processes of one host, each on its own core, over a Unix socket; measured on two cores of an AMD EPYC.
A message over gloo takes 80 us."""


@dataclass(frozen=True)
class StepPrediction:
    """Predicted step on ``slices`` devices, in seconds.

    ``fine``, ``sweep``, ``communication`` and ``update`` are the parts of the critical path.
    """

    slices: int
    serial: float  # of the serial network on one device
    step: float
    fine: float  # longest fine work of a slice
    sweep: float  # coarse sweeps, head and loss
    communication: float
    update: float  # longest update of a slice
    parameters: int  # of the parareal network

    @property
    def speedup(self) -> float:
        """Step time of the serial network divided by that of this one."""
        return self.serial / self.step

    @property
    def efficiency(self) -> float:
        """Speed-up per device."""
        return self.speedup / self.slices


def simulate_step(times: Sequence[SliceTimes], messages: Sequence[float], norm: float | None = None) -> float:
    """Simulate one step on as many devices as there are slices.

    Parameters
    ----------
    times
        Work of each slice.
    messages
        Seconds of a message between slices ``j`` and ``j + 1``, one way, ``T - 1`` of them.
    norm
        Seconds of a message with one number, if gradients are clipped: the norm of the whole network is
        summed from slice to slice and sent back before the update.

    Returns
    -------
    float
        Seconds.
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


def predict_steps(
    model: nn.Sequential,
    example: Tensor,
    slices: Sequence[int],
    *,
    speed: DeviceSpeed,
    link: Link,
    clipped: bool = False,
) -> list[StepPrediction]:
    """Predict steps for several numbers of slices.

    Parameters
    ----------
    model
        The serial network, the last block of which is the head. Its operations are counted.
    example
        A minibatch ``(N, ...)``.
    slices
        Numbers of slices. Those larger than the number of blocks are left out.
    speed, link
        Devices and their connection. The cuts are those that suit the link.
    clipped
        True if gradients are clipped, for which ranks exchange their norms.

    Returns
    -------
    list of StepPrediction
    """
    profile = profile_model(model, example)
    blocks = profile.blocks
    serial = sum(b.cost for b in blocks) * speed.per_operation
    serial += sum(b.n_parameters for b in blocks) * speed.per_parameter
    message = link.seconds(profile.n_bytes(profile.middle)) / speed.per_operation
    norm = link.seconds(8.0) if clipped else None

    @functools.cache
    def connectors(before: Shape, after: Shape) -> tuple[float, float, int]:
        with torch.random.fork_rng(devices=[]):
            guess = automatic_preprocessor(tuple(example.shape[1:]), before)
            coarse = automatic_coarse(before, after)
        costs = profile.cost(guess, example), profile.cost(coarse, profile.minibatch(before))
        return *costs, sum(p.numel() for module in (guess, coarse) for p in module.parameters())

    found = []
    for count in (count for count in slices if count <= profile.n_blocks):
        partition = plan_partition(profile, count, message=message)
        times, n_parameters = _slice_times(profile, partition, speed, connectors)
        messages = [link.seconds(profile.n_bytes(shape)) for shape in partition.shapes[1:-1]]
        found.append(
            StepPrediction(
                slices=count,
                serial=serial,
                step=simulate_step(times, messages, norm),
                fine=max(t.forward for t in times) + max(t.backward for t in times),
                sweep=sum(t.sweep + t.sweep_back + t.head for t in times),
                communication=2.0 * (sum(messages) + len(messages) * (norm or 0.0)),
                update=max(t.update for t in times),
                parameters=n_parameters,
            )
        )
    return found


def _slice_times(
    profile: ModelProfile,
    partition: Partition,
    speed: DeviceSpeed,
    connectors: Callable[[Shape, Shape], tuple[float, float, int]],
) -> tuple[list[SliceTimes], int]:
    """Predicted times of each slice, and the number of parameters of all.

    ``connectors`` returns the costs of preprocessor and coarse network, and their number of parameters.
    """
    times, n_total = [], 0
    for j, operations in enumerate(partition.costs):
        begin, end = partition.bounds[j : j + 2]
        n_parameters = sum(block.n_parameters for block in profile.blocks[begin:end])
        sweep = head = 0.0
        if j:
            before, after = partition.shapes[j : j + 2]
            guess, coarse, n_connectors = connectors(before, after)
            operations += guess
            sweep = coarse * speed.per_operation
            n_parameters += n_connectors
        if j == len(partition.costs) - 1:
            tail = profile.blocks[profile.n_blocks :]
            head = sum(block.cost for block in tail) * speed.per_operation
            n_parameters += sum(block.n_parameters for block in tail)
        n_total += n_parameters
        seconds = operations * speed.per_operation
        times.append(
            SliceTimes(
                forward=seconds * speed.forward_share,
                backward=seconds * (1.0 - speed.forward_share),
                sweep=sweep * speed.forward_share,
                sweep_back=sweep * (1.0 - speed.forward_share),
                head=head,
                update=n_parameters * speed.per_parameter,
            )
        )
    return times, n_total


def recommended_slices(predictions: Sequence[StepPrediction]) -> int:
    """Return the fastest number of slices with at least 50 % efficiency and 15 % gain, or 1."""
    good = [p for p in predictions if p.efficiency >= MIN_EFFICIENCY and p.speedup >= MIN_SPEEDUP]
    return min(good, key=lambda p: (p.step, p.slices)).slices if good else 1
