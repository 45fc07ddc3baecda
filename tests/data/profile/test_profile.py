"""Findings about tables: each planted fault is found, and bundled tables have only those that they have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from parallelmlp_search.data import read_table
from parallelmlp_search.data.profile.table import TableProfile, columns_frame
from parallelmlp_search.search import Problem

DATASETS = Path(__file__).resolve().parents[3] / "datasets"
SETS = {one["name"]: one for one in json.loads((DATASETS / "INDEX.json").read_text())["sets"]}
N = 1000
RNG = np.random.default_rng(0)
CLEAN = pd.DataFrame(
    {"a": RNG.normal(size=N), "b": RNG.gamma(1.0, 2.0, N), "c": RNG.choice(["x", "y", "z"], N)}
)
SIGNAL = CLEAN["a"] + RNG.normal(size=N)


def profile(frame: pd.DataFrame, target: Any, task: str | None = None) -> TableProfile:
    table = frame.assign(target=target)
    return Problem.from_table(table, "target", task=task).profile()


def warnings(frame: pd.DataFrame, target: Any, task: str | None = None) -> dict[str, tuple[str, ...]]:
    return {finding.topic: finding.columns for finding in profile(frame, target, task).warnings}


@pytest.mark.parametrize("task", ["regression", "binary"])
def test_a_clean_table_has_no_findings(task: str) -> None:
    target = SIGNAL if task == "regression" else SIGNAL > 0
    assert profile(CLEAN, target).findings == ()


@pytest.mark.parametrize(
    ("copy", "target"),
    [
        (2 * SIGNAL + 0.001 * RNG.normal(size=N), SIGNAL),
        (np.exp(SIGNAL), SIGNAL),
        (SIGNAL.map("${:,.2f}".format), SIGNAL),
        ((SIGNAL > 0).map({True: "won", False: "lost"}), SIGNAL > 0),
        (SIGNAL, SIGNAL > 0),
        (SIGNAL.where(SIGNAL > 0), SIGNAL > 0),
        (CLEAN["c"].str.upper(), CLEAN["c"]),
    ],
    ids=["noisy", "monotone", "money", "renamed classes", "threshold", "missing", "three classes"],
)
def test_near_copies_of_the_target_are_found(copy: Any, target: Any) -> None:
    frame = CLEAN[["a", "b"]].assign(copy=copy)
    assert warnings(frame, target) == {"leakage": ("copy",)}


def test_copied_columns_and_rows_are_found() -> None:
    assert warnings(CLEAN.assign(again=CLEAN["b"]), SIGNAL) == {"duplicate columns": ("b", "again")}
    rows = np.r_[np.arange(N), np.arange(30)]
    assert "duplicate rows" in warnings(CLEAN.iloc[rows].reset_index(drop=True), SIGNAL.to_numpy()[rows])
    other = np.r_[SIGNAL.to_numpy(), SIGNAL.to_numpy()[:30] + 1.0]
    assert "duplicate rows" not in warnings(CLEAN.iloc[rows].reset_index(drop=True), other)


def test_drift_is_found_and_sorted_rows_are_only_noted() -> None:
    trend = np.arange(N) / N
    drifting = CLEAN.assign(b=CLEAN["b"] + 8 * trend)
    assert warnings(drifting, SIGNAL) == {"drift": ("b",)}
    late = CLEAN.assign(c=np.where(trend > 0.75, "new", CLEAN["c"]))
    assert warnings(late, SIGNAL) == {"drift": ("c",)}
    dated = profile(drifting.assign(day=pd.date_range("2024-01-01", periods=N)), SIGNAL)
    assert "--time-column day" in dated.warnings[0].text
    order = np.argsort(SIGNAL.to_numpy())
    ordered = profile(CLEAN.iloc[order].reset_index(drop=True), SIGNAL.to_numpy()[order])
    assert (ordered.warnings, [finding.topic for finding in ordered.notes]) == ([], ["order"])


def test_rare_classes_and_counts_are_found() -> None:
    rare = np.where(np.arange(N) < 4, "rare", np.where(SIGNAL > 0, "up", "down"))
    assert warnings(CLEAN, rare) == {"rare classes": ("target",)}
    counts = np.clip(RNG.poisson(1.5, N), 0, 4)
    assert warnings(CLEAN, counts) == {"counts": ("target",)}
    assert warnings(CLEAN, counts, "regression") == {}
    digits = RNG.integers(0, 8, N)
    assert warnings(CLEAN, digits) == {}


def test_left_out_columns_are_noted() -> None:
    found = profile(CLEAN.assign(row=np.arange(N), same="x"), SIGNAL)
    assert {finding.topic: finding.columns for finding in found.notes} == {
        "identifier": ("row",),
        "constant": ("same",),
    }


def test_orders_of_categories_are_noted() -> None:
    rng = np.random.default_rng(0)
    levels = {name: rng.choice(["low", "medium", "high"], N) for name in ("effort", "risk")}
    found = profile(CLEAN.assign(**levels, age=rng.choice(["<20", "20-40", "40+"], N)), SIGNAL)
    assert [(note.columns, note.text) for note in found.notes if note.topic == "ordered categories"] == [
        (
            ("effort", "risk"),
            "columns 'effort' and 'risk' have ordered categories (words of degree: low < medium < high); to "
            "ignore the order: --columns categorical=effort,risk",
        ),
        (
            ("age",),
            "column 'age' has ordered categories (ranges of numbers: <20 < 20-40 < 40+); to ignore the "
            "order: --columns categorical=age",
        ),
    ]
    assert found.kinds["ordinal"] == 3
    assert {c.name: c.treatment for c in found.columns}["risk"] == "3 categories and their rank"


def test_facts_about_columns() -> None:
    frame = CLEAN.assign(price=[f"${row}.50" if row % 10 else "n/a" for row in range(N)], row=np.arange(N))
    table = columns_frame(profile(frame, SIGNAL).columns)
    assert list(table.index) == ["a", "b", "c", "price", "row"]
    assert table.loc["price"].tolist() == [
        "currency", 900, 100, "1.5 … 999.5 $", "number", "money such as '$1.50'",
    ]  # fmt: skip
    assert table.loc["c", ["kind", "distinct", "treatment"]].tolist() == ["categorical", 3, "3 categories"]
    assert table.loc["row", ["treatment", "reason"]].tolist() == ["left out", "row number"]


@pytest.mark.parametrize("name", SETS)
def test_bundled_tables_have_no_false_alarm(name: str) -> None:
    one = SETS[name]
    found = Problem.from_table(read_table(DATASETS / one["file"]), one["target"]).profile(short=True)
    is_copied = one["duplicate_rows"] >= 0.01 * one["rows"]
    assert [finding.topic for finding in found.warnings] == ["duplicate rows"] * is_copied
    if is_copied:
        assert found.warnings[0].text.startswith(f"{one['duplicate_rows']:,} of {one['rows']:,} rows")
