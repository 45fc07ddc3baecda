"""Workbooks, databases and JSON on the command line: search, resume, predict, evaluate, inspect, explain."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from parallelmlp_search.search import RunDirectory
from tests.cli.test_commands import interrupted_search, mistake, pmlp

BUDGET = ["--trials", "4", "--max-epochs", "2", "--folds", "2", "--space", "small", "--no-baselines"]
TARGET = ["--target", "sold"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One table as text, workbook, database and JSON."""
    folder = tmp_path_factory.mktemp("inputs")
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"a": rng.normal(size=160).round(3), "cost": [f"${row % 23}.50" for row in range(160)]}
    )
    frame["day"] = pd.date_range("2024-01-01", periods=160)
    frame["size"] = rng.integers(0, 9, 160)
    frame["sold"] = np.where(frame["a"] + rng.normal(size=160) > 0.3, "yes", "no")
    with pd.ExcelWriter(folder / "table.xlsx") as book:
        frame.to_excel(book, sheet_name="sales", index=False)
        frame.head(20).drop(columns="size").to_excel(book, sheet_name="other", index=False)
    frame["day"] = frame["day"].dt.strftime("%Y-%m-%d")
    frame.to_csv(folder / "table.csv", index=False)
    frame.to_parquet(folder / "table.parquet")
    (folder / "table.json").write_text(frame.to_json(orient="records"))
    with closing(sqlite3.connect(folder / "table.db")) as connection:
        frame.to_sql("sales", connection, index=False)
    return folder


def sources(folder: Path) -> dict[str, list[object]]:
    """Arguments of the same table in each form."""
    return {
        "csv": [folder / "table.csv"],
        "json": [folder / "table.json"],
        "workbook": [folder / "table.xlsx", "--sheet", "sales"],
        "sqlite": ["SELECT * FROM sales", "--from", folder / "table.db"],
        "table": ["sales", "--from", folder / "table.db"],
        "duckdb": [f"SELECT * FROM '{folder}/table.parquet'"],
    }


@pytest.fixture(scope="module")
def finished(folder: Path) -> dict[str, Path]:
    """Runs on a workbook and on a query."""
    found = {}
    for name in ("workbook", "sqlite"):
        found[name] = folder / f"run-{name}"
        pmlp("search", *sources(folder)[name], *TARGET, *BUDGET, "--quiet", "--output", found[name])
    return found


@pytest.mark.parametrize("trained", ["workbook", "sqlite"])
def test_predictions_do_not_depend_on_the_form_of_the_table(
    folder: Path, finished: dict[str, Path], trained: str
) -> None:
    run = finished[trained]
    found = {name: pmlp("predict", run, *source, "--proba") for name, source in sources(folder).items()}
    tables = {result.stdout for result in found.values()}
    assert len(tables) == 1
    assert len(tables.pop().splitlines()) == 161
    assert {result.stderr for result in found.values()} == {""}
    scores = [
        json.loads(pmlp("evaluate", run, *source, "--json").stdout) for source in sources(folder).values()
    ]
    assert all(score["scores"] == scores[0]["scores"] for score in scores)


def test_a_run_on_a_query_keeps_its_rows(folder: Path, finished: dict[str, Path]) -> None:
    source = RunDirectory.open(finished["sqlite"]).info()["source"]
    assert source["query"] == "SELECT * FROM sales"
    assert source["database"] == str(folder / "table.db")
    assert source["data"] == "data.parquet"
    assert RunDirectory.open(finished["workbook"]).info()["source"]["sheet"] == "sales"


def test_both_runs_are_explained(folder: Path, finished: dict[str, Path]) -> None:
    for run in finished.values():
        found = json.loads(pmlp("explain", run, "--json", "--quiet").stdout)
        assert {row["name"] for row in found["importance"]} >= {"a", "cost", "day", "size"}
        assert found["rows"] == "out-of-fold"
    new = pmlp("explain", finished["workbook"], *sources(folder)["sqlite"], "--json", "--quiet")
    assert json.loads(new.stdout)["rows"] == "new"


def test_inspection(folder: Path) -> None:
    found = {}
    for name, source in sources(folder).items():
        shown = json.loads(pmlp("inspect", *source, *TARGET, "--json").stdout)
        found[name] = [(column["name"], column["kind"]) for column in shown["columns"]]
    assert all(kinds == found["csv"] for kinds in found.values())
    assert "sales (table.db)" in pmlp("inspect", "sales", "--from", folder / "table.db").stdout
    hint = pmlp("inspect", folder / "table.xlsx", code=2).stderr
    assert "has 2 sheets with rows, so name one: 'sales', 'other'" in hint


@pytest.mark.parametrize("name", ["workbook", "sqlite", "duckdb"])
def test_an_interrupted_run_is_resumed(folder: Path, tmp_path: Path, name: str) -> None:
    run = tmp_path / "run"
    interrupted_search(*sources(folder)[name], *TARGET, *BUDGET, "--output", run)
    pmlp("resume", run, "--quiet")
    assert RunDirectory.open(run).info()["status"] == "finished"


def test_mistakes(folder: Path, tmp_path: Path) -> None:
    def refusal(*arguments: object) -> str:
        message = mistake("search", *arguments, *TARGET, "--output", tmp_path / "run")
        assert not (tmp_path / "run").exists()
        return message

    assert "no such table: sale; did you mean 'sales'?" in refusal("sale", "--from", folder / "table.db")
    assert "neither an SQLite nor a DuckDB database" in refusal("sales", "--from", folder / "table.csv")
    assert "did you mean 'sales'?" in refusal(folder / "table.xlsx", "--sheet", "sale")
    assert "--sheet is for workbooks, but got 'sales'" in refusal(folder / "table.csv", "--sheet", "sales")
