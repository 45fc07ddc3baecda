"""Shards for workers on other machines: messages in both directions.

A message holds a task without its rows, which workers receive once. Its deadline counts in seconds, because
the monotonic clock of each machine begins at another time.
"""

from __future__ import annotations

import copyreg
import io
import pickle
import time
import warnings
from collections import ChainMap
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parallelmlp_search.distribute.memory import return_free_memory
from parallelmlp_search.distribute.shard_data import ShardData
from parallelmlp_search.distribute.shards import ShardOutcome, ShardTask, train_shard
from parallelmlp_search.distribute.software import Software

Array = NDArray[Any]


@dataclass(frozen=True)
class Rows:
    """Rows of a :class:`ShardData` as arrays, which every worker receives once.

    Attributes
    ----------
    settings
        Pickled fields of the data that are no tensors.
    arrays
        Tensors by name.
    tables
        Names of the arrays that are numbers of rows of a table. The tables are sent apart, in this order.
    """

    settings: bytes
    arrays: dict[str, Array]
    tables: tuple[str, ...]

    @classmethod
    def of(cls, data: ShardData) -> tuple[Rows, list[Tensor]]:
        """Rows and tables of data; several names can refer to one table."""
        tensors, tables = data.split()
        arrays = {name: tensor.contiguous().numpy() for name, tensor in tensors.items()}
        return cls(_dumps(data.settings()), arrays, tuple(tables)), list(tables.values())

    def data(self, tables: tuple[Array, ...]) -> ShardData:
        """Data whose tensors share the memory of the arrays."""
        tensors = {name: _tensor(array) for name, array in self.arrays.items()}
        named = {name: _tensor(table) for name, table in zip(self.tables, tables, strict=True)}
        return ShardData.joined(pickle.loads(self.settings), tensors, named)


@dataclass(frozen=True)
class Message:
    """Task for a worker.

    Attributes
    ----------
    software
        Versions and kind of CPU that the worker needs.
    task
        Pickled task without its rows.
    seconds
        Seconds until its deadline, or None.
    sent
        Time of the day at which the message was made. A message is sent again if its worker dies.
    """

    software: Software
    task: bytes
    seconds: float | None
    sent: float

    @classmethod
    def of(cls, task: ShardTask, software: Software) -> Message:
        """Message with a task."""
        seconds = None if task.deadline is None else task.deadline - time.monotonic()
        return cls(software, _dumps(replace(task, deadline=None)), seconds, time.time())

    def open(self, data: ShardData) -> ShardTask:
        """Task with its rows."""
        unpickler = _Unpickler(io.BytesIO(self.task))
        unpickler.data = data
        task: ShardTask = unpickler.load()
        if self.seconds is None:
            return task
        waited = max(0.0, time.time() - self.sent)  # 0 if the clock of the other machine is ahead
        return replace(task, deadline=time.monotonic() + self.seconds - waited)


def train_message(message: Message, rows: Rows, *tables: Array) -> bytes:
    """Train the shard of a message in this process, if it computes as the search does.

    Parameters
    ----------
    message, rows, tables
        Task, and the parts of its rows.

    Returns
    -------
    bytes
        Outcome for :func:`read_outcome`.
    """
    message.software.check()
    try:
        return _dumps(train_shard(message.open(rows.data(tables))))
    finally:
        return_free_memory()


def read_outcome(result: bytes) -> ShardOutcome:
    """Outcome of a shard from the result of :func:`train_message`."""
    outcome: ShardOutcome = pickle.loads(result)
    return outcome


def _reduced(tensor: Tensor) -> tuple[Any, ...]:
    return torch.from_numpy, (tensor.contiguous().numpy(),)


class _Pickler(pickle.Pickler):
    """Pickles tensors as arrays, which takes a fifth of the time, and rows as a reference."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self.dispatch_table = ChainMap[Any, Any]({Tensor: _reduced}, copyreg.dispatch_table)

    def persistent_id(self, value: Any) -> str | None:
        return "rows" if isinstance(value, ShardData) else None


class _Unpickler(pickle.Unpickler):
    data: ShardData

    def persistent_load(self, name: Any) -> ShardData:
        return self.data


def _dumps(value: Any) -> bytes:
    file = io.BytesIO()
    _Pickler(file).dump(value)
    return file.getvalue()


def _tensor(array: Array) -> Tensor:
    """Tensor in the memory of an array, which training does not change."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(np.require(array, requirements="A"))
