"""Estimators in notebooks and terminals: summary of a fitted one, and progress of ``fit``."""

from __future__ import annotations

from contextlib import ExitStack
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sklearn.base import clone

from parallelmlp_search.exceptions import InvalidParameterError, PMLPError
from parallelmlp_search.search import RunDirectory

if TYPE_CHECKING:
    from parallelmlp_search.search import Callback


def fitted_html(estimator: Any) -> str:
    """Return the summary of a fitted estimator as HTML, with scikit-learn's diagram of its parameters."""
    from parallelmlp_search._html import card, folded, text
    from parallelmlp_search.report.notebook import search_card

    title, stored = type(estimator).__name__, estimator._result
    fresh = clone(estimator)
    diagram = folded("Parameters", getattr(fresh, "_repr_html_", lambda: text(fresh))())
    try:
        if isinstance(stored, Path):
            directory = RunDirectory.open(stored)
            result, board = directory.result(), directory.leaderboard()
        elif stored is not None:
            result, board = stored.to_dict(), stored.leaderboard.to_frame()
        else:
            about = f"{len(estimator.columns_):,} columns, without the results of a search"
            return card(text(title, "t"), " ", text(about, "s"), diagram)
    except PMLPError as error:  # the run of a loaded estimator was moved, for example
        return card(text(title, "t"), " ", text(error, "warn"), diagram)
    return search_card(title, result, board, columns=estimator.columns_, more=diagram)


def shown_progress(stack: ExitStack, title: str, verbose: Any) -> tuple[Callback, ...]:
    """Show progress and messages until a stack ends.

    Parameters
    ----------
    stack
        Ends the display.
    title
        Name of the estimator.
    verbose
        0 for nothing, 1 for progress, 2 for progress and the messages of the logger ``parallelmlp_search``.

    Returns
    -------
    tuple of callbacks

    Raises
    ------
    InvalidParameterError
        If ``verbose`` is negative or no whole number.
    """
    if not isinstance(verbose, Integral | bool) or verbose < 0:
        raise InvalidParameterError(f"verbose must be 0, 1 or 2, but got {verbose!r}")
    if not verbose:
        return ()
    from rich.console import Console

    from parallelmlp_search.report import ConsoleReport
    from parallelmlp_search.report.notebook import NotebookReport, in_notebook

    if in_notebook():
        return (stack.enter_context(NotebookReport(title)),)
    return (stack.enter_context(ConsoleReport(Console(stderr=True), title=title)),)
