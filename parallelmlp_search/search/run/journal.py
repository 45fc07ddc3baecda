"""Remembers finished shards and decisions, so that an interrupted search can be played back to where it was.

A search is a function of its settings, its data, and what was decided from the clock. The journal keeps the
results of shards and those decisions on disk; playing the search again with them in hand leads to the same
place without training anything twice. Without a run directory nothing is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from torch import Tensor

from parallelmlp_search.distribute import MemberOutcome, ShardOutcome, ShardTask, Snapshots, run_shards
from parallelmlp_search.engine import MemberState
from parallelmlp_search.search.run.budget import Clock
from parallelmlp_search.search.run.run_directory import RunDirectory

__all__ = ["Journal"]

Value = TypeVar("Value")

WORTH_KEEPING_SECONDS = 0.4
"""A shard that took less is trained again rather than written to disk."""


class Journal:
    """Memory of one search.

    Parameters
    ----------
    directory
        Where to keep it, or None.
    n_workers
        How many shards run at once.
    clock
        Tells how much time has been spent, which is kept beside the results.
    """

    def __init__(self, directory: RunDirectory | None, n_workers: int, clock: Clock) -> None:
        self.directory = directory
        self.clock = clock
        self.n_workers = n_workers
        self._decisions = {} if directory is None else directory.decisions()

    def has_decided(self, key: str) -> bool:
        """Whether there is a decision of this name."""
        return key in self._decisions

    def decide(self, key: str, choose: Callable[[], Value]) -> Value:
        """The decision of this name: the one that was made before, or a new one."""
        if not self.has_decided(key):
            self._decisions[key] = choose()
            if self.directory is not None:
                self.directory.decide(key, self._decisions[key])
        value: Value = self._decisions[key]
        return value

    def run(
        self, tasks: Iterable[ShardTask], strip: Callable[[ShardOutcome], None]
    ) -> Iterator[ShardOutcome]:
        """Outcomes of tasks, trained or remembered, in no particular order.

        ``strip`` may drop states that can no longer matter; it sees each outcome once, before it is kept.
        """
        remembered: list[ShardOutcome] = []

        def pending() -> Iterator[ShardTask]:
            for task in tasks:
                outcome = None if self.directory is None else self._recall(task.key)
                if outcome is None:
                    yield task
                else:
                    remembered.append(outcome)

        for outcome in run_shards(pending(), n_workers=self.n_workers):
            strip(outcome)
            if self.directory is not None and outcome.seconds >= WORTH_KEEPING_SECONDS and not outcome.cut:
                self.directory.remember(outcome.key, *_pack(outcome))
                self.directory.update(spent_seconds=self.clock.elapsed)
            yield outcome
        for outcome in remembered:
            strip(outcome)
            yield outcome

    def _recall(self, key: str) -> ShardOutcome | None:
        assert self.directory is not None
        kept = self.directory.recall(key)
        return None if kept is None else _unpack(key, *kept)

    def recall_round(self, key: str) -> ShardOutcome | None:
        """All that a finished round left behind, as one outcome, or None."""
        return None if self.directory is None else self._recall(key)

    def close_round(self, key: str, outcome: ShardOutcome, before: str | None) -> None:
        """Keep a finished round as a whole; its shards, and the states of the round before, go."""
        if self.directory is None:
            return
        self.directory.remember(key, *_pack(outcome))
        self.directory.update(spent_seconds=self.clock.elapsed)
        self.directory.forget(f"{key}-")
        if before is not None:
            self.directory.shrink(before, _without_states)

    def log(self, event: str, **details: Any) -> None:
        """Note what happened."""
        if self.directory is not None:
            self.directory.log(event, **details)


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
        if member.moments is not None:
            for name, tensor in member.moments.tensors().items():
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
        moments = {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}
        if moments:
            member.moments = Snapshots(**moments)
        members.append(member)
    return ShardOutcome(key, members, **metadata)
