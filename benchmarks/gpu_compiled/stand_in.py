"""Driver of Triton for a GPU that is not there: kernels are compiled, and launches are counted but not run.

The launch code of the package runs as it is, with tensors of the CPU, so that what is counted is what a GPU
would get: compiled variants, launches, and machine code. Needs Triton 3.6 or newer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any
from unittest import mock

import triton
from triton.backends.compiler import GPUTarget

from parallelmlp_search.kernels.triton import availability

SHARED_BYTES = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}
"""Shared memory of a multiprocessor of an A100, an H100 or H200, and a B200."""


_DEVICES = count()


@dataclass(frozen=True)
class CompiledKernel:
    """Machine code of a kernel for one capability, and the settings that it was compiled for."""

    name: str
    capability: int
    settings: dict[str, Any]
    n_warps: int
    shared_bytes: int
    cubin: bytes


class StandIn:
    """Driver for one capability.

    Parameters
    ----------
    capability
        Compute capability times ten, such as 90.

    Attributes
    ----------
    kernels
        Kernels that were compiled, in the order of their first launches.
    launches
        Number of launches by name of the kernel.
    """

    def __init__(self, capability: int = 90) -> None:
        self.capability = capability
        self._device = next(_DEVICES)
        self.kernels: list[CompiledKernel] = []
        self.launches: Counter[str] = Counter()
        self.utils = self
        self._source: Any = None

    def get_current_target(self) -> GPUTarget:
        """Return the device to compile for."""
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        """Return the number of the device; Triton keeps kernels by it, so that a new driver has none."""
        return self._device

    def get_current_stream(self, device: int | None = None) -> int:
        """Return the default stream."""
        return 0

    def get_device_properties(self, device: int) -> dict[str, int]:
        """Return what Triton checks before a launch."""
        return {"max_shared_mem": SHARED_BYTES[self.capability], "warpSize": 32}

    def launcher_cls(self, source: Any, metadata: Any) -> Any:
        """Return the launcher of a kernel, which counts."""
        self._source = source, metadata

        def launch(*arguments: Any, **options: Any) -> None:
            self.launches[source.fn.__name__] += 1

        return launch

    def load_binary(self, name: str, binary: bytes, shared: int, device: int) -> tuple[Any, ...]:
        """Keep the machine code; return module, function, registers, spills and most threads."""
        source, metadata = self._source
        names = source.fn.arg_names
        settings = {names[path[0]]: value for path, value in source.constants.items()}
        self.kernels.append(
            CompiledKernel(name, self.capability, settings, metadata.num_warps, shared, binary)
        )
        return name, name, 0, 0, 1024

    def unload_module(self, module: Any) -> None:
        """Do nothing."""


@contextmanager
def stand_in(capability: int = 90) -> Iterator[StandIn]:
    """Compile for a GPU inside the context, and count launches.

    The driver stays in use afterwards, since Triton unloads its kernels through it.

    Parameters
    ----------
    capability
        Compute capability times ten.

    Yields
    ------
    StandIn
    """
    driver = StandIn(capability)
    triton.runtime.driver.set_active(driver)
    with mock.patch.object(availability, "runs_on", return_value=True):
        yield driver
