"""Errors and warnings.

A message names the parameter or column, the rule, the value and, if there is one, a similar valid name.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

MAX_REASON = 300
"""Most characters of the message of another library inside ours."""


class PMLPError(Exception):
    """Base class of all errors of this package."""


class InvalidParameterError(PMLPError, ValueError):
    """A parameter has an invalid value."""


class DataError(PMLPError, ValueError):
    """A table cannot be used: for example, a column is missing or the target is constant."""


class SearchFailedError(PMLPError, RuntimeError):
    """A search ended without a usable network."""


class MetricError(SearchFailedError):
    """A metric of the user or of scikit-learn failed for every network."""


class RunDirectoryError(PMLPError, RuntimeError):
    """A run directory or file is missing, damaged, locked, not writable or belongs to other data."""


class DistributedError(PMLPError, RuntimeError):
    """Ranks of a distributed run lost their connection or disagree about the task."""


class MissingDependencyError(PMLPError, ImportError):
    """An optional dependency is not installed; the message names the extra that installs it."""


class CompilationError(PMLPError, RuntimeError):
    """The compiled loops could not be compiled."""


class DeviceError(PMLPError, RuntimeError):
    """A device could not run a kernel that was asked for."""


class PMLPWarning(UserWarning):
    """Base class of all warnings of this package."""


class DataWarning(PMLPWarning):
    """A part of a table was repaired or ignored."""


class BudgetWarning(PMLPWarning):
    """A part of the search was left out because of a time or memory budget."""


class DeviceWarning(PMLPWarning):
    """A requested or available device is not used."""


def near_miss(name: str, candidates: Iterable[str]) -> str:
    """Return ``"; did you mean 'income'?"`` for an error message, or ``""`` if no candidate is similar."""
    close = get_close_matches(name, list(candidates), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def one_line(reason: object) -> str:
    """Return an error or a text on one line, shortened."""
    text = " ".join(str(reason).split()) or type(reason).__name__
    return text if len(text) <= MAX_REASON else f"{text[:MAX_REASON]}..."
