"""Encoder of a date column: year, elapsed days, and position in the year, the week and the day."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from parallelmlp_search._checks import check_boolean, check_choice, refuse
from parallelmlp_search.data.coercion import as_seconds
from parallelmlp_search.data.numeric import NumericEncoder

DAY = 86_400  # seconds
LINEAR = ("year", "elapsed_days")
CYCLIC = ("month", "weekday", "hour")


@dataclass(frozen=True, eq=False)
class DateEncoder:
    """Encoder of those parts of a date in UTC that vary in the training rows.

    Year and elapsed days are scaled like numbers; month, weekday and hour become a sine and a cosine. A
    missing date is 0 in every part. If training dates were missing, an indicator column marks them.
    """

    linear: tuple[str, ...]
    cyclic: tuple[str, ...]
    scaler: NumericEncoder  # of the linear parts
    has_missing: bool

    @classmethod
    def fit(cls, column: pd.Series) -> DateEncoder:
        """Learn the parts that vary, and their scales."""
        times = as_seconds(column)
        known = ~np.isnat(times)
        parts = _calendar(times[known])
        varying = [name for name, part in parts.items() if len(part) and part.min() != part.max()]
        linear = tuple(name for name in LINEAR if name in varying)
        values = np.stack([parts[name] for name in linear], axis=1) if linear else np.zeros((0, 0))
        scaler = NumericEncoder.fit([values])
        cyclic = tuple(name for name in CYCLIC if name in varying)
        return cls(linear, cyclic, scaler, bool(known.any() and not known.all()))

    @property
    def width(self) -> int:
        """Number of columns that `encode` fills."""
        return len(self.linear) + 2 * len(self.cyclic) + self.has_missing

    def names(self, name: str) -> list[str]:
        """Names of the filled columns."""
        names = [f"{name}__{part}" for part in self.linear]
        names += [f"{name}__{part}_{wave}" for part in self.cyclic for wave in ("sin", "cos")]
        return [*names, f"{name}__missing"] if self.has_missing else names

    def encode(self, column: pd.Series, out: npt.NDArray[np.float32]) -> None:
        """Encode a column of shape (rows,) into `out` of shape (rows, width)."""
        self.encode_times(as_seconds(column), out)

    def encode_times(self, times: npt.NDArray[np.datetime64], out: npt.NDArray[np.float32]) -> None:
        """Encode times of shape (rows,), as `as_seconds` returns them, into `out`."""
        missing = np.isnat(times)
        parts = _calendar(np.where(missing, np.datetime64(0, "s"), times))
        width = len(self.linear)
        if width:
            self.scaler.encode(np.stack([parts[name] for name in self.linear], axis=1), out[:, :width])
        for position, name in enumerate(self.cyclic):
            angle = 2.0 * np.pi * parts[name]
            out[:, width + 2 * position] = np.sin(angle)
            out[:, width + 2 * position + 1] = np.cos(angle)
        out[missing] = 0.0
        if self.has_missing:
            out[:, -1] = missing

    def to_dict(self) -> dict[str, Any]:
        """Return a form that JSON can hold; floats keep every bit."""
        return {
            "linear": list(self.linear),
            "cyclic": list(self.cyclic),
            "scaler": self.scaler.to_dict(),
            "has_missing": self.has_missing,
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> DateEncoder:
        """Inverse of `to_dict`. It also reads the key "gappy" of older versions."""
        scaler = NumericEncoder.from_dict(state["scaler"])
        has_missing = state["has_missing"] if "has_missing" in state else state["gappy"]
        linear = tuple(check_choice("linear", name, LINEAR) for name in state["linear"])
        cyclic = tuple(check_choice("cyclic", name, CYCLIC) for name in state["cyclic"])
        if scaler.n_columns != len(linear):
            refuse("scaler", f"that of {len(linear)} columns", scaler.n_columns)
        return cls(linear, cyclic, scaler, check_boolean("has_missing", has_missing))


def _calendar(times: npt.NDArray[np.datetime64]) -> dict[str, npt.NDArray[np.float64]]:
    """Year, days since 1970, and fractions of the year, the week and the day, each of shape (rows,)."""
    seconds = times.astype(np.int64)
    days = np.floor_divide(seconds, DAY)
    months = times.astype("datetime64[M]").astype(np.int64)
    return {
        "year": np.floor_divide(months, 12).astype(np.float64) + 1970.0,
        "elapsed_days": seconds / DAY,
        "month": np.mod(months, 12) / 12.0,
        "weekday": np.mod(days + 3, 7) / 7.0,  # 1 January 1970 was a Thursday; Monday is 0
        "hour": np.mod(seconds, DAY) / DAY,
    }
