"""Journal of a search: finished shards and entries, from which an interrupted search is replayed.

A search is a function of its settings, its data, and a few values that depend on the clock. The journal
keeps the outcomes of shards and those values on disk. Replaying the search with them leads to the same place
without training anything twice. Without a run directory nothing is kept.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from parallelmlp_search._files import remove, save_tensors
from parallelmlp_search._reading import load_metadata, load_tensors, reading
from parallelmlp_search.distribute import (
    MemberOutcome,
    ShardData,
    ShardOutcome,
    ShardTask,
    Snapshots,
    run_shards,
)
from parallelmlp_search.engine import MemberState
from parallelmlp_search.engine.population import FLAT_NAMES
from parallelmlp_search.exceptions import RunDirectoryError
from parallelmlp_search.search.run.budget import Clock, Throughput
from parallelmlp_search.search.run.formats import Checkpoint
from parallelmlp_search.search.run.run_directory import RunDirectory
from parallelmlp_search.space import MLPConfig

Value = TypeVar("Value")

MIN_KEPT_SECONDS = 0.4
"""A shard that took less is trained again instead of being written to disk."""

MIN_NOTED_SECONDS = 1.0
"""Least time between two notes of the spent time in ``run.json``, each of which takes 10 ms."""


class Sizes(NamedTuple):
    """Sizes of the tensors of a member in a checkpoint."""

    n_parameters: int
    predictions: tuple[int, int] | None
    """Predictions and rows ``(C, n)``, or None without rows to predict."""
    snapshot_rows: int = 0
    """Rows that are predicted at every evaluation."""

    @classmethod
    def of(cls, configs: Mapping[int, MLPConfig], data: ShardData) -> dict[int, Sizes]:
        """Return the sizes of members by their numbers."""
        rows, snapshots = data.prediction_inputs, data.snapshot_inputs
        predictions = None if rows is None else (data.head.n_predictions, rows.shape[0])
        n_rows = 0 if snapshots is None else snapshots.shape[0]
        sizes = {number: data.architecture(config).n_parameters for number, config in configs.items()}
        return {number: cls(size, predictions, n_rows) for number, size in sizes.items()}


class Journal:
    """Trains shards and records the progress of one search.

    Parameters
    ----------
    throughput
        Number of workers; learns from every shard.
    directory
        Run directory, or None to keep nothing.
    clock
        Time that has been spent, which is kept beside the outcomes.
    """

    def __init__(
        self, throughput: Throughput, directory: RunDirectory | None = None, clock: Clock | None = None
    ) -> None:
        self.throughput = throughput
        self.directory = directory
        self._clock = clock or Clock(None)
        self._entries = {} if directory is None else directory.entries()
        self._noted_seconds = -math.inf

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def entry(self, key: str, compute: Callable[[], Value]) -> Value:
        """Value recorded under a key; without one, it is computed and recorded."""
        if key not in self._entries:
            self._entries[key] = compute()
            if self.directory is not None:
                self.directory.write_entries(self._entries)
        value: Value = self._entries[key]
        return value

    def is_kept(self, key: str) -> bool:
        """Return True if the outcome of a shard is on disk."""
        return self.directory is not None and self._path(key).is_file()

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Replace errors inside the context, which reads an entry, by one that names the file.

        Raises
        ------
        RunDirectoryError
            If the entry is damaged.
        """
        if self.directory is None:
            yield
        else:
            with reading(self.directory.path / "journal.json"):
                yield

    def run(
        self, tasks: Iterable[ShardTask], strip: Callable[[ShardOutcome], None]
    ) -> Iterator[ShardOutcome]:
        """Outcomes of tasks, trained or recalled, in no particular order.

        ``strip`` can drop states that are not needed any more, before an outcome is written.
        """
        recalled: list[ShardOutcome] = []

        def pending() -> Iterator[ShardTask]:
            for task in tasks:
                configs = dict(zip(task.trials, task.configs, strict=True))
                outcome = self._recall(task.key, partial(Sizes.of, configs, task.data))
                if outcome is None:
                    yield task
                else:
                    recalled.append(outcome)

        for outcome in run_shards(pending(), n_workers=self.throughput.n_workers):
            self.throughput.add(outcome)
            strip(outcome)
            if outcome.seconds >= MIN_KEPT_SECONDS and not outcome.cut:
                self._keep(outcome)
            yield outcome
        for outcome in recalled:
            self.throughput.add(outcome, recalled=True)
            strip(outcome)
            yield outcome

    def recall_round(self, key: str, sizes: Callable[[], Mapping[int, Sizes]]) -> ShardOutcome | None:
        """Outcome of a finished round, or None; ``sizes`` returns those of its members."""
        outcome = self._recall(key, sizes)
        if outcome is not None:
            self.throughput.add(outcome, recalled=True)
        return outcome

    def close_round(self, outcome: ShardOutcome, previous: str | None) -> None:
        """Keep a finished round; its shards and the states of the previous round are deleted."""
        if self.directory is None:
            return
        self._keep(outcome)
        for path in self.directory.checkpoints.glob(f"{outcome.key}-*.safetensors"):
            remove(path)
        if previous is not None and (path := self._path(previous)).is_file():
            metadata = load_metadata(path, Checkpoint, self._remedy)
            for record in metadata["members"]:
                record.pop("state", None)
            save_tensors(path, {}, metadata)

    def refuse_lost_round(self, key: str) -> None:
        """Refuse to train a round without the states of the round before, which were deleted once it ended.

        Raises
        ------
        RunDirectoryError
            If the run has a directory.
        """
        if self.directory is not None:
            path = str(self._path(key))
            raise RunDirectoryError(f"there is no file {path!r}, which has been written: {self._remedy}")

    def log(self, event: str, **details: Any) -> None:
        """Append an event to the log of the run."""
        if self.directory is not None:
            self.directory.log(event, **details)

    def _path(self, key: str) -> Path:
        assert self.directory is not None
        return self.directory.checkpoints / f"{key}.safetensors"

    @property
    def _remedy(self) -> str:
        assert self.directory is not None
        return f"delete the folder {str(self.directory.checkpoints)!r} and resume; networks are trained again"

    def _keep(self, outcome: ShardOutcome) -> None:
        if self.directory is not None:
            self.directory.folder("checkpoints")
            save_tensors(self._path(outcome.key), *_pack(outcome))
            spent = self._clock.elapsed
            if spent - self._noted_seconds >= MIN_NOTED_SECONDS:
                self._noted_seconds = spent
                self.directory.update(spent_seconds=spent)

    def _recall(self, key: str, sizes: Callable[[], Mapping[int, Sizes]]) -> ShardOutcome | None:
        if self.directory is None or not (path := self._path(key)).is_file():
            return None
        tensors, metadata = load_tensors(path, Checkpoint, self._remedy)
        with reading(path, self._remedy):
            return _unpack(key, tensors, metadata, sizes())


