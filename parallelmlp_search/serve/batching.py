"""Batches of requests that came while the last batch was computed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Request = TypeVar("Request", bound=Sequence[object])
Answer = TypeVar("Answer")

MAX_BATCH_ROWS = 256
"""Rows of a batch from which on requests wait for the next one."""


class Batcher(Generic[Request, Answer]):
    """Answers requests in batches, in the thread of the event loop and without a delay.

    While a batch is computed, the loop stands still and further requests wait in their sockets. The loop
    then reads all of them before it computes the next batch. A thread would gain nothing: the small steps of
    a small batch hold the lock of the interpreter.

    Parameters
    ----------
    compute
        Function that answers several requests at once.
    observe
        Function that is called with the number of rows of each batch.
    """

    def __init__(
        self, compute: Callable[[list[Request]], Sequence[Answer]], observe: Callable[[int], None]
    ) -> None:
        self._compute, self._observe = compute, observe
        self._waiting: list[tuple[Request, asyncio.Future[Answer]]] = []

    async def answer(self, request: Request) -> Answer:
        """Answer a request together with others."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._run)
        self._waiting.append((request, future))
        return await future

    def _run(self) -> None:
        n_rows = n_requests = 0
        for request, _ in self._waiting:
            n_rows += len(request)
            n_requests += 1
            if n_rows >= MAX_BATCH_ROWS:
                break
        batch, self._waiting = self._waiting[:n_requests], self._waiting[n_requests:]
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._run)
        self._observe(n_rows)
        try:
            answers = self._compute([request for request, _ in batch])
        except Exception:
            # each alone, so that one does not take the others with it
            for request, future in batch:
                try:
                    _settle(future, self._compute([request])[0])
                except Exception as error:
                    if not future.done():
                        future.set_exception(error)
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            _settle(future, answer)


def _settle(future: asyncio.Future[Answer], answer: Answer) -> None:
    if not future.done():  # else its client has gone
        future.set_result(answer)
