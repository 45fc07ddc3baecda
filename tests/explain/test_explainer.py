"""Explanations of small models: attributions, importance, dependence, slices, files."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from math import factorial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from parallelmlp_search.exceptions import InvalidParameterError, RunDirectoryError
from parallelmlp_search.explain import ExplainedRows, ExplainSettings, Explanation, explain_model, slices
from parallelmlp_search.explain.attributions import shapley_values
from parallelmlp_search.explain.columns import column_values
from parallelmlp_search.explain.grouping import associations
from parallelmlp_search.explain.scoring import Scorer
from parallelmlp_search.explain.slices import worst_slices
from parallelmlp_search.explain.sources import new_rows, training_rows
from parallelmlp_search.explain.tables import ExplainedTable
from parallelmlp_search.search import Problem, SearchResult

Searched = tuple[Problem, SearchResult]
FEW = ExplainSettings(n_attributed=6, n_background=4, n_repeats=2)


def explained(searched: Searched, settings: ExplainSettings = FEW) -> Explanation:
    problem, result = searched
    rows = training_rows(result.model, problem, result.oof_folds)
    return explain_model(result.model, rows, result.metric, settings)


@pytest.fixture(scope="module")
def found(binary: Searched) -> Explanation:
    return explained(binary, ExplainSettings(n_attributed=20))


# ---------------------------------------------------------------------- attributions


def sums(table: pd.DataFrame) -> pd.DataFrame:
    grouped = table.groupby(["row", "output"], sort=False)
    parts = {
        "sum": grouped["attribution"].sum() + grouped["base"].first(),
        "told": grouped["prediction"].first(),
    }
    return pd.DataFrame(parts).reset_index()


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression", "two outputs"])
def test_attributions_add_up_to_the_prediction(
    task: str, mixed: Callable[..., pd.DataFrame], searched: Callable[..., Searched], binary: Searched
) -> None:
    problem, result = binary
    if task != "binary":
        frame = mixed(300)
        value = 1e4 * (frame["size"] + (frame["colour"] == "red")).to_numpy()
        target = {
            "multiclass": frame["colour"].fillna("none").to_numpy(dtype=object),
            "regression": value,
            "two outputs": np.stack([value, -value], axis=1),
        }[task]
        problem, result = searched(
            frame, target, "multiclass" if task == "multiclass" else "regression", n_trials=2
        )
    table = explained((problem, result)).attributions
    predictions = result.model.predictions(problem.frame)
    scale = 1.0 if result.model.classes is not None else 1e4
    added = sums(table)
    assert len(added) == 6 * {"binary": 1, "multiclass": 4, "regression": 1, "two outputs": 2}[task]
    names = [str(c) for c in result.model.classes] if result.model.classes is not None else None
    for row, output, total in zip(added["row"], added["output"], added["sum"], strict=True):
        place = names.index(output) if names else int(output.rpartition("_")[2]) if "_" in output else 0
        assert total == pytest.approx(predictions[place, row], abs=1e-5 * scale)
    assert np.allclose(added["sum"], added["told"], rtol=1e-12, atol=1e-12 * scale)
    assert set(table["column"]) == {"size", "twin", "colour", "day", "noise"}


def test_attributions_are_shapley_values(binary: Searched) -> None:
    """They agree with the definition, summed over all coalitions and the same background rows."""
    problem, result = binary
    rows = ExplainedRows(problem.frame.iloc[:3], background=problem.frame.iloc[100:104])
    table = ExplainedTable.of(result.model, rows)
    values = shapley_values(table, np.arange(3), 400, np.random.default_rng(0))
    names, background = table.names, table.background
    worth = {}
    for size in range(len(names) + 1):
        for own in combinations(names, size):
            means = []
            for row in range(3):
                taken = {name: np.full(4, row) if name in own else background for name in names}
                means.append(table.predict(table.compose(background, taken))[1].mean())
            worth[frozenset(own)] = np.array(means)
    for number, name in enumerate(names):
        expected = np.zeros(3)
        for own, mine in worth.items():
            if name not in own:
                weight = factorial(len(own)) * factorial(len(names) - len(own) - 1) / factorial(len(names))
                expected += weight * (worth[own | {name}] - mine)
        assert np.allclose(values.values[1, :, number], expected, atol=2e-3)
    assert np.abs(values.values[1]).max() > 0.05


def test_a_column_alone_and_one_row_are_attributed(binary: Searched) -> None:
    problem, result = binary
    rows = new_rows(result.model, problem.frame.iloc[:1], background=problem.frame)
    found = explain_model(result.model, rows, "roc_auc", FEW)
    assert len(found.attributions) == 5
    assert sums(found.attributions)["sum"][0] == pytest.approx(
        result.model.predictions(problem.frame.iloc[:1])[1, 0], abs=1e-6
    )


# ---------------------------------------------------------------------- importance


def test_rows_are_predicted_by_networks_that_have_not_seen_them(binary: Searched) -> None:
    problem, result = binary
    rows = training_rows(result.model, problem, result.oof_folds)
    table = ExplainedTable.of(result.model, rows)
    numbers = np.flatnonzero(result.oof_folds >= 0)
    assert len(numbers) == 480  # validation rows chose the snapshots
    predictions = table.predict_unseen(table.compose(numbers, {}), numbers)
    assert result.honest is not None
    score = Scorer.of(result.model, rows, result.metric).score(predictions, numbers)
    assert score == pytest.approx(result.honest.naive, abs=1e-4)
    whole = table.predict(table.compose(numbers, {}))
    assert not np.allclose(whole, predictions, atol=1e-3)


def test_importance_finds_the_columns_and_groups_copies(found: Explanation) -> None:
    table = found.importance.set_index("name")
    assert found.importance["name"][0] == "size + twin"
    assert table.loc["size + twin", "is_group"]
    assert table.loc["size", "group"] == table.loc["twin", "group"] == "size + twin"
    assert set(found.importance["name"][1:3]) == {"size", "twin"}  # below their group
    assert table.loc["size + twin", "p_value"] < 0.001
    assert table.loc["colour", "p_value"] < 0.05
    assert table.loc["noise", "importance"] < 0.2 * table.loc["colour", "importance"]
    assert (table["standard_error"] > 0).all()


def test_associations_of_all_kinds() -> None:
    rng = np.random.default_rng(0)
    number = pd.Series(rng.normal(size=2000))
    columns = {
        "number": (number, "numeric"),
        "monotone": (np.exp(number), "numeric"),
        "level": (pd.cut(number, 5).astype(str), "categorical"),
        "copy": (pd.cut(number, 5).astype(str) + "!", "categorical"),
        "other": (pd.Series(rng.normal(size=2000)), "numeric"),
        "letter": (pd.Series(rng.choice(list("abcdefgh"), 2000)), "categorical"),
        "constant": (pd.Series(np.ones(2000)), "numeric"),
    }
    values = [column_values(name, cells, cells, kind) for name, (cells, kind) in columns.items()]
    table = pd.DataFrame(associations(values, np.arange(2000)), columns=list(columns), index=list(columns))
    assert table.loc["number", "monotone"] == pytest.approx(1.0)
    assert table.loc["number", "level"] > 0.85
    assert table.loc["level", "copy"] == pytest.approx(1.0)
    assert table.loc[["other", "letter", "constant"], ["number", "level"]].to_numpy().max() < 0.1
    assert np.allclose(table, table.T)


def planted(seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.normal(size=(400, 9)), columns=[f"noise{n}" for n in range(9)])
    frame["planted"] = rng.normal(size=400)
    frame["weak"] = rng.normal(size=400)
    return frame, (1.5 * frame["planted"] + 0.7 * frame["weak"] + rng.normal(size=400)).to_numpy()


def ranks(searched: Callable[..., Searched], seeds: range) -> tuple[int, list[float]]:
    first, noise = 0, []
    for seed in seeds:
        frame, target = planted(seed)
        table = explained(searched(frame, target, "regression", n_trials=2, seed=seed)).importance
        first += table["name"][0] == "planted"
        noise += table.loc[table["name"].str.startswith("noise"), "p_value"].tolist()
    return first, noise


def test_a_planted_column_ranks_first(searched: Callable[..., Searched]) -> None:
    first, noise = ranks(searched, range(2))
    assert first == 2
    assert np.mean(np.array(noise) > 0.05) >= 0.8  # 18 columns


@pytest.mark.slow
def test_twenty_planted_columns_rank_first_and_noise_is_not_significant(
    searched: Callable[..., Searched],
) -> None:
    first, noise = ranks(searched, range(100, 120))
    assert first == 20
    assert np.mean(np.array(noise) > 0.05) >= 0.95


# ---------------------------------------------------------------------- dependence, worst rows, slices


def test_dependence_follows_the_column(found: Explanation) -> None:
    curve = found.dependence[found.dependence["column"] == "size"]
    assert curve["position"].is_monotonic_increasing
    assert curve["prediction"].iloc[-1] > curve["prediction"].iloc[0] + 0.1
    assert (curve["low"] <= curve["prediction"]).all()
    assert (curve["prediction"] <= curve["high"]).all()
    colours = found.dependence[found.dependence["column"] == "colour"].set_index("value")["prediction"]
    assert set(colours.index) == {"red", "green", "blue", "missing"}
    assert colours["red"] == colours.max()
    single = found.ice[found.ice["column"] == "colour"]
    assert np.allclose(single.groupby("value")["prediction"].mean()[colours.index], colours)
    days = found.dependence[found.dependence["column"] == "day"]["value"]
    assert days.str.fullmatch(r"202[45]-\d\d-\d\d").all()


def test_the_worst_rows_come_first(found: Explanation, binary: Searched) -> None:
    problem, _ = binary
    table = found.worst_rows
    assert table["loss"].is_monotonic_decreasing
    assert table["target"].tolist() == problem.target[table["row"]].tolist()
    assert np.allclose(table["loss"], -np.log(table["probability"]))
    assert table["column: colour"][0] == (problem.frame["colour"].fillna("missing")[table["row"][0]])


def test_a_planted_slice_is_found_and_noise_is_not(binary: Searched) -> None:
    problem, result = binary
    rows = training_rows(result.model, problem, result.oof_folds)
    table = ExplainedTable.of(result.model, rows)
    scorer = Scorer.of(result.model, rows, "roc_auc")
    numbers, rng = np.arange(600), np.random.default_rng(0)
    predictions = table.predict(table.compose(numbers, {}))
    losses = rng.exponential(size=600)
    assert worst_slices(table, scorer, numbers, predictions, losses, np.random.default_rng(0)).empty
    losses[(problem.frame["colour"] == "blue").to_numpy()] += 1.0
    slices = worst_slices(table, scorer, numbers, predictions, losses, np.random.default_rng(0))
    assert slices["slice"][0] == "colour = blue"
    assert slices["difference"][0] == pytest.approx(1.0, abs=0.4)
    assert slices["n_rows"][0] == (problem.frame["colour"] == "blue").sum()


# ---------------------------------------------------------------------- files and messages


@pytest.mark.parametrize("power", [-660, 660])
def test_statistics_of_losses_do_not_depend_on_the_unit(power: int) -> None:
    """Squares of 1e199 overflow, those of 1e-199 vanish; a power of two rounds nothing."""
    rng, factor = np.random.default_rng(0), 2.0**power
    codes, losses = rng.integers(0, 4, 200), rng.random(200)
    first = np.arange(200) < 150
    expected = slices._z_values(codes, 4, losses, first)
    assert len(set(expected)) == 4
    assert np.array_equal(slices._z_values(codes, 4, losses * factor, first), expected)
    difference, error, freedom = slices._difference(losses, first, ~first)
    assert slices._difference(losses * factor, first, ~first) == (
        difference * factor, error * factor, freedom,
    )  # fmt: skip


def test_an_explanation_is_saved_and_read(found: Explanation, tmp_path: Path) -> None:
    found.save(tmp_path / "explain")
    again = Explanation.load(tmp_path / "explain")
    assert again.summary == found.summary
    for name, table in found.tables.items():
        pd.testing.assert_frame_equal(again.tables[name], table, check_dtype=False)
    (tmp_path / "explain" / "slices.parquet").write_bytes(b"PAR1")
    with pytest.raises(RunDirectoryError, match=r"slices\.parquet"):
        Explanation.load(tmp_path / "explain")


def test_the_same_seed_gives_the_same_tables(binary: Searched) -> None:
    first, second = explained(binary), explained(binary)
    for name, table in first.tables.items():
        pd.testing.assert_frame_equal(table, second.tables[name])


def test_rows_without_a_target_have_attributions_and_dependence(binary: Searched, tmp_path: Path) -> None:
    problem, result = binary
    found = explain_model(result.model, new_rows(result.model, problem.frame.iloc[:40]), "roc_auc", FEW)
    assert found.importance.empty
    assert found.slices.empty
    assert len(found.attributions) == 30
    assert len(found.dependence)
    assert "target of the rows is not known" in found.notes[0]
    found.save(tmp_path)
    assert Explanation.load(tmp_path).worst_rows.empty


def test_rows_that_all_networks_have_seen_are_not_scored(binary: Searched) -> None:
    problem, result = binary
    rows = training_rows(result.model, problem, np.empty(0, dtype=np.int16))
    found = explain_model(result.model, rows, "roc_auc", FEW)
    assert found.importance.empty
    assert found.summary["rows"] == "training"
    assert "give rows that the search has not seen" in found.notes[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_repeats": 0}, "n_repeats must be"),
        ({"columns": "size"}, "columns must be a list of names"),
        ({"n_background": 1.5}, "n_background must be"),
    ],
)
def test_settings_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        ExplainSettings(**options)


def test_an_unknown_column_is_refused(binary: Searched) -> None:
    with pytest.raises(InvalidParameterError, match=r"'colr'; did you mean 'colour'"):
        explained(binary, ExplainSettings(columns=("colr",)))
