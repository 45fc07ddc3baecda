"""Substitute for CUDA graphs, with which captures are tested on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

NEEDS_THE_HOST = ("_local_scalar_dense", "nonzero", "masked_select", "unique")


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class _Recorder(TorchDispatchMode):
    """Records each operation with its tensors, and the values that they had before."""

    def __init__(self) -> None:
        super().__init__()
        self.tape: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []
        self.before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}
        self._made: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(word in str(func) for word in NEEDS_THE_HOST):
            raise RuntimeError(f"operation not permitted when stream is capturing: {func}")
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, Tensor) and _storage(leaf) not in self._made | self.before.keys():
                storage = leaf.untyped_storage()
                self.before[_storage(leaf)] = storage, storage.clone()
        result = func(*args, **(kwargs or {}))
        self._made |= {_storage(leaf) for leaf in tree_leaves(result) if isinstance(leaf, Tensor)}
        self._made -= self.before.keys()
        self.tape.append((func, args, kwargs or {}, result))
        return result


def tape(work: Callable[[], None]) -> Callable[[], None]:
    """Capture operations on their addresses, as a CUDA graph does, without the Python code around them.

    A graph captures without running the work. This function runs it and restores the changed tensors.
    """
    recorder = _Recorder()
    with recorder:
        work()
    for storage, held in recorder.before.values():
        storage.copy_(held)

    def replay() -> None:
        for func, args, kwargs, result in recorder.tape:
            read = {_storage(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                # views and in-place operations need no copy
                if isinstance(old, Tensor) and _storage(old) not in read:
                    old.copy_(new)

    return replay


@pytest.fixture
def capture() -> Callable[[Callable[[], None]], Callable[[], None]]:
    """The substitute, or on a GPU the real capture."""
    if torch.cuda.is_available():
        from parallelmlp_search.engine.device.cuda_graph import capture_on_cuda

        return capture_on_cuda(torch.device("cuda"))
    return tape
