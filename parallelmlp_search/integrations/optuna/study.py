"""A finished run as a study, for dashboards, plots, and studies that go on from it."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping
from typing import Any

import optuna
import pandas as pd
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.search import RunDirectory
from parallelmlp_search.search.distributions import distribution_of, encode_value
from parallelmlp_search.selection import get_metric
from parallelmlp_search.space import MLPConfig, SearchSpace
from parallelmlp_search.space.config import FIELD_NAMES

__all__ = ["open_storage", "study_from_run"]

JOURNAL = "journal:"

_STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


def study_from_run(
    run: str | os.PathLike[str] | RunDirectory,
    storage: str | BaseStorage | None = None,
    *,
    study_name: str | None = None,
) -> optuna.Study:
    """Copy a finished run into a new study.

    Finalists become complete trials, whose value is the out-of-fold score; all others are pruned, or failed.
    Each has its scores by rung as intermediate values, and epochs, seconds, parameters and origin as user
    attributes. The study's own attributes hold the honest score.

    Parameters
    ----------
    run
        Folder of a finished run.
    storage
        Where the study goes: None for memory, a URL such as ``sqlite:///study.db``, ``journal:FILE`` for a
        journal, or a storage.
    study_name
        Name of the study; the folder's by default.

    Returns
    -------
    optuna.Study
        With trials numbered as in the run.

    Raises
    ------
    RunDirectoryError
        If the run has not finished.
    InvalidParameterError
        If the storage already has a study of this name, or cannot be opened.
    """
    directory = run if isinstance(run, RunDirectory) else RunDirectory.open(run)
    result = directory.result()
    frame = directory.trials()
    space = directory.settings().space
    metric = get_metric(result["metric"], directory.info()["task"])
    name = study_name or directory.path.resolve().name
    try:
        study = optuna.create_study(
            storage=open_storage(storage),
            study_name=name,
            direction="maximize" if metric.greater_is_better else "minimize",
        )
    except optuna.exceptions.DuplicatedStudyError:
        raise InvalidParameterError(
            f"study_name must be new in {storage!r}, but there is a study {name!r} already"
        ) from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([metric.name])  # what axes of plots are called
    study.set_user_attr("honest_score", result["honest"]["score"])
    study.set_user_attr("run", str(directory.path))
    study.add_trials([_frozen(rows, space) for _, rows in frame.groupby("trial", sort=True)])
    return study


def open_storage(storage: str | BaseStorage | None) -> str | BaseStorage | None:
    """A storage as Optuna takes it; ``journal:FILE`` is the file of a journal.

    Raises
    ------
    InvalidParameterError
        If a text is neither that nor a URL.
    """
    if not isinstance(storage, str):
        return storage
    if storage.startswith(JOURNAL):
        return JournalStorage(JournalFileBackend(storage.removeprefix(JOURNAL)))
    if "://" not in storage:
        raise InvalidParameterError(
            f"storage must be a URL such as sqlite:///study.db, or journal:FILE, but got {storage!r}"
        )
    return storage


def _frozen(rows: pd.DataFrame, space: SearchSpace) -> FrozenTrial:
    rows = rows.sort_values("rung")
    last = rows.iloc[-1]
    state = _STATES[str(last["state"])]
    values = space.to_values(_config(last))
    scores = {
        int(rung): float(score)
        for rung, score in zip(rows["rung"], rows["score"], strict=True)
        if math.isfinite(score)
    }
    attributes: dict[str, Any] = {
        "origin": str(last["origin"]),
        "n_parameters": int(last["n_parameters"]),
        "epochs": float(last["epochs"]),
        "train_seconds": float(rows["train_seconds"].sum()),
        "seed": int(last["config_seed"]),
    }
    if state is TrialState.FAIL:
        attributes["failure"] = str(last["failure"])
    return create_trial(
        state=state,
        value=float(last["score"]) if state is TrialState.COMPLETE else None,
        params={name: encode_value(value) for name, value in values.items()},
        distributions={name: distribution_of(space.domains[name]) for name in values},
        intermediate_values=scores,
        user_attrs=attributes,
    )


def _config(row: Mapping[str, Any] | pd.Series[Any]) -> MLPConfig:
    """The configuration that a row of ``trials.parquet`` spells out."""
    values: dict[str, Any] = {}
    for name in FIELD_NAMES:
        value = row[f"config_{name}"]
        if name == "widths":
            value = tuple(int(width) for width in str(value).split("-") if width)
        values[name] = None if value is None or value is pd.NA or value != value else value
    return MLPConfig(**values)
