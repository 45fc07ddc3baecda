"""Plain modules that a packed network is made of where torch has none, and the names of its activations."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from parallelmlp_search.space.config import category_dimension

__all__ = ["ACTIVATION_MODULES", "CategoryEmbedding", "InputScale", "Residual", "Sine"]


class Sine(nn.Module):
    """``sin(x)`` as a module."""

    def forward(self, x: Tensor) -> Tensor:
        """Sine of each element."""
        return torch.sin(x)


class CategoryEmbedding(nn.Module):
    """Columns that stand for one category each become what is learned of the category that is there.

    A row of zeros, as of a gap, becomes zeros.

    Parameters
    ----------
    n_inputs
        Columns ``D``, mixtures of numbers included.
    categories
        ``(first, size)`` of the columns of each categorical column, in their order.

    Attributes
    ----------
    embeddings
        One ``(size, dimension)`` for each of them.
    """

    def __init__(self, n_inputs: int, categories: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.n_inputs, self.categories = n_inputs, tuple(categories)
        sizes = [size for _, size in self.categories]
        self.embeddings = nn.ModuleList(nn.Embedding(size, category_dimension(size)) for size in sizes)

    def forward(self, x: Tensor) -> Tensor:
        """Rows ``(N, D)`` to ``(N, inputs of the first layer)``."""
        parts = []
        column = 0
        for (first, size), embedding in zip(self.categories, self.embeddings.parameters(), strict=True):
            parts += [x[:, column:first], x[:, first : first + size] @ embedding]
            column = first + size
        return torch.cat([*parts, x[:, column:]], dim=1)

    def extra_repr(self) -> str:
        """Its sizes."""
        return f"n_inputs={self.n_inputs}, categories={self.categories}"


class InputScale(nn.Module):
    """Each input times a scale that is learned, and starts at 1 (Holzmueller et al. 2024).

    Parameters
    ----------
    n_inputs
        Inputs ``D``.
    """

    def __init__(self, n_inputs: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(n_inputs))

    def forward(self, x: Tensor) -> Tensor:
        """Rows ``(N, D)`` to ``(N, D)``."""
        return x * self.scale


class Residual(nn.Sequential):
    """A block that adds its input to its output."""

    def forward(self, x: Tensor) -> Tensor:
        """``x + block(x)``."""
        result: Tensor = x + super().forward(x)  # type: ignore[no-untyped-call]
        return result


ACTIVATION_MODULES: dict[str, Callable[[], nn.Module]] = {
    "identity": nn.Identity,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "selu": nn.SELU,
    "hardshrink": nn.Hardshrink,
    "mish": nn.Mish,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "sine": Sine,
}
