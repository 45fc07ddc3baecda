"""Whether the compiled loops are there and wanted; everything works without them, at about half the speed.

They come with the extra ``compiled`` (numba). Where they are installed they are used for float32 on a CPU,
unless the environment says ``PMLP_COMPILED=0``. Weights agree with the plain path's to rounding, not bit for
bit, so a search that is to be repeated to the bit must be repeated with or without them as before.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parallelmlp_search._optional import require
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.kernels.activations import ActivationKernel
from parallelmlp_search.kernels.losses import Loss, get_loss

__all__ = [
    "CompiledActivations",
    "CompiledMembers",
    "Expansion",
    "MemberRows",
    "compiled_loops",
    "compiled_loss",
    "uses_compiled",
]


LANES = 16
"""Rows and columns that fill a vector of float32 where vectors are widest."""


@cache
def _installed() -> bool:
    return importlib.util.find_spec("numba") is not None


def uses_compiled(dtype: torch.dtype, device: torch.device | str, *, wanted: bool | None = None) -> bool:
    """Whether training with this dtype on this device uses the compiled loops.

    With ``wanted`` None it does where it can, unless the environment says otherwise.

    Raises
    ------
    InvalidParameterError
        If they are wanted where they do not apply.
    MissingDependencyError
        If they are wanted and numba is not installed.
    """
    applies = dtype == torch.float32 and torch.device(device).type == "cpu"
    if wanted is None:
        return applies and os.environ.get("PMLP_COMPILED", "1") != "0" and _installed()
    if wanted and not applies:
        raise InvalidParameterError(
            f"compiled must be False or None but for float32 on a CPU, "
            f"but got True for {str(dtype).removeprefix('torch.')} on {torch.device(device)}"
        )
    if wanted:
        require("numba", extra="compiled", purpose="for the compiled loops")
    return wanted


@cache
def compiled_loops() -> Any:
    """The module :mod:`parallelmlp_search.kernels.numba.loops`; the first call imports numba (0.4 s)."""
    return importlib.import_module("parallelmlp_search.kernels.numba.loops")


@cache
def _codes() -> dict[str, int]:
    codes: dict[str, int] = importlib.import_module("parallelmlp_search.kernels.numba.elementwise").CODES
    return codes


class CompiledActivations:
    """The activations of a bucket's layer in one call each way.

    Parameters
    ----------
    z, output
        ``(P, H, N)`` before the activation, and the layer's output; perhaps the same memory.
    kernels
        Kernel of each member.
    in_place
        For each member, whether the activation is written over ``z``.

    Attributes
    ----------
    covers
        Names of the activations that are dealt with here; the others are left to their own kernels.
    """

    def __init__(
        self, z: Tensor, output: Tensor, kernels: list[ActivationKernel], in_place: list[bool]
    ) -> None:
        loops = compiled_loops()
        self._loops = loops
        self.covers = self.names()
        codes = np.array([_codes().get(kernel.name, -1) for kernel in kernels], dtype=np.int64)
        over = np.array(in_place)
        self._members = len(kernels)
        self._z, self._output = self._rows(z), self._rows(output)
        self._over = np.where(over, codes, -1)
        self._across = np.where(over, -1, codes)
        # what each member's slope is computed from lies in one of the two
        in_z = over | ~np.array([kernel.saves_output for kernel in kernels])
        self._back = [
            (memory, np.where(chosen, codes, -1))
            for memory, chosen in ((self._z, in_z), (self._output, ~in_z))
            if (codes[chosen] > 0).any()
        ]
        self._any_over = bool((self._over > 0).any())
        self._any_across = bool((self._across >= 0).any())

    @staticmethod
    def names() -> frozenset[str]:
        """Activations that have a loop."""
        return frozenset(_codes())

    def _rows(self, tensor: Tensor) -> NDArray[np.float32]:
        rows: NDArray[np.float32] = tensor.view(self._members, -1).numpy()
        return rows

    def forward(self) -> None:
        """Activate."""
        if self._any_over:
            self._loops.forward_activations_in_place(self._z, self._over)
        if self._any_across:
            self._loops.forward_activations(self._z, self._output, self._across)

    def backward(self, grad: Tensor) -> None:
        """Multiply ``grad`` (P, H, N) by the slopes."""
        rows = self._rows(grad)
        for saved, codes in self._back:
            self._loops.backward_activations(rows, saved, codes)


class Expansion(NamedTuple):
    """What each member of a bucket stands for.

    Attributes
    ----------
    n_each
        So many plain networks.
    blocks
        ``(kind, layer, rows, columns)`` of each block of one, padded.
    shapes
        ``(P, blocks, 2)``: true rows and columns of the blocks of each member's networks.
    runs
        Where categories are embedded, ``(first column, columns, first input, inputs, start)`` of each run of
        inputs of the first layer, with the place of an embedding in its block, below zero for no embedding.
    """

    n_each: int
    blocks: Sequence[tuple[str, int, int, int]]
    shapes: Sequence[Sequence[tuple[int, int]]]
    runs: Sequence[tuple[int, int, int, int, int]] = ()


class CompiledMembers:
    """Training steps of a bucket, several of them and member by member in one call.

    Parameters
    ----------
    flats
        Flat buffers: parameters, first and second moments, averages.
    blocks
        ``(kind, layer, offset, rows, columns, decays, group)`` of each block of the bucket, padded; what lies
        before the first layer has the layer below zero; the group is that of its coefficients.
    kernels
        Kernel of each member; all of them need a loop.
    shapes
        ``(P, blocks, 2)``: true rows and columns of each member's blocks.
    settings
        ``(P, 4)``: label smoothing, highest norm of the gradient (infinite for none), and the two numbers
        that the optimiser mixes by.
    residual
        For each hidden layer whether it adds its input.
    unfolding
        What members stand for, if not each for a plain network.
    n_numbers
        Columns that a periodic embedding embeds.
    adaptive
        Whether the optimiser is AdamW.
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
        unfolding: Expansion | None = None,
        n_numbers: int = 0,
        adaptive: bool,
    ) -> None:
        kinds = importlib.import_module("parallelmlp_search.kernels.numba.member_memory").KINDS
        last = len(residual) + 1
        self._flats = tuple(flat.numpy() for flat in flats)

        def place(kind: str, layer: int) -> tuple[int, int]:
            return kinds[kind], last if layer < 0 else layer

        lines = [
            (offset, rows, columns, *place(kind, layer), decays, group)
            for kind, layer, offset, rows, columns, decays, group in blocks
        ]
        self._blocks = np.array(lines, dtype=np.int64)
        unfolding = unfolding or Expansion(1, [], [[]] * len(kernels))
        number = {place(block[0], block[1]): number for number, block in enumerate(blocks)}
        plain = [
            (number[place(kind, layer)], rows, columns, *place(kind, layer))
            for kind, layer, rows, columns in unfolding.blocks
        ]
        self._n_each = unfolding.n_each
        self._runs = np.array(unfolding.runs, dtype=np.int64).reshape(-1, 5)
        self._plain = np.array(plain, dtype=np.int64).reshape(-1, 5)
        self._plain_shapes = np.array(unfolding.shapes, dtype=np.int64).reshape(len(kernels), -1, 2)
        codes = [(_codes()[kernel.name], 1) for kernel in kernels]
        self._members = np.array(codes, dtype=np.int64)
        self._shapes = np.array(shapes, dtype=np.int64)
        self._settings = settings.to(torch.float32).numpy()
        self._residual = np.array(residual, dtype=np.bool_)
        self._n_numbers, self._adaptive = n_numbers, adaptive
        self._run = importlib.import_module("parallelmlp_search.kernels.numba.training").member_steps

    def __call__(
        self,
        steps: MemberRows,
        tables: NDArray[np.float32],
        averaging: NDArray[np.float32],
        alive: Tensor,
        fields: NDArray[np.float32] | None = None,
        rates: NDArray[np.float32] | None = None,
    ) -> Tensor:
        """Losses ``(T, P)``; of members that are not ``alive`` (P,) nothing is done and the loss is 0.

        ``tables`` (groups, T, 4, P) holds rate, keep, A and B of each step, ``averaging`` (T,) the shares of
        the averages; ``fields`` (T, layers, H, N) and ``rates`` (T, P) belong to dropout, if there is any.
        """
        n_steps, n_members = tables.shape[1], len(self._members)
        losses = np.empty((n_steps, n_members), dtype=np.float32)
        self._members[:, 1] = alive.numpy()
        self._run(
            self._flats,
            self._blocks,
            self._plain,
            self._n_each,
            self._runs,
            steps.n_rows,
            steps.rows,
            steps.columns,
            steps.targets,
            steps.wanted,
            steps.shares,
            self._members,
            self._shapes,
            self._plain_shapes,
            self._settings,
            np.ascontiguousarray(tables),
            averaging,
            _NO_FIELDS if fields is None else fields,
            np.zeros((n_steps, n_members), dtype=np.float32) if rates is None else rates,
            self._residual,
            self._n_numbers,
            self._adaptive,
            steps.is_regression,
            losses,
        )
        return torch.from_numpy(losses)


