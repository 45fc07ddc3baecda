"""Training steps of the members of a bucket by the compiled loop, behind a Python interface."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parallelmlp_search.kernels.activations import ActivationKernel
from parallelmlp_search.kernels.numba.dispatch import activation_codes

MAX_LANES = 16
"""Floats in a vector of the widest registers."""


class Expansion(NamedTuple):
    """Expanded networks of the members of a bucket.

    Attributes
    ----------
    n_networks
        Number of expanded networks per member.
    blocks
        ``(kind, layer, rows, columns)`` of each padded block of an expanded network.
    shapes
        ``(P, blocks, 2)``: true rows and columns of the blocks, by member.
    runs
        ``(first column, columns, first input, inputs, start)`` of each run of inputs of the first layer if
        categories are embedded; ``start`` is that of the embedding in its block, negative for none.
    """

    n_networks: int
    blocks: Sequence[tuple[str, int, int, int]]
    shapes: Sequence[Sequence[tuple[int, int]]]
    runs: Sequence[tuple[int, int, int, int, int]] = ()


class TrainingPlan(NamedTuple):
    """Arguments of the training loop that are the same for all steps.

    The tables of blocks are those of :class:`~parallelmlp_search.kernels.numba.member_memory.Blocks`. That of
    the expanded network is empty for members that are not expanded.
    """

    blocks: NDArray[np.int64]  # (blocks, 7)
    expanded: NDArray[np.int64]  # (expanded blocks, 5)
    shapes: NDArray[np.int64]  # (P, blocks, 2): true rows and columns
    expanded_shapes: NDArray[np.int64]  # (P, expanded blocks, 2)
    n_networks: int
    runs: NDArray[np.int64]  # (runs, 5), see `Expansion`
    codes: NDArray[np.int64]  # (P,): code of the activation
    settings: NDArray[np.float32]  # (P, 4), see `CompiledMembers`
    residual: NDArray[np.bool_]  # (layers,)
    n_numbers: int
    adaptive: bool


class StepBatches(NamedTuple):
    """Batches of several steps as the training loop reads them, padded to whole vectors.

    Attributes
    ----------
    rows, columns
        ``(T, D, N)`` with padded rows, and ``(T, n_rows, D)`` with padded columns: inputs. The first padded
        column, if any, is 1, so that the gradient of the biases comes with that of the weights.
    classes, values
        ``(T, N)`` and ``(T, C, N)``: classes, and targets of a regression.
    shares
        ``(T, N)``: share of each row in the mean loss, 0 for padding.
    is_regression
        True if `values` are the targets.
    """

    rows: NDArray[np.float32]
    columns: NDArray[np.float32]
    classes: NDArray[np.int64]
    values: NDArray[np.float32]
    shares: NDArray[np.float32]
    is_regression: bool

    @classmethod
    def of(cls, batches: Sequence[tuple[Tensor, Tensor, Tensor | None]]) -> StepBatches:
        """Return the batches of successive steps.

        Parameters
        ----------
        batches
            Inputs ``(N, D)``, classes ``(N,)`` or targets of a regression ``(C, N)``, and row weights
            ``(N,)`` or None, by step.
        """
        inputs, target = (torch.stack(list(part)) for part in list(zip(*batches, strict=True))[:2])
        n_steps, n_rows, n_inputs = inputs.shape
        padded, n_columns = -n_rows % MAX_LANES + n_rows, -n_inputs % MAX_LANES + n_inputs
        is_regression = target.ndim == 3
        rows = inputs.new_zeros(n_steps, n_inputs, padded)
        rows[:, :, :n_rows] = inputs.transpose(1, 2)
        columns = inputs.new_zeros(n_steps, n_rows, n_columns)
        columns[:, :, :n_inputs] = inputs
        if n_inputs < n_columns:
            columns[:, :, n_inputs] = 1.0
        classes = torch.zeros(n_steps, padded, dtype=torch.int64)
        shares = inputs.new_zeros(n_steps, padded)
        values = inputs.new_zeros(n_steps, target.shape[1] if is_regression else 1, padded)
        (values if is_regression else classes)[..., :n_rows] = target
        weights = [weight for *_, weight in batches if weight is not None]
        if weights:
            weight = torch.stack(weights)
            shares[:, :n_rows] = weight / weight.sum(1, keepdim=True).clamp(
                min=torch.finfo(weight.dtype).tiny
            )
        else:
            shares[:, :n_rows] = 1.0 / n_rows
        return cls(
            rows.numpy(), columns.numpy(), classes.numpy(), values.numpy(), shares.numpy(), is_regression
        )

    @property
    def n_steps(self) -> int:
        """Number of steps."""
        return len(self.rows)

    def dropout_fields(self, steps: Sequence[Sequence[Tensor]]) -> NDArray[np.float32]:
        """Return the uniform numbers ``(H, n_rows)`` of each step and layer as ``(T, layers, H, N)``."""
        fields = np.zeros((len(steps), len(steps[0]), steps[0][0].shape[0], self.shares.shape[1]), np.float32)
        for step, layers in enumerate(steps):
            for layer, field in enumerate(layers):
                fields[step, layer, :, : self.columns.shape[1]] = field.numpy()
        return fields


class CompiledMembers:
    """Training steps of a bucket, several steps of all members in one call.

    Parameters
    ----------
    flats
        Flat buffers: parameters, first and second moments, averages.
    blocks
        ``(kind, layer, offset, rows, columns, decays, group)`` of each padded block of the bucket. What lies
        before the first layer has a negative layer; the group is that of its coefficients.
    kernels
        Activation of each member; all of them need a compiled loop.
    shapes
        ``(P, blocks, 2)``: true rows and columns of each member's blocks.
    settings
        ``(P, 4)``: label smoothing, largest norm of the gradient (infinite for none), and the two mixing
        coefficients of the optimizer.
    residual
        For each hidden layer, True for a residual connection.
    expansion
        Expanded networks of the members, or None.
    n_numbers
        Number of columns with a periodic embedding.
    adaptive
        True for AdamW, False for SGD.
    """

    def __init__(
        self,
        flats: Sequence[Tensor],
        blocks: Sequence[tuple[str, int, int, int, int, bool, int]],
        kernels: Sequence[ActivationKernel],
        shapes: Sequence[Sequence[tuple[int, int]]],
        settings: Tensor,
        *,
        residual: Sequence[bool] = (),
        expansion: Expansion | None = None,
        n_numbers: int = 0,
        adaptive: bool,
    ) -> None:
        kinds = importlib.import_module("parallelmlp_search.kernels.numba.member_memory").KINDS
        last = len(residual) + 1
        self._flats = tuple(flat.numpy() for flat in flats)

        def key(kind: str, layer: int) -> tuple[int, int]:
            return kinds[kind], last if layer < 0 else layer

        table = [
            (offset, rows, columns, *key(kind, layer), decays, group)
            for kind, layer, offset, rows, columns, decays, group in blocks
        ]
        expansion = expansion or Expansion(1, [], [[]] * len(kernels))
        numbers = {key(block[0], block[1]): number for number, block in enumerate(blocks)}
        expanded = [
            (numbers[key(kind, layer)], rows, columns, *key(kind, layer))
            for kind, layer, rows, columns in expansion.blocks
        ]
        self._plan = TrainingPlan(
            np.array(table, dtype=np.int64),
            np.array(expanded, dtype=np.int64).reshape(-1, 5),
            np.array(shapes, dtype=np.int64),
            np.array(expansion.shapes, dtype=np.int64).reshape(len(kernels), -1, 2),
            expansion.n_networks,
            np.array(expansion.runs, dtype=np.int64).reshape(-1, 5),
            np.array([activation_codes()[kernel.name] for kernel in kernels], dtype=np.int64),
            settings.to(torch.float32).numpy(),
            np.array(residual, dtype=np.bool_),
            n_numbers,
            adaptive,
        )
        self._run = importlib.import_module("parallelmlp_search.kernels.numba.training").member_steps

    def __call__(
        self,
        batches: StepBatches,
        tables: NDArray[np.float32],
        averaging: NDArray[np.float32],
        alive: Tensor,
        fields: NDArray[np.float32] | None = None,
        rates: NDArray[np.float32] | None = None,
    ) -> Tensor:
        """Take the steps of some batches.

        Parameters
        ----------
        batches
            Batches of ``T`` steps.
        tables
            ``(groups, T, 4, P)``: rate, keep, A and B of each step.
        averaging
            ``(T,)``: share of the new weights in the averages.
        alive
            ``(P,)``: false for members that are skipped.
        fields, rates
            ``(T, layers, H, N)`` and ``(T, P)``: uniform numbers and rates of dropout, or None.

        Returns
        -------
        Tensor of shape (T, P)
            Losses, 0 for members that are skipped.
        """
        losses = np.empty((batches.n_steps, len(self._plan.codes)), dtype=np.float32)
        self._run(
            self._flats,
            self._plan,
            batches,
            np.ascontiguousarray(tables),
            averaging,
            np.zeros((0, 1, 1, 1), dtype=np.float32) if fields is None else fields,
            np.zeros_like(losses) if rates is None else rates,
            alive.numpy(),
            losses,
        )
        return torch.from_numpy(losses)
