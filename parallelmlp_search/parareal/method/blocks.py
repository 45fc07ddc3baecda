"""Blocks of a serial network: their shapes, found by a dry run, their cost, and cuts that balance it."""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.packing.periodic import Periodic

__all__ = ["BlockFacts", "balanced_cuts", "counted_cost", "dry_run", "measured_cost", "statistics_kept"]

Shape = tuple[int, ...]

WAVE_COST = 240.0
"""The same for a wave of an embedding: cosine, sine and some products, six passes."""

ELEMENT_COST = 40.0
"""Floating-point operations of a product that take as long as one pass of forward and backward over an
element: on a core that does 40 GFLOP/s and copies 10 GB/s an element of float32 costs some 1 ns, 40
operations."""

CALL_COST = 4e5
"""The same for one call of a module, some 10 us."""

MESSAGE_COST = 4e6
"""The same for a message from slice to slice and for waking up what deals with it, whose code the caches have
forgotten by then: some 60 us, of which the socket takes 6."""


@dataclass(frozen=True)
class BlockFacts:
    """What a dry run tells of one block.

    Attributes
    ----------
    inputs, outputs
        Shapes of one row, without the rows' own axis.
    parameters
        Trainable numbers.
    cost
        Forward and backward of a minibatch: operations where counted, seconds where measured.
    """

    inputs: Shape
    outputs: Shape
    parameters: int
    cost: float


def dry_run(blocks: Sequence[nn.Module], example: Tensor, *, measured: bool = False) -> list[BlockFacts]:
    """Send an example minibatch through blocks and note shapes and costs.

    Parameters
    ----------
    blocks
        In order.
    example
        A minibatch ``(N, ...)``.
    measured
        Time each block, forward and backward, instead of counting its operations.

    Raises
    ------
    InvalidParameterError
        If a block does not take what the one before it gives, or does not keep the rows.
    """
    facts = []
    x = example
    for number, block in enumerate(blocks):
        try:
            with torch.no_grad(), statistics_kept(block):
                y = block(x)
        except (RuntimeError, ValueError, TypeError) as error:
            raise InvalidParameterError(
                f"model must be a Sequential whose blocks follow each other, but block {number} "
                f"({type(block).__name__}) refuses its input of shape {tuple(x.shape)}: "
                f"{str(error).splitlines()[0]}"
            ) from error
        if not isinstance(y, Tensor) or y.ndim < 1 or y.shape[0] != example.shape[0]:
            raise InvalidParameterError(
                f"every block must map one tensor of {example.shape[0]} rows to another, but block {number} "
                f"({type(block).__name__}) gives {tuple(y.shape) if isinstance(y, Tensor) else type(y)}"
            )
        first = number == 0
        cost = measured_cost(block, x, first=first) if measured else counted_cost(block, x, first=first)
        n_parameters = sum(p.numel() for p in block.parameters() if p.requires_grad)
        facts.append(BlockFacts(tuple(x.shape[1:]), tuple(y.shape[1:]), n_parameters, cost))
        x = y.detach()
    return facts


class statistics_kept:
    """Leaves running statistics and counters of batch normalisation as they were."""

    def __init__(self, block: nn.Module) -> None:
        self.layers = [layer for layer in block.modules() if isinstance(layer, _BatchNorm)]

    def __enter__(self) -> None:
        self.before = [
            {name: buffer.clone() for name, buffer in layer.named_buffers()} for layer in self.layers
        ]

    def __exit__(self, *_: object) -> None:
        for layer, before in zip(self.layers, self.before, strict=True):
            for name, buffer in layer.named_buffers():
                buffer.copy_(before[name])


