"""Tables of the benchmark and their fixed splits. Needs only NumPy, pandas and scikit-learn."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn import datasets
from sklearn.model_selection import train_test_split

__all__ = ["BUNDLED", "SETS", "SKLEARN", "Table", "load", "split"]

FOLDER = Path(__file__).parents[2] / "datasets"

BUNDLED = (
    "credit_g",
    "vowel",
    "concrete",
    "communities",
    "spambase",
    "mnist5k",
    "satimage",
    "wine_quality",
    "telco_churn",
    "letter",
    "adult",
    "diamonds",
)
"""Bundled tables, small ones first."""

SKLEARN = {
    "iris": "multiclass",
    "wine": "multiclass",
    "breast_cancer": "binary",
    "digits": "multiclass",
    "diabetes": "regression",
}
"""Tables that scikit-learn includes, with their tasks."""

SETS = (*BUNDLED, *SKLEARN)

MAX_ROWS = 12_000
TEST_SHARE = 0.25


@dataclass(frozen=True)
class Table:
    """Table of the benchmark.

    Attributes
    ----------
    name
        As in `SETS`.
    task
        ``binary``, ``multiclass`` or ``regression``.
    features
        One row per sample; categories are texts, missing values are NaN.
    target
        ``(n,)``: class numbers in the order of the sorted labels, or float64 values.
    categorical
        Names of the columns that hold categories.
    """

    name: str
    task: str
    features: pd.DataFrame
    target: NDArray[Any]
    categorical: tuple[str, ...]

    def rows(self, which: NDArray[np.intp]) -> pd.DataFrame:
        """Return the features of some rows, numbered from 0."""
        return self.features.iloc[which].reset_index(drop=True)


def load(name: str) -> Table:
    """Load a whole table as described in ``datasets/README.md``."""
    if name in SKLEARN:
        loaded = getattr(datasets, f"load_{name}")(as_frame=True)
        return _table(name, SKLEARN[name], loaded.data, loaded.target, ())
    facts = {entry["name"]: entry for entry in json.loads((FOLDER / "INDEX.json").read_text())["sets"]}[name]
    categorical = tuple(facts["categorical_columns"])
    texts = categorical if facts["task"] == "regression" else (*categorical, facts["target"])
    frame = pd.read_csv(
        FOLDER / facts["file"], keep_default_na=False, na_values=[""], dtype=dict.fromkeys(texts, str)
    )
    return _table(
        name, facts["task"], frame.drop(columns=facts["target"]), frame[facts["target"]], categorical
    )


def _table(
    name: str, task: str, features: pd.DataFrame, target: pd.Series[Any], categorical: tuple[str, ...]
) -> Table:
    values = target.to_numpy()
    if task == "regression":
        values = values.astype(np.float64)
    else:
        # numbers, so that all tools order the classes alike
        values = np.unique(values.astype(str), return_inverse=True)[1].astype(np.int64)
    # some tools fail on blanks in names
    return Table(
        name, task, features.rename(columns=lambda column: str(column).replace(" ", "_")), values, categorical
    )


def split(table: Table, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the training rows and the held-out rows, the same for all tools.

    Tables of more than 12,000 rows are sampled to 12,000. A quarter is held out, stratified by class.
    """
    rows = np.arange(len(table.target))
    classes = None if table.task == "regression" else table.target
    if len(rows) > MAX_ROWS:
        rows, _ = train_test_split(rows, train_size=MAX_ROWS, stratify=classes, random_state=seed)
    train, test = train_test_split(
        rows,
        test_size=TEST_SHARE,
        stratify=None if classes is None else classes[rows],
        random_state=seed,
    )
    return np.sort(train), np.sort(test)
