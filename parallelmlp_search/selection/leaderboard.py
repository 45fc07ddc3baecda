"""Leaderboard of trials with their scores, costs and ranks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any

import pandas as pd

from parallelmlp_search.exceptions import InvalidParameterError

__all__ = ["Entry", "Leaderboard"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One trial on the leaderboard.

    Parameters
    ----------
    trial
        Number of the trial.
    metric
        Name of the metric.
    error
        Lower is better; determines the rank. None or NaN for a trial without a score.
    score
        The error in the metric's own orientation.
    standard_error
        Standard error of the score.
    rung
        Highest rung reached. Trials of a higher rung rank before those of a lower one: they trained longer
        and were compared with better trials, so scores of different rungs are not comparable.
    n_parameters
        Number of weights and biases; breaks ties.
    train_seconds, epochs
        Time and epochs of training.
    state
        ``"complete"``, ``"pruned"`` or ``"failed"``, for example. Failed trials rank last.
    ensemble_weight
        Weight in the ensemble, 0 to 1.
    failure
        Reason of the failure, one sentence.
    config
        Configuration, a mapping or a dataclass.
    """

    trial: int
    metric: str
    error: float | None = None
    score: float | None = None
    standard_error: float | None = None
    rung: int = 0
    n_parameters: int = 0
    train_seconds: float = 0.0
    epochs: float = 0.0
    state: str = "complete"
    ensemble_weight: float = 0.0
    failure: str | None = None
    config: Any = field(default_factory=dict)

    @property
    def is_ranked(self) -> bool:
        """True if the trial has a score and did not fail."""
        return self.state != "failed" and self.error is not None and not math.isnan(self.error)


class Leaderboard:
    """Entries, best first.

    They are sorted by rung (higher first), error, number of parameters and trial number; failed trials come
    last, by trial number. Entries of one rung with the same error share a rank (1, 1, 3). Failed trials have
    no rank.

    Parameters
    ----------
    entries
        Entries in any order, one per trial.

    Raises
    ------
    InvalidParameterError
        If two entries have the same trial number.

    Examples
    --------
    >>> errors = [2.0, 1.0]
    >>> board = Leaderboard(Entry(trial=i, metric="rmse", error=error) for i, error in enumerate(errors))
    >>> [entry.trial for entry in board], board.ranks
    ([1, 0], (1, 2))
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        ordered = sorted(entries, key=_sort_key)
        seen: set[int] = set()
        for entry in ordered:
            if entry.trial in seen:
                raise InvalidParameterError(
                    f"entries must be of different trials, but got {entry.trial} twice"
                )
            seen.add(entry.trial)
        self.entries: tuple[Entry, ...] = tuple(ordered)
        self.ranks: tuple[int | None, ...] = tuple(_ranks(ordered))

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __getitem__(self, place: int) -> Entry:
        return self.entries[place]

    def __repr__(self) -> str:
        return f"Leaderboard({len(self)} entries, best trial {self[0].trial})" if self else "Leaderboard()"

    def to_frame(self) -> pd.DataFrame:
        """Return one row per entry, best first, with plain Python values.

        Configuration fields are named ``config_FIELD``. ``rank`` is a nullable integer. Missing and
        non-finite numbers are NaN. Lists, such as the widths, are objects.
        """
        records = []
        for rank, entry in zip(self.ranks, self.entries, strict=True):
            record = {name: rank if name == "rank" else getattr(entry, name) for name in _COLUMNS}
            record.update(_flattened("config", entry.config))
            records.append({name: _plain(value) for name, value in record.items()})
        columns = dict.fromkeys(name for record in records for name in record)
        frame = pd.DataFrame(records, columns=list(columns) or list(_COLUMNS))
        frame["rank"] = frame["rank"].astype("Int64")
        for name in ("score", "standard_error", "error"):
            frame[name] = frame[name].astype("float64")
        return frame


_COLUMNS = (
    "rank",
    "trial",
    "metric",
    "score",
    "standard_error",
    "error",
    "ensemble_weight",
    "n_parameters",
    "train_seconds",
    "epochs",
    "rung",
    "state",
    "failure",
)


def _sort_key(entry: Entry) -> tuple[bool, int, float, int, int]:
    if not entry.is_ranked or entry.error is None:
        return (True, 0, 0.0, 0, entry.trial)
    return (False, -entry.rung, entry.error, entry.n_parameters, entry.trial)


def _ranks(ordered: list[Entry]) -> Iterator[int | None]:
    rank, previous = 0, None
    for place, entry in enumerate(ordered, start=1):
        if not entry.is_ranked:
            yield None
            continue
        if (entry.rung, entry.error) != previous:
            rank, previous = place, (entry.rung, entry.error)
        yield rank


def _flattened(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flattened(f"{name}_{key}", item)
    else:
        yield name, value


def _plain(value: Any) -> Any:
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:  # NumPy and torch scalars
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)
