"""Command ``pmlp explain``: options, and the rows that it explains."""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from parallelmlp_search.cli.options import Database, Json, Quiet, RunPath, Sheet, output_option

if TYPE_CHECKING:
    import pandas as pd

    from parallelmlp_search.explain import ExplainedRows
    from parallelmlp_search.inference import TrainedModel
    from parallelmlp_search.search import Problem, RunDirectory

BACKGROUND_ROWS = 1000


def explain(
    run: RunPath,
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="[DATA]",
            help="Table of rows that the search has not seen. Default: the table of the run, each row "
            "predicted by networks that were not trained on it.",
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...", help="Columns whose dependence is computed. Default: the most important."
        ),
    ] = None,
    top: Annotated[int, typer.Option(metavar="N", min=1, help="Rows of each table that are printed.")] = 10,
    seed: Annotated[int, typer.Option(metavar="N", help="Random seed.")] = 0,
    database: Database = None,
    sheet: Sheet = None,
    output: Annotated[
        Path | None,
        output_option(metavar="DIR", help="Folder of the tables. Default: the folder explain of the run."),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show which columns matter, how predictions depend on them, and where the model is wrong."""
    from parallelmlp_search.cli.plain_values import plain, records
    from parallelmlp_search.cli.terminal import terminal
    from parallelmlp_search.exceptions import PMLPError
    from parallelmlp_search.explain import ExplainSettings, explain_model
    from parallelmlp_search.report.terminal.explanation import explanation_page
    from parallelmlp_search.runs import EXPLANATION, load_model
    from parallelmlp_search.search import RunDirectory

    directory, screen = RunDirectory.open(run), terminal()
    model, metric = load_model(directory), directory.metric()
    names = None if columns is None else tuple(name.strip() for name in columns.split(","))
    table = other_table(directory, data, database, sheet)
    if table is None:
        rows = rows_of_search(directory, model, problem_of_search(directory))
    else:
        problem = None
        with contextlib.suppress(PMLPError, OSError):
            problem = problem_of_search(directory)
        rows = rows_of_table(directory, model, table, problem)
    settings = ExplainSettings(columns=names, seed=seed)
    with screen.err.status("explaining") if not quiet else contextlib.nullcontext() as status:
        found = explain_model(
            model,
            rows,
            metric,
            settings,
            report=lambda stage: None if status is None else status.update(stage),
        )
    folder = directory.path / EXPLANATION if output is None else output
    found.save(folder)
    if as_json:
        screen.json(plain(found.summary) | {name: records(table) for name, table in found.tables.items()})
    elif quiet:
        screen.line(str(folder))
    else:
        screen.show(explanation_page(found, top=top, folder=str(folder), width=screen.out.width))


def other_table(
    directory: RunDirectory, data: str | None, database: str | None = None, sheet: str | None = None
) -> pd.DataFrame | None:
    """Read a table that is not that of the run.

    Parameters
    ----------
    directory
        Run.
    data, database, sheet
        Arguments that name a table; None for that of the run.

    Returns
    -------
    DataFrame or None
        None for the table of the run.
    """
    from parallelmlp_search.data import read_table

    if data is None or (database is None and _is_own_table(directory, data, sheet)):
        return None
    return read_table(data, database=database, sheet=sheet)


def problem_of_search(directory: RunDirectory) -> Problem:
    """Read the table of a run.

    Raises
    ------
    RunDirectoryError
        If the run has no table, or it has changed since the search.
    """
    from parallelmlp_search.cli.source import Source
    from parallelmlp_search.exceptions import RunDirectoryError

    source = Source.of_run(directory)
    problem = source.problem_of_run(directory)
    if directory.info().get("fingerprint") != problem.fingerprint():
        raise RunDirectoryError(
            f"{source.data!r} has changed since the search: give a table of rows that the search has not seen"
        )
    return problem


def rows_of_search(directory: RunDirectory, model: TrainedModel, problem: Problem) -> ExplainedRows:
    """Return the rows of the table of a run, with the folds that have not seen them."""
    from parallelmlp_search.explain.sources import oof_folds_of, training_rows

    return training_rows(model, problem, oof_folds_of(directory, problem, model))


def _is_own_table(directory: RunDirectory, data: str, sheet: str | None) -> bool:
    source = directory.info().get("source") or {}
    path = source.get("data")
    if path is None or data == "-" or sheet not in (None, source.get("sheet")):
        return False
    return bool((directory.path / path).resolve() == Path(data).resolve())


def rows_of_table(
    directory: RunDirectory, model: TrainedModel, frame: pd.DataFrame, problem: Problem | None
) -> ExplainedRows:
    """Return the rows of a table that the search has not seen.

    Rows without a target are left out if others have one.

    Parameters
    ----------
    directory, model, frame
        Run, its model, and the table.
    problem
        Problem of the run, whose rows stand for unknown values; None if its table is not there.

    Returns
    -------
    ExplainedRows
    """
    from parallelmlp_search.cli.predictions import target_columns
    from parallelmlp_search.data import split_target
    from parallelmlp_search.data.row_values import group_codes, row_weights
    from parallelmlp_search.exceptions import DataWarning
    from parallelmlp_search.explain.sources import new_rows

    background = None
    if problem is not None:
        count = min(BACKGROUND_ROWS, problem.n_rows)
        background = problem.frame.sample(count, random_state=0)
    names = target_columns(directory, model)
    if not names or not set(names) <= set(frame.columns):
        return new_rows(model, frame, background=background)
    frame = frame.reset_index(drop=True)
    if model.reader is not None:
        frame = model.reader.with_numbers(frame, names[0])
    features, column = split_target(frame, names if len(names) > 1 else names[0])
    source = directory.info().get("source") or {}
    weights, groups = source.get("weights"), source.get("groups")
    weight = codes = None
    if weights is not None and weights in frame.columns:
        weight = row_weights(frame.loc[column.index, weights], len(column), f"weights column {weights!r}")
    numbers = column.index.to_numpy()
    if groups is not None and groups in frame.columns:
        codes = group_codes(frame.loc[column.index, groups])
    elif groups is not None:
        warnings.warn(
            f"the table has no column {groups!r}, by which the search grouped rows: standard errors and "
            "p-values take its rows for independent",
            DataWarning,
            stacklevel=2,
        )
    return new_rows(model, features, column, weight, groups=codes, numbers=numbers, background=background)
