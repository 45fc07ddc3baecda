"""Cases of a soak as plain values: searches with faults, and generated tables.

A case is a mapping that JSON can hold, so that a failure is kept as a regression. Hypothesis draws cases and
shrinks those that fail.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import strategies as st

from tests.faults.injection.injector import ERRORS, SIGNALS
from tests.faults.small import SEARCH, small_table

Case = Mapping[str, Any]

# ---------------------------------------------------------------------- searches with faults

SHORT = ("--space", "small", "--trials", "3", "--max-epochs", "3", "--folds", "2", "--seed", "1")

SEARCHES: Mapping[str, tuple[str, ...]] = {
    "classes": SEARCH,
    "thresholds and refit": ("--target", "sold", "--metric", "f1", "--refit", "--jobs", "1", *SHORT),
    "numbers": ("--target", "price", "--groups", "site", "--weights", "weight", "--jobs", "2", *SHORT),
    "three classes": ("--target", "grade", "--sampler", "tpe", "--time-column", "day", "--jobs", "1", *SHORT),
    "standard input": ("--target", "sold", "--jobs", "1", *SHORT),
}
"""Options of searches by name; each takes a fraction of a second."""


def wide_table() -> pd.DataFrame:
    """Targets of all tasks, and columns with roles."""
    rng = np.random.default_rng(1)
    frame = small_table(90)
    n = len(frame)
    quantity = frame["a"] + (frame["colour"] == "red")
    frame["site"] = rng.integers(0, 12, n)
    frame["weight"] = rng.integers(1, 4, n)
    frame["price"] = (100 + 10 * quantity + rng.normal(size=n)).round(2)
    frame["grade"] = np.select([quantity > 1, quantity > 0], ["high", "middle"], "low")
    return frame


place = st.floats(0, 0.999)

faults = st.one_of(
    st.fixed_dictionaries({"kind": st.just("signal"), "name": st.sampled_from(SIGNALS), "at": place}),
    st.fixed_dictionaries({"kind": st.just("two signals"), "name": st.just("SIGINT"), "at": place}),
    st.fixed_dictionaries(
        {"kind": st.just("error"), "name": st.sampled_from(ERRORS), "lasting": st.booleans(), "at": place}
    ),
    st.fixed_dictionaries({"kind": st.sampled_from(["short write", "delete folder"]), "at": place}),
    st.fixed_dictionaries(
        {
            "kind": st.sampled_from(["file limit", "memory limit", "delete file", "clock"]),
            "size": place,
            "at": place,
        }
    ),
    # from outside, at a share of the duration
    st.fixed_dictionaries({"kind": st.just("moment"), "name": st.sampled_from(SIGNALS), "at": place}),
    st.fixed_dictionaries({"kind": st.just("rival"), "at": place}),
)
"""One fault; ``at`` is its place as a share of the operations of a search, or of its duration."""

fault_cases = st.fixed_dictionaries(
    {"search": st.sampled_from(sorted(SEARCHES)), "faults": st.lists(faults, min_size=1, max_size=3)}
)

# ---------------------------------------------------------------------- tables

words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)

columns = st.fixed_dictionaries(
    {
        "name": st.one_of(st.sampled_from(["a", "b", "id", "x y", "", "1", "\x1b[31m", "ä", "a"]), words),
        "kind": st.sampled_from(
            [
                "numbers", "integers", "huge", "tiny", "constant", "missing", "one value", "booleans",
                "categories", "many categories", "texts", "dates", "mixed", "infinite", "numbers as texts",
                "identifier",
            ]
        ),
        "missing": st.sampled_from([0.0, 0.0, 0.1, 0.9]),
    }
)  # fmt: skip
"""Name, kind of values, and share of missing ones."""

targets = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(
            [
                "two classes", "two classes", "three classes", "numbers", "numbers", "rare class",
                "one class", "many classes", "missing", "texts", "huge", "tiny", "booleans", "dates",
                "infinite",
            ]
        ),
        "missing": st.sampled_from([0.0, 0.0, 0.0, 0.1, 0.1, 1.0]),
    }
)  # fmt: skip

options = st.lists(
    st.sampled_from(
        [
            ("--metric", "accuracy"), ("--metric", "roc_auc"), ("--metric", "rmse"), ("--metric", "f1"),
            ("--task", "regression"), ("--task", "multiclass"), ("--class-weight", "balanced"),
            ("--sampler", "qmc"), ("--refit",), ("--folds", "3"), ("--groups", "a"), ("--weights", "b"),
            ("--time-column", "a"), ("--loss", "huber"), ("--calibration", "none"), ("--trials", "1"),
            ("--finalists", "1"), ("--space", "default"), ("--memory-limit", "1GB"),
        ]
    ),
    max_size=2,
)  # fmt: skip

table_cases = st.fixed_dictionaries(
    {
        # 60 rows and a column of numbers are where shrinking ends, not where drawing begins
        "rows": st.sampled_from([60, 60, 40, 90, 120, 150, 25, 12, 5, 2, 1, 0]),
        "columns": st.lists(columns, min_size=1, max_size=5),
        "target": targets,
        "file": st.sampled_from(["csv", "csv", "tsv", "parquet", "feather", "csv.gz", "csv.zip", "txt"]),
        "options": options,
        "seed": st.integers(0, 3),
    }
)


def values(kind: str, n: int, rng: np.random.Generator) -> Any:
    """Values of a kind, of shape (n,)."""
    normal = rng.normal(size=n)
    words = np.array(["red", "green", "blue", "violet"], dtype=object)
    known: dict[str, Any] = {
        "numbers": normal,
        "integers": rng.integers(-5, 50, n),
        "huge": normal * 1e200,
        "tiny": normal * 1e-200,
        "constant": np.full(n, 7.5),
        "one value": np.where(np.arange(n) == n // 2, 1.0, 0.0),
        "missing": np.full(n, np.nan),
        "booleans": normal > 0,
        "categories": words[rng.integers(0, 4, n)],
        "many categories": np.array([f"c{i}" for i in rng.integers(0, 40, n)], dtype=object),
        "texts": np.array([f"text {i} \x1b[1m" for i in range(n)], dtype=object),
        "dates": pd.date_range("1999-12-25", periods=n, freq="37h").astype(str).to_numpy(object),
        "mixed": np.array([(1, "one", 2.5, "")[i % 4] for i in range(n)], dtype=object).astype(str),
        "infinite": np.where(normal > 1, np.inf, np.where(normal < -1, -np.inf, normal)),
        "numbers as texts": np.array([f"{x:.3f}" for x in normal], dtype=object),
        "identifier": np.arange(n),
        "two classes": np.where(normal > 0, "yes", "no").astype(object),
        "three classes": words[rng.integers(0, 3, n)],
        "rare class": np.where(np.arange(n) == 0, "rare", "usual").astype(object),
        "one class": np.full(n, "only", dtype=object),
        "many classes": np.array([f"k{i}" for i in rng.integers(0, max(2, n // 3), n)], dtype=object),
    }
    return known[kind]


def write_table(case: Case, folder: Path) -> Path:
    """Write the table of a case; its target is called ``target``."""
    rng = np.random.default_rng(case["seed"])
    n = case["rows"]
    parts = [(column["name"], column["kind"], column["missing"]) for column in case["columns"]]
    parts.append(("target", case["target"]["kind"], case["target"]["missing"]))
    series = []
    for name, kind, missing in parts:
        column = pd.Series(values(kind, n, rng), name=name)
        series.append(column.where(rng.random(n) >= missing, None) if missing else column)
    frame = pd.concat(series, axis=1)
    suffix = case["file"]
    path = folder / f"table.{suffix}"
    try:
        if suffix == "parquet":
            frame.to_parquet(path)
        elif suffix == "feather":
            frame.to_feather(path)
        else:
            frame.to_csv(path, index=False, sep="\t" if suffix == "tsv" else ",")
    except (ValueError, TypeError):  # these formats take no mixed columns and no equal names
        path = folder / "table.csv"
        frame.to_csv(path, index=False)
    return path


# ---------------------------------------------------------------------- regressions

REGRESSIONS = Path(__file__).with_name("regressions.json")


def regressions() -> dict[str, list[Case]]:
    """Cases that failed once: ``faults`` and ``tables``."""
    found: dict[str, list[Case]] = json.loads(REGRESSIONS.read_text(encoding="utf-8"))
    return found


def keep_regression(kind: str, case: Case) -> None:
    """Keep a case that failed, for the tests of all later versions."""
    known = regressions()
    if case not in known[kind]:
        known[kind].append(case)
        REGRESSIONS.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
