"""Threads of prediction: windows of rows over the cores, each product with one thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import cache
from typing import TypeVar

from threadpoolctl import ThreadpoolController

Item = TypeVar("Item")


@cache
def _products() -> ThreadpoolController:
    """Libraries of matrix products in this process, which are found once."""
    return ThreadpoolController().select(user_api="blas")


def one_product_thread() -> AbstractContextManager[object]:
    """Give products one thread in a block; :func:`for_each` then has one thread, too."""
    limited: AbstractContextManager[object] = _products().limit(limits=1)
    return limited


def for_each(function: Callable[[Item], None], items: Sequence[Item]) -> None:
    """Call a function for each item, in as many threads as products have in this process.

    Each product has one thread meanwhile. Products of few rows would wait longer for other threads than they
    take, and the bits of a product may depend on the number of its threads.
    """
    n_threads = 1
    if len(items) > 1:
        n_threads = max((library["num_threads"] for library in _products().info()), default=1)
    with one_product_thread():
        if n_threads == 1:
            for item in items:
                function(item)
            return
        with ThreadPoolExecutor(min(n_threads, len(items))) as pool:
            for _ in pool.map(function, items):
                pass
