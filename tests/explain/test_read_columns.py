"""Explanations in terms of the columns as given: money, percentages, lists, dates, objects and texts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner, Result

from parallelmlp_search import ParallelMLPRegressor
from parallelmlp_search.cli.app import app
from parallelmlp_search.explain import Explanation

N = 420
GENRES = ["Action", "Comedy", "Drama", "War", "Music"]
WORDS = ["good", "bad", "fine", "product", "service", "very", "not", "the"]


def sales() -> pd.DataFrame:
    """A price that follows from money, a percentage, a list and a date."""
    rng = np.random.default_rng(1)
    price, discount = np.round(rng.gamma(2.0, 600.0, N), 2), rng.integers(0, 60, N) / 100
    tags = [rng.choice(GENRES, size=rng.integers(1, 4), replace=False) for _ in range(N)]
    days = pd.date_range("2022-01-01", periods=N, freq="17h")
    frame = pd.DataFrame(
        {
            "money": [f"${value:,.2f}" for value in price],
            "percent": [f"{value:.0%}" for value in discount],
            "tags": ["|".join(one) for one in tags],
            "day": days.strftime("%d.%m.%Y"),
            "comment": [" ".join(rng.choice(WORDS, 9)) + f" {row}" for row in range(N)],
            "payload": [f'{{"k": {row % 37}, "c": "{"xy"[row % 2]}"}}' for row in range(N)],
            "span": [f"{row % 7}h {row % 60}m" for row in range(N)],
        }
    )
    drama = np.array(["Drama" in one for one in tags])
    frame["paid"] = price * (1 - discount) + 500 * drama + 300 * (days.month > 6) + rng.normal(0, 20, N)
    return frame


@pytest.fixture(scope="module")
def fitted() -> tuple[ParallelMLPRegressor, pd.DataFrame]:
    frame = sales()
    model = ParallelMLPRegressor(
        "small", n_trials=4, max_epochs=15, n_folds=3, random_state=0, baselines=False
    )
    return model.fit(frame.drop(columns="paid"), frame["paid"]), frame


@pytest.fixture(scope="module")
def found(fitted: tuple[ParallelMLPRegressor, pd.DataFrame]) -> Explanation:
    model, frame = fitted
    return model.explain(frame.drop(columns="paid"), frame["paid"], n_attributed=8, n_background=6)


def test_attributions_of_raw_columns_add_up(
    found: Explanation, fitted: tuple[ParallelMLPRegressor, pd.DataFrame]
) -> None:
    model, frame = fitted
    X, table = frame.drop(columns="paid"), found.attributions
    assert list(table["column"].unique()) == list(X)
    added = table.groupby("row")["attribution"].sum() + table.groupby("row")["base"].first()
    wanted = model.predict(X.iloc[added.index])
    np.testing.assert_allclose(added, wanted, atol=1e-5 * frame["paid"].std())
    first = table.iloc[: X.shape[1]]
    assert first["value"].tolist() == X.iloc[first["row"].iloc[0]].astype(str).tolist()


def test_a_column_alone_has_the_whole_difference(
    fitted: tuple[ParallelMLPRegressor, pd.DataFrame],
) -> None:
    """If two rows differ in the list alone, all of the difference is attributed to the list."""
    model, frame = fitted
    X = frame.drop(columns="paid").iloc[[5, 5]]
    for column, cell in {"tags": "Drama", "money": "$9,000.00", "payload": '{"k": 36, "c": "y"}'}.items():
        other = X.iloc[:1].assign(**{column: [cell]})
        table = model.explain(other, background=X, n_attributed=1, n_background=2).attributions
        share = table.set_index("column")["attribution"]
        difference = float(model.predict(other)[0] - model.predict(X)[0])
        assert share[column] == pytest.approx(difference, abs=1e-5 * frame["paid"].std())
        assert share.drop(column).abs().max() <= 1e-5 * frame["paid"].std()
    assert difference != 0


def test_importance_is_that_of_raw_columns(
    found: Explanation, fitted: tuple[ParallelMLPRegressor, pd.DataFrame]
) -> None:
    table = found.importance.set_index("name")
    assert set(table.index) == set(fitted[1].columns) - {"paid"}
    assert set(table.index[:4]) == {"money", "percent", "tags", "day"}
    assert (table["p_value"][:4] < 0.01).all()
    assert (table.loc[["payload", "span"], "importance"] < 0.2 * table["importance"].iloc[3]).all()
    assert set(found.worst_rows.columns) >= {"row", "loss"}
    assert {"money", "percent"} <= set(found.dependence["column"])


# ---------------------------------------------------------------------- groups and older runs


def pmlp(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


@pytest.fixture(scope="module")
def grouped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    """A run whose rows come in groups that share everything but some noise."""
    rng = np.random.default_rng(3)
    centres = rng.normal(size=40)
    frame = pd.DataFrame({"site": np.repeat(np.arange(40), 10)})
    frame["a"] = centres[frame["site"]] + rng.normal(scale=0.05, size=400)
    frame["b"] = rng.normal(size=400)
    frame["y"] = frame["a"] + rng.normal(scale=0.8, size=40)[frame["site"]]
    folder = tmp_path_factory.mktemp("grouped")
    frame.to_csv(folder / "table.csv", index=False)
    pmlp(
        "search", folder / "table.csv", "--target", "y", "--groups", "site", "--space", "small",
        "--trials", 3, "--max-epochs", 8, "--folds", 2, "--no-baselines", "--quiet",
        "--output", folder / "run",
    )  # fmt: skip
    return folder / "run", frame


def test_groups_of_new_rows_widen_the_standard_errors(
    grouped: tuple[Path, pd.DataFrame], tmp_path: Path
) -> None:
    run, frame = grouped
    new = frame.assign(a=frame["a"] + 0.01)
    new.to_csv(tmp_path / "new.csv", index=False)
    new.drop(columns="site").to_csv(tmp_path / "bare.csv", index=False)
    errors = {}
    for name in ("new", "bare"):
        shown = pmlp(
            "explain", run, tmp_path / f"{name}.csv", "--json", "--quiet", "--output", tmp_path / name
        )
        table = json.loads(shown.stdout)["importance"]
        errors[name] = {row["name"]: row["standard_error"] for row in table}["a"]
        assert ("no column 'site', by which the search grouped rows" in shown.stderr) == (name == "bare")
    assert errors["new"] > 1.3 * errors["bare"]


def test_an_older_run_says_what_is_missing(grouped: tuple[Path, pd.DataFrame], tmp_path: Path) -> None:
    run = tmp_path / "older"
    shutil.copytree(grouped[0], run)
    arrays = load_file(run / "oof.safetensors")
    del arrays["folds"]
    save_file(arrays, run / "oof.safetensors")
    found = json.loads(pmlp("explain", run, "--json", "--quiet").stdout)
    assert found["importance"] == []
    assert found["attributions"] != []
    assert any("give rows that the search has not seen" in note for note in found["notes"])
