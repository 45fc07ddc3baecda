"""Trials: configurations of a search with their results."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

import pandas as pd

from parallelmlp_search.space import MLPConfig
from parallelmlp_search.space.config import REMOVED_FIELDS

CONFIG_PREFIX = "config_"
"""Prefix of the columns that hold fields of the configuration."""


class TrialState(StrEnum):
    """State of a trial."""

    WAITING = "waiting"
    """Not yet trained to its next rung."""
    PRUNED = "pruned"
    """Did not advance from a rung."""
    COMPLETE = "complete"
    """Cross-fitted as a finalist."""
    FAILED = "failed"
    """Its loss stopped being finite, or memory did not suffice."""


@dataclass(frozen=True)
class RungRecord:
    """Result of a trial at one rung."""

    round: int
    rung: int
    epochs: float
    error: float
    train_loss: float
    seconds: float


@dataclass
class Trial:
    """Configuration with its origin, state and results."""

    number: int
    config: MLPConfig
    origin: str
    round: int
    state: TrialState = TrialState.WAITING
    failure: str | None = None
    n_parameters: int = 0
    records: list[RungRecord] = field(default_factory=list)

    @property
    def rung(self) -> int:
        """Highest rung with a result, -1 before the first."""
        return self.records[-1].rung if self.records else -1

    @property
    def error(self) -> float:
        """Error at its highest rung, infinite before the first or after a failure."""
        if self.state is TrialState.FAILED or not self.records:
            return math.inf
        error = self.records[-1].error
        return math.inf if math.isnan(error) else error

    @property
    def seconds(self) -> float:
        """Seconds of training."""
        return sum(record.seconds for record in self.records)

    @property
    def standing(self) -> tuple[int, float, int, int]:
        """Sort key, best trial first: highest rung, lowest error, fewest parameters, lowest number."""
        return (-self.rung, self.error, self.n_parameters, self.number)

    def rows(self) -> list[dict[str, Any]]:
        """Rows of ``trials.parquet``, one per rung."""
        config = {f"{CONFIG_PREFIX}{name}": value for name, value in self.config.to_dict().items()}
        config["config_widths"] = "-".join(str(width) for width in self.config.widths)
        common = {
            "trial": self.number,
            "origin": self.origin,
            "state": str(self.state),
            "failure": self.failure,
            "n_parameters": self.n_parameters,
        }
        rows = []
        for record in self.records:
            values = asdict(record)
            values["train_seconds"] = values.pop("seconds")
            rows.append(common | values | config)
        return rows


def config_of_row(row: Mapping[Any, Any] | pd.Series[Any], *, to_show: bool = False) -> MLPConfig:
    """Configuration of a row of ``trials.parquet`` or of the leaderboard.

    With ``to_show``, fields of older versions are left out even if they changed the network.
    """
    values: dict[str, Any] = {}
    for column in row.keys():  # noqa: SIM118 - iterating over a Series gives its values
        if not str(column).startswith(CONFIG_PREFIX):
            continue
        name, value = str(column).removeprefix(CONFIG_PREFIX), row[column]
        if to_show and name in REMOVED_FIELDS:
            continue
        if name == "widths":
            values[name] = widths_of_cell(value)
        else:
            values[name] = None if value is None or value is pd.NA or value != value else value
    return MLPConfig.from_dict(values)


def widths_of_cell(cell: str | Iterable[int]) -> tuple[int, ...]:
    """Return the widths of the hidden layers, from a text such as ``128-64`` or from a list."""
    parts = cell.split("-") if isinstance(cell, str) else cell
    return tuple(int(width) for width in parts if width)


def describe_widths(widths: Iterable[int]) -> str:
    """Return widths as a text such as ``128-64``; ``linear`` for a network without hidden layers."""
    return "-".join(str(int(width)) for width in widths) or "linear"


def summarise(config: MLPConfig) -> str:
    """Short text of a configuration, such as ``128-128 silu lr 0.004``."""
    widths = describe_widths(config.widths)
    words = [widths] if not config.widths else [widths, config.activation]
    if config.submembers > 1:
        words.append(f"x{config.submembers} {config.sharing}")
    words.append(f"lr {config.learning_rate:.2g}")
    if config.dropout > 0:
        words.append(f"drop {config.dropout:.2g}")
    if config.target_transform != "none":
        words.append(f"{config.target_transform} target")
    return " ".join(words)
