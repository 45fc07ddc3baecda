"""A stand-in for CUDA graphs, so that what is captured is tested where there is no device."""

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
    """Writes down each operation with the very tensors that it read and made, and what they held before."""

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
    """Capture as a CUDA graph does: the operations, on the addresses they had, and nothing of Python.

    Unlike a graph it has to run the work to record it; what the work changed is put back.
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
                # views and operations in place have done their work already
                if isinstance(old, Tensor) and _storage(old) not in read:
                    old.copy_(new)

    return replay


@pytest.fixture
def capture() -> Callable[[Callable[[], None]], Callable[[], None]]:
    """The stand-in, or on a GPU the real thing."""
    if torch.cuda.is_available():
        from parallelmlp_search.engine.device.cuda_graph import capture_on_cuda

        return capture_on_cuda(torch.device("cuda"))
    return tape
