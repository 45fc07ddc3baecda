"""Context of a search: the objects that all of its stages share."""

from __future__ import annotations

from dataclasses import dataclass, replace

from parallelmlp_search._memory import peak_bytes
from parallelmlp_search.distribute import ShardData
from parallelmlp_search.search.problem.latency import LatencyMeter
from parallelmlp_search.search.problem.preparation import Preparation
from parallelmlp_search.search.problem.settings import SearchSettings
from parallelmlp_search.search.run.budget import Clock, Throughput
from parallelmlp_search.search.run.journal import Journal
from parallelmlp_search.search.run.memory import MemoryPlan, limited
from parallelmlp_search.search.run.phases import PhaseClock
from parallelmlp_search.search.run.progress import Reporter
from parallelmlp_search.search.run.workers import Workers


@dataclass(frozen=True)
class SearchContext:
    """Objects that all stages of a search share."""

    preparation: Preparation
    """Problem, settings, device, splits and metric."""
    data: ShardData
    """Rows of screening."""
    journal: Journal
    """Trains shards and keeps their outcomes."""
    reporter: Reporter
    clock: Clock
    workers: Workers
    phases: PhaseClock
    memory: MemoryPlan | None = None
    """Memory under a limit."""
    latency: LatencyMeter | None = None
    """Latency of networks under a limit."""

    def within(self, memory: MemoryPlan | None) -> SearchContext:
        """Return the same context with shards that keep to a plan of the memory."""
        return replace(self, memory=memory, data=limited(self.data, memory))

    def share(self, data: ShardData) -> ShardData:
        """Return data of shards that keep to the plan of the memory, and that processes read from a file."""
        return self.workers.share(limited(data, self.memory))

    @property
    def settings(self) -> SearchSettings:
        """Settings of the search."""
        return self.preparation.settings

    @property
    def fold_workers(self) -> int:
        """Threads that prepare folds or fit baselines at once.

        It is 1 under a memory limit, whose plan has room for the columns of one fold.
        """
        return 1 if self.memory is not None else self.throughput.n_workers

    @property
    def memory_used(self) -> dict[str, int]:
        """Measured peak of the memory, and under a limit the limit and the predicted peak."""
        peak, plan = peak_bytes(), self.memory
        measured = {} if peak is None else {"peak": peak}
        return measured if plan is None else measured | {"limit": plan.limit, "estimate": plan.estimate}

    @property
    def throughput(self) -> Throughput:
        """Speed of the machine."""
        return self.journal.throughput
