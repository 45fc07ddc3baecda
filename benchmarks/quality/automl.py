"""Tools that search over many kinds of models under a time limit."""

from __future__ import annotations

import tempfile

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.quality.boosters import Categories
from benchmarks.quality.errors import METRICS
from benchmarks.quality.tools import Fit, Task

__all__ = ["autogluon", "flaml"]


def flaml(task: Task) -> Fit:
    """Fit FLAML: boosted trees, forests and linear models, the cheapest first."""
    from flaml import AutoML

    model = AutoML()
    prepare = Categories(task.features, task.categorical)
    model.fit(
        prepare(task.features),
        task.target,
        task="regression" if task.task == "regression" else "classification",
        metric=METRICS[task.task],
        time_budget=task.seconds,
        n_jobs=task.threads,
        seed=task.seed,
        verbose=0,
    )

    def predict(features: pd.DataFrame) -> NDArray[np.float64]:
        ready = prepare(features)
        values = model.predict(ready) if task.task == "regression" else model.predict_proba(ready)
        return np.asarray(values, dtype=np.float64)

    return Fit(predict, {"best": str(model.best_estimator)})


def autogluon(task: Task) -> Fit:
    """Fit AutoGluon with the presets in ``task.settings``."""
    from autogluon.tabular import TabularPredictor

    metric = {"roc_auc": "roc_auc", "log_loss": "log_loss", "rmse": "root_mean_squared_error"}
    target = "__target__"
    predictor = TabularPredictor(
        label=target,
        eval_metric=metric[METRICS[task.task]],
        problem_type=task.task,
        path=tempfile.mkdtemp(prefix="autogluon-", dir="."),  # inside the folder of the fit, which is removed
        verbosity=0,
    )
    predictor.fit(
        task.features.assign(**{target: task.target}),
        time_limit=task.seconds,
        num_cpus=task.threads,
        num_gpus=0,
        **task.settings,
    )

    def predict(features: pd.DataFrame) -> NDArray[np.float64]:
        if task.task == "regression":
            return np.asarray(predictor.predict(features), dtype=np.float64)
        return np.asarray(predictor.predict_proba(features, as_multiclass=True), dtype=np.float64)

    return Fit(predict, {"best": str(predictor.model_best)})
