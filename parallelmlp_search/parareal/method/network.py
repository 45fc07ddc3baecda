"""The parareal network in one process: slices of depth, connected by coarse networks.

Source: Lee, Lee and Park, "Parareal Neural Networks Emulating a Parallel-in-time Algorithm", IEEE TNNLS 2022
(arXiv 2103.08802). A network ``g_T o ... o g_1`` is cut into ``T`` fine networks. Preprocessors ``C_j`` guess
the input of slice ``j`` from the network's input ``x``, so that all fine networks run at the same time.
Coarse networks ``F_j``, shallow versions of ``g_j``, then propagate the error of each slice to the end:

    x_1 = x,  x_j = C_j(x),  y_j = g_j(x_j)                    in parallel, on T devices
    r_j = y_{j-1} - x_j,  e_1 = 0,  e_j = F_j(r_j + e_{j-1})   a sequential sweep
    output = head(y_T + e_T)

With the corrected outputs ``s_j = y_j + e_j`` the sweep is ``s_j = y_j + F_j(s_{j-1} - x_j)``: one tensor
passes from each slice to the next. If the slices are linear and ``F_j = g_j``, the output is that of the
serial network for any preprocessors.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from parallelmlp_search.exceptions import InvalidParameterError

OutputGradient = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Maps outputs to the loss, a scalar, and the gradient of the loss with respect to the outputs."""


class Slice(nn.Module):
    """One slice of depth, held by one device.

    Parameters
    ----------
    fine
        The slice ``g_j`` of the serial network.
    preprocessor
        ``C_j``, from the network's input to that of ``fine``; None in the first slice.
    coarse
        ``F_j``, from the input of ``fine`` to its output; None in the first slice.
    head
        Last layers of the network; None in all slices but the last.

    Raises
    ------
    InvalidParameterError
        If there is only one of preprocessor and coarse network.
    """

    def __init__(
        self,
        fine: nn.Module,
        *,
        preprocessor: nn.Module | None = None,
        coarse: nn.Module | None = None,
        head: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if (preprocessor is None) != (coarse is None):
            raise InvalidParameterError(
                "a slice has both a preprocessor and a coarse network, or, as the first, neither"
            )
        self.preprocessor = preprocessor
        self.fine = fine
        self.coarse = coarse
        self.head = head

    @property
    def is_first(self) -> bool:
        """True if the input of the slice is that of the network."""
        return self.coarse is None

    def guess(self, inputs: Tensor) -> Tensor:
        """Return ``x_j``, the guess of the input of this slice."""
        if self.preprocessor is None:
            return inputs
        guess: Tensor = self.preprocessor(inputs)
        return guess

    def outputs(self, corrected: Tensor) -> Tensor:
        """Return the network's outputs from ``s_T``."""
        if self.head is None:
            return corrected
        outputs: Tensor = self.head(corrected)
        return outputs


class PararealNetwork(nn.Module):
    """Slices, run one after the other: the reference of every distributed run.

    It is an ordinary module: backpropagation trains it, its state dict names everything by slice
    (``slices.J.fine...``), and it can be compiled and exported.

    Parameters
    ----------
    slices
        One or more, in order; the first without coarse network, all others with one.

    Raises
    ------
    InvalidParameterError
        If they are not in this order, or a slice before the last has a head.
    """

    def __init__(self, slices: Iterable[Slice]) -> None:
        super().__init__()
        self.slices = nn.ModuleList(slices)
        members = self.parts
        if not members or not members[0].is_first or any(part.is_first for part in members[1:]):
            raise InvalidParameterError(
                "slices must be one first slice without and then slices with a coarse network, "
                f"but got {[part.is_first for part in members]} for which are first"
            )
        if any(part.head is not None for part in members[:-1]):
            raise InvalidParameterError("only the last slice may have a head")

    @property
    def parts(self) -> list[Slice]:
        """The slices as a list."""
        return [part for part in self.slices if isinstance(part, Slice)]

    @property
    def n_slices(self) -> int:
        """Number ``T`` of slices."""
        return len(self.slices)

    @property
    def cuts(self) -> tuple[int, ...]:
        """Blocks of the serial network at which slices 2 to ``T`` begin."""
        sizes = [len(part.fine) for part in self.parts if isinstance(part.fine, nn.Sequential)]
        return tuple(itertools.accumulate(sizes[:-1]))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the outputs, with the coarse correction."""
        corrected = inputs
        for part in self.parts:
            guess = part.guess(inputs)
            end = part.fine(guess)
            corrected = end if part.coarse is None else end + part.coarse(corrected - guess)
        return self.parts[-1].outputs(corrected)


class SlicePass:
    """Forward and backward pass of one minibatch through one slice, without the other slices.

    Forward: :meth:`correct` maps ``s_{j-1}`` to ``s_j``; in the last slice :meth:`backward_head` computes
    outputs and loss. Backward, with ``mu_j`` the gradient of the loss with respect to ``s_{j-1}``:
    :meth:`backward_coarse` returns ``mu_j = F_j'^T mu_{j+1}``, which the previous slice waits for. Then
    :meth:`backward_fine` propagates ``mu_{j+1}`` through the fine network and ``g_j'^T mu_{j+1} - mu_j``
    through the preprocessor. Gradients are accumulated in ``grad`` of the parameters.

    Parameters
    ----------
    part
        The slice.
    inputs
        The network's input; preprocessor and fine network run in the constructor.
    """

    def __init__(self, part: Slice, inputs: Tensor) -> None:
        self.part = part
        self.guess = part.guess(inputs)
        self.end: Tensor = part.fine(self.guess)

    def correct(self, previous: Tensor | None) -> Tensor:
        """Return ``s_j``, detached, from ``s_{j-1}``, which is None for the first slice."""
        self.corrected = self.end.detach()
        if previous is not None and self.part.coarse is not None:
            self.difference = (previous - self.guess.detach()).requires_grad_()
            self.error = self.part.coarse(self.difference)
            self.corrected = self.corrected + self.error.detach()
        return self.corrected

    def backward_head(self, output_gradient: OutputGradient) -> tuple[Tensor, Tensor]:
        """Return the loss and ``mu_{T+1}``, its gradient with respect to ``s_T``."""
        corrected = _full_precision(self.corrected.detach())
        if self.part.head is None:
            return output_gradient(corrected)
        corrected.requires_grad_()
        outputs = self.part.outputs(corrected)
        loss, gradient = output_gradient(_full_precision(outputs.detach()))
        torch.autograd.backward([outputs], [gradient.to(outputs.dtype)])
        assert corrected.grad is not None
        return loss, corrected.grad

    def backward_coarse(self, gradient: Tensor) -> Tensor:
        """Return ``mu_j`` from ``mu_{j+1}``; the first slice has no ``mu_j`` and returns its argument."""
        self.roots, self.gradients = [self.end], [gradient]
        if self.part.is_first:
            return gradient
        torch.autograd.backward([self.error], [gradient])
        assert self.difference.grad is not None
        if self.guess.requires_grad:
            self.roots.append(self.guess)
            self.gradients.append(-self.difference.grad)
        return self.difference.grad

    def backward_fine(self) -> None:
        """Backpropagate ``mu_{j+1}`` and ``mu_j`` through fine network and preprocessor."""
        if any(root.requires_grad for root in self.roots):
            torch.autograd.backward(self.roots, self.gradients)


def _full_precision(values: Tensor) -> Tensor:
    """Values of autocast in float32, in which losses are computed."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values
