"""Boosted trees with the defaults of their libraries; categories are passed as categories."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.quality.tools import Fit, Task

__all__ = ["Categories", "catboost", "hist_gradient_boosting", "lightgbm", "predictor", "xgboost"]


class Categories:
    """Text columns as pandas categories of the training rows; unseen categories become missing values.

    Parameters
    ----------
    features
        Training rows.
    columns
        Names of the text columns.
    """

    def __init__(self, features: pd.DataFrame, columns: tuple[str, ...]) -> None:
        self.kinds = {
            column: pd.CategoricalDtype(sorted(features[column].dropna().unique())) for column in columns
        }

    def __call__(self, features: pd.DataFrame) -> pd.DataFrame:
        """Return the table with its text columns as categories."""
        columns = {}
        for column, kind in self.kinds.items():
            values = features[column]
            columns[column] = pd.Categorical(values.where(values.isin(kind.categories)), dtype=kind)
        return features.assign(**columns)


def predictor(task: Task, model: Any, prepare: Any) -> Fit:
    """Return the fit of a model with scikit-learn's interface; ``prepare`` converts raw tables."""

    def predict(features: pd.DataFrame) -> NDArray[np.float64]:
        ready = prepare(features)
        values = model.predict(ready) if task.task == "regression" else model.predict_proba(ready)
        return np.asarray(values, dtype=np.float64)

    return Fit(predict)


def lightgbm(task: Task) -> Fit:
    """Fit LightGBM: 100 trees of 31 leaves."""
    from lightgbm import LGBMClassifier, LGBMRegressor

    kind = LGBMRegressor if task.task == "regression" else LGBMClassifier
    model = kind(n_jobs=task.threads, random_state=task.seed, verbosity=-1)
    prepare = Categories(task.features, task.categorical)
    model.fit(prepare(task.features), task.target)
    return predictor(task, model, prepare)


def xgboost(task: Task) -> Fit:
    """Fit XGBoost: 100 trees of depth 6."""
    from xgboost import XGBClassifier, XGBRegressor

    kind = XGBRegressor if task.task == "regression" else XGBClassifier
    model = kind(n_jobs=task.threads, random_state=task.seed, enable_categorical=True)
    prepare = Categories(task.features, task.categorical)
    model.fit(prepare(task.features), task.target)
    return predictor(task, model, prepare)


def catboost(task: Task) -> Fit:
    """Fit CatBoost: 1,000 trees of depth 6, with its automatic learning rate."""
    from catboost import CatBoostClassifier, CatBoostRegressor

    kind = CatBoostRegressor if task.task == "regression" else CatBoostClassifier
    model = kind(
        thread_count=task.threads,
        random_seed=task.seed,
        verbose=False,
        allow_writing_files=False,
        cat_features=list(task.categorical),
    )

    def prepare(features: pd.DataFrame) -> pd.DataFrame:
        # CatBoost accepts no missing values among texts
        return features.assign(**{c: features[c].fillna("(none)").astype(object) for c in task.categorical})

    model.fit(prepare(task.features), task.target)
    return predictor(task, model, prepare)


def hist_gradient_boosting(task: Task) -> Fit:
    """Fit scikit-learn's boosted trees, which stop early on large tables."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    kind = HistGradientBoostingRegressor if task.task == "regression" else HistGradientBoostingClassifier
    model = kind(random_state=task.seed, categorical_features="from_dtype")
    prepare = Categories(task.features, task.categorical)
    model.fit(prepare(task.features), task.target)
    return predictor(task, model, prepare)
