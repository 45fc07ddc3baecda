"""Context of a search: the objects that all of its stages share."""

from __future__ import annotations

from dataclasses import dataclass

from parallelmlp_search.distribute import ShardData
from parallelmlp_search.search.problem.preparation import Preparation
from parallelmlp_search.search.problem.settings import SearchSettings
from parallelmlp_search.search.run.budget import Clock, Throughput
from parallelmlp_search.search.run.journal import Journal
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

    @property
    def settings(self) -> SearchSettings:
        """Settings of the search."""
        return self.preparation.settings

    @property
    def throughput(self) -> Throughput:
        """Speed of the machine."""
        return self.journal.throughput
