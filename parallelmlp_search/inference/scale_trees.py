"""Trees that predict the size of errors, in NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

WINDOW_CELLS = 1 << 16
"""Rows times trees that are followed at once: five arrays of 64 to 512 KiB."""


@dataclass(frozen=True, eq=False)
class ScaleTrees:
    """Trees of each group, whose mean predicts the logarithm of the size of an error.

    All trees share arrays of nodes. A leaf leads to itself.

    Attributes
    ----------
    feature, threshold
        Column that a node compares, and the largest value that leads to ``left``, ``(nodes,)``.
    left, right
        Next nodes ``(nodes,)``; a node comes before those that it leads to.
    value
        Logarithm of the size for each output ``(nodes, C)``.
    roots
        First node of each tree ``(G, T)``.
    """

    feature: NDArray[np.int32]
    threshold: NDArray[np.float32]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    value: NDArray[np.float32]
    roots: NDArray[np.int32]

    DTYPES: ClassVar[Mapping[str, type]] = {
        "feature": np.int32,
        "threshold": np.float32,
        "left": np.int32,
        "right": np.int32,
        "value": np.float32,
        "roots": np.int32,
    }

    def log_scales(self, group: int, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return logarithms of the size of errors ``(C, n)`` of rows ``(n, D)``, by the trees of a group."""
        roots, n_rows = self.roots[group], len(features)
        result = np.empty((self.value.shape[1], n_rows))
        step = max(1, WINDOW_CELLS // len(roots))
        for start in range(0, n_rows, step):
            rows = features[start : start + step]
            numbers = np.arange(len(rows))[:, None]
            nodes = np.broadcast_to(roots, (len(rows), len(roots)))
            while True:
                is_low = rows[numbers, self.feature[nodes]] <= self.threshold[nodes]
                following = np.where(is_low, self.left[nodes], self.right[nodes])
                if np.array_equal(following, nodes):
                    break
                nodes = following
            result[:, start : start + step] = self.value[nodes].mean(axis=1, dtype=np.float64).T
        return result

    def pooled(self) -> ScaleTrees:
        """Return the same trees as one group."""
        return ScaleTrees(**vars(self) | {"roots": self.roots.reshape(1, -1)})

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by name."""
        return {name: getattr(self, name) for name in self.DTYPES}

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, NDArray[Any]], n_groups: int, n_outputs: int, n_features: int
    ) -> ScaleTrees:
        """Check stored arrays, so that every path ends in a leaf.

        Parameters
        ----------
        arrays
            Arrays of :meth:`to_arrays`.
        n_groups, n_outputs, n_features
            Groups ``G``, outputs ``C`` and columns ``D`` of the features.

        Returns
        -------
        ScaleTrees

        Raises
        ------
        ValueError
            If an array is missing, of another shape or dtype, or leads nowhere.
        """
        if missing := [name for name in cls.DTYPES if name not in arrays]:
            raise ValueError(f"it has no tensor {missing[0]!r}")
        trees = cls(**{name: arrays[name].copy() for name in cls.DTYPES})  # those of a file are not aligned
        n_nodes, places = len(trees.feature), np.arange(len(trees.feature))
        shapes = dict.fromkeys(cls.DTYPES, (n_nodes,)) | {"value": (n_nodes, n_outputs)}
        shapes["roots"] = (n_groups, trees.roots.shape[-1] if trees.roots.ndim else 0)
        for name, dtype in cls.DTYPES.items():
            array = arrays[name]
            if array.shape != shapes[name] or array.dtype != dtype:
                raise ValueError(f"the tensor {name!r} is of {array.dtype} and shape {array.shape}")
        is_leaf = (trees.left == places) & (trees.right == places)
        leads_on = (np.minimum(trees.left, trees.right) > places) & (
            np.maximum(trees.left, trees.right) < n_nodes
        )
        inside = (trees.roots >= 0) & (trees.roots < n_nodes)
        columns = (trees.feature >= 0) & (trees.feature < n_features)
        finite = np.isfinite(trees.value).all() and not np.isnan(trees.threshold).any()
        if not ((is_leaf | leads_on).all() and inside.all() and columns.all() and finite and inside.size):
            raise ValueError("its trees are damaged")
        return trees
