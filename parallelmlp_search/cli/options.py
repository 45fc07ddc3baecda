"""Arguments and options that several commands share, and the panels of their help; light to import."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from parallelmlp_search.cli.completion import choices, columns, runs

data_option = partial(typer.Option, rich_help_panel="Data")
budget_option = partial(typer.Option, rich_help_panel="Budget")
search_option = partial(typer.Option, rich_help_panel="Search")
ensemble_option = partial(typer.Option, rich_help_panel="Ensemble")
shared_option = partial(typer.Option, rich_help_panel="Search on several machines")
output_option = partial(typer.Option, rich_help_panel="Output")

column_option = partial(data_option, metavar="COL", autocompletion=columns)
"""Option that names a column of the table."""

Task = Annotated[
    str | None,
    data_option(
        metavar="TASK",
        help="binary, multiclass, multilabel, classification or regression. Default: inferred from the "
        "target.",
        autocompletion=choices("task"),
    ),
]
Columns = Annotated[
    list[str] | None,
    data_option(
        "--columns",
        metavar="KIND=NAME,...",
        help="Set kinds of columns, such as currency=price or ignore=id,name. May be repeated. Kinds: "
        "numeric, currency, percent, quantity, duration, datetime, boolean, categorical, text, list, json, "
        "ignore.",
    ),
]
RunPath = Annotated[
    Path,
    typer.Argument(metavar="RUN", help="Folder of the run.", show_default=False, autocompletion=runs),
]
TablePath = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="Table: CSV (also .gz), TSV, JSON, Parquet, ORC, Feather or Excel file, or a quoted pattern of "
        "several; a query, such as \"SELECT * FROM 'sales/*.csv'\"; - for CSV on standard input.",
    ),
]
Database = Annotated[
    str | None,
    data_option(
        "--from",
        metavar="FILE",
        help="SQLite or DuckDB database, of which DATA is a table or a query.",
    ),
]
Sheet = Annotated[
    str | None, data_option(metavar="NAME", help="Sheet of an Excel file. Default: the only one with rows.")
]
Json = Annotated[bool, output_option("--json", help="Print the result as JSON.")]
Quiet = Annotated[
    bool, output_option("--quiet", "-q", help="Print only the folder of the run, without progress.")
]
Jobs = Annotated[
    int | None,
    search_option(metavar="N", help="Number of workers. Default: all cores. Results do not depend on it."),
]
Backend = Annotated[
    str | None,
    shared_option(
        metavar="NAME",
        help="Train on workers of a cluster: dask or ray. Default: this machine.",
        autocompletion=choices("backend"),
    ),
]
Scheduler = Annotated[
    str | None,
    shared_option(
        metavar="ADDRESS", help="Scheduler of the cluster: tcp://HOST:8786 for dask, HOST:6379 for ray."
    ),
]
