"""Batch of trials, trained together from rung to rung."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping

from parallelmlp_search.distribute import MemberOutcome, ShardData
from parallelmlp_search.search.run.budget import Throughput
from parallelmlp_search.search.run.journal import Journal
from parallelmlp_search.search.screening.rung_loop import Cohort, RungLoop
from parallelmlp_search.space import MLPConfig

__all__ = ["Batch"]


class Batch:
    """Trials that are trained together from rung to rung.

    Parameters
    ----------
    configs
        Configurations by number of the trial.
    data
        Training and validation rows.
    rungs
        Epochs of the rungs.
    throughput
        Number of workers; counts the training steps.
    """

    def __init__(
        self,
        configs: Mapping[int, MLPConfig],
        data: ShardData,
        rungs: tuple[float, ...],
        throughput: Throughput,
    ) -> None:
        self.configs = configs
        self.data = data
        self.rungs = rungs
        self._loop = RungLoop(Journal(throughput))
        self._seconds: dict[int, float] = defaultdict(float)

    def train(
        self, rung: int, trials: Collection[int], *, deadline: float | None = None
    ) -> dict[int, MemberOutcome]:
        """Train trials up to a rung. They continue from the rung before; all others are dropped.

        Parameters
        ----------
        rung
            Number of the rung.
        trials
            Numbers of the trials.
        deadline
            Reading of :func:`time.monotonic` after which no shard begins, or None.

        Returns
        -------
        dict of MemberOutcome
            Outcomes by trial, with the seconds of all rungs. Trials that a deadline left out are missing.
        """
        self._loop.advance(trials)
        configs = {number: self.configs[number] for number in trials}
        cohort = Cohort(rung, configs, self.data, self.rungs[rung], self.rungs[-1])
        outcomes = {}
        for shard in self._loop.train(f"rung-{rung}", [cohort], deadline=deadline):
            for member in shard.members:
                member.seconds = self._seconds[member.trial] = self._seconds[member.trial] + member.seconds
                outcomes[member.trial] = member
        return outcomes
