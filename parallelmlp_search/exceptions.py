"""Errors and warnings.

Every message is one clear sentence that names the parameter or column, the rule it broke, the value it had
and, where one is close by, the name that was probably meant.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "BudgetWarning",
    "DataError",
    "DataWarning",
    "DeviceWarning",
    "DistributedError",
    "InvalidParameterError",
    "MissingDependencyError",
    "PMLPError",
    "PMLPWarning",
    "RunDirectoryError",
    "SearchFailedError",
    "near_miss",
]


class PMLPError(Exception):
    """Base of every error that this package raises on purpose."""


class InvalidParameterError(PMLPError, ValueError):
    """A parameter has a value that its rule forbids."""


class DataError(PMLPError, ValueError):
    """A table cannot be used as it is: a column is missing, the target is constant, no row is left."""


class SearchFailedError(PMLPError, RuntimeError):
    """A search ended without one usable network."""


class RunDirectoryError(PMLPError, RuntimeError):
    """A run directory is missing, locked by another writer, or does not belong to the data at hand."""


class DistributedError(PMLPError, RuntimeError):
    """Ranks of a distributed run lost each other, or disagree about what they do together."""


class MissingDependencyError(PMLPError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""


class PMLPWarning(UserWarning):
    """Base of every warning that this package issues."""


class DataWarning(PMLPWarning):
    """Something in a table was repaired or ignored."""


class BudgetWarning(PMLPWarning):
    """A time or memory budget forced the search to leave something out."""


class DeviceWarning(PMLPWarning):
    """A device that was asked for, or that is present, is not used."""


def near_miss(name: str, candidates: Iterable[str]) -> str:
    """End of an error sentence: ``"; did you mean 'income'?"``, or nothing where no candidate is close."""
    close = get_close_matches(name, list(candidates), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""
