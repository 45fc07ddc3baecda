"""Command ``pmlp predict``."""

from __future__ import annotations

from typing import Annotated

import typer

from parallelmlp_search.cli.options import Database, RunPath, Sheet, TablePath


def predict(
    run: RunPath,
    data: TablePath,
    output: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="A .csv, .csv.gz, .parquet or .feather file. Default: CSV on standard output.",
            show_default=False,
        ),
    ] = "-",
    proba: Annotated[
        bool, typer.Option("--proba", help="Write the probability of each class instead of the class.")
    ] = False,
    interval: Annotated[
        list[float] | None,
        typer.Option(
            metavar="PERCENT",
            help="Add the ends of an interval that contains the target of this share of new rows, such as "
            "90; for classes a set. May be repeated.",
        ),
    ] = None,
    database: Database = None,
    sheet: Sheet = None,
) -> None:
    """Predict the rows of a table with the ensemble of a run."""
    from parallelmlp_search.cli.predictions import (
        check_output,
        check_percents,
        prediction_table,
        target_of,
        write_table,
    )
    from parallelmlp_search.data import read_table
    from parallelmlp_search.inference.intervals import uncertainty_of
    from parallelmlp_search.runs import load_model
    from parallelmlp_search.search import RunDirectory

    check_output(output)
    coverages = check_percents(interval or ())
    directory = RunDirectory.open(run)
    model = load_model(directory)
    if coverages:
        uncertainty_of(model)  # before a large table is read
    target = target_of(directory, model) or "prediction"
    table = read_table(data, database=database, sheet=sheet)
    found = prediction_table(model, table, target, proba=proba, coverages=coverages)
    write_table(found, output)
