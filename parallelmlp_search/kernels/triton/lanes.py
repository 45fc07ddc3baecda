"""Launches of the persistent kernel that run one after the other, and their settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from parallelmlp_search._memory import is_out_of_memory
from parallelmlp_search.exceptions import DeviceError, one_line

FIRST_STEP_COLUMN, N_STEPS_COLUMN, ACTIVATION_COLUMN, START_COLUMN = 2, 3, 15, 16
"""Columns of a plan, see :data:`.training.PLAN_COLUMNS`."""


class KernelError(DeviceError):
    """A persistent kernel failed.

    Attributes
    ----------
    kernel
        Kernel in words.
    """

    kernel = ""


@dataclass(frozen=True, slots=True)
class Launch:
    """Rows of the plan for members of one compiled kernel, and the settings of that kernel."""

    plan: Tensor
    settings: dict[str, Any]
    n_warps: int

    @property
    def kernel(self) -> str:
        """Kernel in words, for messages."""
        given = self.settings
        widths = "x".join(str(given[f"H{layer + 1}_PAD"]) for layer in range(given["DEPTH"]))
        return (
            f"for up to {widths} neurons, {given['D']} inputs and {given['C']} outputs "
            f"({given['LOSS']}, {given['ACTIVATION']}, {given['PRECISION']})"
        )

    @property
    def n_scratch(self) -> int:
        """Size of the scratch of all programs, in elements."""
        return 3 * self.settings["SCRATCH"] * self.plan.shape[0] if self.settings["STREAM"] else 0


@dataclass(frozen=True, slots=True)
class Lane:
    """Launches that run one after the other, and therefore share a scratch."""

    launches: tuple[Launch, ...]
    scratch: Tensor
    stream: Any

    @classmethod
    def of(cls, launches: Sequence[Launch], dtype: torch.dtype, device: torch.device) -> Lane:
        """Return a lane of these launches, with its own stream on a CUDA device."""
        size = max(1, *(launch.n_scratch for launch in launches))
        stream = None
        if device.type == "cuda":
            stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        return cls(tuple(launches), torch.empty(size, dtype=dtype, device=device), stream)

    def run(self, start: Callable[[Launch, Tensor], None]) -> None:
        """Start each launch on the stream of the lane, after the work in the current stream.

        Raises
        ------
        KernelError
            If a launch fails, except for a lack of memory.
        """
        if self.stream is None:
            self._start_all(start)
            return
        self.stream.wait_stream(torch.cuda.current_stream(self.scratch.device))
        with torch.cuda.stream(self.stream):
            self._start_all(start)

    def _start_all(self, start: Callable[[Launch, Tensor], None]) -> None:
        for launch in self.launches:
            try:
                start(launch, self.scratch)
            except Exception as error:
                # the compiler raises errors of many types; the caller halves a shard that lacks memory
                if is_out_of_memory(error):
                    raise
                reason = f"{type(error).__name__}: {one_line(error)}"
                failure = KernelError(f"the persistent kernel {launch.kernel} failed ({reason})")
                failure.kernel = launch.kernel
                raise failure from error

    def join(self) -> None:
        """Make the current stream wait for the lane."""
        if self.stream is not None:
            torch.cuda.current_stream(self.scratch.device).wait_stream(self.stream)


def set_steps(
    plan: Tensor, first_steps: Sequence[int] | int, n_steps: Sequence[int] | int, first_position: int
) -> None:
    """Write the steps of a window into a plan.

    Parameters
    ----------
    plan
        Plan of a launch, one row per member.
    first_steps, n_steps
        First step and number of steps, of all members or of each stacked row.
    first_position
        Position of the first row of the window.
    """
    for column, values in ((FIRST_STEP_COLUMN, first_steps), (N_STEPS_COLUMN, n_steps)):
        if isinstance(values, int):
            plan[:, column] = values
        else:
            plan[:, column] = torch.tensor(list(values), device=plan.device)[plan[:, 0]]
    # positions of a long training exceed 32 bits; those in a window do not
    plan[:, START_COLUMN] = plan[:, FIRST_STEP_COLUMN] * plan[:, 1] - first_position
