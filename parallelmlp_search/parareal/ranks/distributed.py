"""Training of the slices that this process holds, together with other ranks.

The same code serves a single process that holds every slice and a rank that holds one: slice passes run
through the slices of this process, and the communicator transfers tensors between ranks.
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
from parallelmlp_search.parareal.method.blocks import Shape
from parallelmlp_search.parareal.method.network import OutputGradient, PararealNetwork, Slice, SlicePass
from parallelmlp_search.parareal.method.optimizer import FlatOptimizer, FlatParameters, Recipe
from parallelmlp_search.parareal.ranks.communicator import Communicator

PREVIOUS, NEXT = -1, 1

PREDICTION_ROWS = 2048
"""Rows of a message in prediction."""


class DistributedParareal:
    """Trains a parareal network: the slices of this process, their optimizer, the other ranks.

    Every rank calls the same methods in the same order with the same arguments.

    Parameters
    ----------
    network
        The whole network, the same on every rank (same seed). A rank keeps its slice and discards the rest.
    communicator
        From :func:`init_communicator`, or ``Communicator()`` for all slices in this process.
    recipe
        Hyperparameters of training.
    example
        A minibatch, or one row, of the network's input; only its shape and dtype are used.
    broadcast
        True if only the first slice's rank has the input and sends it to the others. By default every rank
        has its rows, which saves a message per step.
    autocast
        Type of products, such as ``torch.bfloat16`` on GPUs. Parameters and messages keep their type.
    seed
        Seed of dropout, which differs by step, slice and replica.

    Attributes
    ----------
    batch_rows
        Rows of a minibatch if the input is broadcast; set it on every rank before the first step.

    Raises
    ------
    DistributedError
        If ranks disagree on the number of slices, shapes, types or recipe.
    """

    def __init__(
        self,
        network: PararealNetwork,
        communicator: Communicator,
        recipe: Recipe,
        example: Tensor,
        *,
        broadcast: bool = False,
        autocast: torch.dtype | None = None,
        seed: int = 0,
    ) -> None:
        self.communicator = communicator
        self.n_slices = network.n_slices
        self.shapes = _interface_shapes(network, example[:1])
        self.input_shape: Shape = tuple(example.shape[1:])
        self.dtype = example.dtype
        self.broadcast = broadcast and communicator.n_slices > 1
        self.batch_rows = 0
        self.seed = seed
        self._autocast = autocast
        communicator.check_equal(
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
        if communicator.n_slices not in (1, network.n_slices):
            raise DistributedError(
                f"network must have one slice a rank, {communicator.n_slices}, but has {network.n_slices}"
            )
        holds_all = communicator.n_slices == 1
        self.numbers = list(range(network.n_slices)) if holds_all else [communicator.slice_index]
        self.parts: list[Slice] = [network.parts[number].to(communicator.device) for number in self.numbers]
        self.flat = FlatParameters(self.parts)
        self.optimizer = FlatOptimizer(self.flat, recipe, communicator.sum_over_slices)
        self._checked_rows: dict[int, int] = {}  # by number of the piece
        self._has_dropout = any(
            isinstance(m, nn.Dropout) and m.p > 0 for part in self.parts for m in part.modules()
        )

    @property
    def is_first(self) -> bool:
        """True if this process holds the first slice."""
        return self.numbers[0] == 0

    @property
    def is_last(self) -> bool:
        """True if this process holds the last slice, and so computes the loss."""
        return self.numbers[-1] == self.n_slices - 1

    # ------------------------------------------------------------------ training

    def step(
        self, inputs: Tensor | None, output_gradient: OutputGradient | Sequence[OutputGradient]
    ) -> Tensor | None:
        """Train on one minibatch and return its loss on the last slice, else None.

        Parameters
        ----------
        inputs
            Rows ``(N, ...)`` of this replica; None on ranks after the first if the input is broadcast.
        output_gradient
            Loss and its gradient, used by the last slice. A sequence of ``k`` cuts the minibatch into as many
            pieces, whose gradients and losses are summed. Memory holds one piece at a time.

        Raises
        ------
        InvalidParameterError
            If the input is missing, has another shape, or is broadcast in pieces.
        """
        if inputs is None and (self.is_first or not self.broadcast):
            raise InvalidParameterError("inputs must be given on every rank unless they are broadcast")
        if inputs is not None and tuple(inputs.shape[1:]) != self.input_shape:
            raise InvalidParameterError(
                f"inputs must have rows of shape {self.input_shape}, but got {tuple(inputs.shape[1:])}"
            )
        functions = [output_gradient] if callable(output_gradient) else list(output_gradient)
        pieces: Sequence[Tensor | None] = [inputs]
        if len(functions) > 1:
            if inputs is None or self.broadcast:
                raise InvalidParameterError("output_gradient must be one function if the input is broadcast")
            pieces = inputs.tensor_split(len(functions))
        self.optimizer.zero_grad()
        total: Tensor | None = None
        for number, (piece, function) in enumerate(zip(pieces, functions, strict=True)):
            loss = self._backward(self._shared_rows(piece, number), function, number)
            if loss is not None:
                total = loss if total is None else total + loss
        self.communicator.sum_over_replicas(self.flat.gradients)
        self.optimizer.step()
        return total

    def _shared_rows(self, inputs: Tensor | None, piece: int) -> Tensor:
        """Rows of a piece of the minibatch, from the first slice if it broadcasts them."""
        n_rows = self.batch_rows if inputs is None else inputs.shape[0]
        if self._checked_rows.get(piece) != n_rows:  # gloo aborts if a message has another length
            self.communicator.check_equal({"the rows of a minibatch": n_rows}, in_replica=True)
            self._checked_rows[piece] = n_rows
        if inputs is not None and not self.broadcast:
            return inputs
        rows = self._empty(n_rows, self.input_shape)
        if inputs is not None:
            rows.copy_(inputs)
        self.communicator.broadcast(rows, 0)
        return rows

    def _backward(self, inputs: Tensor, output_gradient: OutputGradient, piece: int) -> Tensor | None:
        """Add the gradients of a piece of the minibatch and return its loss on the last slice.

        A message of the previous slice travels while the fine network runs, and gradients are sent before the
        backward pass of the fine network begins.
        """
        loss = None
        passes, corrected = self._forward(inputs, noise=(self.optimizer.step_number, piece))
        if self.is_last:
            with self._cast():
                loss, gradient = passes[-1].backward_head(output_gradient)
        else:
            # after the send: between two GPUs messages keep the order in which they were announced
            self.communicator.start_receive(NEXT, torch.empty_like(corrected))
            gradient = self.communicator.wait_receive()
        for slice_pass in reversed(passes):
            gradient = slice_pass.backward_coarse(gradient)
        if not self.is_first:
            self.communicator.send(PREVIOUS, gradient)
        for slice_pass in passes:
            slice_pass.backward_fine()
        self.communicator.end_step()
        return loss

    def _forward(
        self, inputs: Tensor, noise: tuple[int, int] | None = None
    ) -> tuple[list[SlicePass], Tensor]:
        """Run the slices of this process forward and send the last corrected output, which is returned."""
        n_rows = inputs.shape[0]
        if not self.is_first:
            self.communicator.start_receive(PREVIOUS, self._empty(n_rows, self.shapes[self.numbers[0] - 1]))
        passes = []
        for number, part in zip(self.numbers, self.parts, strict=True):
            if noise is not None and self._has_dropout:
                entropy = [self.seed, *noise, number, self.communicator.replica_index]
                state = np.random.SeedSequence(entropy).generate_state(1, np.uint64)
                torch.manual_seed(int(state[0] >> 1))
            with self._cast():
                passes.append(SlicePass(part, inputs))
        previous = None if self.is_first else self.communicator.wait_receive()
        for slice_pass in passes:
            with self._cast():
                previous = slice_pass.correct(previous).to(self.dtype)  # the type of messages
        assert previous is not None
        if not self.is_last:
            expected = (n_rows, *self.shapes[self.numbers[-1]])
            if tuple(previous.shape) != expected:
                raise DistributedError(
                    f"slice {self.numbers[-1] + 1} must give {expected}, as agreed, "
                    f"but gives {tuple(previous.shape)}"
                )
            self.communicator.send(NEXT, previous)
        return passes, previous

    def _empty(self, n_rows: int, shape: Shape) -> Tensor:
        return torch.empty(n_rows, *shape, dtype=self.dtype, device=self.communicator.device)

    def _cast(self) -> AbstractContextManager[Any]:
        if self._autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(self.communicator.device.type, self._autocast)

    # ------------------------------------------------------------------ prediction

    @torch.no_grad()
    def predict(self, inputs: Tensor) -> Tensor | None:
        """Return the outputs ``(n, ...)`` of rows that every rank has, on the last slice, else None."""
        self.communicator.check_equal({"the rows to predict": inputs.shape[0]}, in_replica=True)
        found = []
        training = self.parts[0].training
        for part in self.parts:
            part.eval()
        for rows in torch.split(inputs, PREDICTION_ROWS):
            _, corrected = self._forward(rows)
            if self.is_last:
                with self._cast():
                    found.append(self.parts[-1].outputs(corrected).to(self.dtype))
            else:
                self.communicator.end_step()
        for part in self.parts:
            part.train(training)
        return torch.cat(found) if found else None

    @contextlib.contextmanager
    def weights(self, values: Tensor | None) -> Iterator[None]:
        """Use other weights temporarily, such as the averaged ones."""
        current = self.flat.values.clone()
        with torch.no_grad():
            self.flat.values.copy_(current if values is None else values)
        try:
            yield
        finally:
            with torch.no_grad():
                self.flat.values.copy_(current)

    def state_dict(self) -> dict[str, Tensor]:
        """Return weights and buffers of the slices of this process, named as in the whole network."""
        return {
            f"slices.{number}.{name}": value.detach().clone()
            for number, part in zip(self.numbers, self.parts, strict=True)
            for name, value in part.state_dict().items()
        }


def _interface_shapes(network: PararealNetwork, example: Tensor) -> list[Shape]:
    """Shapes of one row of ``s_1`` to ``s_T``, found by a dry run."""
    was_training = network.training
    network.eval()
    with torch.no_grad():
        shapes = [tuple(part.fine(part.guess(example)).shape[1:]) for part in network.parts]
    network.train(was_training)
    return shapes