_NO_FIELDS = np.zeros((0, 1, 1, 1), dtype=np.float32)


class MemberRows:
    """Batches of several steps as :class:`CompiledMembers` reads them.

    Parameters
    ----------
    inputs
        ``(T, N, D)``.
    target
        Classes ``(T, N)``, or numbers of a regression ``(T, C, N)``.
    weight
        Weights of the rows ``(T, N)``, or None.
    """

    def __init__(self, inputs: Tensor, target: Tensor, weight: Tensor | None) -> None:
        n_steps, n_rows, n_inputs = inputs.shape
        filled, lanes = -n_rows % LANES + n_rows, -n_inputs % LANES + n_inputs
        self.n_steps, self.n_rows = n_steps, n_rows
        self.is_regression = target.ndim == 3
        rows = torch.zeros(n_steps, n_inputs, filled)
        rows[:, :, :n_rows] = inputs.transpose(1, 2)
        columns = torch.zeros(n_steps, n_rows, lanes)
        columns[:, :, :n_inputs] = inputs
        if n_inputs < lanes:
            columns[:, :, n_inputs] = 1.0  # gives the gradient of the biases for nothing
        targets, shares = torch.zeros(n_steps, filled, dtype=torch.int64), torch.zeros(n_steps, filled)
        wanted = torch.zeros(n_steps, target.shape[1] if self.is_regression else 1, filled)
        (wanted if self.is_regression else targets)[..., :n_rows] = target
        if weight is None:
            shares[:, :n_rows] = 1.0 / n_rows
        else:
            shares[:, :n_rows] = weight / weight.sum(1, keepdim=True).clamp(
                min=torch.finfo(weight.dtype).tiny
            )
        self.rows, self.columns = rows.numpy(), columns.numpy()
        self.targets, self.wanted, self.shares = targets.numpy(), wanted.numpy(), shares.numpy()

    @classmethod
    def of(cls, batches: Sequence[tuple[Tensor, Tensor, Tensor | None]]) -> MemberRows:
        """From inputs ``(N, D)``, target ``(N,)`` or ``(C, N)``, and weights of one step after the other."""
        inputs, targets, weights = zip(*batches, strict=True)
        given = [weight for weight in weights if weight is not None]
        return cls(torch.stack(inputs), torch.stack(targets), torch.stack(given) if given else None)

    def fields(self, steps: Sequence[Sequence[Tensor]]) -> NDArray[np.float32]:
        """Uniform fields ``(H, N)`` of each step and layer as ``(T, layers, H, N)``, N filled up."""
        filled = self.shares.shape[1]
        width = steps[0][0].shape[0]
        found = np.zeros((len(steps), len(steps[0]), width, filled), dtype=np.float32)
        for step, layers in enumerate(steps):
            for layer, field in enumerate(layers):
                found[step, layer, :, : self.n_rows] = field.numpy()
        return found


