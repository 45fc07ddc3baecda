"""Ingredients: variants, comparison, one population, and the rows on file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import pytest

from benchmarks.ingredients import RECIPE, RESULTS, SEEDS, VARIANTS, compared, run, table
from benchmarks.quality.sets import BUNDLED


def test_every_variant_changes_the_recipe() -> None:
    for name, changes in VARIANTS.items():
        changed = RECIPE.replace(**changes)
        assert (changed == RECIPE) == (name == "the recipe"), name


def _row(name: str, seed: int, variant: str, error: float) -> dict[str, Any]:
    return {"set": name, "seed": seed, "variant": variant, "error": error, "best": 0.5 * error}


def test_changes_are_geometric_means_of_ratios_by_table() -> None:
    rows = [
        _row("vowel", 0, "the recipe", 1.0),
        _row("vowel", 0, "relu", 1.2),
        _row("vowel", 1, "the recipe", 2.0),
        _row("vowel", 1, "relu", 2.0),
        _row("adult", 0, "the recipe", 4.0),
        _row("adult", 0, "relu", 3.0),
        _row("adult", 1, "relu", 3.0),  # without its recipe
    ]
    change = compared(rows, "relu", "error")
    assert change is not None
    assert (change.n_worse, change.n_sets) == (1, 2)
    assert compared(rows, "selu", "error") is None
    (line,) = table(rows).splitlines()[2:]
    mean = math.sqrt(math.sqrt(1.2) * 0.75) - 1.0
    assert line == f"| relu | {mean:+.1%} | {mean:+.1%} | 1 of 2 | -25% to +10% |"


def test_a_variant_trains_and_is_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import ingredients

    monkeypatch.setattr(ingredients, "STEPS", 80)
    monkeypatch.setattr(ingredients, "N_NETWORKS", 2)
    found: dict[str, Mapping[str, Any]] = {
        variant: run("vowel", 0, variant) for variant in ("the recipe", "relu")
    }
    for row in found.values():
        assert row["networks"] == 2
        assert 0.0 < row["best"] <= row["error"] < math.log(11.0)  # better than guessing eleven classes
    assert found["relu"]["error"] != found["the recipe"]["error"]


def test_the_file_holds_all_variants_of_each_run() -> None:
    rows = json.loads(RESULTS.read_text(encoding="utf-8"))["rows"]
    found = {(row["set"], row["seed"], row["variant"]) for row in rows}
    runs = {(name, seed) for name, seed, _ in found}
    assert {name for name, _ in runs} <= set(BUNDLED)
    assert {seed for _, seed in runs} <= set(SEEDS)
    # all variants of each run, and no removed variant
    assert found == {(name, seed, variant) for name, seed in runs for variant in VARIANTS}
    assert table(rows) != table(rows[1:])
