"""Fitted estimators from finished runs and saved models."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from parallelmlp_search._reading import reading
from parallelmlp_search.data.frames import array_names
from parallelmlp_search.estimators.parallel_mlp import ParallelMLPClassifier, ParallelMLPRegressor
from parallelmlp_search.estimators.table_estimator import label_classes
from parallelmlp_search.exceptions import RunDirectoryError, near_miss
from parallelmlp_search.inference import TrainedModel
from parallelmlp_search.runs import load_model
from parallelmlp_search.search import RunDirectory
from parallelmlp_search.search.run.leaderboard_view import best_config
from parallelmlp_search.space import MLPConfig, SearchSpace

STORED_AS = {"random_state": "seed", "initial_configs": "initial"}
"""Names in ``run.json`` of parameters that have another name there."""


def load(path: str | os.PathLike[str]) -> ParallelMLPClassifier | ParallelMLPRegressor:
    """Load a fitted estimator from a finished run or a saved model.

    It works for runs of ``pmlp search`` and of estimators with a ``run_directory``. Neither loading nor
    predicting imports torch, unless the ensemble has promoted networks.

    Parameters
    ----------
    path
        Folder of the run, or of a model that ``estimator.model_.save`` has written. A model alone predicts;
        its leaderboard is empty, and its ``honest_score_``, ``best_config_`` and ``result_`` are None.

    Returns
    -------
    ParallelMLPClassifier or ParallelMLPRegressor
        Fitted estimator with the settings of the search as parameters. The search space is the one that was
        searched; callbacks and samplers that were given as objects are not stored.

    Raises
    ------
    RunDirectoryError
        If the folder holds no finished run and no model, or one that is damaged or of a newer version.

    Examples
    --------
    >>> model = load("runs/adult")
    >>> model.predict_proba(pd.read_csv("new.csv"))
    """
    folder = Path(path)
    if (folder / "model.json").is_file() and not (folder / "run.json").is_file():
        model = TrainedModel.load(folder)
        estimator = _estimator(model, {})
        estimator._store_result(None, pd.DataFrame())
        estimator.columns_ = _columns_of(model)
        return estimator
    directory = RunDirectory.open(_checked(folder))
    info, result = directory.info(), directory.result()
    model = load_model(directory)
    with reading(folder / "run.json"):
        estimator = _estimator(model, _parameters(info) | {"run_directory": str(folder)})
    board = directory.leaderboard()
    estimator._store_result(directory, board)
    columns = directory.columns()
    estimator.columns_ = _columns_of(model) if columns is None else columns
    with reading(folder / "leaderboard.parquet"):
        estimator.best_config_ = best_config(board, result["best_trial"])
    estimator.honest_score_ = (result["honest"] or {}).get("score")
    estimator.n_trials_ = result["n_trials"]
    return estimator


def _checked(folder: Path) -> Path:
    """Return a path that exists and is no file."""
    if folder.is_file():
        raise RunDirectoryError(
            f"{str(folder)!r} is a file: give the folder of a run or of a saved model; "
            "joblib.load and pickle.load read pickled estimators"
        )
    if not folder.exists():
        parent = folder.parent
        neighbours = [one.name for one in parent.iterdir() if one.is_dir()] if parent.is_dir() else []
        raise RunDirectoryError(
            f"{str(folder)!r} does not exist{near_miss(folder.name, neighbours)}: "
            "give the folder of a run or of a saved model"
        )
    return folder


def _estimator(model: TrainedModel, given: Mapping[str, Any]) -> ParallelMLPClassifier | ParallelMLPRegressor:
    """Return an estimator with a model and those of the given parameters that it has."""
    kind = ParallelMLPRegressor if model.task == "regression" else ParallelMLPClassifier
    known = inspect.signature(kind).parameters
    estimator: ParallelMLPClassifier | ParallelMLPRegressor = kind(
        **{name: value for name, value in given.items() if name in known}
    )
    names = list(model.feature_names)
    estimator.model_ = model
    estimator._columns = names
    estimator._target_name, estimator._output_names = model.target_name, model.output_names
    estimator.n_features_in_ = len(names)
    if names != array_names(len(names)):
        estimator.feature_names_in_ = np.array(names, dtype=object)
    if isinstance(estimator, ParallelMLPClassifier):
        assert model.classes is not None
        is_multilabel = model.task == "multilabel"
        estimator.classes_ = label_classes(len(model.classes)) if is_multilabel else model.classes
    else:
        estimator._has_columns = not model.flat_target
    return estimator


def _parameters(info: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of the search in ``run.json``."""
    settings, source = info.get("settings") or {}, info.get("source") or {}
    known = {**inspect.signature(ParallelMLPRegressor).parameters}
    known |= inspect.signature(ParallelMLPClassifier).parameters
    found = {}
    for name in known:
        stored = STORED_AS.get(name, name)
        if settings.get(stored) is not None:
            found[name] = settings[stored]
    if "tune_decision" in settings:  # the name in older versions
        found["tune_thresholds"] = settings["tune_decision"]
    if (costs := settings.get("costs")) is not None:
        found["ordinal"] = costs["order"] is not None and (costs["order"] or True)
        stored_pairs = {(true, predicted): cost for true, predicted, cost in costs["pairs"]}
        found["cost_matrix"] = None if found["ordinal"] else costs["matrix"] or stored_pairs
    if "search_space" in found:
        found["search_space"] = SearchSpace.from_dict(found["search_space"])
    if "initial_configs" in found:
        found["initial_configs"] = [MLPConfig.from_dict(one) for one in found["initial_configs"]] or None
    if "." in found.get("sampler", ""):  # the class of an object
        del found["sampler"]
    found |= info.get("estimator") or {}
    if isinstance(pairs := found.get("class_weight", source.get("class_weight")), list):
        pairs = dict(pairs)
    return found | {"class_weight": pairs}


def _columns_of(model: TrainedModel) -> pd.DataFrame:
    """Return the kind of each column, which is what a model knows about it."""
    readings = model.folds[0].encoder.schema if model.reader is None else model.reader.columns
    kinds = {one.name: one.kind for one in readings}
    index = pd.Index(list(model.feature_names), name="column")
    return pd.DataFrame({"kind": [kinds.get(name) for name in index]}, index=index)
