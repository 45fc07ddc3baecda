"""Source of a search: a table and the roles of its columns."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from parallelmlp_search._reading import reading
from parallelmlp_search._schema import conform
from parallelmlp_search.data import read_table
from parallelmlp_search.data.databases import database_path, is_query
from parallelmlp_search.exceptions import InvalidParameterError, RunDirectoryError, near_miss, one_line
from parallelmlp_search.search import Problem, RunDirectory
from parallelmlp_search.search.problem.problem import TargetColumns

STORED_TABLE = "data"
"""Name, without suffix, of the copy that a run keeps of a table that may not be there again."""

STORED_FILE = f"{STORED_TABLE}.parquet"


def table_name(data: str, database: str | None = None) -> str:
    """Return the name of a table in messages."""
    if database is not None or is_query(data):
        return one_line(data) if database is None else f"{one_line(data)} ({Path(database).name})"
    return "standard input" if data == "-" else Path(data).name


def stored_table_name(source: Mapping[str, str | None]) -> str | None:
    """Return the name of the table of a source in ``run.json``, as it was given; None without a table."""
    data = source.get("query") or source.get("data")
    if data is None:
        return None
    return table_name("-" if data == STORED_FILE else data, source.get("database"))


def target_of_table(target: str, frame: pd.DataFrame) -> str | TargetColumns:
    """Return the target column of a table, or several columns that are separated by commas.

    A column whose own name is the text is taken. Names with commas can be quoted, as in CSV.

    Raises
    ------
    InvalidParameterError
        If a column is named twice, or a name is empty.
    """
    if target in frame.columns or "," not in target:
        return target
    names = [name.strip() for name in next(csv.reader([target], skipinitialspace=True))]
    if "" in names or len(set(names)) < len(names):
        raise InvalidParameterError(
            f"target must name different columns with commas between them, but got {target!r}"
        )
    return names[0] if len(names) == 1 else TargetColumns(names)


@dataclass(frozen=True)
class Source:
    """Path of a table and roles of its columns, kept in ``run.json`` to resume the run.

    Attributes
    ----------
    data
        Path of the table, ``-`` for standard input, or a query.
    target
        Column to predict, or several with commas between them.
    task
        Task, or None to infer it.
    groups, time_column, weights
        Columns with these roles, or None.
    class_weight
        ``balanced`` or None.
    columns
        Kind by column name, for columns whose kind is set, or None.
    sheet, database
        Sheet of a workbook, and database of a query, or None.
    """

    data: str
    target: str
    task: str | None = None
    groups: str | None = None
    time_column: str | None = None
    weights: str | None = None
    class_weight: str | None = None
    columns: Mapping[str, str] | None = None
    sheet: str | None = None
    database: str | None = None

    def __post_init__(self) -> None:
        if self.groups is not None and self.time_column is not None:
            raise InvalidParameterError("--groups and --time-column cannot be used together: leave one out")
        if self.class_weight not in (None, "balanced"):
            raise InvalidParameterError(
                f"class_weight must be 'balanced', but got {self.class_weight!r}"
                f"{near_miss(self.class_weight, ['balanced'])}"
            )
        columns = [self.target, self.groups, self.time_column, self.weights]
        for name in columns:
            if name is not None and columns.count(name) > 1:
                raise InvalidParameterError(f"a column can have only one role, but {name!r} has two")

    @classmethod
    def of_run(cls, directory: RunDirectory) -> Source:
        """Return the source in ``run.json``.

        Raises
        ------
        RunDirectoryError
            If the run was not started by ``pmlp search``, or names no table that it can have had.
        """
        source: dict[str, str | None] | None = directory.info().get("source")
        if not source:
            raise RunDirectoryError(
                f"the run in {str(directory.path)!r} was not started by `pmlp search`, "
                "so its table is unknown: resume it from the program that started it"
            )
        values: dict[str, Any] = {field.name: source.get(field.name) for field in fields(cls)}
        values["database"] = None  # the run has a copy of the result
        with reading(directory.path / "run.json"):
            for name in ("data", "target"):
                if values[name] is None:
                    raise ValueError(f"its source lacks {name!r}")
            path = values["data"]
            if "\0" in path or not (Path(path).is_absolute() or path == STORED_FILE):
                raise ValueError(f"{path!r} is not the absolute path of a table")
            if values["columns"] is not None:
                values["columns"] = json.loads(values["columns"])
                conform(values["columns"], dict[str, str], "columns")
            return cls(**values)

    @property
    def is_stdin(self) -> bool:
        """True if the table comes from standard input."""
        return self.data == "-"

    @property
    def name(self) -> str:
        """Name of the table in messages."""
        return table_name(self.data, self.database)

    @property
    def stem(self) -> str:
        """Name of the table without suffixes."""
        if self.is_stdin:
            return "stdin"
        if self.is_queried:
            return "query" if self.database is None else Path(self.database).name.split(".")[0]
        return re.sub(r"[*?\[\]]+", "_", Path(self.data).name.split(".")[0]) or "table"

    @property
    def is_queried(self) -> bool:
        """True if the table is the result of a query or a table of a database."""
        return self.database is not None or is_query(self.data)

    @property
    def is_copied(self) -> bool:
        """True if a run keeps a copy of the table, because it may not be the same the next time."""
        return self.is_stdin or self.is_queried

    @property
    def arguments(self) -> list[str]:
        """Arguments of commands that read this table."""
        options = {"--from": self.database, "--sheet": self.sheet}
        given = [word for option, value in options.items() if value is not None for word in (option, value)]
        return [self.data, *given]

    def read(self, memory_limit: int | None) -> pd.DataFrame:
        """Read the table as given, before there is a run."""
        return read_table(self.data, memory_limit=memory_limit, sheet=self.sheet, database=self.database)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values, with the absolute path of the table or the name of its copy in the run."""
        data = STORED_FILE if self.is_copied else str(Path(self.data).absolute())
        columns = None if self.columns is None else json.dumps(self.columns)
        database = None if self.database is None else str(database_path(self.database).absolute())
        query = self.data if self.is_queried else None
        return asdict(self) | {"data": data, "columns": columns, "query": query, "database": database}

    def path(self, run: Path) -> Path:
        """Return the path of the table of a run; the copy that a run keeps is in its folder."""
        return run / self.data  # an absolute path replaces the folder

    def problem(self, frame: pd.DataFrame) -> Problem:
        """Return the problem of the table."""
        target = target_of_table(self.target, frame)
        for name in target if isinstance(target, TargetColumns) else ():
            if name in (self.groups, self.time_column, self.weights):
                raise InvalidParameterError(f"a column can have only one role, but {name!r} has two")
        return Problem.from_table(
            frame,
            target,
            task=self.task,
            weight=self.weights,
            groups=self.groups,
            time=self.time_column,
            class_weight=self.class_weight,
        ).with_column_types(self.columns)

    def problem_of_run(self, directory: RunDirectory) -> Problem:
        """Read the table of a run and return its problem."""
        limit = directory.settings().memory_bytes
        return self.problem(read_table(self.path(directory.path), memory_limit=limit, sheet=self.sheet))
