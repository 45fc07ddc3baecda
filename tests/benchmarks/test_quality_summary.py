from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.publishing import between
from benchmarks.quality import publishing
from benchmarks.quality.diagram import cliques, critical_difference, diagram
from benchmarks.quality.publishing import (
    MARKS,
    VARIANT_MARKS,
    merge,
    ranking,
    report_variants,
    variant_sections,
    write,
)
from benchmarks.quality.summary import SHIFT, bias_of, changes_of, compare, comparison_table, error_table


def row(
    name: str, tool: str, error: float | None, *, seed: int = 0, budget: float | None = None
) -> dict[str, Any]:
    found = {"set": name, "seed": seed, "tool": tool, "budget": budget, "train_rows": 500}
    return found | ({"failure": "too slow"} if error is None else {"error": error, "seconds": 2.0})


ROWS = [
    row("a", "ours", 1.0, budget=30.0),
    row("b", "ours", 2.0, budget=30.0),
    row("a", "lightgbm", 1.1),
    row("b", "lightgbm", 2.0),
    row("a", "catboost", 1.5),
    row("b", "catboost", 1.0),
]


def test_ranks_wins_and_excess_by_hand() -> None:
    found = compare(ROWS)
    assert found.tools == ("ours 30 s", "catboost", "lightgbm")
    assert found.sets == ("a", "b")
    np.testing.assert_allclose(found.ranks, [[1, 2.5], [3, 1], [2, 2.5]])
    np.testing.assert_allclose(found.mean_ranks, [1.75, 2.0, 2.25])
    np.testing.assert_allclose(found.wins[0], [1.0, 1.0, 1.5])  # a tie counts half, also with itself
    np.testing.assert_allclose(found.excess[0], (SHIFT * (1.0 + SHIFT)) ** 0.5 - SHIFT)
    np.testing.assert_allclose(found.seconds, 4.0)


def test_only_common_sets_and_seeds_count() -> None:
    rows = [*ROWS, row("c", "ours", 1.0, budget=30.0), row("a", "ours", 9.0, seed=1, budget=30.0)]
    assert compare(rows).sets == ("a", "b")
    np.testing.assert_allclose(compare(rows).errors, compare(ROWS).errors)
    both = [*rows, row("a", "lightgbm", 1.3, seed=1), row("a", "catboost", 1.5, seed=1)]
    assert compare(both).errors[compare(both).tools.index("ours 30 s"), 0] == pytest.approx(5.0)
    with pytest.raises(ValueError, match="no table"):
        compare([ROWS[0], ROWS[3]])


def test_seconds_with_fewer_threads_are_ignored() -> None:
    rows = [one | {"threads": 2} for one in ROWS]
    rows[2] |= {"threads": 1, "seconds": 100.0}
    rows[4] |= {"threads": 1}
    rows[5] |= {"threads": 1}
    found = compare(rows)
    seconds = dict(zip(found.tools, found.seconds, strict=True))
    assert (seconds["ours 30 s"], seconds["lightgbm"]) == (4.0, 4.0)
    assert np.isnan(seconds["catboost"])


def test_a_failure_ranks_last() -> None:
    rows = [*ROWS[:4], row("a", "catboost", None), ROWS[5]]
    found = compare(rows)
    assert found.ranks[found.tools.index("catboost"), 0] == 3
    assert "failed" in error_table(rows, found.tools)


def test_tables() -> None:
    found = comparison_table(ROWS, ["ours 30 s", "lightgbm", "catboost"])
    assert "| ours 30 s | 1.75 | 9.0 % | - | 4.00 |" in found
    assert "| lightgbm | 2.25 | 32.3 % | 1.5 of 2 | 4.00 |" in found
    alone = comparison_table(ROWS[:5], ["ours 30 s", "lightgbm"], ["catboost", "xgboost"])
    assert "| catboost | - | - | 1 of 1 | - |" in alone
    assert "| xgboost | - | - | - | - |" in alone
    errors = error_table(ROWS, ["ours 30 s", "lightgbm", "catboost"])
    assert "| a | **1** | 1.1 | 1.5 |" in errors
    assert "| b | 2 | 2 | **1** |" in errors


