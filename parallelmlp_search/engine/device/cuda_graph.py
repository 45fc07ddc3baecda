"""Capture of a training step as a CUDA graph, which replays hundreds of kernels with one launch.

A graph is a list of kernels with the addresses at the time of the capture. All tensors must keep their
addresses, and captured code must not read results on the host.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from parallelmlp_search.engine.settings import Capture

WARM_UP_STEPS = 4
"""Steps before the first capture, in which libraries initialize themselves. One of any four consecutive steps
updates the averaged weights."""


def capture_on_cuda(device: torch.device) -> Capture:
    """Return the capture of a device; its graphs share one memory pool, since they never run at once."""
    pool = torch.cuda.graph_pool_handle()
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def capture(work: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize(device)
        # thread_local: another thread may copy data to the device meanwhile
        with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            work()
        replay: Callable[[], None] = graph.replay
        return replay

    return capture


class GraphedStep:
    """Steps that are replayed as a graph after :data:`WARM_UP_STEPS`.

    Parameters
    ----------
    take
        ``take(averaging)`` takes one step.
    capture
        Capture of the device.
    """

    def __init__(self, take: Callable[[bool], None], capture: Capture) -> None:
        self._take = take
        self._capture = capture
        self._taken = 0
        self._replays: dict[bool, Callable[[], None]] = {}

    def __call__(self, averaging: bool) -> None:
        """Take one step; steps with and without averaging are separate graphs."""
        self._taken += 1
        if self._taken <= WARM_UP_STEPS:
            self._take(averaging)
            return
        if averaging not in self._replays:
            # a capture does not run the work
            self._replays[averaging] = self._capture(lambda: self._take(averaging))
        self._replays[averaging]()
