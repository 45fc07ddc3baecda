"""Compiled loops behind a Python interface, and the rule for their use.

The extra ``compiled`` installs numba. With it, training in float32 on a CPU uses the compiled loops, which
makes it about twice as fast, unless ``PMLP_COMPILED=0`` is set. Weights agree with those of the plain path to
rounding, not bit for bit: a search is reproduced only with the same setting.
"""

from __future__ import annotations

import importlib.util
import os
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parallelmlp_search._optional import require
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.kernels.activations import ActivationKernel
from parallelmlp_search.kernels.losses import Loss, get_loss


@cache
def _installed() -> bool:
    return importlib.util.find_spec("numba") is not None


def uses_compiled(dtype: torch.dtype, device: torch.device | str, *, wanted: bool | None = None) -> bool:
    """Return True if training with this dtype on this device uses the compiled loops.

    Parameters
    ----------
    dtype, device
        Dtype and device of the weights.
    wanted
        True or False to use them or not; None to use them where possible, unless ``PMLP_COMPILED=0`` is set.

    Returns
    -------
    bool
        True if the loops are used.

    Raises
    ------
    InvalidParameterError
        If they are wanted for another dtype than float32 or another device than a CPU.
    MissingDependencyError
        If they are wanted and numba is not installed.
    """
    applies = dtype == torch.float32 and torch.device(device).type == "cpu"
    if wanted is None:
        return applies and os.environ.get("PMLP_COMPILED", "1") != "0" and _installed()
    if wanted and not applies:
        raise InvalidParameterError(
            f"compiled must be False or None except for float32 on a CPU, "
            f"but got True for {str(dtype).removeprefix('torch.')} on {torch.device(device)}"
        )
    if wanted:
        require("numba", extra="compiled", purpose="for the compiled loops")
    return wanted


@cache
def compiled_loops() -> Any:
    """Return the module :mod:`parallelmlp_search.kernels.numba.loops`; importing numba takes 0.4 s."""
    return importlib.import_module("parallelmlp_search.kernels.numba.loops")


@cache
def activation_codes() -> dict[str, int]:
    """Return the code of each activation that has a compiled loop."""
    codes: dict[str, int] = importlib.import_module("parallelmlp_search.kernels.numba.elementwise").CODES
    return codes


class CompiledActivations:
    """Activations of a layer of a bucket, in one call per direction.

    Parameters
    ----------
    z, output
        ``(P, H, N)``: pre-activations and outputs of the layer; they may share memory.
    kernels
        Activation of each member.
    in_place
        For each member, True if the activation overwrites ``z``.

    Attributes
    ----------
    covers
        Names of the activations with a compiled loop. The others are left to their own kernels.
    """

    def __init__(
        self, z: Tensor, output: Tensor, kernels: list[ActivationKernel], in_place: list[bool]
    ) -> None:
        self._loops = compiled_loops()
        self.covers = self.names()
        codes = np.array([activation_codes().get(kernel.name, -1) for kernel in kernels], dtype=np.int64)
        overwrites = np.array(in_place)
        self._members = len(kernels)
        self._z, self._output = self._rows(z), self._rows(output)
        self._in_place = np.where(overwrites, codes, -1)
        self._separate = np.where(overwrites, -1, codes)
        self._has_in_place = bool((self._in_place > 0).any())
        self._has_separate = bool((self._separate >= 0).any())
        # slopes are computed from z for some members and from the output for others
        from_z = overwrites | ~np.array([kernel.saves_output for kernel in kernels])
        self._saved = [
            (memory, np.where(chosen, codes, -1))
            for memory, chosen in ((self._z, from_z), (self._output, ~from_z))
            if (codes[chosen] > 0).any()
        ]

    @staticmethod
    def names() -> frozenset[str]:
        """Return the names of the activations with a compiled loop."""
        return frozenset(activation_codes())

    def _rows(self, tensor: Tensor) -> NDArray[np.float32]:
        rows: NDArray[np.float32] = tensor.view(self._members, -1).numpy()
        return rows

    def forward(self) -> None:
        """Compute the outputs."""
        if self._has_in_place:
            self._loops.forward_activations_in_place(self._z, self._in_place)
        if self._has_separate:
            self._loops.forward_activations(self._z, self._output, self._separate)

    def backward(self, grad: Tensor) -> None:
        """Multiply ``grad`` (P, H, N) by the slopes."""
        rows = self._rows(grad)
        for saved, codes in self._saved:
            self._loops.backward_activations(rows, saved, codes)


def compiled_loss(name: str) -> Loss:
    """Return the loss of a name, as `get_loss` does, for float32 on a CPU."""
    if name not in ("binary_logits", "cross_entropy"):
        return get_loss(name)
    run = getattr(compiled_loops(), name)
    binary = name == "binary_logits"
    # made once per bucket instead of once per step: ten small calls cost 20 us
    cached: dict[tuple[Any, ...], tuple[Any, ...]] = {}

    def loss(
        outputs: Tensor,
        target: Tensor,
        gradient: Tensor,
        weight: Tensor | None = None,
        smoothing: Tensor | None = None,
    ) -> Tensor:
        n_members, _, n_rows = outputs.shape
        key = outputs.data_ptr(), gradient.data_ptr(), outputs.shape
        if key not in cached:
            # the views keep their memory alive, so that no other memory gets this key
            shape = (n_members, n_rows) if binary else outputs.shape
            views = outputs.view(shape).numpy(), gradient.view(shape).numpy()
            even = np.full(n_rows, 1.0 / n_rows, dtype=np.float32)
            cached[key] = *views, even, np.zeros(n_members, dtype=np.float32)
        logits, slopes, shares, spread = cached[key]
        if weight is not None:
            shares = (weight / weight.sum().clamp(min=torch.finfo(weight.dtype).tiny)).numpy()
        if smoothing is not None:
            spread = smoothing.numpy()
        losses = np.empty(n_members, dtype=np.float32)
        run(logits, target.numpy(), shares, spread, slopes, losses)
        return torch.from_numpy(losses)

    return loss
