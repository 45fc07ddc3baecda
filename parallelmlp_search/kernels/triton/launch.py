"""Launches of the persistent kernel for the members of a layout.

The members of a launch share everything that the kernel is compiled for: depth, optimizer, bias, clipping and
padded widths. The kernel is imported when it is launched, so this module needs torch only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from parallelmlp_search.kernels.triton.availability import kernel_module, tile_precision
from parallelmlp_search.kernels.triton.lanes import ACTIVATION_COLUMN, Lane, Launch, set_steps
from parallelmlp_search.packing.architecture import Architecture
from parallelmlp_search.packing.layout import Bucket, Layout
from parallelmlp_search.space import ACTIVATIONS

CONSTANTS = ("mix_first", "mix_second", "momentum", "clip_norm", "smoothing")
"""Rows of the table of constants of each member."""

KERNEL_LOSSES = ("cross_entropy", "binary_logits", "squared_error")

ON_CHIP_WEIGHTS = 4096
"""Largest number of padded hidden weights for which moments and averages stay in registers.

Larger members use ``STREAM``. With 100 inputs and mixed activations in float32, kernels for sm_90 store 32
and 64 spilled bytes per thread at widths 16 and 32, whose moments stay in registers, and 472 and 2,908 at
widths 64 and 128, with ``STREAM`` (Triton 3.9; ``benchmarks/results/gpu_compiled.json`` has all kernels)."""

MAX_WEIGHTS = 16384
"""Largest number of padded hidden weights that fit one multiprocessor: 128 neurons with 128 inputs."""

MAX_OUTPUTS = 64
"""Largest number of padded outputs."""

N_LANES = 8
"""Launches that may run at once, so that the last programs of a launch leave no multiprocessor idle."""


def padded(size: int) -> int:
    """Return the smallest power of two that is at least 16 and ``size``."""
    return max(16, 1 << (size - 1).bit_length())


def _hidden_weights(shape: Architecture, widths: Sequence[int]) -> int:
    total, fan_in = 0, shape.n_inputs
    for width in widths:
        total += padded(width) * padded(fan_in)
        fan_in = width
    return total


def obstacle(bucket: Bucket, *, loss: str, dtype: torch.dtype) -> str | None:
    """Return the reason why the persistent kernel cannot train a bucket, or None if it can."""
    shape = bucket.shape
    if dtype != torch.float32:
        return f"weights are {str(dtype).removeprefix('torch.')}, not float32"
    if loss not in KERNEL_LOSSES:
        return f"the loss {loss} is not supported by the kernel"
    if shape.depth not in (1, 2):
        return f"{shape.depth} hidden layers are not supported by the kernel"
    if shape.dropout:
        return "dropout is not supported by the kernel"
    if shape.normalization != "none":
        return "normalization is not supported by the kernel"
    if shape.n_periodic:
        return "embeddings are not supported by the kernel"
    if any(shape.residual):
        return "residual layers are not supported by the kernel"
    if shape.scaled:
        return "scales of inputs are not supported by the kernel"
    if shape.is_expanded:
        return "submembers that share weights and embedded categories are not supported by the kernel"
    if padded(shape.n_outputs) > MAX_OUTPUTS:
        return f"{shape.n_outputs} outputs are too many for one multiprocessor"
    if max(_hidden_weights(shape, a.widths) for a in bucket.architectures) > MAX_WEIGHTS:
        return "a member is too large for one multiprocessor"
    return None


def _warps(largest: int) -> int:
    """Warps of a program by the size of its largest tensor; few, so that several programs run at once."""
    if largest <= 2048:
        return 4
    return 8 if largest <= 8192 else 16


@dataclass(frozen=True, slots=True)
class StepTables:
    """Inputs of the steps of one call.

    Attributes
    ----------
    order
        int32: row number at each position of the stream from ``first_position`` on.
    first_position
        Position of ``order[0]``.
    coefficients
        ``(steps, 4, P)``: rate, keep (for SGD the decay), scale and offset of each step.
    shares
        ``(steps,)``: share of the new weights in their average, 0 for no update.
    """

    order: Tensor
    first_position: int
    coefficients: Tensor
    shares: Tensor

    @property
    def n_steps(self) -> int:
        """Number of steps."""
        return int(self.shares.shape[0])


class PersistentTraining:
    """Training of the members of some buckets with many steps per launch.

    Parameters
    ----------
    layout
        Layout of the flat buffers.
    buckets
        Numbers of the buckets to train; :func:`obstacle` of each must be None.
    loss
        One of ``cross_entropy``, ``binary_logits``, ``squared_error``.
    batch_sizes
        Minibatch size of each stacked row; members may differ.
    weighted
        True if training rows have weights.
    device
        Device of all tensors.
    n_lanes
        Number of launches that may run at once; None for :data:`N_LANES` on a CUDA device, else 1.
    """

    def __init__(
        self,
        layout: Layout,
        buckets: Sequence[int],
        *,
        loss: str,
        batch_sizes: Sequence[int],
        weighted: bool,
        device: torch.device | str,
        dtype: torch.dtype = torch.float32,
        n_lanes: int | None = None,
    ) -> None:
        self._module = kernel_module("training", device, purpose="for the persistent kernel")
        self.layout = layout
        self.loss = loss
        self.weighted = weighted
        self._device = torch.device(device)
        self._precision = tile_precision(dtype)
        launches = self._group(buckets, batch_sizes)
        if n_lanes is None:
            n_lanes = N_LANES if self._device.type == "cuda" else 1
        self.lanes = tuple(
            Lane.of(launches[first::n_lanes], dtype, self._device)
            for first in range(min(n_lanes, len(launches)))
        )

    def _group(self, buckets: Sequence[int], batch_sizes: Sequence[int]) -> list[Launch]:
        """Launches by the settings that the kernel is compiled for, the most expensive first."""
        groups: dict[tuple[Any, ...], list[tuple[float, list[int]]]] = {}
        for number in buckets:
            bucket = self.layout.buckets[number]
            offsets = {(block.layer, block.kind): block for block in bucket.blocks}
            for position, architecture in enumerate(bucket.architectures):
                row = self.layout.row_offsets[number] + position
                batch = batch_sizes[row]
                widths = architecture.widths
                shape = bucket.shape
                key = (
                    tuple(padded(width) for width in widths),
                    shape.optimizer,
                    shape.bias,
                    shape.clip,
                    shape.n_inputs,
                    shape.n_outputs,
                    16 if batch <= 16 or max(padded(width) for width in widths) == 16 else 32,
                )
                starts = []
                for layer in (0, 1, 2):
                    # layer 3 of the plan is the head, which is the second layer of a network of depth 1
                    source = shape.depth if layer == 2 else layer
                    for kind in ("weight", "bias"):
                        block = None if layer == 1 and shape.depth == 1 else offsets.get((source, kind))
                        starts.append(0 if block is None else block.offset + position * block.row_size)
                second = widths[1] if len(widths) == 2 else 0
                strides = shape.widths[0], shape.widths[-1]
                activation = ACTIVATIONS.index(architecture.activation)
                line = [row, batch, 0, 0, widths[0], second, *strides, *starts, 0, activation, 0]
                cost = float(batch) * _hidden_weights(shape, widths)
                groups.setdefault(key, []).append((cost, line))
        launches = []
        for key in sorted(groups, key=lambda k: (-sum(cost for cost, _ in groups[k]), repr(k))):
            lines = sorted(groups[key], key=lambda entry: (-entry[0], entry[1][0]))
            launches.append(self._launch(key, [line for _, line in lines]))
        return launches

    def _launch(self, key: tuple[Any, ...], lines: list[list[int]]) -> Launch:
        widths, optimizer, bias, clip, n_inputs, n_outputs, rows = key
        activations = {line[ACTIVATION_COLUMN] for line in lines}
        weights = widths[0] * padded(n_inputs) + (widths[0] * widths[1] if len(widths) == 2 else 0)
        settings = {
            "DEPTH": len(widths),
            # a kernel takes seconds to compile: mixed activations share one with branches
            "ACTIVATION": ACTIVATIONS[activations.pop()] if len(activations) == 1 else "any",
            "LOSS": self.loss,
            "ADAMW": optimizer == "adamw",
            "BIAS": bias,
            "CLIP": clip,
            "WEIGHTED": self.weighted,
            "STREAM": weights > ON_CHIP_WEIGHTS,
            "D_PAD": padded(n_inputs),
            "H1_PAD": widths[0],
            "H2_PAD": widths[-1],
            # summing a single output of members with 100 inputs and width 64 spills 18,200 bytes per thread
            # instead of 472, and at width 16 1,200 instead of 32 (sm_90, mixed activations)
            "C_PAD": 1 if n_outputs == 1 and n_inputs <= 32 else padded(n_outputs),
            "ROWS": rows,
            "PRECISION": self._precision,
            "D": n_inputs,
            "C": n_outputs,
            "SCRATCH": weights,
        }
        plan = torch.tensor(lines, dtype=torch.int64).to(self._device)
        return Launch(plan, settings, n_warps=_warps(max(weights, max(widths) * rows)))

    @property
    def kernels(self) -> list[str]:
        """Kernels in words, one per launch."""
        return [launch.kernel for lane in self.lanes for launch in lane.launches]

    @property
    def n_launches(self) -> int:
        """Number of launches per call."""
        return sum(len(lane.launches) for lane in self.lanes)

    def run(
        self,
        flats: Mapping[str, Tensor],
        rows: tuple[Tensor, Tensor, Tensor | None],
        tables: StepTables,
        constants: Tensor,
        loss_sums: Tensor,
        failed_at: Tensor,
        first_steps: Sequence[int] | int,
        n_steps: Sequence[int] | int | None = None,
    ) -> None:
        """Take steps; all buffers are updated in place.

        Parameters
        ----------
        flats
            ``parameters``, ``first_moment``, ``second_moment`` and ``average`` of the population.
        rows
            Inputs (n, D), target and weights of the training rows, on the device.
        tables
            Order of the rows and coefficients of the steps.
        constants : Tensor of shape (5, P)
            See :data:`CONSTANTS`.
        loss_sums, failed_at : Tensor of shape (P,)
            Sums of the losses, in the dtype of the weights; int64 steps of failure, or -1.
        first_steps, n_steps
            Number of the first step, and number of steps, of all members or of each stacked row. None for
            the steps in the tables.
        """
        steps = tables.n_steps if n_steps is None else n_steps
        inputs, target, weight = rows

        def start(launch: Launch, scratch: Tensor) -> None:
            plan = launch.plan
            set_steps(plan, first_steps, steps, tables.first_position)
            self._module.train_members[(plan.shape[0],)](
                inputs,
                target,
                inputs if weight is None else weight,
                tables.order,
                plan,
                flats["parameters"],
                flats["first_moment"],
                flats["second_moment"],
                flats["average"],
                tables.coefficients,
                tables.shares,
                constants,
                loss_sums,
                failed_at,
                scratch,
                n_rows=inputs.shape[0],
                n_members=constants.shape[1],
                PLAN=plan.shape[1],
                num_warps=launch.n_warps,
                num_stages=1,
                enable_fp_fusion=True,
                **launch.settings,
            )

        for lane in self.lanes:
            lane.run(start)
        for lane in self.lanes:
            lane.join()