def counted_cost(block: nn.Module, x: Tensor, *, first: bool = False) -> float:
    """Floating-point operations, or what takes as long, of forward and backward of a minibatch ``x``.

    ``first`` says that ``x`` is the network's input, by which nobody wants a gradient: a product is then two
    of three.
    """
    total = 0.0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Identity):
            return
        total += CALL_COST
        product = 4.0 if first and inputs and inputs[0] is x else 6.0
        if isinstance(module, nn.Linear):
            total += product * output.numel() * module.in_features
        elif isinstance(module, Periodic):
            total += WAVE_COST * output.shape[0] * module.frequency.numel()
        elif isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            window = math.prod(module.kernel_size) * module.in_channels // module.groups
            total += product * output.numel() * window
        else:
            total += ELEMENT_COST * max(output.numel(), inputs[0].numel() if inputs else 0)

    leaves = [module for module in block.modules() if not any(module.children())]
    hooks = [leaf.register_forward_hook(count) for leaf in leaves]
    try:
        with torch.no_grad(), statistics_kept(block):
            block(x)
    finally:
        for hook in hooks:
            hook.remove()
    return total


def measured_cost(block: nn.Module, x: Tensor, *, first: bool = False, repeats: int = 5) -> float:
    """Seconds of forward and backward of a minibatch ``x``, the median of some repeats."""
    twin = copy.deepcopy(block)
    seconds = []
    for _ in range(repeats + 1):
        leaf = x.detach().clone()
        if leaf.is_floating_point() and not first:
            leaf.requires_grad_()
        _synchronize(x.device)
        started = time.perf_counter()
        y = twin(leaf)
        if y.requires_grad:
            torch.autograd.backward([y], [torch.ones_like(y)])
        _synchronize(x.device)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def balanced_cuts(
    costs: Sequence[float], slices: int, *, extra: float = 0.0, message: float = 0.0, sweep: float = 0.0
) -> tuple[int, ...]:
    """Where to cut blocks so that a step is as short as can be.

    A later slice has more time: what it waits for arrives later, and its gradient comes back earlier. Two
    messages lie between the first slice and the second, and two messages and a sweep between any other two.

    Parameters
    ----------
    costs
        Cost of each block.
    slices
        Number ``T`` of slices; each gets one block at least.
    extra
        What every slice but the first costs besides: its preprocessor. The head does not count, since all
        other slices wait for it.
    message, sweep
        Cost of a message, one way, and of a coarse network, there and back.

    Returns
    -------
    tuple of int
        ``T - 1`` numbers of blocks at which slices 2 to ``T`` begin.

    Raises
    ------
    InvalidParameterError
        If there are fewer blocks than slices.
    """
    if slices < 1:
        raise InvalidParameterError(f"slices must be >= 1, but got {slices!r}")
    if len(costs) < slices:
        raise InvalidParameterError(
            f"slices must be at most {len(costs)}, the number of blocks before the head, but got {slices}"
        )
    # what a slice has besides its blocks, less the time that it has more than the first
    extras = [0.0, *(extra - 2.0 * j * message - (j - 1) * sweep for j in range(1, slices))]
    low = min(0.0, *extras) if slices > 1 else 0.0
    high = sum(costs) + max(0.0, *extras) if slices > 1 else sum(costs)
    best = _greedy(costs, extras, high)
    for _ in range(60):
        limit = 0.5 * (low + high)
        cuts = _greedy(costs, extras, limit)
        if cuts is None:
            low = limit
        else:
            best, high = cuts, limit
    assert best is not None
    return best


def _greedy(costs: Sequence[float], extras: Sequence[float], limit: float) -> tuple[int, ...] | None:
    """Cuts with no slice above a limit, or None; every slice takes as little as it may, from the last on."""
    slices, cuts, block = len(extras), [], len(costs)
    for j in range(slices - 1, -1, -1):
        block -= 1
        total = extras[j] + costs[block]
        if total > limit:
            return None
        while block > j and total + costs[block - 1] <= limit:
            block -= 1
            total += costs[block]
        cuts.append(block)
    return tuple(reversed(cuts[:-1])) if block == 0 else None
