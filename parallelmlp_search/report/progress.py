"""Texts on the progress of a search that terminals and notebooks share.

Functions that return a list return an empty one where there is nothing to say.
"""

from __future__ import annotations

from parallelmlp_search.report.wording import format_clock, format_count
from parallelmlp_search.search.run.messages import counted
from parallelmlp_search.search.run.progress import Progress

STAGES = ("preparing", "screening", "cross-fitting", "selecting", "saving")

MAX_STANDINGS = 5


def stages_of(current: str) -> tuple[list[str], int]:
    """Return the stages that are shown, and the place of the current one, or their number after the last."""
    # refitting is part of few searches; it is shown in place of selecting
    stages = [current if (current, stage) == ("refitting", "selecting") else stage for stage in STAGES]
    return stages, stages.index(current) if current in stages else len(stages)


def describe_path(progress: Progress) -> str:
    """Describe the code path that trains the networks, and how to get a faster one."""
    return f"{progress.path}; {progress.advice}" if progress.advice else progress.path


def describe_rung(progress: Progress) -> list[str]:
    """Describe round and rung of screening, counted from 1."""
    if progress.stage != "screening" or not progress.n_rungs:
        return []
    rung = f"rung {min(progress.rung + 1, progress.n_rungs)}/{progress.n_rungs}"
    return [f"round {progress.round + 1}, {rung}" if progress.round else rung]


def describe_trials(progress: Progress) -> list[str]:
    """Describe the number of trials so far."""
    return [counted(progress.n_trials, "trial")] if progress.n_trials else []


def describe_alive(progress: Progress) -> list[str]:
    """Describe the number of members in training."""
    return [f"{progress.alive:,} in training"] if progress.alive else []


def describe_speed(progress: Progress) -> list[str]:
    """Describe the speed of training."""
    speed = progress.member_steps_per_second
    return [f"{format_count(speed)} member-steps/s"] if speed > 0 else []


def describe_time_left(progress: Progress) -> list[str]:
    """Describe the time until the limit, or without a limit the forecast."""
    if progress.seconds_left is not None:
        return [f"{format_clock(progress.seconds_left)} left"]
    if progress.forecast_seconds is not None:
        return [f"{about_clock(progress.forecast_seconds)} left"]
    return []


def about_clock(seconds: float) -> str:
    """Format a forecast, rounded because it is not exact.

    >>> about_clock(131.0)
    'about 2:15'
    """
    step = 5 if seconds < 60 else 15 if seconds < 600 else 60
    return f"about {format_clock(max(step, round(seconds / step) * step))}"


def share_done(progress: Progress) -> float:
    """Return the share of the time limit or of the forecast; without both, of the shards of this round."""
    left = progress.forecast_seconds if progress.seconds_left is None else progress.seconds_left
    if left is not None:
        return progress.elapsed_seconds / max(1e-9, progress.elapsed_seconds + left)
    return min(1.0, progress.done / progress.total) if progress.total else 0.0
