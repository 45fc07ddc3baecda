"""Plain modules of which networks are built where torch has none, and the modules of activations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from parallelmlp_search.space.config import category_dimension


class Sine(nn.Module):
    """``sin(x)`` as a module."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the sine of each element."""
        return torch.sin(x)


def embed_categories(
    x: Tensor, categories: Sequence[tuple[int, int]], embeddings: Iterable[Tensor]
) -> Tensor:
    """Replace the one-hot columns of categories by their embeddings.

    Parameters
    ----------
    x
        Rows ``(N, D)``; with leading dimensions for several networks, which the embeddings have too.
    categories, embeddings
        ``(first, size)`` of the columns, and embedding ``(size, dimension)``, of each category.

    Returns
    -------
    Tensor
        ``(N, inputs of the first layer)``.
    """
    parts = []
    column = 0
    for (first, size), embedding in zip(categories, embeddings, strict=True):
        parts += [x[..., column:first], x[..., first : first + size] @ embedding]
        column = first + size
    return torch.cat([*parts, x[..., column:]], dim=-1)


class CategoryEmbedding(nn.Module):
    """Learned embeddings of one-hot encoded categories; a row of zeros (missing or unseen) becomes zeros.

    Parameters
    ----------
    n_inputs
        Columns ``D``, outputs of a periodic embedding included.
    categories
        ``(first, size)`` of the columns of each category.

    Attributes
    ----------
    embeddings
        One ``(size, dimension)`` for each category.
    """

    def __init__(self, n_inputs: int, categories: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.n_inputs, self.categories = n_inputs, tuple(categories)
        sizes = [size for _, size in self.categories]
        self.embeddings = nn.ModuleList(nn.Embedding(size, category_dimension(size)) for size in sizes)

    def forward(self, x: Tensor) -> Tensor:
        """Map rows ``(N, D)`` to ``(N, inputs of the first layer)``."""
        return embed_categories(x, self.categories, self.embeddings.parameters())

    def extra_repr(self) -> str:
        """Return the settings for ``repr``."""
        return f"n_inputs={self.n_inputs}, categories={self.categories}"


class InputScale(nn.Module):
    """Learned scale of each input, 1 at the start (Holzmueller et al. 2024).

    Parameters
    ----------
    n_inputs
        Inputs ``D``.
    """

    def __init__(self, n_inputs: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(n_inputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map rows ``(N, D)`` to ``(N, D)``."""
        return x * self.scale


class Residual(nn.Sequential):
    """Block that adds its input to its output."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x + block(x)``."""
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
