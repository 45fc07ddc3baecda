"""Batches and dropout noise of windows of steps, in buffers that all windows of a training share.

Fresh memory for each window would cost as much as the member loop of a small network: gathering 32 batches of
59 columns takes 0.9 ms with new tensors and 0.05 ms with buffers and a compiled loop, on one core.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parallelmlp_search.engine.batches import BatchStream, fill_dropout_field
from parallelmlp_search.engine.rows import whole_rows, with_contiguous_rows
from parallelmlp_search.engine.settings import TrainingRows
from parallelmlp_search.kernels.numba.arguments import GatheredBatches, NoiseFields, pack
from parallelmlp_search.kernels.numba.compiled_members import MAX_LANES, StepBatches
from parallelmlp_search.kernels.numba.library import loops

MAX_COMPILED_SEED = (1 << 32) - 1
"""Highest seed of the compiled noise: one word of entropy."""

N_SCRATCH = 10
"""Integers that the compiled noise needs."""


def _padded(size: int) -> int:
    """Round up to whole vectors."""
    return -size % MAX_LANES + size


class WindowBatches:
    """Batches of windows as the compiled loops read them.

    Parameters
    ----------
    rows, stream
        Training rows and stream of batches.
    n_steps
        Most steps of a window.
    of_labels
        True if a target ``(C, n)`` holds 0 and 1 of several labels.
    """

    def __init__(
        self, rows: TrainingRows, stream: BatchStream, n_steps: int, *, of_labels: bool = False
    ) -> None:
        self._rows, self._stream = replace(rows, inputs=with_contiguous_rows(rows.inputs)), stream
        n_rows, n_inputs = stream.batch_size, rows.inputs.shape[1]
        n_columns, is_regression = _padded(n_inputs), rows.target.ndim == 2
        n_outputs = rows.target.shape[0] if is_regression else 1
        columns = np.zeros((n_steps, n_rows, n_columns), dtype=np.float32)
        if n_inputs < n_columns:
            columns[:, :, n_inputs] = 1.0
        shares = np.zeros((n_steps, _padded(n_rows)), dtype=np.float32)
        shares[:, :n_rows] = 1.0 / n_rows
        self._buffers = StepBatches(
            np.zeros((n_steps, n_inputs, _padded(n_rows)), dtype=np.float32),
            columns,
            np.zeros((n_steps, _padded(n_rows)), dtype=np.int64),
            np.zeros((n_steps, n_outputs, _padded(n_rows)), dtype=np.float32),
            shares,
            is_regression,
            of_labels,
        )

    def of(self, steps: range) -> StepBatches:
        """Return the batches of consecutive steps, valid until the next call."""
        n_steps, n_rows = len(steps), self._stream.batch_size
        whole = self._buffers
        rows, columns = whole.rows[:n_steps], whole.columns[:n_steps]
        classes, values, shares = whole.classes[:n_steps], whole.values[:n_steps], whole.shares[:n_steps]
        chosen = self._stream.consecutive_rows(steps)
        self._gather(chosen, rows, columns)
        target, weight = self._rows.target, self._rows.weight
        if whole.is_regression:
            drawn = target.index_select(1, chosen).view(len(target), n_steps, n_rows)
            values[:, :, :n_rows] = drawn.transpose(0, 1).numpy()
        else:
            classes[:, :n_rows] = target.index_select(0, chosen).view(n_steps, n_rows).numpy()
        if weight is not None:
            shares[:, :n_rows] = _shares(weight.index_select(0, chosen).view(n_steps, n_rows)).numpy()
        return StepBatches(rows, columns, classes, values, shares, whole.is_regression, whole.of_labels)

    def _gather(self, chosen: Tensor, rows: NDArray[np.float32], columns: NDArray[np.float32]) -> None:
        """Write the inputs of some rows, one batch after the other."""
        table, numbers, ranges = whole_rows(self._rows.inputs, chosen)
        stride = table.stride(0)
        extent = (len(table) - 1) * stride + table.shape[1]
        (n_steps, n_inputs, n_rows), (_, n_true, n_columns) = rows.shape, columns.shape
        arguments = GatheredBatches(
            table.as_strided((extent,), (1,)).numpy(),
            numbers.numpy(),
            np.array([(first, end - first) for first, end in ranges]),
            rows,
            columns,
            stride=stride,
            n_ranges=len(ranges),
            n_steps=n_steps,
            n_true=n_true,
            n_rows=n_rows,
            n_inputs=n_inputs,
            n_columns=n_columns,
        )
        loops().run("gather_batches", pack(arguments))


def _shares(weight: Tensor) -> Tensor:
    """Share of each row in the mean of its batch, from weights ``(T, N)``."""
    return weight / weight.sum(1, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny)


class WindowNoise:
    """Uniform numbers of windows, with which steps decide on dropout.

    Parameters
    ----------
    seed
        Seed of the batches.
    widths
        Widest member with dropout, by layer.
    n_rows, n_steps
        Rows of a batch, and most steps of a window.
    compiled
        True to use the compiled loop, which makes the same numbers as NumPy.
    """

    def __init__(
        self, seed: int, widths: Sequence[int], n_rows: int, n_steps: int, *, compiled: bool = False
    ) -> None:
        self._seed, self._widths, self._n_rows = seed, tuple(widths), n_rows
        shape = (n_steps, len(widths), max(widths), _padded(n_rows))
        self._buffer: NDArray[np.float32] = np.zeros(shape, dtype=np.float32)
        self._compiled = compiled and seed <= MAX_COMPILED_SEED
        self._width_table, self._scratch = np.array(widths), np.zeros(N_SCRATCH, dtype=np.int64)

    def of(self, steps: range) -> NDArray[np.float32]:
        """Return the numbers ``(T, layers, H, N)`` of steps, with padded rows; valid until the next call."""
        noise = self._buffer[: len(steps)]
        if self._compiled:
            sizes = (*noise.shape[:3], self._n_rows, noise.shape[3])
            fields = NoiseFields(noise, self._width_table, self._scratch, self._seed, steps.start, *sizes)
            loops().run("dropout_noise", pack(fields))
            return noise
        for place, step in enumerate(steps):
            for layer, width in enumerate(self._widths):
                fill_dropout_field(noise[place, layer, :width, : self._n_rows], self._seed, step, layer)
        return noise

    def fields(self, noise: NDArray[np.float32], device: torch.device) -> list[list[Tensor]]:
        """Return the same numbers ``(H, N)`` of each step and layer as tensors on a device."""
        return [
            [torch.from_numpy(field[:, : self._n_rows]).to(device) for field in layers] for layers in noise
        ]
