"""What a search tells while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Callback", "Progress", "Standing"]


@dataclass(frozen=True)
class Standing:
    """One line of the live leaderboard."""

    trial: int
    score: float
    epochs: float
    rung: int
    summary: str
    """The configuration in a few words, such as ``128-128 silu lr 0.004``."""


@dataclass(frozen=True)
class Progress:
    """Where a search stands.

    Attributes
    ----------
    stage
        ``preparing``, ``screening``, ``cross-fitting``, ``selecting``, ``refitting``, ``saving`` or
        ``finished``.
    rung_completed
        True on the report that ends a rung (or a group of finalists), False on those in between.
    round, rung
        Round of screening, and the highest rung that is being trained in it.
    n_rungs
        Rungs of the whole ladder.
    alive
        Members in training.
    n_trials
        Trials started so far.
    done, total
        Shards finished and planned in this round.
    best_score
        Best score so far in the metric's own orientation, None before the first.
    member_steps_per_second
        Training steps of single members per second of wall-clock time.
    elapsed_seconds, seconds_left
        Since the start; until the time limit, None without one.
    standings
        The leaders.
    """

    stage: str
    metric: str
    rung_completed: bool = False
    round: int = 0
    rung: int = 0
    n_rungs: int = 0
    alive: int = 0
    n_trials: int = 0
    done: int = 0
    total: int = 0
    best_score: float | None = None
    member_steps_per_second: float = 0.0
    elapsed_seconds: float = 0.0
    seconds_left: float | None = None
    standings: tuple[Standing, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)


Callback = Callable[[Progress], object]
"""Called at every report. One that returns True ends screening early; what has been trained is kept."""
