"""Which buckets a device trains how: in the persistent kernel, as a CUDA graph, or step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from parallelmlp_search.engine.parameter_groups import factor_groups
from parallelmlp_search.exceptions import InvalidParameterError, near_miss
from parallelmlp_search.kernels.triton.availability import runs_on
from parallelmlp_search.kernels.triton.launch import obstacle
from parallelmlp_search.packing.layout import Layout
from parallelmlp_search.space import MLPConfig

__all__ = ["ACCELERATIONS", "AccelerationPlan", "choose_acceleration"]

ACCELERATIONS = ("auto", "none", "graph", "persistent")
"""``none``: step by step, as on a CPU. ``graph``: whole steps as CUDA graphs. ``persistent``: many steps in
one launch, for the buckets that the kernel can train, graphs for the others. ``auto``: ``persistent`` on a
CUDA device where Triton is installed, ``graph`` on one where it is not, ``none`` on a CPU."""


COMPILE_SECONDS = 60.0
"""Time left below which ``auto`` compiles nothing: a kernel takes 3 to 10 s on one core of a CPU, once for
each number of inputs and outputs, loss and width class; Triton keeps it on disk."""


@dataclass(frozen=True, slots=True)
class AccelerationPlan:
    """Buckets by how they are trained; both empty means step by step.

    Attributes
    ----------
    persistent, graph
        Numbers of buckets.
    obstacles
        Why a bucket is not trained by the persistent kernel, by its number.
    """

    persistent: tuple[int, ...]
    graph: tuple[int, ...]
    obstacles: dict[int, str]

    @property
    def is_plain(self) -> bool:
        """Whether the ordinary training loop is to be used."""
        return not (self.persistent or self.graph)

    def without_persistent(self, reason: str) -> AccelerationPlan:
        """The same with every bucket in the graph."""
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
    """Decide for each bucket of a layout, given the configurations of its stacked rows.

    A member in the persistent kernel pays neither launches nor the way of its weights through device memory,
    so whatever fits is trained there, unless ``auto`` is to decide and the time left is short
    (:data:`COMPILE_SECONDS`).

    Raises
    ------
    InvalidParameterError
        If ``acceleration`` is unknown, or is ``"persistent"`` where Triton cannot run.
    """
    if acceleration not in ACCELERATIONS:
        raise InvalidParameterError(
            f"acceleration must be one of {', '.join(ACCELERATIONS)}, but got {acceleration!r}"
            f"{near_miss(acceleration, ACCELERATIONS)}"
        )
    on_cuda = torch.device(device).type == "cuda"
    everything = tuple(range(len(layout.buckets)))
    if acceleration == "none" or (acceleration == "auto" and not on_cuda):
        return AccelerationPlan((), (), {})
    triton_runs = runs_on(device)
    if acceleration == "persistent" and not triton_runs:
        raise InvalidParameterError(
            f"acceleration must not be 'persistent' on {torch.device(device)} without Triton: "
            "take 'auto', or install it with: pip install 'parallelmlp-search[gpu]'"
        )
    hurried = acceleration == "auto" and seconds_left is not None and seconds_left < COMPILE_SECONDS
    if acceleration == "graph" or hurried or not triton_runs:
        return AccelerationPlan((), everything, {})
    found = {n: obstacle(bucket, loss=loss, dtype=dtype) for n, bucket in enumerate(layout.buckets)}
    for n, bucket in enumerate(layout.buckets):
        groups = factor_groups(bucket, configs[layout.row_offsets[n] : layout.row_offsets[n + 1]])
        if found[n] is None and not all(factors.are_one for factors, _ in groups):
            found[n] = "parameters that learn at different rates are not in the kernel"
    return AccelerationPlan(
        persistent=tuple(n for n in everything if found[n] is None),
        graph=tuple(n for n in everything if found[n] is not None),
        obstacles={n: reason for n, reason in found.items() if reason is not None},
    )
