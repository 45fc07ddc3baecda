"""Shards on the workers of a cluster, which dask or ray runs.

joblib's own backends for dask and ray are not used: with them, rows travel with every task, a search waits
forever for a task that was given up, and a pool of ray loses the tasks of a dead worker.
"""

from __future__ import annotations

import math
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any, NamedTuple

from torch import Tensor

from parallelmlp_search.distribute.remote import Message, Rows, read_outcome
from parallelmlp_search.distribute.shard_data import ShardData
from parallelmlp_search.distribute.shards import ShardOutcome, ShardTask
from parallelmlp_search.distribute.software import Software
from parallelmlp_search.exceptions import DistributedError, InvalidParameterError
from parallelmlp_search.kernels.numba.dispatch import training_path

GRACE_SECONDS = 5.0
"""Seconds after its deadline at which a shard is left out, for example if its worker cannot be reached."""

MAX_LOSSES = 10
"""Times that a shard is sent again because the cluster lost it."""

COUNT_SECONDS = 5.0
"""Seconds after which the workers are counted again."""


class TaskLost(Exception):
    """The cluster has forgotten a task; it must be sent again."""


class _Sent(NamedTuple):
    """Task that a worker has, and reading of the monotonic clock after which it is left out."""

    task: ShardTask
    until: float


class Cluster(ABC):
    """Workers on other machines. Rows are sent once for all tasks, and kept as long as the data exists.

    Attributes
    ----------
    no_workers
        Error message for a cluster without workers.
    """

    no_workers: str

    def __init__(self) -> None:
        self._stored: dict[int, tuple[weakref.ref[Any], list[Any]]] = {}
        self._counted = -math.inf
        self._count = self._first_count = 0

    # ------------------------------------------------------------------ a kind of cluster

    @abstractmethod
    def count(self) -> int:
        """Return the number of workers. If there is none, wait for the first one for a while."""

    @abstractmethod
    def put(self, value: Any) -> Any:
        """Store a value in the cluster and return a reference to it."""

    @abstractmethod
    def is_stored(self, reference: Any) -> bool:
        """Return False if the cluster has forgotten a value that it stored."""

    @abstractmethod
    def submit(self, message: Message, parts: list[Any]) -> Any:
        """Start `train_message` with stored rows and tables; return a reference to its result."""

    @abstractmethod
    def wait(self, pending: list[Any], seconds: float | None) -> Any | None:
        """Return one of the references that has finished, or None after some seconds."""

    @abstractmethod
    def fetch(self, reference: Any) -> bytes:
        """Return a finished result.

        Raises
        ------
        TaskLost
            If there is no result, and the task must be sent again.
        DistributedError
            If its worker died too often.
        """

    @abstractmethod
    def cancel(self, pending: list[Any]) -> None:
        """Give up tasks that have not finished."""

    # ------------------------------------------------------------------ shards

    @property
    def n_workers(self) -> int:
        """Number of workers, counted every few seconds; the last one while there is none.

        Raises
        ------
        DistributedError
            If there never was one.
        """
        if time.monotonic() >= self._counted + COUNT_SECONDS:
            self._count = self.count() or self._count
            self._counted = time.monotonic()
        if not self._count:
            raise DistributedError(self.no_workers)
        self._first_count = self._first_count or self._count
        return self._count

    def run(self, tasks: Iterable[ShardTask], *, n_workers: int) -> Iterator[ShardOutcome]:
        """Train shards and yield their outcomes as they finish.

        Parameters
        ----------
        tasks
            Taken as workers become free.
        n_workers
            Most tasks at once. The number of workers at the start of the search stands for all workers, also
            those that join later.

        Yields
        ------
        ShardOutcome
            A shard without a result soon after its deadline is left out.

        Raises
        ------
        DistributedError
            If a shard was lost, or its worker died, too often.
        """
        again: list[ShardTask] = []
        losses: dict[str, int] = {}
        source = iter(tasks)
        pending: dict[Any, _Sent] = {}

        def fill() -> None:
            room = max(n_workers, self.n_workers) if n_workers >= self._first_count else n_workers
            while len(pending) < room and (task := again.pop() if again else next(source, None)):
                pending[self._start(task)] = _sent(task)

        try:
            fill()
            while pending and (reference := self._wait(pending)) is not None:
                task = pending.pop(reference).task
                fill()  # before the result is fetched, which takes time
                try:
                    outcome = read_outcome(self.fetch(reference))
                except TaskLost as error:
                    losses[task.key] = losses.get(task.key, 0) + 1
                    if losses[task.key] > MAX_LOSSES:
                        raise DistributedError(
                            f"the cluster lost the shard {task.key} {MAX_LOSSES} times ({error})"
                        ) from None
                    again.append(task)
                    fill()
                else:
                    yield outcome
        finally:
            self.cancel(list(pending))

    def _wait(self, pending: dict[Any, _Sent]) -> Any | None:
        """Task that has finished, or None if all are late."""
        until = max(sent.until for sent in pending.values())
        seconds = None if until == math.inf else max(0.0, until - time.monotonic())
        return self.wait(list(pending), seconds)

    def _start(self, task: ShardTask) -> Any:
        if task.data.device.type != "cpu":
            raise InvalidParameterError(
                f"workers of a cluster train on their CPUs, but device is {str(task.data.device)!r}: use cpu"
            )
        software = Software.here(task.data.path or training_path("cpu"))
        return self.submit(Message.of(task, software), self._parts(task.data))

    def _parts(self, data: ShardData) -> list[Any]:
        """References to the rows of data and to its tables."""

        def store() -> list[Any]:
            rows, tables = Rows.of(data)
            return [self.put(rows), *chain.from_iterable(map(self._table, tables))]

        return self._once(data, store)

    def _table(self, table: Tensor) -> list[Any]:
        return self._once(table, lambda: [self.put(table.numpy())])

    def _once(self, owner: Any, store: Callable[[], list[Any]]) -> list[Any]:
        """References to what an object consists of, stored unless it is; dropped with the object."""
        key = id(owner)
        known, parts = self._stored.get(key, (None, []))
        if known is None or known() is not owner or not all(map(self.is_stored, parts)):
            parts = store()
            self._stored[key] = weakref.ref(owner, lambda _: self._stored.pop(key, None)), parts
        return parts


def _sent(task: ShardTask) -> _Sent:
    if task.deadline is None:
        return _Sent(task, math.inf)
    return _Sent(task, max(task.deadline, time.monotonic()) + GRACE_SECONDS)
