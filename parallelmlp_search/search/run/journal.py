"""Journal of a search: finished shards and entries, from which an interrupted search is replayed.

A search is a function of its settings, its data, and a few values that depend on the clock. The journal
keeps the outcomes of shards and those values on disk. Replaying the search with them leads to the same place
without training anything twice. Without a run directory nothing is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from torch import Tensor

from parallelmlp_search.distribute import MemberOutcome, ShardOutcome, ShardTask, Snapshots, run_shards
from parallelmlp_search.engine import MemberState
from parallelmlp_search.search.run.budget import Clock, Throughput
from parallelmlp_search.search.run.run_directory import RunDirectory

__all__ = ["Journal"]

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
        self.directory.forget(f"{outcome.key}-")
        if previous is not None:
            self.directory.shrink(previous, _without_states)

    def log(self, event: str, **details: Any) -> None:
        """Append an event to the log of the run."""
        if self.directory is not None:
            self.directory.log(event, **details)

    def _keep(self, outcome: ShardOutcome) -> None:
        if self.directory is not None:
            self.directory.remember(outcome.key, *_pack(outcome))
            self.directory.update(spent_seconds=self._clock.elapsed)

    def _recall(self, key: str) -> ShardOutcome | None:
        kept = None if self.directory is None else self.directory.recall(key)
        return None if kept is None else _unpack(key, *kept)


def _pack(outcome: ShardOutcome) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors: dict[str, Tensor] = {}
    members = []
    for member in outcome.members:
        record = member.record()
        if member.state is not None:
            state = member.state
            record["state"] = {
                "step": state.step,
                "best_error": state.best_error,
                "best_epoch": state.best_epoch,
            }
            record["state"]["failed_at"] = state.failed_at
            for name, vector in state.vectors.items():
                tensors[f"{member.trial}.{name}"] = vector
        if member.prediction is not None:
            tensors[f"{member.trial}:prediction"] = member.prediction
        if member.snapshots is not None:
            for name, tensor in vars(member.snapshots).items():
                tensors[f"{member.trial}:moments:{name}"] = tensor
        members.append(record)
    names = ("member_steps", "seconds", "predicted_seconds", "cut")
    return tensors, {"members": members} | {name: getattr(outcome, name) for name in names}


def _without_states(metadata: dict[str, Any]) -> dict[str, Any]:
    for record in metadata["members"]:
        record.pop("state", None)
    return metadata


def _unpack(key: str, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> ShardOutcome:
    vectors: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        trial, dot, vector = name.partition(".")
        if dot:
            vectors.setdefault(trial, {})[vector] = tensor
    members = []
    for record in metadata.pop("members"):
        state = record.pop("state", None)
        member = MemberOutcome(**record)
        if state is not None:
            member.state = MemberState(vectors.get(str(member.trial), {}), **state)
        member.prediction = tensors.get(f"{member.trial}:prediction")
        start = f"{member.trial}:moments:"
        snapshots = {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}
        if snapshots:
            member.snapshots = Snapshots(**snapshots)
        members.append(member)
    return ShardOutcome(key, members, **metadata)