def test_errors_use_the_seeds_that_all_tools_have_run() -> None:
    more = [row("a", "ours", 3.0, seed=1, budget=30.0), row("b", "ours", 4.0, seed=1, budget=30.0)]
    both = [*more, row("b", "lightgbm", 6.0, seed=1), row("c", "ours", 1.0, budget=30.0)]
    errors = error_table([*ROWS[:4], *both], ["ours 30 s", "lightgbm"])
    assert "| a | **1** | 1.1 |" in errors
    assert "| b | **3** | 4 |" in errors
    assert "| c | **1** | - |" in errors
    disjoint = error_table([*ROWS[:1], row("a", "lightgbm", 1.0, seed=1)], ["ours 30 s", "lightgbm"])
    assert "| a | - | - |" in disjoint


def variant(name: str, tool: str, error: float | None, budget: float = 30.0) -> dict[str, Any]:
    return row(name, tool, error, budget=budget)


VARIANT_ROWS = [
    variant("a", "ours", 1.0),
    variant("b", "ours", 2.0),
    variant("a", "ours, 3 folds", 1.1),
    variant("b", "ours, 3 folds", 2.2),
    variant("a", "ours, sampler gp", 0.5),
    variant("b", "ours, sampler gp", None),
    variant("c", "ours, sampler tpe", 1.0),
]


def test_changes_by_hand() -> None:
    worse = changes_of(VARIANT_ROWS, "ours, 3 folds 30 s", "ours 30 s")
    assert worse is not None
    assert worse.mean == pytest.approx(0.1)
    assert (worse.n_worse, worse.n_sets) == (2, 2)
    assert worse.standard_error == pytest.approx(0.0, abs=1e-12)
    # half the error on one table, and twice on the other, where it failed
    mixed = changes_of(VARIANT_ROWS, "ours, sampler gp 30 s", "ours 30 s")
    assert mixed is not None
    assert (mixed.mean, mixed.low, mixed.high) == (
        pytest.approx(0.0),
        pytest.approx(-0.5),
        pytest.approx(1.0),
    )
    assert mixed.standard_error == pytest.approx(np.log(2.0))
    assert mixed.n_worse == 1
    assert changes_of(VARIANT_ROWS, "ours, sampler tpe 30 s", "ours 30 s") is None
    # seeds of one table are one observation
    seeds = [*ROWS, row("a", "lightgbm", 1.331, seed=1), row("a", "ours", 1.1, seed=1, budget=30.0)]
    one = changes_of(seeds, "lightgbm", "ours 30 s")
    assert one is not None
    assert (one.n_sets, one.high) == (2, pytest.approx((1.1 * 1.21) ** 0.5 - 1.0))


def test_variants_are_shown_by_seconds() -> None:
    longer = [variant("a", "ours", 1.0, 60.0), variant("a", "ours, 3 folds", 0.9, 60.0)]
    words = variant_sections([*VARIANT_ROWS, *longer])
    assert words.startswith("At 30 seconds:\n\n| changed |")
    assert "| sampler gp | +0.0% | 69.3% | 1 of 2 | -50% to +100% |\n| 3 folds | +10.0% |" in words
    assert "At 60 seconds:" in words
    assert "| 3 folds | -10.0% | nan% | 0 of 1 |" in words
    assert "tpe" not in words


def test_a_report_of_variants_does_not_change_the_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ABLATION", "RESULTS", "DIAGRAM", "DOCS", "README"):
        monkeypatch.setattr(publishing, name, tmp_path / name)
    (tmp_path / "DOCS").write_text(f"{MARKS[0]}old\n{MARKS[1]}{VARIANT_MARKS[0]}old\n{VARIANT_MARKS[1]}")
    report_variants(VARIANT_ROWS[:3], {}, keep=True)
    words = report_variants(VARIANT_ROWS[3:], {}, keep=True)
    assert len(json.loads((tmp_path / "ABLATION").read_text())["rows"]) == 7
    assert not (tmp_path / "RESULTS").exists()
    assert not (tmp_path / "README").exists()
    page = (tmp_path / "DOCS").read_text()
    assert between(page, MARKS) == "old\n"
    assert between(page, VARIANT_MARKS) == words
    assert report_variants(VARIANT_ROWS[:3], {}, keep=False) != words


