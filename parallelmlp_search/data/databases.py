"""Results of queries: SQLite, and DuckDB for its own databases and for queries over files."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
import pyarrow as pa

from parallelmlp_search._optional import require
from parallelmlp_search.data.cell_values import CELL_BYTES, column_of
from parallelmlp_search.data.columnar import checked_frame
from parallelmlp_search.data.frames import unique_names
from parallelmlp_search.data.memory_share import MAX_SHARE, MemoryShare
from parallelmlp_search.exceptions import DataError, near_miss, one_line

_QUERY = re.compile(r"\s*(select|with|from|values)\b\s*\S", re.IGNORECASE)
_SQLITE, _DUCKDB = b"SQLite format 3\0", b"DUCK"
_CHUNK_ROWS = 10_000
_ONLY_READING = "it must be one SELECT that changes nothing"
_READING = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)


def is_query(source: str | os.PathLike[str]) -> bool:
    """Return True for a query, such as ``SELECT * FROM 'sales/*.parquet'``, unless a file has this name."""
    # Path.exists raises an error if the text is too long for a file name
    return isinstance(source, str) and bool(_QUERY.match(source)) and not os.path.exists(source)


def database_path(database: str) -> Path:
    """Return the file of a database that is given as a path or as ``sqlite:///FILE``."""
    return Path(re.sub(r"^(sqlite|duckdb):///", "", database))


def read_query(source: str, database: str | None, share: MemoryShare) -> pd.DataFrame:
    """Run a query that only reads, and return its result.

    Parameters
    ----------
    source
        One query, or the name of a table.
    database
        File of an SQLite or DuckDB database, also as ``sqlite:///FILE``; None for DuckDB without a database,
        whose queries name files.
    share
        Name of the database in messages, and the memory that the result may take.

    Returns
    -------
    pandas.DataFrame of shape (rows, columns)

    Raises
    ------
    DataError
        If there is no such database, the query fails, would change something, or gives no rows, or its result
        needs too much memory.
    """
    if database is None:
        return _read_duckdb(source, None, share)
    path = database_path(database)
    if not path.is_file():
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"no database {str(path)!r}{near_miss(path.name, siblings)}")
    with path.open("rb") as stream:
        start = stream.read(16)
    if not is_query(source) and not re.search(r"\s", source.strip()):
        source = 'SELECT * FROM "{}"'.format(source.strip().replace('"', '""'))
    if start == _SQLITE:
        return _read_sqlite(source, path, share)
    if start[8:12] == _DUCKDB:
        return _read_duckdb(source, path, share)
    raise DataError(f"{str(path)!r} is neither an SQLite nor a DuckDB database")


def _read_sqlite(query: str, path: Path, share: MemoryShare) -> pd.DataFrame:
    try:
        uri = f"file:{quote(str(path.absolute()))}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
            tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master")]
            connection.text_factory = lambda text: text.decode("utf-8", errors="replace")
            connection.set_authorizer(
                lambda action, *_: sqlite3.SQLITE_OK if action in _READING else sqlite3.SQLITE_DENY
            )
            cursor = connection.execute(query)
            names = unique_names([str(column[0]) for column in cursor.description or ()], share.label)
            cells: list[list[Any]] = [[] for _ in names]
            n_bytes = 0
            while rows := cursor.fetchmany(_CHUNK_ROWS):
                n_bytes += sum(len(c) if isinstance(c, str | bytes) else 0 for row in rows for c in row)
                n_bytes += CELL_BYTES * len(rows) * len(names)
                share.require(n_bytes)
                for column, values in zip(cells, zip(*rows, strict=True), strict=True):
                    column.extend(values)
    except (sqlite3.Error, sqlite3.Warning) as error:
        reason = _ONLY_READING if "not authorized" in str(error) else _reason(error)
        missing = re.match(r"no such table: (\S+)", reason)
        raise _failure(share, reason + (near_miss(missing[1], tables) if missing else "")) from None
    if not cells or not cells[0]:
        raise DataError(f"the query of {share.label!r} gives no rows")
    return pd.DataFrame({name: column_of(column) for name, column in zip(names, cells, strict=True)})


def _read_duckdb(query: str, path: Path | None, share: MemoryShare) -> pd.DataFrame:
    duckdb = require("duckdb", extra="duckdb", purpose="to query files and DuckDB databases")
    # nothing is fetched, and no variable of Python is a table
    options = {"autoinstall_known_extensions": "false", "python_enable_replacements": "false"}
    if share.available is not None:
        options["memory_limit"] = f"{int(MAX_SHARE * share.available)}B"
    with _errors_of_duckdb(duckdb, share):
        statements = duckdb.extract_statements(query)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise _failure(share, _ONLY_READING)
        place = ":memory:" if path is None else str(path)
        with duckdb.connect(place, read_only=path is not None, config=options) as connection:
            reader = connection.sql(query).to_arrow_reader(_CHUNK_ROWS)
            batches, n_bytes = [], 0
            for batch in reader:
                batches.append(batch)
                n_bytes += batch.nbytes
                share.require(n_bytes)
            table = pa.Table.from_batches(batches, schema=reader.schema)
    if not table.num_rows:
        raise DataError(f"the query of {share.label!r} gives no rows")
    return checked_frame(table, share)


@contextlib.contextmanager
def _errors_of_duckdb(duckdb: Any, share: MemoryShare) -> Iterator[None]:
    try:
        yield
    except duckdb.OutOfMemoryException:
        raise DataError(f"{share.label!r} cannot be queried: the memory does not suffice") from None
    except duckdb.Error as error:
        raise _failure(share, _reason(error)) from None


def _reason(error: BaseException) -> str:
    """First sentences of an error, without the excerpt of the query that follows them."""
    return one_line(str(error).split("\n\n")[0])


def _failure(share: MemoryShare, reason: str) -> DataError:
    return DataError(f"the query of {share.label!r} fails: {reason}")
