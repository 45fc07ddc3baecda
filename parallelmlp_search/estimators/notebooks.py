"""Summary of a fitted estimator in a notebook."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sklearn.base import clone

from parallelmlp_search.exceptions import PMLPError
from parallelmlp_search.search import RunDirectory


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
    if "update_" in vars(estimator):
        diagram = text(estimator.update_.describe(), "s") + diagram
    if estimator._is_updated:  # the score is that of the networks before
        result = {**result, "honest": None}
    return search_card(title, result, board, columns=estimator.columns_, more=diagram)
