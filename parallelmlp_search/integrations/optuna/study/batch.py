"""Batch of trials, trained together from rung to rung."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from parallelmlp_search.distribute import MemberOutcome, ShardData
from parallelmlp_search.search.run.budget import Throughput
from parallelmlp_search.search.run.journal import Journal
from parallelmlp_search.search.screening.rung_loop import Cohort, RungLoop
from parallelmlp_search.space import MLPConfig


class Result(NamedTuple):
    """Outcome of the training of a configuration."""

    config: MLPConfig
    outcome: MemberOutcome


@dataclass
class Batch:
    """Trials that are trained together from rung to rung."""

    configs: Mapping[int, MLPConfig]  # by number of the trial
    data: ShardData  # training and validation rows
    rungs: Sequence[float]  # in epochs
    throughput: Throughput  # number of workers; counts the training steps
    deadline: float | None = None  # reading of `time.monotonic` after which no shard begins

    def __post_init__(self) -> None:
        self._loop = RungLoop(Journal(self.throughput))
        self._seconds: dict[int, float] = defaultdict(float)

    def train(self, rung: int, trials: Collection[int]) -> dict[int, Result]:
        """Train trials up to a rung, from where they stopped; all others are dropped.

        The results, by trial, have the seconds of all rungs. Trials that the deadline left out are missing.
        """
        self._loop.advance(trials)
        configs = {number: self.configs[number] for number in trials}
        cohort = Cohort(rung, configs, self.data, self.rungs[rung], self.rungs[-1])
        results = {}
        for shard in self._loop.train(f"rung-{rung}", [cohort], deadline=self.deadline):
            for member in shard.members:
                member.seconds = self._seconds[member.trial] = self._seconds[member.trial] + member.seconds
                results[member.trial] = Result(configs[member.trial], member)
        return results
