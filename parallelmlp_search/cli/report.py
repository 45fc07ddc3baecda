"""Command ``pmlp report``: collects the facts about a run and writes them as one HTML page."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from parallelmlp_search.cli.options import Database, Quiet, RunPath, Sheet, output_option

if TYPE_CHECKING:
    import pandas as pd

    from parallelmlp_search.explain import ExplainedRows, Explanation
    from parallelmlp_search.inference import TrainedModel
    from parallelmlp_search.report.page.content import ReportContent
    from parallelmlp_search.search import RunDirectory

FILE = "report.html"


def report(
    run: RunPath,
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="[DATA]",
            help="Table of rows that the search has not seen. Default: the table of the run, each row "
            "predicted by networks that were not trained on it.",
        ),
    ] = None,
    database: Database = None,
    sheet: Sheet = None,
    output: Annotated[
        Path | None, output_option(metavar="FILE", help=f"HTML file to write. Default: {FILE} in the run.")
    ] = None,
    open_page: Annotated[bool, output_option("--open", help="Open the page in a browser.")] = False,
    quiet: Quiet = False,
) -> None:
    """Write a run as one HTML page: score, figures, columns, leaderboard, and how to repeat it."""
    from parallelmlp_search._files import write_atomic
    from parallelmlp_search.cli.explain import other_table
    from parallelmlp_search.cli.terminal import terminal
    from parallelmlp_search.report.page.page import render
    from parallelmlp_search.search import RunDirectory

    directory, screen = RunDirectory.open(run), terminal()
    path = directory.path / FILE if output is None else output
    with screen.err.status("collecting") if not quiet else contextlib.nullcontext():
        page = render(collect(directory, other_table(directory, data, database, sheet), shown_path=str(run)))
        write_atomic(path, lambda temporary: temporary.write_text(page, encoding="utf-8"))
    if quiet:
        screen.line(str(path))
    else:
        screen.note(f"report: {path} ({len(page.encode()) / 1e6:.1f} MB)")
    if open_page:
        import webbrowser

        webbrowser.open(path.resolve().as_uri())


def collect(directory: RunDirectory, table: pd.DataFrame | None, *, shown_path: str) -> ReportContent:
    """Return what the page of a run shows.

    Parameters
    ----------
    directory, table
        Run; a table of other rows, or None for the table of the run.
    shown_path
        Path of the run in the commands of the page.

    Returns
    -------
    ReportContent
    """
    from parallelmlp_search.cli.explain import problem_of_search, rows_of_search, rows_of_table
    from parallelmlp_search.cli.source import stored_table_name
    from parallelmlp_search.data.profile.table import columns_frame
    from parallelmlp_search.exceptions import PMLPError
    from parallelmlp_search.report.page.content import ReportContent, timed_predictions
    from parallelmlp_search.report.results.evaluated import evaluated_rows
    from parallelmlp_search.report.results.finished import FinishedSearch
    from parallelmlp_search.runs import load_model

    search, model = FinishedSearch.of_directory(directory), load_model(directory)
    rows, problem, notes = None, None, []
    try:
        problem = problem_of_search(directory)
        if table is None:
            rows = rows_of_search(directory, model, problem)
    except (PMLPError, OSError) as error:
        notes.append(f"The table of the run could not be used, so figures of its rows are left out: {error}.")
    if table is not None:
        rows = rows_of_table(directory, model, table, problem)
    evaluated = None if rows is None else evaluated_rows(model, rows)
    if model.task == "multilabel":
        notes.append("Figures of predictions need one target, so those of several labels are left out.")
    elif rows is not None and evaluated is None:
        notes.append(
            "No row has a known target and networks that have not seen it; give rows: pmlp report RUN DATA."
        )
    profile = None if problem is None else problem.profile()
    info = directory.info()
    source = info.get("source") or {}
    name = stored_table_name(source) or directory.path.name
    target = source.get("target") or model.target_name
    return ReportContent(
        run=shown_path,
        title=f"{name} · {target}" if target else name,
        search=search,
        model=model,
        info=info,
        rows=evaluated,
        explanation=_explanation(directory, model, rows, own=table is None),
        columns=directory.columns() if profile is None else columns_frame(profile.columns),
        findings=() if profile is None else profile.findings,
        timings={} if rows is None else timed_predictions(model, rows.frame),
        notes=tuple(notes),
    )


def _explanation(
    directory: RunDirectory, model: TrainedModel, rows: ExplainedRows | None, *, own: bool
) -> Explanation | None:
    """Stored explanation of the rows of the run, or a new one; that of the rows of the run is stored."""
    from parallelmlp_search.exceptions import RunDirectoryError
    from parallelmlp_search.explain import Explanation, explain_model
    from parallelmlp_search.explain.explanation import SUMMARY
    from parallelmlp_search.runs import EXPLANATION

    folder = directory.path / EXPLANATION
    if own and _is_current(folder / SUMMARY, directory):
        with contextlib.suppress(RunDirectoryError):
            found = Explanation.load(folder)
            if found.summary["rows"] != "new":
                return found
    if rows is None:
        return None
    found = explain_model(model, rows, directory.metric())
    if own:
        with contextlib.suppress(RunDirectoryError):
            found.save(folder)
    return found


def _is_current(stored: Path, directory: RunDirectory) -> bool:
    """Return True if an explanation is stored and newer than the model, which a promotion changes."""
    if not stored.is_file():
        return False
    models = (directory.model_folder / "model.json", directory.path / "promoted" / "promoted.json")
    written = [path.stat().st_mtime_ns for path in models if path.is_file()]
    return stored.stat().st_mtime_ns >= max(written, default=0)