def compiled_loss(name: str) -> Loss:
    """The loss of a name, as :func:`~parallelmlp_search.kernels.losses.get_loss`, for float32 on a CPU."""
    if name not in ("binary_logits", "cross_entropy"):
        return get_loss(name)
    loops = compiled_loops()
    run = getattr(loops, name)
    binary = name == "binary_logits"

    # what does not change from step to step is made once a bucket: ten small calls cost 20 us
    kept: dict[tuple[Any, ...], tuple[Any, ...]] = {}

    def loss(
        outputs: Tensor,
        target: Tensor,
        gradient: Tensor,
        weight: Tensor | None = None,
        smoothing: Tensor | None = None,
    ) -> Tensor:
        n_members, _, n_rows = outputs.shape
        key = outputs.data_ptr(), gradient.data_ptr(), outputs.shape
        if key not in kept:
            # the views keep their memory alive, so that the key cannot come to mean another one
            shape = (n_members, n_rows) if binary else outputs.shape
            views = outputs.view(shape).numpy(), gradient.view(shape).numpy()
            even = np.full(n_rows, 1.0 / n_rows, dtype=np.float32)
            kept[key] = *views, even, np.zeros(n_members, dtype=np.float32)
        logits, slopes, shares, spread = kept[key]
        if weight is not None:
            shares = (weight / weight.sum().clamp(min=torch.finfo(weight.dtype).tiny)).numpy()
        if smoothing is not None:
            spread = smoothing.numpy()
        losses = np.empty(n_members, dtype=np.float32)
        run(logits, target.numpy(), shares, spread, slopes, losses)
        return torch.from_numpy(losses)

    return loss
