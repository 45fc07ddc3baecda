"""Phases of a search: elapsed time, time inside the training loop, and member-steps of each."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from parallelmlp_search.search.run.budget import Throughput

PHASES = (
    "reading",
    "preparing",
    "planning",
    "screening",
    "baselines",
    "cross-fitting",
    "selecting",
    "refitting",
    "saving",
)
"""Phases in their order. ``reading`` is everything before the search has its table."""


@dataclass
class Phase:
    """Part of a search.

    Attributes
    ----------
    seconds
        Elapsed time.
    loop_seconds
        Time inside the training loop, summed over workers.
    member_steps
        Training steps, summed over members.
    """

    seconds: float = 0.0
    loop_seconds: float = 0.0
    member_steps: int = 0


class PhaseClock:
    """Measures the phases of a search, one after the other; the first is ``reading``.

    Training that a resumed search reads from its journal does not count.

    Parameters
    ----------
    throughput
        Counts the training.
    started, now
        Reading of the monotonic clock at the start, None for now; the clock.
    """

    def __init__(
        self,
        throughput: Throughput,
        started: float | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._throughput = throughput
        self._now = now
        self._phases: dict[str, Phase] = {}
        self._current = PHASES[0]
        self._since = now() if started is None else started
        self._counted = self._count()

    def begin(self, name: str) -> None:
        """End the current phase and begin another of :data:`PHASES`."""
        seconds, training = self._now(), self._count()
        phase = self._phases.setdefault(self._current, Phase())
        phase.seconds += seconds - self._since
        phase.loop_seconds += training[0] - self._counted[0]
        phase.member_steps += training[1] - self._counted[1]
        self._current, self._since, self._counted = name, seconds, training

    def to_dict(self) -> dict[str, dict[str, float]]:
        """JSON-able values of every phase up to now, in their order."""
        self.begin(self._current)
        return {name: asdict(self._phases[name]) for name in PHASES if name in self._phases}

    def _count(self) -> tuple[float, int]:
        throughput = self._throughput
        return throughput.loop_seconds, throughput.member_steps - throughput.recalled_steps
