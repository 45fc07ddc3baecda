"""The commands that show results of a finished run."""

from __future__ import annotations

from typing import Annotated

import typer

from parallelmlp_search.cli.options import Database, Json, RunPath, Sheet, TablePath
from parallelmlp_search.cli.terminal import terminal


def evaluate(
    run: RunPath, data: TablePath, database: Database = None, sheet: Sheet = None, as_json: Json = False
) -> None:
    """Score the ensemble of a run on a table with known targets."""
    from parallelmlp_search.cli.predictions import evaluation_of
    from parallelmlp_search.data import read_table
    from parallelmlp_search.report import evaluation_table
    from parallelmlp_search.search import RunDirectory

    evaluation = evaluation_of(RunDirectory.open(run), read_table(data, database=database, sheet=sheet))
    screen = terminal()
    if as_json:
        screen.json(evaluation)
    else:
        screen.show("", evaluation_table(evaluation), "")


def leaderboard(
    run: RunPath,
    top: Annotated[int, typer.Option(metavar="N", min=0, help="Rows to show; 0 for all.")] = 20,
    as_json: Json = False,
) -> None:
    """Show the trials of a run, best first."""
    from parallelmlp_search.cli.plain_values import records
    from parallelmlp_search.report import leaderboard_table
    from parallelmlp_search.search import RunDirectory

    frame = RunDirectory.open(run).leaderboard()
    rows = records(frame.head(top) if top else frame)
    screen = terminal()
    if as_json:
        screen.json(rows)
        return
    screen.show(leaderboard_table(rows, width=screen.out.width))
    if len(rows) < len(frame):
        screen.note(f"{len(frame) - len(rows):,} more trials: pmlp leaderboard {run} --top 0")


def show(
    run: RunPath,
    trial: Annotated[int, typer.Argument(metavar="TRIAL", help="Number of a trial.")],
    as_json: Json = False,
) -> None:
    """Show one trial: its configuration and its score at each rung."""
    from parallelmlp_search.cli.runs import trial_of
    from parallelmlp_search.report import trial_page
    from parallelmlp_search.search import RunDirectory

    found = trial_of(RunDirectory.open(run), trial)
    screen = terminal()
    if as_json:
        screen.json(found)
    else:
        screen.show(trial_page(found))
