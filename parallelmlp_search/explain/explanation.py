"""Result of an explanation: tables, and their files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import pandas as pd

from parallelmlp_search._files import make_folder, write_frame, write_json
from parallelmlp_search._reading import read_frame, read_json, reading
from parallelmlp_search._schema import Count, Positive

FORMAT = 1
SUMMARY = "explanation.json"
REMEDY = "explain the run again"

TABLES: Mapping[str, Mapping[str, str]] = {
    "importance": {
        "name": "O", "group": "O", "is_group": "b", "importance": "f", "standard_error": "f", "p_value": "f",
    },
    "dependence": {
        "column": "O", "output": "O", "value": "O", "position": "f", "share": "f", "prediction": "f",
        "low": "f", "high": "f",
    },
    "ice": {"column": "O", "output": "O", "row": "iu", "value": "O", "position": "f", "prediction": "f"},
    "attributions": {
        "row": "iu", "output": "O", "base": "f", "prediction": "f", "column": "O", "value": "O",
        "attribution": "f", "standard_error": "f",
    },
    "worst_rows": {"row": "iu", "target": "Of", "prediction": "Of", "loss": "f"},
    "slices": {
        "slice": "O", "n_rows": "iu", "share": "f", "loss": "f", "other_loss": "f", "difference": "f",
        "standard_error": "f", "p_value": "f", "score": "f",
    },
}  # fmt: skip
"""Columns of each table, with the kinds of their types."""


_DTYPES = {"O": "object", "b": "bool", "i": "int64", "f": "float64"}


def empty_table(name: str) -> pd.DataFrame:
    """Return a table without rows."""
    return pd.DataFrame(
        {column: pd.Series(dtype=_DTYPES[kinds[0]]) for column, kinds in TABLES[name].items()}
    )


class StoredSummary(TypedDict):
    """Content of ``explanation.json``."""

    format: Positive
    rows: str
    n_rows: Count
    task: str
    outputs: list[str]
    metric: NotRequired[str]
    score: NotRequired[float | None]
    loss: NotRequired[str]
    notes: list[str]
    seconds: float


@dataclass(frozen=True, eq=False)
class Explanation:
    """Tables that explain a model. A table without rows could not be computed; :attr:`notes` has the reason.

    Attributes
    ----------
    summary
        ``rows`` (``out-of-fold``, ``new`` or ``training``), ``n_rows``, ``task``, ``outputs``; and with a
        known target ``metric``, ``score``, ``loss`` (name of the loss of a row), ``n_permuted`` rows and
        ``n_repeats`` of the permutation importance; ``notes`` and ``seconds``.
    importance
        Permutation importance of columns and of groups of correlated columns, the most important first:
        ``name``, ``group``, ``is_group``, ``importance`` (increase of the error in units of the metric),
        ``standard_error``, ``p_value``.
    dependence
        Partial dependence: ``column``, ``output``, ``value``, ``position``, ``share``, ``prediction``,
        ``low`` and ``high``.
    ice
        The curve of single rows: ``column``, ``output``, ``row``, ``value``, ``position``, ``prediction``.
    attributions
        Contributions of the columns to single predictions, which add up with ``base`` to ``prediction``:
        ``row``, ``output``, ``base``, ``prediction``, ``column``, ``value``, ``attribution``,
        ``standard_error``.
    worst_rows
        Rows with the largest losses: ``row``, ``target``, ``prediction``, ``probability`` of the true class,
        ``loss``, and the cells.
    slices
        Parts of the table with larger losses: ``slice``, ``n_rows``, ``share``, ``loss``, ``other_loss``,
        ``difference``, ``standard_error``, ``p_value``, ``score``.
    """

    summary: dict[str, Any]
    importance: pd.DataFrame = field(repr=False)
    dependence: pd.DataFrame = field(repr=False)
    ice: pd.DataFrame = field(repr=False)
    attributions: pd.DataFrame = field(repr=False)
    worst_rows: pd.DataFrame = field(repr=False)
    slices: pd.DataFrame = field(repr=False)

    @property
    def notes(self) -> list[str]:
        """Sentences on what was left out and why."""
        return list(self.summary["notes"])

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """All tables by name."""
        return {name: getattr(self, name) for name in TABLES}

    def save(self, folder: str | Path) -> None:
        """Write ``explanation.json`` and one Parquet file per table.

        Raises
        ------
        RunDirectoryError
            If a file cannot be written.
        """
        folder = make_folder(Path(folder))
        for name, table in self.tables.items():
            write_frame(folder / f"{name}.parquet", table)
        write_json(folder / SUMMARY, {"format": FORMAT} | self.summary)

    @classmethod
    def load(cls, folder: str | Path) -> Explanation:
        """Read an explanation that :meth:`save` wrote.

        Raises
        ------
        RunDirectoryError
            If a file is missing, damaged, or of a newer format.
        """
        folder = Path(folder)
        summary = dict(read_json(folder / SUMMARY, StoredSummary, newest=FORMAT, remedy=REMEDY))
        del summary["format"]
        tables = {name: read_frame(folder / f"{name}.parquet", columns) for name, columns in TABLES.items()}
        with reading(folder / SUMMARY, remedy=REMEDY):
            for name, table in tables.items():
                if "output" in table and not set(table["output"]) <= set(summary["outputs"]):
                    raise ValueError(f"its outputs are not those of {name}.parquet")
        return cls(summary, **tables)
