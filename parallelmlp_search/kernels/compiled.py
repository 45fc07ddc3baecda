"""Whether the compiled loops are there and wanted; everything works without them, at about half the speed.

They come with the extra ``compiled`` (numba). Where they are installed they are used for float32 on a CPU,
unless the environment says ``PMLP_COMPILED=0``. Weights agree with the plain path's to rounding, not bit for
bit, so a search that is to be repeated to the bit must be repeated with or without them as before.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parallelmlp_search._optional import require
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.kernels.activations import ACTIVATION_KERNELS, ActivationKernel
from parallelmlp_search.kernels.losses import Loss, get_loss
from parallelmlp_search.kernels.members import CompiledMembers, MemberRows

__all__ = [
    "CompiledActivations",
    "compile_all",
    "compiled_in_time",
    "compiled_loops",
    "compiled_loss",
    "uses_compiled",
]


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
    """The module :mod:`parallelmlp_search.kernels.compiled_loops`; the first call imports numba (0.4 s)."""
    return importlib.import_module("parallelmlp_search.kernels.compiled_loops")


@cache
def _codes() -> dict[str, int]:
    codes: dict[str, int] = importlib.import_module("parallelmlp_search.kernels.compiled_math").CODES
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


def compile_all() -> None:
    """Compile every loop now: ten seconds or so, once a machine, that a first search then does not wait."""
    loops = compiled_loops()
    z, vector = torch.zeros(1, 1, 4), np.zeros(16, dtype=np.float32)
    for kernel in (ACTIVATION_KERNELS["relu"], ACTIVATION_KERNELS["gelu"]):
        for in_place in (True, False):
            activations = CompiledActivations(z, torch.zeros_like(z), [kernel], [in_place])
            activations.forward()
            activations.backward(torch.zeros_like(z))
    compiled_loss("binary_logits")(z, torch.zeros(4, dtype=torch.int64), torch.zeros_like(z))
    relu = ACTIVATION_KERNELS["relu"]
    blocks = [
        ("weight", 0, 0, 2, 3, True, 0),
        ("bias", 0, 16, 2, 1, False, 0),
        ("weight", 1, 32, 1, 2, True, 0),
    ]
    shapes = [[(2, 3), (2, 1), (1, 2)]]
    settings = torch.full((1, 4), 0.5)
    members = CompiledMembers(
        [torch.zeros(64) for _ in range(4)], blocks, [relu], shapes, settings, residual=[False], adaptive=True
    )
    steps = MemberRows(torch.zeros(1, 4, 3), torch.zeros(1, 4), None)
    table = np.ones((1, 1, 4, 1), dtype=np.float32)
    members(steps, table, np.zeros(1, dtype=np.float32), torch.ones(1))
    two = torch.zeros(1, 2, 4)
    compiled_loss("cross_entropy")(two, torch.zeros(4, dtype=torch.int64), torch.zeros_like(two))
    places, ones = np.array([[0, 4, 1]]), np.ones((4, 1), dtype=np.float32)
    for step in (loops.adamw, loops.sgd):
        buffers = [vector.copy() for _ in range(5)]
        step(*buffers, places, ones, ones[:2], np.float32(0.0))


COMPILE_SECONDS = 40.0
"""What :func:`compile_all` takes the first time, about, with two cores at half the speed of present ones."""

WORTH_COMPILING = 4.0
"""Times as much time must be left before anything is compiled: loops are about twice as fast as without."""


def _are_ready() -> bool:
    """Whether the machine code of the longest loop lies on this disk, made from its present source."""
    loop = importlib.import_module("parallelmlp_search.kernels.compiled_members").member_steps
    try:
        return bool(loop._cache._cache_file._load_index())
    except (AttributeError, OSError):  # kept nowhere, or numba has changed
        return False


@contextmanager
def compiled_in_time(device: torch.device | str, seconds_left: float | None) -> Iterator[bool]:
    """Have the loops compiled before work begins, or do without them in here where time is short.

    Yields whether nothing is given up for want of time. ``seconds_left`` is None without a time limit.
    Processes that start in here do the same.
    """
    if not uses_compiled(torch.float32, device) or _are_ready():
        yield True
        return
    if seconds_left is None or seconds_left >= WORTH_COMPILING * COMPILE_SECONDS:
        compile_all()
        yield True
        return
    before = os.environ.get("PMLP_COMPILED")
    os.environ["PMLP_COMPILED"] = "0"
    try:
        yield False
    finally:
        if before is None:
            del os.environ["PMLP_COMPILED"]
        else:
            os.environ["PMLP_COMPILED"] = before


if __name__ == "__main__":
    compile_all()
