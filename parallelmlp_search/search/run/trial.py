"""One configuration's life in a search."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import pandas as pd

from parallelmlp_search.space import MLPConfig

__all__ = ["RungRecord", "Trial", "TrialState", "config_of_row", "summarise"]


class TrialState(StrEnum):
    """Where a trial stands."""

    WAITING = "waiting"
    """Sampled or promoted, and not yet trained to its next rung."""
    PRUNED = "pruned"
    """Left behind at a rung."""
    COMPLETE = "complete"
    """Cross-fitted as a finalist."""
    FAILED = "failed"
    """Its loss stopped being finite, or it did not fit into memory."""


@dataclass(frozen=True)
class RungRecord:
    """What one rung found out about a trial."""

    round: int
    rung: int
    epochs: float
    error: float
    train_loss: float
    seconds: float


@dataclass
class Trial:
    """A configuration, where it came from, and how far it got."""

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
        """Highest rung that has scored the trial, -1 before the first."""
        return self.records[-1].rung if self.records else -1

    @property
    def error(self) -> float:
        """Error at its highest rung, infinite before the first or after a failure."""
        if self.state is TrialState.FAILED or not self.records or math.isnan(self.records[-1].error):
            return math.inf
        return self.records[-1].error

    @property
    def seconds(self) -> float:
        """Seconds of training that fell to this trial."""
        return sum(record.seconds for record in self.records)

    @property
    def standing(self) -> tuple[int, float, int, int]:
        """Sorts trials, best first: highest rung, lowest error, fewest parameters, lowest number."""
        return (-self.rung, self.error, self.n_parameters, self.number)

    def rows(self) -> list[dict[str, Any]]:
        """One mapping a rung, for ``trials.parquet``."""
        config = {f"config_{name}": value for name, value in self.config.to_dict().items()}
        config["config_widths"] = "-".join(str(width) for width in self.config.widths)
        common = {
            "trial": self.number,
            "origin": self.origin,
            "state": str(self.state),
            "failure": self.failure,
            "n_parameters": self.n_parameters,
        }
        return [
            common
            | {
                "round": record.round,
                "rung": record.rung,
                "epochs": record.epochs,
                "error": record.error,
                "train_loss": record.train_loss,
                "train_seconds": record.seconds,
            }
            | config
            for record in self.records
        ]


def config_of_row(row: Mapping[Any, Any] | pd.Series[Any]) -> MLPConfig:
    """The configuration that a row of ``trials.parquet``, or of the leaderboard, spells out."""
    values: dict[str, Any] = {}
    for column in row.keys():  # noqa: SIM118 - iterating over a Series gives its values
        if not str(column).startswith("config_"):
            continue
        name, value = str(column).removeprefix("config_"), row[column]
        if name == "widths":
            widths = value.split("-") if isinstance(value, str) else value
            values[name] = tuple(int(width) for width in widths if width)
        else:
            values[name] = None if value is None or value is pd.NA or value != value else value
    return MLPConfig.from_dict(values)


def summarise(config: MLPConfig) -> str:
    """A configuration in a few words, such as ``128-128 silu lr 0.004``."""
    widths = "-".join(str(width) for width in config.widths) or "linear"
    words = [widths] if not config.widths else [widths, config.activation]
    if config.submembers > 1:
        words.append(f"x{config.submembers} {config.sharing}")
    words.append(f"lr {config.learning_rate:.2g}")
    if config.dropout > 0:
        words.append(f"drop {config.dropout:.2g}")
    return " ".join(words)
