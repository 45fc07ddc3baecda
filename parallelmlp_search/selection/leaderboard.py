"""Leaderboard of trials with their scores, costs and ranks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import pandas as pd

from parallelmlp_search._html import card, table, text
from parallelmlp_search.exceptions import InvalidParameterError

MAX_SHOWN = 20
"""Entries that a notebook shows."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One trial on the leaderboard.

    Parameters
    ----------
    trial
        Number of the trial.
    metric
        Name of the metric.
    score
        Score in the metric's own orientation; None or NaN without a score.
    error
        The score such that lower is better; determines the rank.
    standard_error
        Standard error of the score over the folds; None for trials that were not cross-fitted.
    ensemble_weight
        Weight in the ensemble, 0 to 1.
    n_parameters
        Number of weights and biases; breaks ties.
    latency
        Seconds per row of a prediction; None where it was not measured.
    train_seconds, epochs
        Time and epochs of training.
    rung
        Highest rung reached. Trials of a higher rung rank before those of a lower one: they trained longer
        and were compared with better trials, so scores of different rungs are not comparable.
    state
        ``"complete"``, ``"pruned"`` or ``"failed"``, for example. Failed trials rank last.
    failure
        Reason of the failure, one sentence.
    config
        Configuration, a mapping or a dataclass.
    """

    trial: int
    metric: str
    score: float | None = None
    error: float | None = None
    standard_error: float | None = None
    ensemble_weight: float = 0.0
    latency: float | None = None
    n_parameters: int = 0
    train_seconds: float = 0.0
    epochs: float = 0.0
    rung: int = 0
    state: str = "complete"
    failure: str | None = None
    config: Any = field(default_factory=dict)

    @property
    def is_ranked(self) -> bool:
        """True if the trial has a score and did not fail."""
        return self.state != "failed" and self.error is not None and not math.isnan(self.error)

    @property
    def sort_key(self) -> tuple[bool, int, float, int, int]:
        """Key that sorts entries best first."""
        if not self.is_ranked or self.error is None:
            return (True, 0, 0.0, 0, self.trial)
        return (False, -self.rung, self.error, self.n_parameters, self.trial)

    def to_record(self) -> dict[str, Any]:
        """Return a flat dictionary of plain values; configuration fields are named ``config_FIELD``."""
        record, config = _shallow(self), self.config
        del record["config"]
        if is_dataclass(config):
            config = _shallow(config)
        record |= {f"config_{name}": value for name, value in config.items()}
        return {name: _plain(value) for name, value in record.items()}


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
        self.entries = tuple(sorted(entries, key=lambda entry: entry.sort_key))
        self.ranks: tuple[int | None, ...] = tuple(self._ranks())
        seen: set[int] = set()
        for entry in self.entries:
            if entry.trial in seen:
                raise InvalidParameterError(
                    f"entries must be of different trials, but got {entry.trial} twice"
                )
            seen.add(entry.trial)

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __getitem__(self, place: int) -> Entry:
        return self.entries[place]

    def __repr__(self) -> str:
        return f"Leaderboard({len(self)} entries, best trial {self[0].trial})" if self else "Leaderboard()"

    def _repr_html_(self) -> str:
        names = [
            "rank",
            "trial",
            "score",
            "standard_error",
            "ensemble_weight",
            "n_parameters",
            "epochs",
            "state",
        ]
        rows = []
        for rank, entry in zip(self.ranks[:MAX_SHOWN], self.entries, strict=False):
            values = {"rank": rank, **_shallow(entry), "ensemble_weight": entry.ensemble_weight or None}
            rows.append([values[name] for name in names])
        metric = self[0].metric if self else "no trials"
        left = len(self) - len(rows)
        more = text(f"{left:,} more", "s") if left > 0 else ""
        return card(text("Leaderboard", "t"), " ", text(metric, "s"), table(names, rows), more)

    def _ranks(self) -> Iterator[int | None]:
        rank, previous = 0, None
        for place, entry in enumerate(self.entries, start=1):
            if not entry.is_ranked:
                yield None
                continue
            if (entry.rung, entry.error) != previous:
                rank, previous = place, (entry.rung, entry.error)
            yield rank

    def to_frame(self) -> pd.DataFrame:
        """Return one row per entry, best first, with the rank and the values of its record.

        ``rank`` is a nullable integer. Missing and non-finite numbers are NaN. Lists, such as the widths, are
        objects. Where latencies were measured, ``pareto`` is True for entries that none with a lower error
        is as fast as.
        """
        entries = self.entries or (Entry(trial=0, metric=""),)  # for the columns of an empty leaderboard
        frame = pd.DataFrame([entry.to_record() for entry in entries]).head(len(self))
        frame.insert(0, "rank", pd.Series(self.ranks, dtype="Int64"))
        frame = frame.astype(dict.fromkeys(("score", "error", "standard_error", "latency"), "float64"))
        if not frame["latency"].notna().any():
            return frame.drop(columns="latency")
        fastest = frame.sort_values(["error", "latency"])["latency"].cummin().shift(fill_value=math.inf)
        is_faster = frame["latency"] < fastest.ffill().sort_index()
        frame.insert(list(frame).index("latency") + 1, "pareto", is_faster)
        return frame


def _shallow(instance: Any) -> dict[str, Any]:
    """Fields of a dataclass without copies of their values."""
    return {part.name: getattr(instance, part.name) for part in fields(instance)}


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
