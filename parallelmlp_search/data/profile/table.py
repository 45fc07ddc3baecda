"""Profile of a table: its columns, its target, and findings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from parallelmlp_search.data.cells.recognition import ReadTable
from parallelmlp_search.data.profile.columns import ColumnProfile, profile_columns
from parallelmlp_search.data.profile.findings import Finding
from parallelmlp_search.data.profile.rows import column_findings, copied_columns, copied_rows, drift
from parallelmlp_search.data.profile.target import leakage, target_findings

COLUMNS = ("kind", "distinct", "missing", "values", "treatment", "reason")


@dataclass(frozen=True)
class TargetProfile:
    """Facts about the target.

    Attributes
    ----------
    name
        Name of the column, or None.
    task
        One of `TASKS`.
    values
        Classes or range, in words.
    reason
        How texts were read as numbers, or None.
    transforms
        Transformations of a skewed target that the default search space tries besides none.
    """

    name: str | None
    task: str
    values: str
    reason: str | None = None
    transforms: tuple[str, ...] = ()


@dataclass(frozen=True)
class TableProfile:
    """Facts about a table.

    Attributes
    ----------
    n_rows
        Number of rows.
    kinds
        Number of columns of each kind.
    target
        Facts about the target, or None.
    columns
        Facts about each column; empty in a short profile.
    findings
        Warnings, then notes.
    """

    n_rows: int
    kinds: dict[str, int]
    target: TargetProfile | None
    columns: tuple[ColumnProfile, ...]
    findings: tuple[Finding, ...]

    @property
    def warnings(self) -> list[Finding]:
        """Findings that something is probably wrong."""
        return [finding for finding in self.findings if finding.level == "warning"]

    @property
    def notes(self) -> list[Finding]:
        """Other findings."""
        return [finding for finding in self.findings if finding.level == "note"]

    def to_dict(self) -> dict[str, Any]:
        """Return a form that JSON can hold."""
        return {
            "rows": self.n_rows,
            "kinds": self.kinds,
            "target": None if self.target is None else asdict(self.target),
            "columns": [asdict(column) for column in self.columns],
            "warnings": [_plain(finding) for finding in self.warnings],
            "notes": [_plain(finding) for finding in self.notes],
        }


def _plain(finding: Finding) -> dict[str, Any]:
    return {"topic": finding.topic, "text": finding.text, "columns": list(finding.columns)}


def columns_frame(columns: Sequence[ColumnProfile]) -> pd.DataFrame:
    """Return the facts about columns as a table with one row per column, named by it."""
    rows = [[getattr(column, name) for name in COLUMNS] for column in columns]
    index = pd.Index([column.name for column in columns], name="column")
    return pd.DataFrame(rows, columns=list(COLUMNS), index=index)


def profile_table(
    frame: pd.DataFrame,
    read: ReadTable,
    target: npt.NDArray[np.generic] | None = None,
    about: TargetProfile | None = None,
    *,
    short: bool = False,
) -> TableProfile:
    """Return the profile of a table.

    Parameters
    ----------
    frame
        Features, without the target.
    read
        The same table, read.
    target
        Values of the target, of shape (rows,) or (rows, outputs), or None.
    about
        Name, task and reading of the target.
    short
        True to leave out the facts about each column.

    Returns
    -------
    TableProfile
    """
    columns = read.reader.columns
    name = "target" if about is None or about.name is None else about.name
    findings = column_findings(columns)
    if target is not None and about is not None:
        findings += target_findings(target, about.task, name)
        findings += leakage(read, target, about.task)
    findings += copied_columns(frame, columns)
    findings += copied_rows(frame, target)
    findings += drift(read, target, name)
    findings.sort(key=lambda finding: finding.level == "note")
    return TableProfile(
        len(frame),
        dict(Counter(column.kind for column in columns)),
        about,
        () if short else profile_columns(frame, read),
        tuple(findings),
    )
