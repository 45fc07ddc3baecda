"""Choice of acceleration for each bucket: persistent kernel, CUDA graph, or the plain training loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from parallelmlp_search.engine.parameter_groups import parameter_groups
from parallelmlp_search.exceptions import InvalidParameterError, near_miss
from parallelmlp_search.kernels.triton.availability import runs_on
from parallelmlp_search.kernels.triton.launch import obstacle
from parallelmlp_search.packing.layout import Layout
from parallelmlp_search.space import MLPConfig

ACCELERATIONS = ("auto", "none", "graph", "persistent")
"""``none``: the plain training loop. ``graph``: steps as CUDA graphs. ``persistent``: many steps in one
launch for the buckets that the kernel supports, graphs for the others; a kernel that fails is an error.
``auto``: ``persistent`` on a CUDA device with Triton, ``graph`` on one without, ``none`` on a CPU; a kernel
that fails is a warning, and graphs take over."""

COMPILE_SECONDS = 60.0
"""Time left below which ``auto`` compiles nothing. A kernel takes 3 to 10 s on one core of a CPU, once per
number of inputs and outputs, loss and width class; Triton caches it on disk."""


@dataclass(frozen=True, slots=True)
class AccelerationPlan:
    """Acceleration of each bucket; without any bucket the plain training loop is used.

    Attributes
    ----------
    persistent, graph
        Numbers of buckets.
    obstacles
        Reason why a bucket is not trained by the persistent kernel, by its number.
    """

    persistent: tuple[int, ...]
    graph: tuple[int, ...]
    obstacles: dict[int, str]

    @property
    def is_plain(self) -> bool:
        """True if the plain training loop is used."""
        return not (self.persistent or self.graph)

    def without_persistent(self, reason: str) -> AccelerationPlan:
        """Return the same plan with every bucket in the graph."""
        obstacles = self.obstacles | dict.fromkeys(self.persistent, reason)
        return AccelerationPlan((), tuple(sorted((*self.persistent, *self.graph))), obstacles)


def choose_acceleration(
    layout: Layout,
    configs: Sequence[MLPConfig],
    *,
    loss: str,
    dtype: torch.dtype,
    device: torch.device | str,
    acceleration: str = "auto",
    seconds_left: float | None = None,
) -> AccelerationPlan:
    """Choose the acceleration of each bucket of a population.

    Parameters
    ----------
    layout, configs
        Layout of the population, and configurations in stacked-row order.
    loss, dtype, device
        Name of the loss, and properties of the training rows.
    acceleration
        One of :data:`ACCELERATIONS`.
    seconds_left
        Time left for training, or None. With little time ``auto`` does not compile the persistent kernel.

    Returns
    -------
    AccelerationPlan

    Raises
    ------
    InvalidParameterError
        If ``acceleration`` is unknown, or is ``"persistent"`` without Triton.
    """
    if acceleration not in ACCELERATIONS:
        raise InvalidParameterError(
            f"acceleration must be one of {', '.join(ACCELERATIONS)}, but got {acceleration!r}"
            f"{near_miss(acceleration, ACCELERATIONS)}"
        )
    device = torch.device(device)
    numbers = tuple(range(len(layout.buckets)))
    if acceleration == "none" or (acceleration == "auto" and device.type != "cuda"):
        return AccelerationPlan((), (), {})
    triton_runs = runs_on(device)
    if acceleration == "persistent" and not triton_runs:
        raise InvalidParameterError(
            f"acceleration must not be 'persistent' on {device} without Triton: "
            "use 'auto', or install it with: pip install 'parallelmlp-search[gpu]'"
        )
    hurried = acceleration == "auto" and seconds_left is not None and seconds_left < COMPILE_SECONDS
    if acceleration == "graph" or hurried or not triton_runs:
        return AccelerationPlan((), numbers, {})
    obstacles = {}
    for number, bucket in enumerate(layout.buckets):
        reason = obstacle(bucket, loss=loss, dtype=dtype)
        groups = parameter_groups(bucket, configs[layout.stacked_rows(number)])
        if reason is None and any(group.has_factors for group in groups):
            reason = "the kernel does not support different learning rates of parameters"
        if reason is None and bucket.shape.signs:
            reason = "the kernel does not support bounds of weights"
        if reason is not None:
            obstacles[number] = reason
    return AccelerationPlan(
        persistent=tuple(number for number in numbers if number not in obstacles),
        graph=tuple(obstacles),
        obstacles=obstacles,
    )
