"""Encoding of columns as modules of torch; the twin of `inference.encoding`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from parallelmlp_search.data.dates import DAY
from parallelmlp_search.data.numeric import MAX_SCALED, MAX_VALUE
from parallelmlp_search.export.columns import MISSING_DATE


def as_tensor(array: Any) -> Tensor:
    """Return a contiguous copy of an array."""
    return torch.tensor(np.ascontiguousarray(array))  # programs store all of the memory behind a view


class _Section(nn.Module):
    """Section of the encoding, which returns ``(n, E, width)`` in single precision."""

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        super().__init__()
        for name, array in arrays.items():
            self.register_buffer(name, as_tensor(array))


def _squashed(value: Tensor) -> Tensor:
    """Scaled numbers with the smooth limit of robust scaling."""
    return value / (1.0 + (value / 3.0).square()).sqrt()


class _Numbers(_Section):
    columns: Tensor
    indicated: Tensor
    low: Tensor
    high: Tensor
    center: Tensor
    scale: Tensor
    grid: Tensor
    start: Tensor
    level: Tensor
    tie: Tensor
    slope: Tensor
    margin: Tensor

    def __init__(
        self, group: Mapping[str, Any], section: Mapping[str, Any], arrays: Mapping[str, Any], inputs: Any
    ) -> None:
        super().__init__(arrays)
        places = [inputs["numbers"].index(name) for name in group["numbers"]]
        self.register_buffer("columns", torch.tensor(places))
        self.register_buffer("indicated", torch.tensor(section["indicated"], dtype=torch.int64))
        self._scaling: str = section["scaling"]

    def forward(self, numbers: Tensor, categories: Tensor, dates: Tensor) -> Tensor:
        numbers = numbers.index_select(1, self.columns)[:, None]
        missing = numbers.isnan()
        value = torch.where(numbers == np.inf, self.high, numbers)
        value = torch.where(numbers == -np.inf, self.low, value).clamp(-MAX_VALUE, MAX_VALUE)
        if self._scaling == "quantile":
            value = self._scores(value)
        else:
            value = ((value - self.center) * self.scale).clamp(-MAX_SCALED, MAX_SCALED)
            if self._scaling == "robust":
                value = _squashed(value)
        scaled = torch.where(missing, 0.0, value)
        indicators = missing.index_select(2, self.indicated).expand(-1, self.high.shape[0], -1)
        return torch.cat([scaled, indicators.double()], dim=2).float()

    def _scores(self, value: Tensor) -> Tensor:
        """Normal scores of values ``(n, E, d)``."""
        by_column = value.permute(1, 2, 0).contiguous()
        place = torch.searchsorted(self.grid, by_column, right=True)
        place = place.clamp_max(self.grid.shape[2])  # NaN is sorted to the end
        start, level, tie, slope = (
            table.gather(2, place) for table in (self.start, self.level, self.tie, self.slope)
        )
        level = torch.where(by_column == start, tie, level + (by_column - start) * slope)
        margin = self.margin[..., None]
        level = torch.minimum(torch.maximum(level, margin), 1.0 - margin)
        scores: Tensor = torch.special.ndtri(level)
        return scores.permute(2, 0, 1)


class _Pieces(_Section):
    left: Tensor
    size: Tensor
    number: Tensor

    def __init__(
        self, group: Mapping[str, Any], section: Mapping[str, Any], arrays: Mapping[str, Any], inputs: Any
    ) -> None:
        places = np.array([inputs["numbers"].index(name) for name in group["numbers"]])
        super().__init__({"left": arrays["left"], "size": arrays["size"], "number": places[arrays["number"]]})

    def forward(self, numbers: Tensor, categories: Tensor, dates: Tensor) -> Tensor:
        known = torch.where(numbers.isnan(), -np.inf, numbers)
        return ((known[:, self.number] - self.left) / self.size).clamp(0.0, 1.0).float()


class _Categories(_Section):
    table: Tensor

    def __init__(
        self, group: Mapping[str, Any], section: Mapping[str, Any], arrays: Mapping[str, Any], inputs: Any
    ) -> None:
        codes = inputs["categories"][section["column"]]
        rows = np.array([0, *(section["rows"].get(key, 0) for key in codes)])
        tables = [arrays["indicators"][arrays["pattern"][rows]]] if "pattern" in arrays else []
        if "numbers" in arrays:
            tables.append(arrays["numbers"][rows])
        super().__init__({"table": np.concatenate(tables, axis=2)})
        self._column = list(inputs["categories"]).index(section["column"])

    def forward(self, numbers: Tensor, categories: Tensor, dates: Tensor) -> Tensor:
        return self.table[categories[:, self._column]]


class _Dates(_Section):
    center: Tensor
    scale: Tensor
    place: Tensor

    def __init__(
        self, group: Mapping[str, Any], section: Mapping[str, Any], arrays: Mapping[str, Any], inputs: Any
    ) -> None:
        super().__init__(arrays)
        self._column = inputs["dates"].index(section["column"])

    def forward(self, numbers: Tensor, categories: Tensor, dates: Tensor) -> Tensor:
        date = dates[:, self._column]
        missing = (date == MISSING_DATE)[:, None]
        seconds = torch.where(missing[:, 0], 0, date)
        day = torch.div(seconds, DAY, rounding_mode="floor")
        year, month = _civil(day)
        linear = torch.stack([year.double(), seconds / DAY], dim=1)[:, None]
        linear = ((linear.double() - self.center) * self.scale).clamp(-MAX_SCALED, MAX_SCALED)
        parts = [_squashed(linear).flatten(1)]
        for value, length in ((month, 12), (day + 3, 7), (seconds, DAY)):
            angle = 2.0 * np.pi * (torch.remainder(value, length).double() / length)
            parts.append(torch.stack([angle.sin(), angle.cos()], dim=1))
        found = torch.where(missing, 0.0, torch.cat(parts, dim=1))
        return torch.cat([found, missing.double()], dim=1)[:, self.place].float()


def _civil(day: Tensor) -> tuple[Tensor, Tensor]:
    """Year and month, January is 0, of days since 1970; see `onnx_encoding`."""
    shifted = day + 719_468
    era = torch.div(shifted, 146_097, rounding_mode="floor")
    of_era = shifted - era * 146_097

    def quotient(value: Tensor, divisor: int) -> Tensor:
        return torch.div(value, divisor, rounding_mode="floor")

    leap = quotient(of_era, 1_460) - quotient(of_era, 36_524) + quotient(of_era, 146_096)
    year = quotient(of_era - leap, 365)
    of_year = of_era - (365 * year + quotient(year, 4) - quotient(year, 100))
    month = quotient(5 * of_year + 2, 153)  # March is 0
    return year + era * 400 + (month >= 10), torch.remainder(month + 2, 12)


SECTIONS: dict[str, Any] = {
    "numbers": _Numbers,
    "pieces": _Pieces,
    "categories": _Categories,
    "dates": _Dates,
}
"""Sections by kind."""
