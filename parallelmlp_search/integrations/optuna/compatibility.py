"""Optuna versions: private names that have no public counterpart, and differences between Optuna 4 and 5."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial

from parallelmlp_search.exceptions import InvalidParameterError

OLDEST_TESTED, NEWEST_TESTED = (4, 3), (5, 0)
"""Optuna versions between which batches are written through private names of its storages."""

HAS_TRIAL_CONSTRAINTS = hasattr(Trial, "set_constraint")
"""True from Optuna 5 on, where a trial holds its constraints; before, samplers call ``constraints_func``."""

CONSTRAINTS_ATTR = "constraints"
"""System attribute under which Optuna 4 keeps the constraints of a trial."""


def is_tested_version() -> bool:
    """Return True if the storages of the installed Optuna are known to this package."""
    major, minor, *_ = optuna.__version__.split(".")
    return OLDEST_TESTED <= (int(major), int(minor)) <= NEWEST_TESTED


def constraints_of(trial: FrozenTrial) -> list[float]:
    """Return the constraints of a packed trial, as ``constraints_func`` of samplers of Optuna 4."""
    if HAS_TRIAL_CONSTRAINTS:
        return list(trial.constraints.values())
    return list(trial.system_attrs.get(CONSTRAINTS_ATTR) or ())


def clear_trial_cache(study: optuna.Study) -> None:
    """Let samplers read the trials again, as ``study.ask`` does."""
    local: Any = getattr(study, "_thread_local", None)
    if local is not None:
        local.cached_all_trials = None


@contextlib.contextmanager
def stoppable(study: optuna.Study) -> Iterator[Callable[[], bool]]:
    """Let ``study.stop()`` work inside the context, as it does inside ``study.optimize``.

    Yields
    ------
    callable
        Returns True once the study was stopped.

    Raises
    ------
    InvalidParameterError
        If an optimize loop of the study already runs in this thread.
    """
    local: Any = getattr(study, "_thread_local", None)
    if local is None or not hasattr(study, "_stop_flag"):  # `study.stop` raises, everything else works
        yield lambda: False
        return
    if local.in_optimize_loop:
        raise InvalidParameterError("optimize must not be called from inside another optimize of the study")
    local.in_optimize_loop = True
    study._stop_flag = False
    try:
        yield lambda: study._stop_flag
    finally:
        local.in_optimize_loop = False
