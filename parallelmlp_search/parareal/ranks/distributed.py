"""Training over slices that this process holds, with the others a message away.

One code for a single process that holds every slice and for a rank that holds one: passages run through what
is here, and the world passes on what leaves it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from parallelmlp_search.exceptions import DistributedError, InvalidParameterError
from parallelmlp_search.parareal.method.network import OutputGradient, PararealNetwork, Passage, Slice
from parallelmlp_search.parareal.method.recipe import FlatOptimizer, FlatParameters, Recipe
from parallelmlp_search.parareal.ranks.communicator import Alone

__all__ = ["DistributedParareal", "interface_shapes"]

Shape = tuple[int, ...]


def interface_shapes(network: PararealNetwork, example: Tensor) -> list[Shape]:
    """Shapes of one row of ``s_1`` to ``s_T``, found by a dry run."""
    was_training = network.training
    network.eval()
    with torch.no_grad():
        shapes = [tuple(part.fine(part.start(example)).shape[1:]) for part in network.parts]
    network.train(was_training)
    return shapes


class DistributedParareal:
    """A parareal network in training: the slices of this process, its optimiser, its neighbours.

    Every rank calls the same methods in the same order with the same arguments.

    Parameters
    ----------
    network
        The whole network, the same on every rank (same seed); a rank keeps its own slice and lets go of the
        rest.
    world
        From :func:`join`, or :class:`Alone` for all slices in this process.
    recipe
        How to train.
    example
        A minibatch, or one row, of the network's input; only its shape and dtype count.
    broadcast
        Whether the first slice's rank alone has the input and passes it to the others; by default every rank
        brings its own rows, which saves a message a step.
    autocast
        Type of the products, such as ``torch.bfloat16`` on GPUs, or None for that of the parameters, which
        stay as they are, as do messages.
    seed
        Seed of dropout: each step, slice and replica has its own noise, whatever rank it is on.

    Raises
    ------
    DistributedError
        If ranks disagree on the number of slices, shapes, types or recipe.
    """

    def __init__(
        self,
        network: PararealNetwork,
        world: Alone,
        recipe: Recipe,
        example: Tensor,
        *,
        broadcast: bool = False,
        autocast: torch.dtype | None = None,
        seed: int = 0,
    ) -> None:
        alone = type(world) is Alone
        self.world, self.recipe = world, recipe
        self.n_slices = network.n_slices
        self.shapes = interface_shapes(network, example[:1])
        self.input_shape: Shape = tuple(example.shape[1:])
        self.dtype = example.dtype
        self.broadcast = broadcast and not alone
        self.seed = seed
        self._autocast = autocast
        world.agree(
            {
                "the number of slices": network.n_slices,
                "shapes": [list(shape) for shape in self.shapes],
                "the input's shape": list(self.input_shape),
                "the input's type": str(self.dtype),
                "broadcast": self.broadcast,
                "recipe": repr(recipe),
                "seed": seed,
            }
        )
        if not alone and world.slices != network.n_slices:
            raise DistributedError(
                f"network must have one slice a rank, {world.slices}, but has {network.n_slices}"
            )
        kept = network.parts if alone else [network.parts[world.slice]]
        self.parts: list[Slice] = [part.to(world.device) for part in kept]
        self.numbers = list(range(network.n_slices)) if alone else [world.slice]
        self.flat = FlatParameters(self.parts)
        self.optimizer = FlatOptimizer(self.flat, recipe, world.sum_over_slices)
        self._agreed_rows: dict[int, int] = {}  # by number of the piece
        self._drops = any(
            isinstance(m, nn.Dropout) and m.p > 0 for part in self.parts for m in part.modules()
        )

    @property
    def is_first(self) -> bool:
        """Whether the first slice is here."""
        return self.parts[0].is_first

    @property
    def is_last(self) -> bool:
        """Whether the last slice, and so the loss, is here."""
        return self.numbers[-1] == self.n_slices - 1

    # ------------------------------------------------------------------ training

    def step(
        self,
        inputs: Tensor | None,
        output_gradient: OutputGradient | Sequence[OutputGradient],
        *,
        accumulate: int = 1,
    ) -> Tensor | None:
        """Train on one minibatch.

        Parameters
        ----------
        inputs
            This replica's rows ``(N, ...)``; None on ranks behind the first where the input is broadcast.
        output_gradient
            Loss and its gradient from outputs, used where the last slice is; with ``accumulate`` a sequence,
            one for each piece of the minibatch.
        accumulate
            Pieces that the minibatch is cut into, one after the other, so that memory holds one.

        Returns
        -------
        Tensor or None
            The sum of the pieces' losses where the last slice is.
        """
        pieces: list[Tensor | None] = [inputs] if accumulate == 1 else []
        if accumulate > 1:
            if inputs is None or self.broadcast:
                raise InvalidParameterError("accumulate must be 1 where the input is broadcast")
            pieces.extend(inputs.tensor_split(accumulate))
        functions = [output_gradient] if callable(output_gradient) else list(output_gradient)
        if len(functions) != len(pieces):
            raise InvalidParameterError(
                f"output_gradient must have one function a piece, {len(pieces)}, but has {len(functions)}"
            )
        self.optimizer.zero()
        total: Tensor | None = None
        for number, (piece, function) in enumerate(zip(pieces, functions, strict=True)):
            loss = self.gradients(piece, function, noise=(self.optimizer.step_number, number))
            if loss is not None:
                total = loss if total is None else total + loss
        self.world.sum_over_replicas(self.flat.gradients)
        self.optimizer.step()
        return total

    def gradients(
        self, inputs: Tensor | None, output_gradient: OutputGradient, *, noise: tuple[int, int] = (0, 0)
    ) -> Tensor | None:
        """Add the gradients of a minibatch; the loss where the last slice is.

        The message from the slice before is expected before the fine network starts, so that it travels while
        this rank computes; gradients leave before the fine network's backward pass begins.
        """
        world = self.world
        if inputs is None and not self.broadcast:
            raise InvalidParameterError("inputs must be given on every rank unless they are broadcast")
        if inputs is not None and tuple(inputs.shape[1:]) != self.input_shape:
            raise InvalidParameterError(
                f"inputs must have rows of shape {self.input_shape}, but got {tuple(inputs.shape[1:])}"
            )
        n_rows = self.batch_rows if inputs is None else inputs.shape[0]
        if self._agreed_rows.get(noise[1]) != n_rows:  # a message of another length would end gloo, not tell
            world.agree({"the rows of a minibatch": n_rows}, in_chain=True)
            self._agreed_rows[noise[1]] = n_rows
        if self.broadcast:
            inputs = world.share_input(inputs, (n_rows, *self.input_shape), self.dtype)
        assert inputs is not None
        before, after = not self.is_first, not self.is_last
        if before:
            world.expect_forward((n_rows, *self.shapes[self.numbers[0] - 1]), self.dtype)
        passages = []
        for number, part in zip(self.numbers, self.parts, strict=True):
            if self._drops:
                torch.manual_seed(_noise_seed(self.seed, *noise, number, world.replica))
            with self._cast():
                passages.append(Passage(part, inputs))
        corrected = world.receive() if before else None
        for passage in passages:
            with self._cast():
                corrected = passage.correct(corrected).to(self.dtype)  # what a message would be
        assert corrected is not None
        loss = None
        if after:
            world.send_forward(self._checked(corrected, n_rows))
            # only now: between two GPUs messages keep the order in which they were announced
            world.expect_backward((n_rows, *self.shapes[self.numbers[-1]]), self.dtype)
            gradient = world.receive()
        else:
            with self._cast():
                loss, gradient = passages[-1].finish(output_gradient)
        gradients = [gradient]
        for passage in reversed(passages):
            if not passage.part.is_first:
                gradients.append(passage.adjoint_coarse(gradients[-1]))
        if before:
            world.send_backward(gradients[-1])
        gradients.reverse()
        if self.is_first:
            gradients = [gradients[0], *gradients]
        for number, passage in enumerate(passages):
            passage.adjoint_fine(gradients[number + 1], None if passage.part.is_first else gradients[number])
        world.end_step()
        return loss

    batch_rows = 0
    """Rows of a minibatch where the input is broadcast; set it on every rank before the first step."""

    def _checked(self, corrected: Tensor, n_rows: int) -> Tensor:
        wanted = (n_rows, *self.shapes[self.numbers[-1]])
        if tuple(corrected.shape) != wanted:
            raise DistributedError(
                f"slice {self.numbers[-1] + 1} must give {wanted}, as agreed, "
                f"but gives {tuple(corrected.shape)}"
            )
        return corrected

    def _cast(self) -> AbstractContextManager[Any]:
        if self._autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(self.world.device.type, self._autocast)

    # ------------------------------------------------------------------ looking at it

    def predict(self, inputs: Tensor, *, window: int = 2048) -> Tensor | None:
        """Outputs ``(n, ...)`` of rows that every rank has, where the last slice is; nothing is learned."""
        self.world.agree({"the rows to predict": inputs.shape[0], "window": window}, in_chain=True)
        found = []
        modes = [part.training for part in self.parts]
        for part in self.parts:
            part.eval()
        with torch.no_grad():
            for rows in torch.split(inputs, window):
                outputs = self._predict_window(rows)
                if outputs is not None:
                    found.append(outputs)
        for part, mode in zip(self.parts, modes, strict=True):
            part.train(mode)
        return torch.cat(found) if found else None

    def _predict_window(self, rows: Tensor) -> Tensor | None:
        world = self.world
        corrected: Tensor | None = None
        if not self.is_first:
            world.expect_forward((rows.shape[0], *self.shapes[self.numbers[0] - 1]), self.dtype)
        with self._cast():
            ends = [(start := part.start(rows), part.fine(start)) for part in self.parts]
            if not self.is_first:
                corrected = world.receive()
            for part, (start, end) in zip(self.parts, ends, strict=True):
                corrected = end if corrected is None else end + part.correction(corrected - start)
                corrected = corrected.to(self.dtype)
            assert corrected is not None
            if self.is_last:
                return self.parts[-1].finish(corrected).to(self.dtype)
        world.send_forward(self._checked(corrected, rows.shape[0]))
        world.end_step()
        return None

    @contextlib.contextmanager
    def weights(self, values: Tensor | None) -> Iterator[None]:
        """Look at the network with other weights, such as the averaged ones."""
        if values is None:
            yield
            return
        current = self.flat.values.clone()
        with torch.no_grad():
            self.flat.values.copy_(values)
        try:
            yield
        finally:
            with torch.no_grad():
                self.flat.values.copy_(current)

    def state_dict(self) -> dict[str, Tensor]:
        """Weights and buffers of the slices of this process, named as in the whole network."""
        return {
            f"slices.{number}.{name}": value.detach().clone()
            for number, part in zip(self.numbers, self.parts, strict=True)
            for name, value in part.state_dict().items()
        }


def _noise_seed(seed: int, step: int, piece: int, number: int, replica: int) -> int:
    """Seed of the dropout of one slice of a replica in one step."""
    return int(
        np.random.SeedSequence([seed, step, piece, number, replica]).generate_state(1, np.uint64)[0] >> 1
    )
