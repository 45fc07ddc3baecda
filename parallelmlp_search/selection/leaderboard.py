"""Who came first: trials with their scores, costs and ranks."""

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
        Its number.
    metric
        Name of the metric.
    error
        Lower is better; decides the rank. None or NaN for a trial without a score.
    score
        The same in the metric's own orientation.
    standard_error
        Uncertainty of the score.
    rung
        Highest rung that it reached. A score of a higher rung stands before any of a lower one: it comes
        from more training and was earned against better rivals, so the two are not compared.
    n_parameters
        Weights and biases, the cost that breaks ties.
    train_seconds, epochs
        What its training took.
    state
        Such as ``"complete"``, ``"pruned"`` or ``"failed"``; a failed one ranks last whatever its score.
    ensemble_weight
        Its share of the ensemble, 0 to 1.
    failure
        Why it failed, in a sentence.
    config
        The configuration, as a mapping or a dataclass.
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
        """Whether it has a score and did not fail."""
        return self.state != "failed" and self.error is not None and not math.isnan(self.error)


class Leaderboard:
    """Entries, best first.

    They are ordered by rung (higher first), error, number of parameters and trial number, the failed ones
    last by trial number. Entries of one rung with the same error share a rank, and the next rank skips as
    many (1, 1, 3); failed ones have none.

    Parameters
    ----------
    entries
        In any order, with different trial numbers.

    Raises
    ------
    InvalidParameterError
        If two entries are of the same trial.

    Examples
    --------
    >>> errors = [2.0, 1.0]
    >>> board = Leaderboard(Entry(trial=i, metric="rmse", error=error) for i, error in enumerate(errors))
    >>> [entry.trial for entry in board], board.ranks
    ([1, 0], (1, 2))
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        ordered = sorted(entries, key=_place)
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
        return (
            f"Leaderboard({len(self)} entries, best trial {self[0].trial})"
            if self.entries
            else "Leaderboard()"
        )

    def top(self, n: int) -> Leaderboard:
        """The first ``n`` entries, as a leaderboard of their own; fewer where there are fewer."""
        if n < 0:
            raise InvalidParameterError(f"n must be >= 0, but got {n}")
        return Leaderboard(self.entries[:n])

    def to_records(self) -> list[dict[str, Any]]:
        """One flat dictionary an entry, best first, of plain Python values that JSON can hold.

        Configuration fields are named ``config_FIELD``; a missing or non-finite number is None.
        """
        records = []
        for rank, entry in zip(self.ranks, self.entries, strict=True):
            record: dict[str, Any] = {
                "rank": rank,
                "trial": entry.trial,
                "metric": entry.metric,
                "score": entry.score,
                "standard_error": entry.standard_error,
                "error": entry.error,
                "ensemble_weight": entry.ensemble_weight,
                "n_parameters": entry.n_parameters,
                "train_seconds": entry.train_seconds,
                "epochs": entry.epochs,
                "rung": entry.rung,
                "state": entry.state,
                "failure": entry.failure,
            }
            record.update(_flattened("config", entry.config))
            records.append({name: _plain(value) for name, value in record.items()})
        return records

    def to_frame(self) -> pd.DataFrame:
        """One row an entry, best first, with the columns of `to_records`; ``rank`` is a nullable integer.

        Numbers that are missing are NaN. Lists, such as the widths, stay lists in a column of objects.
        """
        records = self.to_records()
        columns = list(dict.fromkeys(name for record in records for name in record))
        frame = pd.DataFrame(records, columns=columns or _EMPTY_COLUMNS)
        frame["rank"] = frame["rank"].astype("Int64")
        for name in ("score", "standard_error", "error"):
            frame[name] = frame[name].astype("float64")
        return frame


_EMPTY_COLUMNS: list[str] = [
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
]


def _place(entry: Entry) -> tuple[bool, int, float, int, int]:
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
