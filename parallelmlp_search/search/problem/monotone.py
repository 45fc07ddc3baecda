"""Monotone columns of a problem."""

from __future__ import annotations

from parallelmlp_search.exceptions import InvalidParameterError, near_miss
from parallelmlp_search.search.problem.problem import Problem
from parallelmlp_search.search.problem.settings import SearchSettings

WITHOUT_INPUTS = ("constant", "identifier")
"""Kinds of columns that networks do not use, so that any sign is kept."""


def monotone_columns(problem: Problem, settings: SearchSettings) -> dict[str, int]:
    """Return the signs of the monotone columns that networks use, by name.

    Parameters
    ----------
    problem, settings
        Table, and settings with the signs.

    Returns
    -------
    dict

    Raises
    ------
    InvalidParameterError
        If there are signs and more than two classes, or a sign is that of a column without numbers or of none
        at all.
    """
    if settings.monotonic is None:
        return {}
    if problem.task == "multiclass":
        raise InvalidParameterError(
            f"monotonic needs a regression or two classes, but the target has {problem.head.n_predictions}: "
            "leave it out"
        )
    kinds = problem.columns.kinds
    for name in settings.monotonic:
        if name not in kinds and name in problem.frame.columns:
            raise InvalidParameterError(
                f"monotonic must name columns of numbers, but {name!r} is read as several columns: leave it "
                "out"
            )
        if name not in kinds:
            raise InvalidParameterError(
                f"monotonic must name columns of the table, but got {name!r}{near_miss(name, kinds)}"
            )
        if kinds[name] not in ("numeric", *WITHOUT_INPUTS):
            raise InvalidParameterError(
                f"monotonic must name columns of numbers, but {name!r} is {kinds[name]}: set its kind to "
                "numeric, or leave it out"
            )
    return {name: sign for name, sign in settings.monotonic.items() if kinds[name] == "numeric"}
