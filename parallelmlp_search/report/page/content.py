"""Content of the page: what was found out about a run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from parallelmlp_search.report.results.evaluated import EvaluatedRows
from parallelmlp_search.report.results.finished import FinishedSearch

if TYPE_CHECKING:
    import pandas as pd

    from parallelmlp_search.data.profile.findings import Finding
    from parallelmlp_search.explain import Explanation
    from parallelmlp_search.inference import TrainedModel

BATCH = 1000
"""Rows of the batch whose prediction is timed."""


@dataclass(frozen=True, eq=False)
class ReportContent:
    """Everything that the page shows. Parts that are None are left out; :attr:`notes` has the reasons.

    Attributes
    ----------
    run
        Path of the run, as the user gave it.
    title
        Name of the table and the target.
    search, model, info
        Finished search, its model, and the content of ``run.json``.
    rows
        Rows with known targets and predictions of networks that have not seen them.
    explanation
        Importance, dependence, slices and worst rows.
    columns, findings
        Facts about each column of the table of the search, by name, and warnings about the table.
    timings
        Seconds in which the model predicts, by number of rows.
    notes
        Sentences on what was left out.
    """

    run: str
    title: str
    search: FinishedSearch
    model: TrainedModel
    info: Mapping[str, Any]
    rows: EvaluatedRows | None = None
    explanation: Explanation | None = None
    columns: pd.DataFrame | None = None
    findings: tuple[Finding, ...] = ()
    timings: Mapping[int, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def timed_predictions(model: TrainedModel, frame: pd.DataFrame) -> dict[int, float]:
    """Return the seconds in which the model predicts one row and a batch of rows, the best of three."""
    found = {}
    for count in sorted({1, min(BATCH, len(frame))}):
        rows = frame.head(count)
        model.predictions(rows)
        best = float("inf")
        for _ in range(3):
            started = time.perf_counter()
            model.predictions(rows)
            best = min(best, time.perf_counter() - started)
        found[count] = best
    return found
