"""Shapes and costs of the blocks of a serial network, found by a dry run."""

from __future__ import annotations

import contextlib
import copy
import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.packing.periodic import Periodic

Shape = tuple[int, ...]
"""Shape of one row: that of a tensor without its first axis."""

ELEMENT_COST = 40.0
"""Cost of a forward and backward pass over one element, in floating-point operations of a product: 1 ns per
element of float32 on a core with 40 GFLOP/s that copies 10 GB/s."""

WAVE_COST = 240.0
"""Cost of one wave of a periodic embedding: cosine, sine and products, six passes."""

CALL_COST = 4e5
"""Cost of calling a module once: 10 us."""

N_REPEATS = 5


@dataclass(frozen=True)
class _BlockProfile:
    inputs: Shape
    outputs: Shape
    n_parameters: int
    cost: float


@dataclass(frozen=True)
class ModelProfile:
    """Shapes and costs of the blocks of a serial network.

    A cost is that of the forward and backward pass of a minibatch: seconds if ``measured``, else operations.
    """

    blocks: tuple[_BlockProfile, ...]
    n_blocks: int  # before the head
    example: Tensor  # minibatch (N, ...) of the dry run
    measured: bool

    @property
    def middle(self) -> Shape:
        """Shape of a row at the middle block, a typical interface between slices."""
        return self.blocks[self.n_blocks // 2].inputs

    def minibatch(self, shape: Shape) -> Tensor:
        """Return a minibatch of zeros for a later slice."""
        return self.example.new_zeros(self.example.shape[0], *shape, requires_grad=True)

    def n_bytes(self, shape: Shape) -> int:
        """Return the size of a minibatch of rows of a shape, in bytes."""
        return self.example.shape[0] * math.prod(shape) * self.example.element_size()

    def cost(self, module: nn.Module, x: Tensor) -> float:
        """Return the cost of a module on a minibatch."""
        return (measured_cost if self.measured else counted_cost)(module.to(x.device, x.dtype), x)


def profile_model(
    model: nn.Sequential, example: Tensor, *, head: int = 1, measured: bool = False
) -> ModelProfile:
    """Run an example minibatch through a network and record shapes and costs of its blocks.

    Parameters
    ----------
    model
        Blocks in order, each of which maps one tensor to another.
    example
        A minibatch ``(N, ...)``.
    head
        Number of last blocks that form the head.
    measured
        Measure the time of each block instead of counting its operations.

    Returns
    -------
    ModelProfile

    Raises
    ------
    InvalidParameterError
        If the model is no Sequential, the head leaves no block, a block rejects the output of the previous
        one, or a block changes the number of rows.
    """
    if not isinstance(model, nn.Sequential):
        raise InvalidParameterError(f"model must be an nn.Sequential, but got {type(model).__name__}")
    if not 0 <= head < len(model):
        raise InvalidParameterError(
            f"head must be >= 0 and leave a block before it, but got {head} of {len(model)}"
        )
    profiles = []
    x = example
    for number, block in enumerate(model):
        y = _output(block, number, x)
        n_parameters = sum(p.numel() for p in block.parameters() if p.requires_grad)
        cost = (measured_cost if measured else counted_cost)(block, x)
        profiles.append(_BlockProfile(tuple(x.shape[1:]), tuple(y.shape[1:]), n_parameters, cost))
        x = y.requires_grad_(y.is_floating_point())
    return ModelProfile(tuple(profiles), len(model) - head, example, measured)


def _output(block: nn.Module, number: int, x: Tensor) -> Tensor:
    try:
        with torch.no_grad(), preserve_running_statistics(block):
            y = block(x)
    except (RuntimeError, ValueError, TypeError) as error:
        raise InvalidParameterError(
            f"model must be a Sequential whose blocks follow each other, but block {number} "
            f"({type(block).__name__}) refuses its input of shape {tuple(x.shape)}: "
            f"{str(error).splitlines()[0]}"
        ) from error
    if not isinstance(y, Tensor) or y.ndim < 1 or y.shape[0] != x.shape[0]:
        raise InvalidParameterError(
            f"every block must map one tensor of {x.shape[0]} rows to another, but block {number} "
            f"({type(block).__name__}) gives {tuple(y.shape) if isinstance(y, Tensor) else type(y)}"
        )
    return y.detach()


@contextlib.contextmanager
def preserve_running_statistics(module: nn.Module) -> Iterator[None]:
    """Restore running statistics and counters of batch normalization on exit."""
    layers = [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
    saved = [(buffer, buffer.clone()) for layer in layers for buffer in layer.buffers()]
    try:
        yield
    finally:
        for buffer, before in saved:
            buffer.copy_(before)


def counted_cost(block: nn.Module, x: Tensor) -> float:
    """Count the floating-point operations of the forward and backward pass of a minibatch.

    Passes over elements and calls count as the operations that take as long. The network's input requires no
    gradient, so a layer that receives it has two products instead of three.
    """
    total = 0.0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Identity):
            return
        total += CALL_COST
        per_product = 4.0 if inputs and inputs[0] is x and not x.requires_grad else 6.0
        if isinstance(module, nn.Linear):
            total += per_product * output.numel() * module.in_features
        elif isinstance(module, Periodic):
            total += WAVE_COST * output.shape[0] * module.frequency.numel()
        elif isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            window = math.prod(module.kernel_size) * module.in_channels // module.groups
            total += per_product * output.numel() * window
        else:
            total += ELEMENT_COST * max(output.numel(), inputs[0].numel() if inputs else 0)

    leaves = [module for module in block.modules() if not any(module.children())]
    hooks = [leaf.register_forward_hook(count) for leaf in leaves]
    try:
        with torch.no_grad(), preserve_running_statistics(block):
            block(x)
    finally:
        for hook in hooks:
            hook.remove()
    return total


def measured_cost(block: nn.Module, x: Tensor) -> float:
    """Measure the median time of the forward and backward pass of a minibatch, in seconds."""
    twin = copy.deepcopy(block)
    seconds = []
    for _ in range(N_REPEATS + 1):
        leaf = x.detach().clone().requires_grad_(x.requires_grad)
        started = synchronized_time(x.device)
        y = twin(leaf)
        if y.requires_grad:
            torch.autograd.backward([y], [torch.ones_like(y)])
        seconds.append(synchronized_time(x.device) - started)
    return statistics.median(seconds[1:])


def synchronized_time(device: torch.device) -> float:
    """Return the time in seconds once the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
