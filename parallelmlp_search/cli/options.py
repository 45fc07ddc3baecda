"""Arguments and options that several commands have, and the panels of their help; light to import."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "BUDGET",
    "DATA",
    "HOW",
    "OUTPUT",
    "TOGETHER",
    "Calibration",
    "Jobs",
    "Json",
    "Quiet",
    "Refit",
    "RunPath",
    "TablePath",
    "TuneDecision",
]

DATA, BUDGET, HOW, OUTPUT = "The table", "Budget", "How to search", "Output"
TOGETHER = "Several machines, one search"

RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.", show_default=False)]
TablePath = Annotated[
    str,
    typer.Argument(
        metavar="DATA", help="Table: CSV (also .gz), TSV, Parquet, Feather, or - for CSV on standard input."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.", rich_help_panel=OUTPUT)]
Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet", "-q", help="No progress; print nothing but the folder of the run.", rich_help_panel=OUTPUT
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(help="Workers; all cores by default. Results do not depend on it.", rich_help_panel=HOW),
]
TuneDecision = Annotated[
    bool,
    typer.Option(
        "--tune-decision/--no-tune-decision",
        help="Name the classes so that accuracy, balanced_accuracy, f1, f1_macro or mcc is best.",
        rich_help_panel=HOW,
    ),
]
Calibration = Annotated[
    str,
    typer.Option(help="temperature or none, of probabilities; by default the first.", rich_help_panel=HOW),
]
Refit = Annotated[
    bool,
    typer.Option("--refit", help="In the end, train the ensemble anew on all rows.", rich_help_panel=HOW),
]
