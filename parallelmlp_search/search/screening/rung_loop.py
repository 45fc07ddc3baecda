"""Training from rung to rung: cohorts train as shards, and states of members that advance are kept."""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from parallelmlp_search.distribute import (
    FULL_STATE,
    MemberOutcome,
    ShardData,
    ShardOutcome,
    ShardTask,
    return_free_memory,
    shard_tasks,
)
from parallelmlp_search.search.run.journal import Journal, Sizes
from parallelmlp_search.space import MLPConfig


@dataclass(frozen=True)
class Cohort:
    """Members that train on the same rows up to the same epoch.

    Attributes
    ----------
    number
        Number of the cohort within its round, for example its rung or its fold.
    configs
        Configuration by number of the member, which is unique and the same on every rung.
    until_epoch, total_epochs
        Epochs of this rung and of full training.
    room
        Most members that can advance: states of worse ones are dropped as shards finish. None keeps all.
    """

    number: int
    configs: Mapping[int, MLPConfig]
    data: ShardData
    until_epoch: float
    total_epochs: float
    room: int | None = None

    @property
    def is_last(self) -> bool:
        """True where full training ends."""
        return self.until_epoch >= self.total_epochs


class FinishedShard(NamedTuple):
    """Trained members of a cohort, and the number of shards done so far and in total."""

    cohort: Cohort
    members: list[MemberOutcome]
    done: int
    total: int


class RungLoop:
    """Trains cohorts of members from rung to rung.

    For each round, iterate over :meth:`train`, decide who advances, and call :meth:`advance`::

        loop = RungLoop(Journal(Throughput(n_workers)))
        alive = dict(enumerate(configs))
        for rung, epochs in enumerate(rungs):
            cohort = Cohort(0, alive, data, until_epoch=epochs, total_epochs=rungs[-1])
            for shard in loop.train(f"round-{rung}", [cohort]):
                ...  # shard.members are outcomes
            alive = ...
            loop.advance(alive)

    Parameters
    ----------
    journal
        Trains shards, or recalls those of an interrupted run; its throughput counts their steps.
    keep_last
        Names of the vectors in the states of members at the end of full training.

    Attributes
    ----------
    is_incomplete
        True if a deadline left members of the round untrained, or trained for fewer epochs than others.
    missing
        Members of the round that were not trained.
    """

    def __init__(self, journal: Journal, *, keep_last: tuple[str, ...] = ()) -> None:
        self._journal = journal
        self._keep_last = keep_last
        self._members: dict[int, MemberOutcome] = {}
        self._round = ShardOutcome("")
        self._previous: str | None = None
        self._is_recalled = False
        self.is_incomplete = False
        self.missing = 0

    def train(
        self, key: str, cohorts: Sequence[Cohort], *, deadline: float | None = None, min_shards: int = 0
    ) -> Iterator[FinishedShard]:
        """Train cohorts, each from the state of its members up to its epoch, as one set of shards.

        Shards of later epochs run first, then those that take longest.

        Parameters
        ----------
        key, cohorts
            Name of the round in the journal; members to train.
        deadline, min_shards
            Reading of :func:`time.monotonic` at which training ends, or None; shards that begin even then.

        Yields
        ------
        FinishedShard
        """
        cohort_of = {member: cohort for cohort in cohorts for member in cohort.configs}
        best = {cohort.number: _BestMembers(cohort.room) for cohort in cohorts}

        def strip(outcome: ShardOutcome) -> None:
            for member in outcome.members:
                best[cohort_of[member.trial].number].offer(member)

        def sizes() -> dict[int, Sizes]:
            return {n: size for c in cohorts for n, size in Sizes.of(c.configs, c.data).items()}

        recalled = self._journal.recall_round(key, sizes)
        self._is_recalled = recalled is not None
        self._round = ShardOutcome(key)
        tasks = self._tasks(key, cohorts, deadline) if recalled is None else []
        shards = self._journal.run(_until(deadline, tasks, min_shards), strip)
        total = len(tasks)
        if recalled is not None:
            shards, total = iter([recalled]), 1
        self._members = {}
        for done, outcome in enumerate(shards, start=1):
            self._round.add(outcome)
            members: dict[int, list[MemberOutcome]] = {}
            for member in outcome.members:
                members.setdefault(cohort_of[member.trial].number, []).append(member)
                if not cohort_of[member.trial].is_last:
                    self._members[member.trial] = member
            for cohort in cohorts:
                if cohort.number in members:
                    yield FinishedShard(cohort, members[cohort.number], done, total)
        self.missing = len(cohort_of) - len(self._round.members)
        # members of a round that a deadline ended stand at different steps and cannot go on together
        self._round.cut = self._round.cut or self.missing > 0
        self.is_incomplete = self._round.cut

    def advance(self, members: Collection[int]) -> None:
        """Keep the states of these members only, and write the round to the journal."""
        for member in self._round.members:
            if member.trial not in members:
                member.state = None
        self._members = {number: self._members[number] for number in members if number in self._members}
        if not self._is_recalled:
            self._round.members.sort(key=lambda member: member.trial)
            self._journal.close_round(self._round, self._previous)
        self._previous = self._round.key
        self._round = ShardOutcome("")
        return_free_memory()

    def _tasks(self, key: str, cohorts: Sequence[Cohort], deadline: float | None) -> list[ShardTask]:
        states = {number: one.state for number, one in self._members.items() if one.state is not None}
        if any(one.state is None and one.failure is None for one in self._members.values()):
            self._journal.refuse_lost_round(key)
        tasks = [
            task
            for cohort in cohorts
            for task in shard_tasks(
                f"{key}-{cohort.number}",
                cohort.configs,
                cohort.data,
                until_epoch=cohort.until_epoch,
                total_epochs=cohort.total_epochs,
                states=states,
                keep=self._keep_last if cohort.is_last else FULL_STATE,
                deadline=deadline,
            )
        ]
        return sorted(tasks, key=lambda task: (-task.until_epoch, -task.predicted_seconds, task.key))


def _until(deadline: float | None, tasks: list[ShardTask], min_shards: int) -> Iterator[ShardTask]:
    """Tasks that begin before the deadline, and the first ``min_shards`` in any case."""
    for place, task in enumerate(tasks):
        if deadline is not None and place >= min_shards and time.monotonic() >= deadline:
            return
        yield task


class _BestMembers:
    """Keeps the states of the best ``room`` members of a cohort; failed members lose theirs in any case.

    Memory then holds one state per member that can advance, not one per member.
    """

    def __init__(self, room: int | None) -> None:
        self._room = room
        self._worst_first: list[tuple[float, int, MemberOutcome]] = []

    def offer(self, member: MemberOutcome) -> None:
        """Add a member; the worst one beyond ``room`` loses its state."""
        is_scored = math.isfinite(member.error) or self._room is None
        if member.failure is not None or not is_scored:
            member.state = None
        elif self._room is not None:
            # largest error on top, then the highest number
            heapq.heappush(self._worst_first, (-member.error, -member.trial, member))
            if len(self._worst_first) > self._room:
                heapq.heappop(self._worst_first)[2].state = None