def _without(value: object, *names: str) -> dict[str, Any]:
    """Fields of an object, without some."""
    return {name: field for name, field in vars(value).items() if name not in names}


def _pack(outcome: ShardOutcome) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors: dict[str, Tensor] = {}
    members = []
    for member in outcome.members:
        record = _without(member, "state", "prediction", "snapshots")
        if member.state is not None:
            record["state"] = _without(member.state, "vectors")
            tensors |= {f"{member.trial}.{name}": vector for name, vector in member.state.vectors.items()}
        if member.prediction is not None:
            tensors[f"{member.trial}:prediction"] = member.prediction
        if member.snapshots is not None:
            kept = vars(member.snapshots).items()
            tensors |= {f"{member.trial}:moments:{name}": tensor for name, tensor in kept}
        members.append(record)
    return tensors, _without(outcome, "key", "members") | {"members": members}


def _unpack(
    key: str, tensors: dict[str, Tensor], metadata: dict[str, Any], sizes: Mapping[int, Sizes]
) -> ShardOutcome:
    members = []
    for record in metadata.pop("members"):
        state = record.pop("state", None)
        member = MemberOutcome(**record)
        n_parameters, predictions, snapshot_rows = sizes[member.trial]
        if state is not None:
            vectors = _starting(f"{member.trial}.", tensors)
            _check_shapes(dict.fromkeys(FLAT_NAMES, (n_parameters,)), vectors)
            member.state = MemberState(vectors, **state)
        member.prediction = tensors.get(f"{member.trial}:prediction")
        if member.prediction is not None:
            _check_shapes({"prediction": predictions}, {"prediction": member.prediction})
        if snapshots := _starting(f"{member.trial}:moments:", tensors):
            member.snapshots = Snapshots(**snapshots)
            times = (len(member.snapshots.epochs),)
            shapes = {"epochs": times, "weights": (*times, n_parameters)}
            each = predictions or ()
            # before version 0.2, snapshots held the predictions of all rows
            if each and snapshots.get("predictions", torch.empty(0)).shape[-1] != each[1]:
                each = (each[0], snapshot_rows)
            _check_shapes(shapes | {"predictions": (*times, *each)}, snapshots)
        members.append(member)
    return ShardOutcome(key, members, **metadata)


def _check_shapes(expected: Mapping[str, tuple[int, ...] | None], tensors: Mapping[str, Tensor]) -> None:
    """Check shapes and dtypes of tensors."""
    for name, tensor in tensors.items():
        dtype = torch.float64 if name == "epochs" else torch.float32
        if tuple(tensor.shape) != expected.get(name) or tensor.dtype != dtype:
            raise ValueError(f"{name!r} is a tensor of {tensor.dtype} and shape {tuple(tensor.shape)}")


def _starting(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)}
