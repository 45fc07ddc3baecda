"""Training steps of the members of a bucket by the compiled loop, behind a Python interface."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parallelmlp_search.kernels.activations import ActivationKernel
from parallelmlp_search.kernels.numba.arguments import (
    ACTIVATION_CODES,
    CACHE_LINE,
    KINDS,
    OutputRows,
    Plan,
    Steps,
    pack,
)
from parallelmlp_search.kernels.numba.library import loops

TILE_ROWS = 128
"""Rows for which outputs are computed at once."""

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


class StepBatches(NamedTuple):
    """Batches of several steps as the training loop reads them, padded to whole vectors.

    Attributes
    ----------
    rows, columns
        ``(T, D, N)`` with padded rows, and ``(T, n_rows, D)`` with padded columns: inputs. The first padded
        column, if any, is 1, so that the gradient of the biases comes with that of the weights.
    classes, values
        ``(T, N)`` and ``(T, C, N)``: classes, and targets of a regression or 0/1 of several labels.
    shares
        ``(T, N)``: share of each row in the mean loss, 0 for padding.
    is_regression
        True if `values` are the targets.
    of_labels
        True if they are 0 and 1, for the binary cross-entropy; otherwise for the squared error.
    """

    rows: NDArray[np.float32]
    columns: NDArray[np.float32]
    classes: NDArray[np.int64]
    values: NDArray[np.float32]
    shares: NDArray[np.float32]
    is_regression: bool
    of_labels: bool = False

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


def tiles_of(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return rows ``(n, D)`` as tiles ``(tiles, D, N)`` of `TILE_ROWS` rows, padded with zeros."""
    n_rows, n_inputs = rows.shape
    n_whole = n_rows // TILE_ROWS
    tiles = np.zeros((-(-n_rows // TILE_ROWS), n_inputs, TILE_ROWS), dtype=np.float32)
    whole = rows[: n_whole * TILE_ROWS].reshape(n_whole, TILE_ROWS, n_inputs)
    tiles[:n_whole] = whole.transpose(0, 2, 1)
    if n_whole < len(tiles):
        tiles[n_whole, :, : n_rows % TILE_ROWS] = rows[n_whole * TILE_ROWS :].T
    return tiles


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
    power
        Power of the Tweedie loss of a regression, in [1, 2]; 0 for the squared error.
    bounds
        ``(2, elements)``: least and largest values of the elements of all padded blocks of one member, or
        None.
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
        power: float = 0.0,
        bounds: NDArray[np.float32] | None = None,
    ) -> None:
        last = len(residual) + 1

        def key(kind: str, layer: int) -> tuple[int, int]:
            return KINDS[kind], last if layer < 0 else layer

        table = np.array(
            [
                (offset, rows, columns, *key(kind, layer), decays, group)
                for kind, layer, offset, rows, columns, decays, group in blocks
            ],
            dtype=np.int64,
        )
        own_shapes = np.array(shapes, dtype=np.int64)
        expanded, expanded_shapes = table, own_shapes
        if expansion is not None:
            numbers = {key(block[0], block[1]): number for number, block in enumerate(blocks)}
            expanded = np.array(
                [
                    (numbers[key(kind, layer)], rows, columns, *key(kind, layer), 0, 0)
                    for kind, layer, rows, columns in expansion.blocks
                ],
                dtype=np.int64,
            )
            expanded_shapes = np.array(expansion.shapes, dtype=np.int64)
        runs = np.array(expansion.runs if expansion else (), dtype=np.int64).reshape(-1, 5)
        parameters, first, second, averages = (buffer.numpy() for buffer in flats)
        self._plan = Plan(
            parameters,
            first,
            second,
            averages,
            blocks=table,
            padded=np.ascontiguousarray(table[:, 1:3]),
            shapes=own_shapes,
            expanded=expanded,
            expanded_padded=np.ascontiguousarray(expanded[:, 1:3]),
            expanded_shapes=expanded_shapes,
            runs=runs,
            codes=np.array([ACTIVATION_CODES[kernel.name] for kernel in kernels], dtype=np.int64),
            settings=np.ascontiguousarray(settings.numpy(), dtype=np.float32),
            residual=np.array(residual, dtype=np.bool_),
            bounds=np.zeros((2, 0), dtype=np.float32) if bounds is None else bounds,
            n_members=len(kernels),
            n_blocks=len(table),
            n_expanded=len(expanded),
            n_networks=expansion.n_networks if expansion else 1,
            n_runs=len(runs),
            n_layers=last,
            n_numbers=n_numbers,
            embedding_size=int(np.sum(runs[:, 1] * runs[:, 3])),
            is_expanded=expansion is not None,
            has_residual=any(residual),
            adaptive=adaptive,
            power=power,
            n_bounds=0 if bounds is None else bounds.shape[1],
        )
        self._packed = pack(self._plan)
        # shapes and starts of blocks, offsets of both tables, and three sizes or starts per layer
        n_integers = 3 * (len(table) + len(expanded)) + (2 * len(KINDS) + 3) * (last + 1)
        self._integers = np.zeros(n_integers, dtype=np.int64)
        self._workspaces: dict[tuple[str, int, int, int], NDArray[np.float32]] = {}

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
        n_members = self._plan.n_members
        losses = np.empty((batches.n_steps, n_members), dtype=np.float32)
        if fields is None:
            fields = np.zeros((0, 0, 0, 0), dtype=np.float32)
        n_steps, n_inputs, n_rows = batches.rows.shape
        steps = Steps(
            rows=batches.rows,
            columns=batches.columns,
            classes=batches.classes,
            values=batches.values,
            shares=batches.shares,
            tables=np.ascontiguousarray(tables),
            averaging=averaging,
            fields=fields,
            rates=np.zeros_like(losses) if rates is None else np.ascontiguousarray(rates),
            alive=alive.numpy(),
            losses=losses,
            integers=self._integers,
            workspace=np.zeros(0, dtype=np.float32),
            n_steps=n_steps,
            n_inputs=n_inputs,
            n_true=batches.columns.shape[1],
            n_rows=n_rows,
            n_columns=batches.columns.shape[2],
            n_targets=batches.values.shape[1],
            n_field_layers=fields.shape[1],
            n_field_neurons=fields.shape[2],
            is_regression=batches.is_regression,
            of_labels=batches.of_labels,
        )
        self._call("member_steps", "workspace_size", self._packed, steps)
        return torch.from_numpy(losses)

    def outputs(
        self, flat: Tensor, tiles: NDArray[np.float32], result: NDArray[np.float32], *, classifies: bool
    ) -> None:
        """Compute the outputs of all members.

        Parameters
        ----------
        flat
            Flat buffer of parameters.
        tiles
            ``(tiles, D, N)``: inputs, see `tiles_of`.
        result
            ``(P, C, n_rows)``: written, mean outputs of the submembers of each member.
        classifies
            True if the outputs are logits of classes: submembers then have their mean probabilities.
        """
        plan = self._plan._replace(parameters=flat.numpy())
        n_tiles, n_inputs, tile_rows = tiles.shape
        rows = OutputRows(
            tiles=tiles,
            outputs=result,
            fields=np.zeros(0, dtype=np.float32),
            integers=self._integers,
            workspace=np.zeros(0, dtype=np.float32),
            n_tiles=n_tiles,
            n_total=result.shape[2],
            n_inputs=n_inputs,
            n_true=tile_rows,
            n_rows=tile_rows,
            n_columns=-n_inputs % MAX_LANES + n_inputs,
            n_field_layers=0,
            n_field_neurons=0,
            is_regression=not classifies,
        )
        self._call("member_outputs", "output_workspace_size", pack(plan), rows)

    def _call(self, name: str, size_name: str, plan: NDArray[np.int64], rows: Steps | OutputRows) -> None:
        """Run a loop with zeros as workspace that start with a cache line."""
        key = size_name, rows.n_inputs, rows.n_rows, rows.n_columns
        if key not in self._workspaces:
            size = loops().run(size_name, np.concatenate([plan, pack(rows)]))
            memory = np.empty(size + CACHE_LINE, dtype=np.float32)
            start = -(memory.ctypes.data // memory.itemsize) % CACHE_LINE
            self._workspaces[key] = memory[start : start + size]
        workspace = self._workspaces[key]
        workspace.fill(0.0)
        loops().run(name, np.concatenate([plan, pack(rows._replace(workspace=workspace))]))
