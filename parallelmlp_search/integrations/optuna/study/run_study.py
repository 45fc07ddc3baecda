"""A finished run as a study, for dashboards, plots, and studies that go on from it."""

from __future__ import annotations

import math
import os
import warnings
from typing import Any

import optuna
import pandas as pd
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.integrations.optuna.storage.storage_writers import writer_of
from parallelmlp_search.integrations.optuna.storage.storages import open_storage
from parallelmlp_search.search import RunDirectory
from parallelmlp_search.search.proposals.distributions import asked_of, decode_value
from parallelmlp_search.search.run.trial import config_of_row
from parallelmlp_search.selection import get_metric
from parallelmlp_search.space import MLPConfig, SearchSpace

__all__ = ["config_of_trial", "configs_from_study", "study_from_run"]

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
    trials = [_frozen(rows, space) for _, rows in frame.groupby("trial", sort=True)]
    writer_of(study._storage).create(study._study_id, trials)
    return study


def configs_from_study(study: optuna.Study, space: SearchSpace, n: int) -> list[MLPConfig]:
    """Configurations of the best trials of a study, to begin another search with.

    Complete trials come first, by their value, then pruned ones, by how far they got and their last report.
    Trials whose parameters are not of the space are passed over.

    Parameters
    ----------
    study
        A study with a single direction, whose parameters are named as in the space.
    space
        The space that the configurations must belong to.
    n
        How many at most.

    Raises
    ------
    InvalidParameterError
        If the study has several directions.
    """
    if len(study.directions) > 1:
        raise InvalidParameterError(
            f"the study must have one direction to say which trials are best, but has {len(study.directions)}"
        )
    sign = -1.0 if study.direction is StudyDirection.MAXIMIZE else 1.0
    ranked: list[tuple[tuple[int, float, int], FrozenTrial]] = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)):
        if trial.state is TrialState.COMPLETE and trial.value is not None:
            ranked.append(((-(10**9), sign * trial.value, trial.number), trial))
        elif trial.last_step is not None:
            value = sign * trial.intermediate_values[trial.last_step]
            ranked.append(((-trial.last_step, value, trial.number), trial))
    found: dict[tuple[object, ...], MLPConfig] = {}
    for _, trial in sorted(ranked, key=lambda pair: pair[0]):
        config = config_of_trial(trial, space)
        if config is not None and len(found) < n:
            found.setdefault(space.key(config), config)
    return list(found.values())


def config_of_trial(trial: FrozenTrial, space: SearchSpace) -> MLPConfig | None:
    """The configuration that a trial's parameters spell out, or None if they are not of the space."""
    values: dict[str, Any] = {}
    try:
        for name in space.names:
            if space.is_active(name, values):
                values[name] = decode_value(space.domains[name], trial.params[name])
        return space.to_config(values, int(trial.user_attrs.get("seed", trial.number)))
    except (KeyError, InvalidParameterError):
        return None


def _frozen(rows: pd.DataFrame, space: SearchSpace) -> FrozenTrial:
    rows = rows.sort_values("rung")
    last = rows.iloc[-1]
    state = _STATES[str(last["state"])]
    params, distributions = asked_of(space, config_of_row(last))
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
        params=params,
        distributions=distributions,
        intermediate_values=scores,
        user_attrs=attributes,
    )
