"""Compiled loops behind a Python interface, and the rule for their use.

Training in float32 on a CPU uses the compiled loops, which makes it two to four times as fast. The
environment variable ``PMLP_COMPILED`` is ``0`` to do without them, and ``ready`` to use them only if they
need not be compiled first. Weights agree with those of the plain path to rounding, not bit for bit: a search
is reproduced only with the same setting. Workers on other machines do not have this variable: the training
path travels with the rows, see `following`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parallelmlp_search.exceptions import InvalidParameterError, MissingDependencyError, PMLPWarning
from parallelmlp_search.kernels.activations import ActivationKernel
from parallelmlp_search.kernels.losses import Loss, get_loss
from parallelmlp_search.kernels.numba import library
from parallelmlp_search.kernels.numba.arguments import ACTIVATION_CODES, ActivationRows, LossRows, pack
from parallelmlp_search.kernels.numba.library import USE_VARIABLE

PLAIN = "plain"
"""Name of the training path without compiled loops."""

READY = "ready"
"""Rule and training path that use the compiled loops only if they need not be compiled first."""

_rule: ContextVar[str | None] = ContextVar("rule", default=None)

NO_LOOPS = "the compiled loops are not available for this machine without numba (pip install numba)"


def uses_compiled(dtype: torch.dtype, device: torch.device | str, *, wanted: bool | None = None) -> bool:
    """Return True if training with this dtype on this device uses the compiled loops.

    Parameters
    ----------
    dtype, device
        Dtype and device of the weights.
    wanted
        True or False to use them or not; None for the rule of ``PMLP_COMPILED``.

    Returns
    -------
    bool
        True if the loops are used.

    Raises
    ------
    InvalidParameterError
        If they are wanted for another dtype than float32 or another device than a CPU.
    MissingDependencyError
        If they are wanted, but must be compiled first and numba is not installed.
    """
    applies = dtype == torch.float32 and torch.device(device).type == "cpu"
    if wanted is None:
        rule = _rule.get() or os.environ.get(USE_VARIABLE, "1")
        may_compile = applies and rule not in ("0", READY) and library.can_compile()
        return may_compile or is_ready(dtype, device)
    if wanted and not applies:
        raise InvalidParameterError(
            f"compiled must be False or None except for float32 on a CPU, "
            f"but got True for {str(dtype).removeprefix('torch.')} on {torch.device(device)}"
        )
    if wanted and library.find() is None and not library.can_compile():
        raise MissingDependencyError(NO_LOOPS)
    return wanted


def is_ready(dtype: torch.dtype, device: torch.device | str) -> bool:
    """Return True if values of this dtype on this device can use compiled loops that need not be compiled."""
    applies = dtype == torch.float32 and torch.device(device).type == "cpu"
    rule = _rule.get() or os.environ.get(USE_VARIABLE, "1")
    return applies and rule != "0" and library.find() is not None


def training_path(device: torch.device | str) -> str:
    """Return the kind of CPU whose compiled loops training on a device uses now, or ``"plain"``."""
    return library.target() if uses_compiled(torch.float32, device) else PLAIN


@contextmanager
def following(path: str | None) -> Iterator[None]:
    """Use a training path inside the context, whatever ``PMLP_COMPILED`` says.

    Parameters
    ----------
    path
        Result of `training_path` on the machine of the search, :data:`READY`, or None for the rule of
        ``PMLP_COMPILED``. Loops that are not ready are compiled, by `READY` beside the training.
    """
    if path == READY:
        library.compile_in_background()
    rules = {None: None, PLAIN: "0", READY: READY}
    token = _rule.set(rules.get(path, "1"))
    try:
        yield
    finally:
        _rule.reset(token)


def needs_compilation(device: torch.device | str) -> bool:
    """Return True if training on a device uses loops that this machine has to compile first."""
    return training_path(device) != PLAIN and library.find() is None


@contextmanager
def prepared_loops(device: torch.device | str, *, timed: bool, recorded: str | None = None) -> Iterator[str]:
    """Compile the loops if this machine lacks them: before work begins, or beside it with a time limit.

    With a time limit, training inside the context begins without the loops and uses them from the moment on
    when they are ready, also in processes that start inside the context.

    Parameters
    ----------
    device
        Device of the training.
    timed
        True if there is a time limit.
    recorded
        `training_path` with which an interrupted search began. It is kept if possible.

    Yields
    ------
    str
        Result of `training_path`, also if the loops are still being compiled.

    Raises
    ------
    CompilationError
        If the compilation fails without a time limit.
    """
    before = os.environ.get(USE_VARIABLE)
    if recorded == PLAIN and not timed:
        os.environ[USE_VARIABLE] = "0"
    path = training_path(device)
    if needs_compilation(device):
        if timed:
            library.compile_in_background()
            os.environ[USE_VARIABLE] = READY
        else:
            library.ensure_compiled()
    if path == PLAIN and before != "0" and recorded != PLAIN and torch.device(device).type == "cpu":
        warnings.warn(f"training takes two to four times as long: {NO_LOOPS}", PMLPWarning, stacklevel=2)
    if recorded not in (None, path):
        warnings.warn(
            f"the search began with the {recorded} training path and continues with {path}: "
            "results differ from those of an uninterrupted search by rounding errors",
            PMLPWarning,
            stacklevel=2,
        )
    try:
        yield path
    finally:
        if before is None:
            os.environ.pop(USE_VARIABLE, None)
        else:
            os.environ[USE_VARIABLE] = before


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
        self.covers = self.names()
        codes = np.array([ACTIVATION_CODES.get(kernel.name, -1) for kernel in kernels], dtype=np.int64)
        overwrites = np.array(in_place)
        self._members = len(kernels)
        self._z, self._output = self._rows(z), self._rows(output)
        in_place_codes, separate = np.where(overwrites, codes, -1), np.where(overwrites, -1, codes)
        self._forward: list[tuple[str, ActivationRows]] = []
        if (in_place_codes > 0).any():
            rows = self._arguments(self._z, self._z, in_place_codes)
            self._forward.append(("forward_activations_in_place", rows))
        if (separate >= 0).any():
            self._forward.append(("forward_activations", self._arguments(self._z, self._output, separate)))
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
        return frozenset(ACTIVATION_CODES)

    def _rows(self, tensor: Tensor) -> NDArray[np.float32]:
        rows: NDArray[np.float32] = tensor.view(self._members, -1).numpy()
        return rows

    def _arguments(
        self, source: NDArray[np.float32], target: NDArray[np.float32], codes: NDArray[np.int64]
    ) -> ActivationRows:
        return ActivationRows(source, target, codes, self._members, target.shape[1])

    def forward(self) -> None:
        """Compute the outputs."""
        for name, arguments in self._forward:
            library.loops().run(name, pack(arguments))

    def backward(self, grad: Tensor) -> None:
        """Multiply ``grad`` (P, H, N) by the slopes."""
        rows = self._rows(grad)
        for saved, codes in self._saved:
            library.loops().run("backward_activations", pack(self._arguments(saved, rows, codes)))


def compiled_loss(name: str) -> Loss:
    """Return the loss of a name, as `get_loss` does, for float32 on a CPU."""
    if name not in ("binary_logits", "cross_entropy"):
        return get_loss(name)
    cached: dict[tuple[Any, ...], LossRows] = {}  # made once per bucket instead of once per step

    def loss(
        outputs: Tensor,
        target: Tensor,
        gradient: Tensor,
        weight: Tensor | None = None,
        smoothing: Tensor | None = None,
    ) -> Tensor:
        n_members, n_outputs, n_rows = outputs.shape
        key = outputs.data_ptr(), gradient.data_ptr(), outputs.shape
        if key not in cached:
            # the arrays keep their memory alive, so that no other memory gets this key
            cached[key] = LossRows(
                outputs.numpy(),
                gradient.numpy(),
                np.zeros(tuple(target.shape), dtype=np.int64),
                np.full(n_rows, 1.0 / n_rows, dtype=np.float32),
                np.zeros(n_members, dtype=np.float32),
                np.empty(n_members, dtype=np.float32),
                np.empty((3, n_rows), dtype=np.float32),
                n_members,
                n_outputs,
                n_rows,
            )
        losses = np.empty(n_members, dtype=np.float32)
        rows = cached[key]._replace(classes=target.long().contiguous().numpy(), losses=losses)
        if weight is not None:
            shares = weight / weight.sum().clamp(min=torch.finfo(weight.dtype).tiny)
            rows = rows._replace(shares=shares.numpy())
        if smoothing is not None:
            rows = rows._replace(smoothing=smoothing.contiguous().numpy())
        library.loops().run(name, pack(rows))
        return torch.from_numpy(losses)

    return loss
