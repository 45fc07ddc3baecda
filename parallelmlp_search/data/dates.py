"""One column of dates as numbers for a network: where in the year, week and day, and how long ago."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from parallelmlp_search.data.coercion import as_seconds
from parallelmlp_search.data.numeric import NumericEncoder

__all__ = ["DateEncoder"]

_DAY = 86_400
_LINEAR = ("year", "elapsed_days")
_CYCLIC = ("month", "weekday", "hour")


@dataclass(frozen=True, eq=False)
class DateEncoder:
    """Parts of a date in UTC that vary in training.

    Year and elapsed days are scaled like numbers; month, weekday and hour become a sine and a cosine. A gap
    is 0 in every part and 1 in an indicator of its own, which is there only if the training rows had gaps.
    """

    linear: tuple[str, ...]
    cyclic: tuple[str, ...]
    scaler: NumericEncoder  # of the linear parts
    gappy: bool

    @classmethod
    def fit(cls, column: pd.Series) -> DateEncoder:
        """Learn which parts vary, and their spread."""
        moments = as_seconds(column)
        known = ~np.isnat(moments)
        parts = _calendar(moments[known])
        varying = [name for name, part in parts.items() if len(part) and part.min() != part.max()]
        linear = tuple(name for name in _LINEAR if name in varying)
        values = np.stack([parts[name] for name in linear], axis=1) if linear else np.zeros((0, 0))
        scaler = NumericEncoder.fit([values])
        return cls(
            linear,
            tuple(name for name in _CYCLIC if name in varying),
            scaler,
            bool(known.any() and not known.all()),
        )

    @property
    def width(self) -> int:
        """Columns that `encode` fills."""
        return len(self.linear) + 2 * len(self.cyclic) + self.gappy

    def names(self, name: str) -> list[str]:
        """Names of the filled columns."""
        names = [f"{name}__{part}" for part in self.linear]
        names += [f"{name}__{part}_{wave}" for part in self.cyclic for wave in ("sin", "cos")]
        return [*names, f"{name}__missing"] if self.gappy else names

    def encode(self, column: pd.Series, out: npt.NDArray[np.float32]) -> None:
        """Write a column of shape (rows,) into `out` of shape (rows, width)."""
        moments = as_seconds(column)
        gap = np.isnat(moments)
        parts = _calendar(np.where(gap, np.datetime64(0, "s"), moments))
        width = len(self.linear)
        if width:
            self.scaler.encode(np.stack([parts[name] for name in self.linear], axis=1), out[:, :width])
        for position, name in enumerate(self.cyclic):
            angle = 2.0 * np.pi * parts[name]
            out[:, width + 2 * position] = np.sin(angle)
            out[:, width + 2 * position + 1] = np.cos(angle)
        out[gap] = 0.0
        if self.gappy:
            out[:, -1] = gap

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form; floats keep every bit."""
        return {
            "linear": list(self.linear),
            "cyclic": list(self.cyclic),
            "scaler": self.scaler.to_dict(),
            "gappy": self.gappy,
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> DateEncoder:
        """Inverse of `to_dict`."""
        scaler = NumericEncoder.from_dict(state["scaler"])
        return cls(tuple(state["linear"]), tuple(state["cyclic"]), scaler, state["gappy"])


def _calendar(moments: npt.NDArray[np.datetime64]) -> dict[str, npt.NDArray[np.float64]]:
    """Year, days since 1970, and turns of the year, the week and the day, each of shape (rows,)."""
    seconds = moments.astype(np.int64)
    days = np.floor_divide(seconds, _DAY)
    months = moments.astype("datetime64[M]").astype(np.int64)
    return {
        "year": np.floor_divide(months, 12).astype(np.float64) + 1970.0,
        "elapsed_days": seconds / _DAY,
        "month": np.mod(months, 12) / 12.0,
        "weekday": np.mod(days + 3, 7) / 7.0,  # 1 January 1970 was a Thursday; Monday is 0
        "hour": np.mod(seconds, _DAY) / _DAY,
    }