def notes(name: str, error: float, honest: float, seed: int = 0) -> dict[str, Any]:
    return row(name, "ours", error, seed=seed, budget=30.0) | {"notes": {"honest": honest}}


def test_bias() -> None:
    fair = bias_of([notes("a", 1.0, 1.1), notes("b", 1.0, 0.9), notes("c", 2.0, 2.0)], "honest")
    assert fair is not None
    assert fair.mean == pytest.approx(0.0)
    assert fair.is_unbiased
    optimistic = bias_of([notes("a", 1.0, 0.8), notes("b", 1.0, 0.81), notes("c", 2.0, 1.7)], "honest")
    assert optimistic is not None
    assert optimistic.mean < -0.15
    assert not optimistic.is_unbiased
    # seeds of one table are one observation
    seeds = bias_of([notes("a", 1.0, 1.2), notes("a", 1.0, 1.0, seed=1), notes("b", 1.0, 1.0)], "honest")
    assert seeds is not None
    assert (seeds.mean, seeds.n_sets, seeds.n_fits) == (pytest.approx(0.05), 2, 3)
    assert bias_of([notes("a", 1.0, 1.0)], "honest") is None
    assert bias_of(ROWS, "naive") is None


def test_the_critical_difference_is_that_of_the_paper() -> None:
    """Demsar 2006, table 5 and the example of section 3.2.4: 4 classifiers on 14 sets."""
    assert critical_difference(4, 14) == pytest.approx(1.25, abs=0.01)


def test_cliques() -> None:
    assert cliques([1.0, 1.5, 2.0, 4.0, 4.2], 1.0) == [(0, 2), (3, 4)]
    assert cliques([1.0, 2.0, 3.0], 1.0) == [(0, 1), (1, 2)]
    assert cliques([1.0, 3.0], 1.0) == []


def test_the_diagram_names_all_tools() -> None:
    drawing = diagram(compare(ROWS))
    ET.fromstring(drawing)
    for words in ("ours 30 s (1.75)", "catboost (2.00)", "lightgbm (2.25)", "critical difference"):
        assert words in drawing


def test_a_newer_fit_replaces_an_older_one(tmp_path: Path) -> None:
    rows = merge(ROWS, [row("a", "catboost", 0.5), row("c", "catboost", 0.7)])
    assert len(rows) == 7
    assert [r["error"] for r in rows if r["tool"] == "catboost"] == [0.5, 1.0, 0.7]
    write(rows, {"cores": 2}, tmp_path / "rows.json")
    assert json.loads((tmp_path / "rows.json").read_text()) == {"machine": {"cores": 2}, "rows": rows}


def test_a_report_updates_results_diagram_and_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RESULTS", "DIAGRAM", "DOCS", "README"):
        monkeypatch.setattr(publishing, name, tmp_path / name)
    for name in ("DOCS", "README"):
        (tmp_path / name).write_text(f"before\n{MARKS[0]}old\n{MARKS[1]}\nafter\n")
    publishing.report(ROWS[:3], {}, keep=True)
    words = publishing.report(ROWS[3:], {}, keep=True)
    assert len(json.loads((tmp_path / "RESULTS").read_text())["rows"]) == 6
    assert (tmp_path / "DOCS").read_text() == f"before\n{MARKS[0]}{words}{MARKS[1]}\nafter\n"
    ranks = ranking(json.loads((tmp_path / "RESULTS").read_text())["rows"], 30.0)
    assert ranks in words
    assert between((tmp_path / "README").read_text(), MARKS) == ranks + "\n"
    assert "ours 30 s (1.75)" in (tmp_path / "DIAGRAM").read_text()
    assert publishing.report(ROWS[:1], {}, keep=False) != words
