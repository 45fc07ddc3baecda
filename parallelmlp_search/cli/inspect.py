"""The command ``pmlp inspect``."""

from __future__ import annotations

from typing import Annotated

import typer

from parallelmlp_search.cli.options import Columns, Database, Json, Sheet, TablePath, Task, column_option
from parallelmlp_search.cli.terminal import terminal


def inspect(
    data: TablePath,
    target: Annotated[str | None, column_option(help="Column to predict, or several: a,b,c.")] = None,
    task: Task = None,
    columns: Columns = None,
    database: Database = None,
    sheet: Sheet = None,
    show_all: Annotated[bool, typer.Option("--all", help="Show all columns of a wide table.")] = False,
    as_json: Json = False,
) -> None:
    """Show how a table is read: kind and use of each column, the task, and warnings."""
    from parallelmlp_search.cli.column_types import parse_column_types
    from parallelmlp_search.cli.source import table_name, target_of_table
    from parallelmlp_search.data import read_table
    from parallelmlp_search.data.cells.recognition import read_columns
    from parallelmlp_search.data.profile.table import profile_table
    from parallelmlp_search.exceptions import InvalidParameterError
    from parallelmlp_search.report import profile_page
    from parallelmlp_search.search import Problem
    from parallelmlp_search.selection import get_metric

    types = parse_column_types(columns)
    if target is None and task is not None:
        raise InvalidParameterError(f"task needs a target, but got {task!r} without --target")
    frame = read_table(data, database=database, sheet=sheet)
    metric = None
    if target is None:
        profile = profile_table(frame, read_columns(frame, types))
    else:
        columns_of_target = target_of_table(target, frame)
        problem = Problem.from_table(frame, columns_of_target, task=task).with_column_types(types)
        profile = problem.profile()
        metric = get_metric(None, problem.task).name
    screen = terminal()
    if as_json:
        screen.json({"table": data, "metric": metric} | profile.to_dict())
    else:
        screen.show(
            profile_page(
                profile, table_name(data, database), metric, width=screen.out.width, show_all=show_all
            )
        )
