"""Batch of configurations, trained together from rung to rung."""

from __future__ import annotations

import time
from collections.abc import Sequence

from parallelmlp_search.distribute import MemberOutcome, ShardData, ShardTask, cut_work, run_shards
from parallelmlp_search.engine import MemberState
from parallelmlp_search.space import MLPConfig

__all__ = ["Batch"]


class Batch:
    """Configurations that are trained together from rung to rung.

    Parameters
    ----------
    configs
        One per member.
    data
        Training and validation rows.
    total_epochs
        Epochs of full training.
    n_workers
        Number of shards that run at the same time.
    """

    def __init__(
        self,
        configs: Sequence[MLPConfig],
        data: ShardData,
        total_epochs: float,
        *,
        n_workers: int,
    ) -> None:
        self.configs = list(configs)
        self.data = data
        self.total_epochs = total_epochs
        self.n_workers = n_workers
        self.member_steps = 0
        self._states: dict[int, MemberState] = {}
        self._seconds: dict[int, float] = {}

    def advance(
        self, members: Sequence[int], until_epoch: float, *, deadline: float | None = None
    ) -> dict[int, MemberOutcome]:
        """Train members of equal epochs on.

        Parameters
        ----------
        members
            Members to train.
        until_epoch
            Epochs of the next rung.
        deadline
            Reading of :func:`time.monotonic` after which no shard begins, or None.

        Returns
        -------
        dict of MemberOutcome
            Outcomes by member, without members that a deadline left out.
        """
        chosen = [self.configs[member] for member in members]
        last = until_epoch >= self.total_epochs
        tasks = [
            ShardTask(
                key=f"batch-{place:04d}",
                trials=tuple(members[index] for index in cut),
                configs=tuple(chosen[index] for index in cut),
                states=tuple(self._states.pop(members[index], None) for index in cut),
                data=self.data,
                until_epoch=until_epoch,
                total_epochs=self.total_epochs,
                keep=() if last else ("parameters", "first_moment", "second_moment", "average"),
                deadline=deadline,
            )
            for place, cut in enumerate(cut_work(chosen, self.data))
        ]
        outcomes: dict[int, MemberOutcome] = {}
        in_time = (task for task in tasks if deadline is None or time.monotonic() < deadline)
        for shard in run_shards(in_time, n_workers=self.n_workers):
            self.member_steps += shard.member_steps
            for member in shard.members:
                outcomes[member.trial] = member
                member.seconds += self._seconds.get(member.trial, 0.0)
                self._seconds[member.trial] = member.seconds
                if member.state is not None and member.failure is None and not last:
                    self._states[member.trial] = member.state
                member.state = None
        return outcomes

    def keep(self, members: Sequence[int]) -> None:
        """Drop the states of all other members."""
        self._states = {member: self._states[member] for member in members if member in self._states}
