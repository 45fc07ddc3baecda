"""Results of queries of SQLite and DuckDB."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest

from parallelmlp_search.data import read_table, reading
from parallelmlp_search.data.cells.recognition import read_columns
from parallelmlp_search.exceptions import DataError

FRAME = pd.DataFrame(
    {
        "id": range(40),
        "price": [row * 1.5 if row % 7 else None for row in range(40)],
        "day": [f"2024-01-{1 + row % 28:02}" for row in range(40)],
        "colour": [["red", "green", "blue"][row % 3] for row in range(40)],
    }
)


@pytest.fixture
def sqlite(tmp_path: Path) -> Path:
    path = tmp_path / "data base?.db"
    with closing(sqlite3.connect(path)) as connection:
        FRAME.to_sql("sales", connection, index=False)
        connection.execute("CREATE TABLE odd(a, b)")
        connection.executemany("INSERT INTO odd VALUES (?, ?)", [(1, None), ("about 2", b"x"), (2.5, "NA")])
        connection.commit()
    return path


@pytest.fixture
def duck(tmp_path: Path) -> Path:
    path = tmp_path / "data.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.register("frame", FRAME)
        connection.execute(
            "CREATE TABLE sales AS SELECT id, price::DECIMAL(9, 2) price, day::DATE AS day, colour FROM frame"
        )
    return path


def refusal(query: str, database: Path | None = None, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        read_table(query, database=None if database is None else str(database), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_table_of_sqlite_is_that_of_a_text_file(sqlite: Path, tmp_path: Path) -> None:
    FRAME.to_csv(tmp_path / "t.csv", index=False)
    wanted = read_table(tmp_path / "t.csv")
    for query in ("sales", "SELECT * FROM sales", " with x as (select * from sales) select * from x"):
        pd.testing.assert_frame_equal(read_table(query, database=str(sqlite)), wanted)
    pd.testing.assert_frame_equal(read_table("sales", database=f"sqlite:///{sqlite}"), wanted)
    odd = read_table("odd", database=str(sqlite))
    assert odd["a"].tolist() == ["1", "about 2", "2.5"]
    assert odd["b"].isna().tolist() == [True, False, True]


def test_a_table_of_duckdb(duck: Path) -> None:
    frame = read_table("SELECT * FROM sales ORDER BY id", database=str(duck))
    assert frame["id"].tolist() == FRAME["id"].tolist()
    reader = read_columns(frame).reader
    kinds = {column.name: column.kind for column in reader.columns}
    assert kinds == {"id": "numeric", "price": "numeric", "day": "datetime", "colour": "categorical"}
    total = read_table("SELECT colour, sum(id) AS total FROM sales GROUP BY colour", database=str(duck))
    assert sorted(map(int, total["total"])) == [247, 260, 273]
    assert read_table("sales", database=str(duck)).shape == (40, 4)


def test_queries_over_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(2):
        FRAME.iloc[20 * number : 20 * number + 20].to_parquet(f"part-{number}.parquet")
    found = read_table("SELECT id, price FROM 'part-*.parquet' WHERE colour = 'red' ORDER BY id")
    assert found["id"].tolist() == FRAME.loc[FRAME["colour"] == "red", "id"].tolist()
    FRAME.to_csv("t.csv", index=False)
    assert len(read_table("FROM 't.csv' LIMIT 7")) == 7
    longer_than_a_name = ", ".join(f"id + {number} AS column_{number}" for number in range(40))
    assert read_table(f"SELECT {longer_than_a_name} FROM 't.csv'").shape == (40, 40)
    # a file of such a name is a file
    Path("select x.csv").write_text("a\n1\n")
    assert list(read_table("select x.csv")) == ["a"]


@pytest.mark.parametrize("engine", ["sqlite", "duck"])
def test_nothing_is_changed(engine: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    path: Path = request.getfixturevalue(engine)
    before, names = path.read_bytes(), sorted(one.name for one in tmp_path.iterdir())
    for query in (
        "DELETE FROM sales",
        "DROP TABLE sales",
        "INSERT INTO sales SELECT * FROM sales RETURNING id",
        "SELECT 1; DROP TABLE sales",
        f"ATTACH '{tmp_path}/other.db' AS other",
        "WITH x AS (SELECT 1) DELETE FROM sales",
    ):
        assert "fails: " in refusal(query, path)
    assert "must be one SELECT that changes nothing" in refusal("DELETE FROM sales", path)
    assert path.read_bytes() == before
    assert sorted(one.name for one in tmp_path.iterdir()) == names


def test_mistakes(sqlite: Path, duck: Path, tmp_path: Path) -> None:
    assert "no such table: sals; did you mean 'sales'?" in refusal("sals", sqlite)
    assert 'Did you mean "sales"?' in refusal("sals", duck)
    assert 'near "FRM": syntax error' in refusal("SELECT * FRM sales", sqlite)
    assert "gives no rows" in refusal("SELECT * FROM sales WHERE id < 0", sqlite)
    assert "gives no rows" in refusal("SELECT * FROM sales WHERE id < 0", duck)
    assert "No files found" in refusal("SELECT * FROM 'nothing.csv'")
    assert "did you mean 'data.duckdb'?" in refusal("sales", tmp_path / "data.duckdbs")
    (tmp_path / "t.csv").write_text("a\n1\n")
    assert refusal("sales", tmp_path / "t.csv").endswith("is neither an SQLite nor a DuckDB database")
    # no variable of Python is a table, and nothing is fetched
    assert "does not exist" in refusal("SELECT * FROM share")
    assert "httpfs" in refusal("SELECT * FROM 'https://localhost/t.parquet'")


@pytest.mark.parametrize("engine", ["sqlite", "duck"])
def test_damaged_databases(engine: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(engine)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = []
    for number in range(40):
        content = bytearray(whole)
        for place in rng.integers(16, len(whole), size=30):
            content[place] = rng.integers(256)
        path.write_bytes(content if number else whole[: len(whole) // 3])
        try:
            read_table("sales", database=str(path))
        except DataError as error:
            refused.append(str(error))
    assert refused
    assert all(str(path) in message and "\n" not in message for message in refused)


def test_large_results_are_refused(sqlite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "available_bytes", lambda: 40_000_000)
    cross = "SELECT a.* FROM sales a, sales b, sales c, sales d"
    assert "takes more than half of the 40 MB of memory" in refusal(cross, sqlite)
    assert "takes more than half of the 40 MB" in refusal("SELECT i, i + 1 FROM range(100000000) t(i)")
