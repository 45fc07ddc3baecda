"""Batches of requests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import pytest

from parallelmlp_search.serve import batching
from parallelmlp_search.serve.batching import Batcher


class Doubler:
    """Answers lists of numbers with their doubles, and keeps the batches."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.batches: list[list[list[int]]] = []
        self.sizes: list[int] = []
        self._seconds = seconds
        self.batcher = Batcher(self._compute, self.sizes.append)

    def _compute(self, requests: list[list[int]]) -> Sequence[list[int]]:
        if any(13 in request for request in requests):
            raise ValueError("13")
        self.batches.append(requests)
        time.sleep(self._seconds)
        return [[2 * number for number in request] for request in requests]


def test_requests_of_the_same_moment_are_one_batch() -> None:
    doubler = Doubler()

    async def main() -> list[list[int]]:
        return await asyncio.gather(*(doubler.batcher.answer([n, n + 1]) for n in range(5)))

    assert asyncio.run(main()) == [[2 * n, 2 * n + 2] for n in range(5)]
    assert [len(batch) for batch in doubler.batches] == [5]
    assert doubler.sizes == [10]


def test_requests_that_come_while_a_batch_is_computed_are_the_next_one() -> None:
    doubler = Doubler(seconds=0.02)

    async def client(number: int) -> None:
        for turn in range(3):
            assert await doubler.batcher.answer([number + turn]) == [2 * (number + turn)]

    async def main() -> None:
        await asyncio.gather(*(client(10 * n) for n in range(4)))

    asyncio.run(main())
    assert [len(batch) for batch in doubler.batches] == [4, 4, 4]


def test_batches_are_cut_at_a_number_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "MAX_BATCH_ROWS", 4)
    doubler = Doubler()

    async def main() -> list[list[int]]:
        return await asyncio.gather(*(doubler.batcher.answer([n] * 3) for n in range(5)))

    assert asyncio.run(main()) == [[2 * n] * 3 for n in range(5)]
    assert doubler.sizes == [6, 6, 3]


def test_a_request_that_fails_leaves_the_others_alone() -> None:
    doubler = Doubler()

    async def main() -> list[object]:
        calls = (doubler.batcher.answer([n]) for n in (12, 13, 14))
        return await asyncio.gather(*calls, return_exceptions=True)

    first, second, third = asyncio.run(main())
    assert (first, third) == ([24], [28])
    assert isinstance(second, ValueError)


def test_a_client_that_has_gone_is_forgotten() -> None:
    doubler = Doubler()

    async def main() -> list[int]:
        gone = asyncio.ensure_future(doubler.batcher.answer([1]))
        await asyncio.sleep(0)
        gone.cancel()
        return await doubler.batcher.answer([2])

    assert asyncio.run(main()) == [4]
