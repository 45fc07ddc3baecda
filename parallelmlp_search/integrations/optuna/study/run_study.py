"""Finished runs as studies, for dashboards and plots, and configurations from studies."""

from __future__ import annotations

import math
import os
import warnings
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from parallelmlp_search._reading import reading
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.integrations.optuna.sampler.elites import Elites
from parallelmlp_search.integrations.optuna.storage.storage_writers import get_writer
from parallelmlp_search.integrations.optuna.storage.storages import open_storage
from parallelmlp_search.search import RunDirectory
from parallelmlp_search.search.proposals.distributions import asked_of, decode_value
from parallelmlp_search.search.run.trial import config_of_row
from parallelmlp_search.selection import get_metric
from parallelmlp_search.space import MLPConfig, SearchSpace

_STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


def study_from_run(
    run: str | os.PathLike[str] | RunDirectory,
    storage: str | BaseStorage | None = None,
    *,
    study_name: str | None = None,
) -> optuna.Study:
    """Copy a finished run into a study, or the trials that a study of this run lacks.

    Finalists become complete trials with the out-of-fold score as value; the others are pruned or failed.
    Scores by rung become intermediate values; epochs, seconds, parameters and origin become user attributes.
    The study has the honest score as a user attribute.

    Parameters
    ----------
    run
        Folder of a finished run.
    storage
        Storage of the study: None for memory, a URL such as ``sqlite:///study.db``, ``journal:FILE`` for a
        journal, or a storage.
    study_name
        Name of the study; by default that of the folder.

    Returns
    -------
    optuna.Study
        Study with trials numbered as in the run. A copy that was interrupted is completed.

    Raises
    ------
    RunDirectoryError
        If the run is not finished.
    InvalidParameterError
        If the storage already has another study of this name, or cannot be opened.
    """
    directory = run if isinstance(run, RunDirectory) else RunDirectory.open(run)
    result = directory.result()
    frame = directory.trials()
    space = directory.settings().space
    metric = get_metric(directory.metric(), result["task"])
    name = study_name or directory.path.resolve().name
    study = optuna.create_study(
        storage=open_storage(storage),
        study_name=name,
        direction="maximize" if metric.greater_is_better else "minimize",
        load_if_exists=True,
    )
    with reading(directory.path / "trials.parquet"):
        trials = [_trial_of_rows(rows, space) for _, rows in frame.groupby("trial", sort=True)]
    known = study.get_trials(deepcopy=False)
    # a sampler may have added trials behind the copies
    if any(_content(one) != _content(other) for one, other in zip(known, trials, strict=False)):
        raise InvalidParameterError(
            f"study_name must be new in {storage!r} or a copy of this run, "
            f"but the study {name!r} has other trials: give it another name"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([metric.name])  # labels of plot axes
    study.set_user_attr("honest_score", (result["honest"] or {}).get("score"))
    study.set_user_attr("run", str(directory.path))
    get_writer(study._storage).create(study._study_id, trials[len(known) :])
    return study


def _content(trial: FrozenTrial) -> tuple[object, ...]:
    """Return what a trial of a run and its copy in a study have in common."""
    return trial.state, trial.params, trial.intermediate_values


def configs_from_study(study: optuna.Study, space: SearchSpace, n: int) -> list[MLPConfig]:
    """Return the configurations of the best trials of a study, as a start for another search.

    Complete trials come first, by value, then pruned trials, by last step and value. Trials whose parameters
    do not belong to the space are skipped.

    Parameters
    ----------
    study
        Study with a single direction and the parameter names of the space.
    space
        Space of the configurations.
    n
        Largest number of configurations.

    Returns
    -------
    list of MLPConfig

    Raises
    ------
    InvalidParameterError
        If the study has several directions.
    """
    if len(study.directions) > 1:
        raise InvalidParameterError(
            f"the study must have one direction to say which trials are best, but has {len(study.directions)}"
        )
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    elites = Elites(study.directions, len(trials))
    for trial in trials:
        elites.add(trial)
    found: dict[tuple[object, ...], MLPConfig] = {}
    for trial in elites.best(np.random.default_rng(0)):
        config = config_of_trial(trial, space)
        if config is not None and len(found) < n:
            found.setdefault(space.key(config), config)
    return list(found.values())


def config_of_trial(trial: FrozenTrial, space: SearchSpace) -> MLPConfig | None:
    """Return the configuration of a trial's parameters, or None if they do not belong to the space."""
    values: dict[str, Any] = {}
    try:
        for name in space.names:
            if space.is_active(name, values):
                values[name] = decode_value(space.domains[name], trial.params[name])
        return space.to_config(values, int(trial.user_attrs.get("seed", trial.number)))
    except (KeyError, InvalidParameterError):
        return None


def _trial_of_rows(rows: pd.DataFrame, space: SearchSpace) -> FrozenTrial:
    """Return the rows of a trial, one per rung, as an Optuna trial."""
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
