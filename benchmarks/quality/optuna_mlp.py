"""Common practice: Optuna over scikit-learn's MLP, one network after the other."""

from __future__ import annotations

import copy
import time
import warnings
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.quality.errors import error_of
from benchmarks.quality.tools import Fit, Task

__all__ = ["search"]

MAX_EPOCHS, PATIENCE = 200, 15
VALIDATION_SHARE = 0.2
SEARCH_SHARE = 0.95


def search(task: Task) -> Fit:
    """Search depth, width, learning rate, decay and batch size with TPE.

    Networks train epoch by epoch on four fifths of the rows and stop after 15 epochs without improvement on
    the last fifth, so the time limit is kept to one epoch. The best network at its best epoch predicts.
    """
    import optuna
    from sklearn.model_selection import train_test_split

    assert task.seconds is not None
    deadline = time.monotonic() + SEARCH_SHARE * task.seconds
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    encoder = _encoder(task)
    inputs = np.asarray(encoder.fit_transform(task.features), dtype=np.float32)
    regression = task.task == "regression"
    location, scale = (float(task.target.mean()), float(task.target.std())) if regression else (0.0, 1.0)
    target = (task.target - location) / scale if regression else task.target
    train, validation = train_test_split(
        np.arange(len(target)),
        test_size=VALIDATION_SHARE,
        stratify=None if regression else target,
        random_state=task.seed,
    )
    best: dict[str, Any] = {"error": np.inf}

    def objective(trial: optuna.Trial) -> float:
        model = _network(task, trial)
        error, waited = np.inf, 0
        for _ in range(MAX_EPOCHS):
            if regression:
                model.partial_fit(inputs[train], target[train])
            else:
                model.partial_fit(inputs[train], target[train], classes=np.arange(task.n_classes))
            predictions = (
                model.predict(inputs[validation]) if regression else model.predict_proba(inputs[validation])
            )
            now = (
                error_of(task.task, target[validation], predictions)
                if np.isfinite(predictions).all()
                else np.inf
            )
            waited = 0 if now < error else waited + 1
            error = min(now, error)
            if now < best["error"]:
                best.update(error=now, model=copy.deepcopy(model))
            if waited == PATIENCE or time.monotonic() >= deadline:
                break
        return error

    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=task.seed))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # networks that overflow
        study.optimize(objective, timeout=deadline - time.monotonic(), catch=(ValueError, FloatingPointError))
    model = best["model"]

    def predict(features: pd.DataFrame) -> NDArray[np.float64]:
        ready = np.asarray(encoder.transform(features), dtype=np.float32)
        if regression:
            return np.asarray(model.predict(ready), dtype=np.float64) * scale + location
        return np.asarray(model.predict_proba(ready), dtype=np.float64)

    return Fit(predict, {"trials": len(study.trials)})


def _encoder(task: Task) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = [column for column in task.features if column not in task.categorical]
    scale = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler())
    one_hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return ColumnTransformer([("numbers", scale, numbers), ("categories", one_hot, list(task.categorical))])


def _network(task: Task, trial: Any) -> Any:
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    kind = MLPRegressor if task.task == "regression" else MLPClassifier
    depth = trial.suggest_int("depth", 1, 3)
    return kind(
        hidden_layer_sizes=(trial.suggest_int("width", 32, 256, log=True),) * depth,
        activation=trial.suggest_categorical("activation", ["relu", "tanh"]),
        learning_rate_init=trial.suggest_float("learning_rate", 1e-4, 2e-2, log=True),
        alpha=trial.suggest_float("alpha", 1e-6, 1e-1, log=True),
        batch_size=trial.suggest_categorical("batch_size", [64, 128, 256]),
        random_state=task.seed + trial.number,
    )
