"""Boosted trees with their libraries' own defaults; categories are handed over as categories."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.quality.tools import Fit, Task

__all__ = ["Categories", "catboost", "hist_gradient_boosting", "lightgbm", "predictor", "xgboost"]


class Categories:
    """Text columns as pandas' categories of the rows that train; one that is new is a gap."""

    def __init__(self, features: pd.DataFrame, columns: tuple[str, ...]) -> None:
        self.kinds = {
            column: pd.CategoricalDtype(sorted(features[column].dropna().unique())) for column in columns
        }

    def __call__(self, features: pd.DataFrame) -> pd.DataFrame:
        """The same columns, those of categories typed as such."""
        columns = {}
        for column, kind in self.kinds.items():
            values = features[column]
            columns[column] = pd.Categorical(values.where(values.isin(kind.categories)), dtype=kind)
        return features.assign(**columns)


def predictor(task: Task, model: Any, prepare: Any) -> Fit:
    """How a scikit-learn-like model predicts from a raw table."""

    def predict(features: pd.DataFrame) -> NDArray[np.float64]:
        ready = prepare(features)
        values = model.predict(ready) if task.task == "regression" else model.predict_proba(ready)
        return np.asarray(values, dtype=np.float64)

    return Fit(predict)


def lightgbm(task: Task) -> Fit:
    """LightGBM: 100 trees of 31 leaves."""
    from lightgbm import LGBMClassifier, LGBMRegressor

    kind = LGBMRegressor if task.task == "regression" else LGBMClassifier
    model = kind(n_jobs=task.threads, random_state=task.seed, verbosity=-1)
    prepare = Categories(task.features, task.categorical)
    model.fit(prepare(task.features), task.target)
    return predictor(task, model, prepare)


def xgboost(task: Task) -> Fit:
    """XGBoost: 100 trees of depth 6."""
    from xgboost import XGBClassifier, XGBRegressor

    kind = XGBRegressor if task.task == "regression" else XGBClassifier
    model = kind(n_jobs=task.threads, random_state=task.seed, enable_categorical=True)
    prepare = Categories(task.features, task.categorical)
    model.fit(prepare(task.features), task.target)
    return predictor(task, model, prepare)


def catboost(task: Task) -> Fit:
    """CatBoost: 1,000 trees of depth 6, the learning rate its own choice."""
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
        # it takes no gaps among texts
        return features.assign(**{c: features[c].fillna("(none)").astype(object) for c in task.categorical})

    model.fit(prepare(task.features), task.target)
    return predictor(task, model, prepare)


def hist_gradient_boosting(task: Task) -> Fit:
    """scikit-learn's boosted trees; it stops early by itself where rows are many."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    kind = HistGradientBoostingRegressor if task.task == "regression" else HistGradientBoostingClassifier
    model = kind(random_state=task.seed, categorical_features="from_dtype")
    prepare = Categories(task.features, task.categorical)
    model.fit(prepare(task.features), task.target)
    return predictor(task, model, prepare)
