"""Journal of a search: finished shards and entries, from which an interrupted search is replayed.

A search is a function of its settings, its data, and a few values that depend on the clock. The journal
keeps the outcomes of shards and those values on disk. Replaying the search with them leads to the same place
without training anything twice. Without a run directory nothing is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from parallelmlp_search._files import load_metadata, load_tensors, save_tensors
from parallelmlp_search.distribute import MemberOutcome, ShardOutcome, ShardTask, Snapshots, run_shards
from parallelmlp_search.engine import MemberState
from parallelmlp_search.search.run.budget import Clock, Throughput
from parallelmlp_search.search.run.run_directory import RunDirectory

Value = TypeVar("Value")

MIN_KEPT_SECONDS = 0.4
"""A shard that took less is trained again instead of being written to disk."""


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

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def entry(self, key: str, compute: Callable[[], Value]) -> Value:
        """Value recorded under a key; without one, it is computed and recorded."""
        if key not in self._entries:
            self._entries[key] = compute()
            if self.directory is not None:
                self.directory.record(key, self._entries[key])
        value: Value = self._entries[key]
        return value

    def run(
        self, tasks: Iterable[ShardTask], strip: Callable[[ShardOutcome], None]
    ) -> Iterator[ShardOutcome]:
        """Outcomes of tasks, trained or recalled, in no particular order.

        ``strip`` can drop states that are not needed any more, before an outcome is written.
        """
        recalled: list[ShardOutcome] = []

        def pending() -> Iterator[ShardTask]:
            for task in tasks:
                outcome = self._recall(task.key)
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

    def recall_round(self, key: str) -> ShardOutcome | None:
        """Outcome of a finished round, or None."""
        outcome = self._recall(key)
        if outcome is not None:
            self.throughput.add(outcome, recalled=True)
        return outcome

    def close_round(self, outcome: ShardOutcome, previous: str | None) -> None:
        """Keep a finished round; its shards and the states of the previous round are deleted."""
        if self.directory is None:
            return
        self._keep(outcome)
        for path in self.directory.checkpoints.glob(f"{outcome.key}-*.safetensors"):
            path.unlink(missing_ok=True)
        if previous is not None and (path := self._path(previous)).is_file():
            metadata = load_metadata(path)
            for record in metadata["members"]:
                record.pop("state", None)
            save_tensors(path, {}, metadata)

    def log(self, event: str, **details: Any) -> None:
        """Append an event to the log of the run."""
        if self.directory is not None:
            self.directory.log(event, **details)

    def _path(self, key: str) -> Path:
        assert self.directory is not None
        return self.directory.checkpoints / f"{key}.safetensors"

    def _keep(self, outcome: ShardOutcome) -> None:
        if self.directory is not None:
            save_tensors(self._path(outcome.key), *_pack(outcome))
            self.directory.update(spent_seconds=self._clock.elapsed)

    def _recall(self, key: str) -> ShardOutcome | None:
        if self.directory is None or not self._path(key).is_file():
            return None
        return _unpack(key, *load_tensors(self._path(key)))


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


def _unpack(key: str, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> ShardOutcome:
    members = []
    for record in metadata.pop("members"):
        state = record.pop("state", None)
        member = MemberOutcome(**record)
        if state is not None:
            member.state = MemberState(_starting(f"{member.trial}.", tensors), **state)
        member.prediction = tensors.get(f"{member.trial}:prediction")
        if snapshots := _starting(f"{member.trial}:moments:", tensors):
            member.snapshots = Snapshots(**snapshots)
        members.append(member)
    return ShardOutcome(key, members, **metadata)


def _starting(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)}
