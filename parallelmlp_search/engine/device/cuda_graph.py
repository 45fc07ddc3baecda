"""Work that is captured once as a CUDA graph and replayed: one launch instead of hundreds.

A graph is a list of kernels with the addresses they had when it was captured. Whatever the work reads must
stay where it was, and the host may not look at a result meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

__all__ = ["Capture", "GraphedStep", "capture_on_cuda"]

WARM_UP_STEPS = 4
"""Steps taken one by one before anything is captured: libraries set themselves up at their first call. Among
any four consecutive steps is one that averages."""


class Capture(Protocol):
    """Records work and returns what replays it."""

    def __call__(self, work: Callable[[], None]) -> Callable[[], None]:
        """A function that does again exactly what ``work`` did, on the same tensors."""
        ...


def capture_on_cuda(device: torch.device) -> Capture:
    """Captures of a device; its graphs share one pool of memory, since they never run at once."""
    pool = torch.cuda.graph_pool_handle()
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def capture(work: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize(device)
        # thread_local: another thread may load data to the device meanwhile
        with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            work()
        replay: Callable[[], None] = graph.replay
        return replay

    return capture


class GraphedStep:
    """Takes steps, from the fifth on by replaying a graph.

    Parameters
    ----------
    take
        ``take(averaging)`` takes one step.
    capture
        How work is captured.
    """

    def __init__(self, take: Callable[[bool], None], capture: Capture) -> None:
        self._take = take
        self._capture = capture
        self._taken = 0
        self._replays: dict[bool, Callable[[], None]] = {}

    def __call__(self, averaging: bool) -> None:
        """Take one step; steps with and without averaging are graphs of their own."""
        self._taken += 1
        if self._taken <= WARM_UP_STEPS:
            self._take(averaging)
            return
        if averaging not in self._replays:
            # capturing does not run anything
            self._replays[averaging] = self._capture(lambda: self._take(averaging))
        self._replays[averaging]()
