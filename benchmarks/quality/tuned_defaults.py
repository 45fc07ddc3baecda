"""RealMLP-TD, TabM-D and boosted trees with tuned defaults, all from pytabkit.

Holzmueller et al., "Better by Default: Strong Pre-Tuned MLPs and Boosted Trees on Tabular Data", 2024.

Each is one fit on four fifths of the rows; the last fifth selects its epoch or its number of trees.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.quality.tools import Fit, Task

__all__ = ["fit"]

NETWORKS = ("RealMLP_TD", "TabM_D")

VALIDATION = {"binary": "1-auc_ovr", "multiclass": "cross_entropy", "regression": "rmse"}


def fit(task: Task) -> Fit:
    """Fit the model of ``task.settings["model"]`` with its tuned defaults."""
    from pytabkit.models.sklearn import sklearn_interfaces

    kind = task.settings["model"]
    side = "Regressor" if task.task == "regression" else "Classifier"
    options: dict[str, Any] = {"val_metric_name": VALIDATION[task.task]}
    if kind == "RealMLP_TD" and task.task != "regression":
        options["use_ls"] = False  # as its authors do for metrics of probabilities
    model = getattr(sklearn_interfaces, f"{kind}_{side}")(
        device="cpu", random_state=task.seed, n_cv=1, n_threads=task.threads, **options
    )
    # the networks accept no missing numbers
    numbers = task.features.drop(columns=list(task.categorical))
    medians = numbers.median() if kind in NETWORKS else pd.Series(dtype=float)

    def prepare(features: pd.DataFrame) -> pd.DataFrame:
        filled = features.fillna(medians)
        return filled.assign(
            **{c: filled[c].fillna("(none)").astype(object).astype("category") for c in task.categorical}
        )

    model.fit(prepare(task.features), task.target, cat_col_names=list(task.categorical))

    def predict(features: pd.DataFrame) -> NDArray[np.float64]:
        ready = prepare(features)
        values = model.predict(ready) if task.task == "regression" else model.predict_proba(ready)
        values = np.asarray(values, dtype=np.float64)
        return values.reshape(-1) if task.task == "regression" else values

    return Fit(predict)
