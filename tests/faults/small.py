"""A small table, and a search over it that takes a fraction of a second."""

from __future__ import annotations

import numpy as np
import pandas as pd

SEARCH = (
    "--target", "sold", "--space", "small", "--trials", "3", "--max-epochs", "3", "--folds", "2",
    "--jobs", "1",
)  # fmt: skip


def small_table(rows: int = 60) -> pd.DataFrame:
    """A number, a number with missing values, a category, a date; two classes."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=rows).round(3), "b": rng.normal(size=rows).round(3)})
    frame["colour"] = rng.choice(["red", "green", "blue"], rows)
    frame["day"] = pd.date_range("2024-01-01", periods=rows).strftime("%Y-%m-%d")
    signal = frame["a"] - frame["b"] + (frame["colour"] == "red") + 0.5 * rng.normal(size=rows)
    frame.loc[::11, "b"] = np.nan
    frame["sold"] = np.where(signal > 0.4, "yes", "no")
    return frame
