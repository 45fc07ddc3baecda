"""Tables of a finished search, and the summary of its columns with which new rows are compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from parallelmlp_search._files import write_json
from parallelmlp_search._reading import read_json, reading
from parallelmlp_search.search.run.run_directory import RunDirectory

if TYPE_CHECKING:
    import pandas as pd

    from parallelmlp_search.data.profile.shift import ColumnShift
    from parallelmlp_search.inference import TrainedModel
    from parallelmlp_search.search.problem.problem import Problem

SUMMARY = "columns.json"
"""File with the distribution of each column in training."""

_FORMAT = 1


def write_tables(directory: RunDirectory, problem: Problem, **tables: pd.DataFrame) -> None:
    """Write tables by name, facts about the columns of the problem, and their summary.

    Parameters
    ----------
    directory, problem
        Run and problem.
    **tables
        Tables.
    """
    from parallelmlp_search.data.profile.shift import summary_of

    for name, frame in {**tables, "columns": problem.column_table.reset_index()}.items():
        directory.write_table(name, frame)
    summary: Any = summary_of(problem.inputs, problem.columns)
    write_json(directory.path / SUMMARY, {"format": _FORMAT} | summary)


def column_shifts(
    directory: RunDirectory, model: TrainedModel, table: pd.DataFrame
) -> list[ColumnShift] | None:
    """Return the columns of new rows that differ from training, the worst first.

    Parameters
    ----------
    directory, model
        Run and its model.
    table
        New rows, as the model has read them.

    Returns
    -------
    list of ColumnShift or None
        None for a run of an older version, which has no summary.
    """
    from parallelmlp_search.data.profile.shift import StoredSummary, shifts

    path = directory.path / SUMMARY
    if not path.is_file():
        return None
    summary = read_json(path, StoredSummary, newest=_FORMAT)
    columns = () if model.reader is None else model.reader.columns
    origin = {made: column.name for column in columns for _, made in column.outputs}
    with reading(path):
        return shifts(summary, table, origin)
