"""Our own search, configured by settings."""

from __future__ import annotations

import importlib
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.quality.errors import METRICS, error_of_score
from benchmarks.quality.tools import Fit, Task
from parallelmlp_search.exceptions import BudgetWarning
from parallelmlp_search.search import Problem, SearchSettings, run
from parallelmlp_search.space import Categorical, SearchSpace, tuned_defaults

__all__ = ["search", "split_settings", "with_known", "with_space"]


def split_settings(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[tuple[str, str], Any]]:
    """Return fields of ``SearchSettings``, and constants by ``(module, name)``."""
    fields = {name: value for name, value in settings.items() if ":" not in name}
    constants = {}
    for name, value in settings.items():
        module, _, constant = name.partition(":")
        if constant:
            constants[module, constant] = value
    return fields, constants


def with_space(fields: dict[str, Any], default: SearchSpace | None = None) -> dict[str, Any]:
    """Return the fields with ``space`` replaced by the default space with these choices."""
    if "space" not in fields:
        return fields
    changed = {name: Categorical(tuple(values)) for name, values in fields["space"].items()}
    rest = {name: value for name, value in fields.items() if name != "space"}
    return {
        **rest,
        "search_space": SearchSpace({**(default or SearchSpace.preset("default")).domains, **changed}),
    }


def with_known(changes: Mapping[str, Sequence[Any]]) -> None:
    """Change fields of the configurations that searches start with, cycling through values."""
    tuned_defaults.TUNED_DEFAULTS = tuple(
        config.replace(**{name: values[place % len(values)] for name, values in changes.items()})
        for place, config in enumerate(tuned_defaults.TUNED_DEFAULTS)
    )


def search(task: Task) -> Fit:
    """Run one search under the time limit."""
    started = time.monotonic()
    fields, constants = split_settings(task.settings)
    with_known(fields.pop("known", {}))
    fields = with_space(fields, SearchSettings().suited_to(task.target, task.task).space)
    for (module, constant), value in constants.items():
        owner = importlib.import_module(module)
        getattr(owner, constant)  # fails for a constant that no longer exists
        setattr(owner, constant, value)
    settings = SearchSettings(
        time_limit=task.seconds, metric=METRICS[task.task], seed=task.seed, device="cpu", **fields
    )
    problem = Problem(frame=task.features, target=task.target, task=task.task)  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BudgetWarning)
        result = run(problem, settings, n_jobs=task.threads, started=started)
    honest = result.honest

    def predict(features: pd.DataFrame) -> NDArray[np.float64]:
        values = result.model.predictions(features)
        return values[0] if task.task == "regression" else np.ascontiguousarray(values.T)

    notes: dict[str, Any] = {
        "trials": result.n_trials,
        "max_epochs": result.max_epochs,
        "folds": result.n_folds,
        "finalists": int(sum(state == "complete" for state in result.leaderboard.to_frame()["state"])),
        "ensemble": len(result.model.weights),
        "cut": result.left_out,
        "best_config": result.best_config.to_dict(),
    }
    if honest is not None:
        notes |= {
            "honest": error_of_score(task.task, honest.score),
            "honest_standard_error": honest.standard_error,
            "naive": error_of_score(task.task, honest.naive),
        }
    return Fit(predict, notes)
