"""Kernels start on the device of their tensors: Triton itself starts them on the current one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from parallelmlp_search.engine.population import FLAT_NAMES
from parallelmlp_search.kernels.triton import flat_step_launch, ragged_launch
from parallelmlp_search.kernels.triton.availability import current
from parallelmlp_search.kernels.triton.flat_step_launch import FlatOptimizer
from parallelmlp_search.kernels.triton.ragged_launch import triton_backward, triton_forward
from parallelmlp_search.packing import Architecture, MatmulLayout, plan


class Launches:
    """Kernel that notes which device is current when it is launched."""

    def __init__(self) -> None:
        self.current: torch.device | None = None
        self.devices: list[torch.device | None] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return lambda *arguments, **options: self.devices.append(self.current)

    @contextmanager
    def made_current(self, device: torch.device) -> Iterator[None]:
        self.current = device
        yield
        self.current = None


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Launches:
    noted = Launches()
    kernels = dict.fromkeys(("flat_step", "product_tiles", "outer_tiles"), noted)
    for module in (flat_step_launch, ragged_launch):
        monkeypatch.setattr(module, "current", noted.made_current)
        monkeypatch.setattr(module, "kernel_module", lambda *a, **o: SimpleNamespace(**kernels))
    return noted


def test_a_second_device_is_made_the_current_one() -> None:
    context: Any = current("cuda:1")
    assert isinstance(context, torch.cuda.device)
    assert context.idx == 1
    with current("cpu"):
        pass


def test_the_optimizer_starts_on_the_device_of_its_buffers(launches: Launches) -> None:
    layout = plan([Architecture(3, (4,), 2)], n_rows=8)
    groups = [[(torch.ones(3, 1, dtype=torch.float64), layout.buckets[0].blocks)]]
    optimizer = FlatOptimizer(layout, [0], "cpu", groups)
    flats = dict.fromkeys(FLAT_NAMES, torch.zeros(layout.size))
    table = torch.zeros(1, 4, 1)
    optimizer.step(
        flats, flats["parameters"], table, table[:, 0, 0], torch.zeros(1), torch.zeros(5, 1), averaging=True
    )
    assert launches.devices == [torch.device("cpu")]


def test_ragged_products_start_on_the_device_of_their_tensors(launches: Launches) -> None:
    layout = MatmulLayout((2, 3), (1, 4))
    activations, weight = torch.ones(layout.n_in, 5), torch.ones(layout.n_weights)
    triton_forward(activations, weight, layout)
    triton_backward(torch.ones(layout.n_out, 5), activations, weight, layout)
    assert launches.devices == 3 * [torch.device("cpu")]
