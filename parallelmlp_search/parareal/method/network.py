"""The parareal network in one process: slices of depth, joined by coarse networks.

Source: Lee, Lee and Park, "Parareal Neural Networks Emulating a Parallel-in-time Algorithm", IEEE TNNLS 2022
(arXiv 2103.08802). A network ``g_T o ... o g_1`` is cut into ``T`` fine networks. Preprocessors ``C_j`` guess
the input of slice ``j`` from the network's own input ``x``, so that all fine networks can run at once; coarse
networks ``F_j``, shallow versions of ``g_j``, then carry each slice's error on to the end:

    x_1 = x,  x_j = C_j(x),  y_j = g_j(x_j)                    at once, on T devices
    r_j = y_{j-1} - x_j,  e_1 = 0,  e_j = F_j(r_j + e_{j-1})   a short sweep
    output = head(y_T + e_T)

Written with the corrected outputs ``s_j = y_j + e_j`` the sweep is ``s_j = y_j + F_j(s_{j-1} - x_j)``: one
tensor passes from each slice to the next. With linear ``g_j`` and ``F_j = g_j`` the output is that of the
serial network, whatever the preprocessors.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from parallelmlp_search.exceptions import InvalidParameterError

__all__ = ["OutputGradient", "PararealNetwork", "Passage", "Slice", "adjoint"]

OutputGradient = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Maps outputs to the loss, a scalar, and the gradient of the loss by the outputs."""


class Slice(nn.Module):
    """One slice of depth: what one device holds.

    Parameters
    ----------
    fine
        The slice ``g_j`` of the serial network.
    preprocessor
        ``C_j``, from the network's input to that of ``fine``; None in the first slice.
    coarse
        ``F_j``, from the input of ``fine`` to its output; None in the first slice.
    head
        What follows the last slice, and there alone.
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
        """Whether its input is that of the network."""
        return self.coarse is None

    def start(self, inputs: Tensor) -> Tensor:
        """``x_j``: the guess of this slice's input."""
        if self.preprocessor is None:
            return inputs
        guess: Tensor = self.preprocessor(inputs)
        return guess

    def correction(self, difference: Tensor) -> Tensor:
        """``e_j`` from ``s_{j-1} - x_j``."""
        if self.coarse is None:
            raise InvalidParameterError("the first slice has nothing to correct")
        result: Tensor = self.coarse(difference)
        return result

    def finish(self, corrected: Tensor) -> Tensor:
        """The network's outputs from ``s_T``."""
        if self.head is None:
            return corrected
        outputs: Tensor = self.head(corrected)
        return outputs


class PararealNetwork(nn.Module):
    """Slices, run one after the other: the plain twin of every distributed run.

    An ordinary module: ordinary backpropagation trains it, its state dict names everything by slice
    (``slices.J.fine...``), and it can be compiled and exported.

    Parameters
    ----------
    slices
        Two or more, in order; the first without coarse network, all others with one.

    Raises
    ------
    InvalidParameterError
        If they are not in this order.
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
        """Outputs of the network, with the coarse correction."""
        corrected = inputs
        for part in self.parts:
            start = part.start(inputs)
            end = part.fine(start)
            corrected = end if part.coarse is None else end + part.correction(corrected - start)
        return self.parts[-1].finish(corrected)


class Passage:
    """The way of one minibatch through one slice, forward and back, without its neighbours.

    Forward: :meth:`correct` turns ``s_{j-1}`` into ``s_j``; in the last slice :meth:`finish` goes on to the
    outputs. Backward, with ``mu_j`` the gradient of the loss by ``s_{j-1}``: :meth:`adjoint_coarse` gives
    ``mu_j = F_j'^T mu_{j+1}``, and :meth:`adjoint_fine` sends ``mu_{j+1}`` back through the fine network and
    ``g_j'^T mu_{j+1} - mu_j`` through the preprocessor. Gradients add up in the parameters' ``grad``.

    Parameters
    ----------
    part
        The slice.
    inputs
        The network's input; preprocessor and fine network run at once.
    """

    def __init__(self, part: Slice, inputs: Tensor) -> None:
        self.part = part
        with torch.enable_grad():
            self.start = part.start(inputs)
            self.end: Tensor = part.fine(self.start)

    def correct(self, before: Tensor | None) -> Tensor:
        """``s_j`` from ``s_{j-1}``, None for the first slice; detached."""
        if before is None:
            self.corrected = self.end.detach()
            return self.corrected
        self.difference = (before - self.start.detach()).requires_grad_()
        with torch.enable_grad():
            self.error = self.part.correction(self.difference)
        self.corrected = self.end.detach() + self.error.detach()
        return self.corrected

    def finish(self, output_gradient: OutputGradient) -> tuple[Tensor, Tensor]:
        """Loss, and ``mu_{T+1}``: its gradient by ``s_T``; the head's gradients are added."""
        corrected = _exact(self.corrected.detach())
        if self.part.head is None:
            return output_gradient(corrected)
        corrected.requires_grad_()
        with torch.enable_grad():
            outputs = self.part.finish(corrected)
        loss, gradient = output_gradient(_exact(outputs.detach()))
        torch.autograd.backward([outputs], [gradient.to(outputs.dtype)])
        assert corrected.grad is not None
        return loss, corrected.grad

    def adjoint_coarse(self, gradient: Tensor) -> Tensor:
        """``mu_j`` from ``mu_{j+1}``; the coarse network's gradients are added."""
        torch.autograd.backward([self.error], [gradient])
        assert self.difference.grad is not None
        return self.difference.grad

    def adjoint_fine(self, gradient: Tensor, before: Tensor | None) -> None:
        """Add the gradients of fine network and preprocessor from ``mu_{j+1}`` and ``mu_j``."""
        roots, gradients = [self.end], [gradient]
        if before is not None and self.start.requires_grad:
            roots, gradients = [self.end, self.start], [gradient, -before]
        if any(root.requires_grad for root in roots):
            torch.autograd.backward(roots, gradients)


def _exact(values: Tensor) -> Tensor:
    """Values of autocast in float32, in which losses are taken."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values


def adjoint(network: PararealNetwork, inputs: Tensor, output_gradient: OutputGradient) -> Tensor:
    """Loss of a minibatch; gradients are added by the explicit sweeps instead of one backward pass.

    What the ranks of a distributed run do, in one process and in order.
    """
    passages = [Passage(part, inputs) for part in network.parts]
    corrected: Tensor | None = None
    for passage in passages:
        corrected = passage.correct(corrected)
    loss, gradient = passages[-1].finish(output_gradient)
    gradients = [gradient]
    for passage in reversed(passages[1:]):
        gradients.append(passage.adjoint_coarse(gradients[-1]))
    gradients.reverse()  # mu_2 ... mu_{T+1}
    for number, passage in enumerate(passages):
        passage.adjoint_fine(gradients[number], gradients[number - 1] if number else None)
    return loss
