"""Shards on the workers of a dask cluster."""

from __future__ import annotations

import contextlib
import time
import uuid
import warnings
from queue import Empty, SimpleQueue
from typing import Any

from parallelmlp_search._optional import require
from parallelmlp_search.distribute.cluster import MAX_LOSSES, Cluster, TaskLost
from parallelmlp_search.distribute.remote import Message, train_message
from parallelmlp_search.exceptions import DistributedError

WORKER_SECONDS = 30.0
"""Seconds to wait for a first worker."""

RETRY_SECONDS = 0.5
"""Seconds before workers that could not be counted are counted again."""


class DaskCluster(Cluster):
    """Workers of a dask scheduler, one for each of their threads.

    Parameters
    ----------
    client
        ``distributed.Client``.
    """

    def __init__(self, client: Any) -> None:
        super().__init__()
        self._distributed = require("distributed", extra="dask", purpose="for workers of dask")
        self._client = client
        self._finished: SimpleQueue[Any] = SimpleQueue()
        address = client.scheduler.address
        self._name = f"the dask scheduler at {address}"
        self.no_workers = f"{self._name} has no worker: start one on each machine with: dask worker {address}"

    def count(self) -> int:
        """Return the number of workers, or 0 if the connection is lost and there is an earlier count.

        Raises
        ------
        DistributedError
            If the connection is lost for good, or again and again, before the first count.
        """
        for _ in range(MAX_LOSSES):
            with contextlib.suppress(OSError):  # between the question and its answer
                if self._client.status == "running":
                    return self._threads()
            if self._count:
                return 0  # tasks that the scheduler has lost are sent again
            time.sleep(RETRY_SECONDS)
            self._reconnect()
        raise DistributedError(f"{self._name} lost the connection {MAX_LOSSES} times: check the network")

    def _threads(self) -> int:
        if not (threads := self._client.nthreads()) and not self._count:
            with contextlib.suppress(TimeoutError):
                self._client.wait_for_workers(1, timeout=WORKER_SECONDS)
            threads = self._client.nthreads()
        return sum(threads.values())

    def put(self, value: Any) -> Any:
        # the result of a task, unlike scattered data, is made again if its only worker dies
        return self._submit(_same, value, key=f"pmlp-rows-{uuid.uuid4().hex}")

    def is_stored(self, reference: Any) -> bool:
        return reference.status in ("pending", "finished")

    def submit(self, message: Message, parts: list[Any]) -> Any:
        future = self._submit(train_message, message, *parts, key=f"pmlp-shard-{uuid.uuid4().hex}")
        future.add_done_callback(self._finished.put)
        return future

    def wait(self, pending: list[Any], seconds: float | None) -> Any | None:
        until = None if seconds is None else time.monotonic() + seconds
        wanted = set(pending)
        while True:
            left = None if until is None else max(0.0, until - time.monotonic())
            try:
                future = self._finished.get(timeout=left)
            except Empty:
                return None
            if future in wanted:  # and not cancelled
                return future

    def fetch(self, reference: Any) -> bytes:
        """Return a finished result.

        Raises
        ------
        TaskLost
            If the connection was lost for a while.
        DistributedError
            If the connection is lost for good, or several workers died while they trained the shard.
        """
        try:
            result: bytes = reference.result()
        except self._distributed.KilledWorker as error:
            raise DistributedError(
                f"a shard was given up because its worker died {error.allowed_failures + 1} times, the last "
                f"one at {error.last_worker.address}: see its log, and give workers more memory if they "
                "lacked it"
            ) from None
        except self._distributed.CancelledError as error:
            self._reconnect()
            raise TaskLost(str(error)) from None
        except OSError as error:
            if reference.status == "error":
                raise  # by the task
            self._reconnect()
            raise TaskLost(str(error)) from None
        return result

    def cancel(self, pending: list[Any]) -> None:
        for future in pending:
            future.release()

    def _reconnect(self) -> None:
        """Wait until the client, which tries to, has reached its scheduler again, or has given up."""
        while self._client.status == "connecting":
            time.sleep(0.1)
        if self._client.status != "running":
            raise DistributedError(f"{self._name} cannot be reached any more: start it, and search again")

    def _submit(self, function: Any, *arguments: Any, key: str) -> Any:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sending large graph", UserWarning)
            try:
                return self._client.submit(function, *arguments, key=key)
            except Exception:
                if self._client.status != "running":
                    self._reconnect()  # which raises: a client that connects takes tasks
                raise


def _same(value: Any) -> Any:
    return value
