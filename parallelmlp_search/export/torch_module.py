"""A trained model as a module of torch, from numbers, categories and dates to predictions."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from parallelmlp_search.export.columns import CATEGORY, DATE, NUMBER
from parallelmlp_search.export.parts import ModelParts
from parallelmlp_search.export.torch_encoding import SECTIONS, as_tensor
from parallelmlp_search.inference.forward import LAYER_NORM_EPSILON
from parallelmlp_search.inference.outputs import MIN_PROBABILITY
from parallelmlp_search.packing import MAX_LOG
from parallelmlp_search.packing.modules import ACTIVATION_MODULES

METADATA = "metadata.json"
"""Name of the description inside of the file."""

_EXAMPLE_ROWS = 3


class ExportedModule(nn.Module):
    """Trained model: encoding of columns, networks of all folds, ensemble and postprocessing.

    Parameters
    ----------
    parts
        Parts of the model.
    """

    target_unit: Tensor
    target_center: Tensor

    def __init__(self, parts: ModelParts) -> None:
        super().__init__()
        description = parts.description
        self.inputs = module_inputs(parts)
        self.groups = nn.ModuleList(
            _Group(parts, number, self.inputs) for number in range(len(description["groups"]))
        )
        self._temperature: float = description["temperature"]
        self._task: str = description["task"]
        self._has_scaling = description["target_unit"] is not None
        if self._has_scaling:
            for name in ("target_unit", "target_center"):
                self.register_buffer(name, torch.tensor(description[name], dtype=torch.float64))

    def forward(self, numbers: Tensor, categories: Tensor, dates: Tensor) -> Tensor:
        """Return probabilities ``(n, classes or labels)`` or values ``(n, outputs)`` in double precision.

        Parameters
        ----------
        numbers
            Numbers ``(n, d)`` in double precision; NaN where they are missing.
        categories
            Codes of categories ``(n, c)``, int64; 0 for missing values and unseen categories.
        dates
            Seconds since 1970 ``(n, t)``, int64; the least integer for a missing date.

        Returns
        -------
        Tensor
        """
        total = sum(group(numbers, categories, dates) for group in self.groups)
        assert isinstance(total, Tensor)
        if self._task == "regression":
            return self.target_center + self.target_unit * total if self._has_scaling else total
        if self._task == "multilabel":
            if self._temperature == 1.0:
                return total
            present, absent = (part.clamp_min(MIN_PROBABILITY).log() for part in (total, 1.0 - total))
            return ((present - absent) / self._temperature).sigmoid()
        total = total / total.sum(dim=1, keepdim=True)
        if self._temperature == 1.0:
            return total
        return torch.softmax(total.clamp_min(MIN_PROBABILITY).log() / self._temperature, dim=1)


def module_inputs(parts: ModelParts) -> dict[str, Any]:
    """Return the columns of each input of the module.

    Parameters
    ----------
    parts
        Parts of the model.

    Returns
    -------
    dict
        ``numbers`` and ``dates``: names of columns; ``categories``: the codes of each column.
    """
    columns = parts.description["columns"]
    codes: dict[str, dict[str, int]] = {one["name"]: {} for one in columns if one["kind"] == CATEGORY}
    for group in parts.description["groups"]:
        for section in group["sections"]:
            if section["kind"] == "categories":
                mine = codes[section["column"]]
                for key in section["rows"]:
                    mine.setdefault(key, len(mine) + 1)
    return {
        "numbers": [one["name"] for one in columns if one["kind"] == NUMBER],
        "categories": codes,
        "dates": [one["name"] for one in columns if one["kind"] == DATE],
    }


def program_bytes(parts: ModelParts) -> bytes:
    """Return a file with a model as a program of ``torch.export``, and its description."""
    module = ExportedModule(parts).eval()
    inputs = module.inputs
    example = (
        torch.zeros(_EXAMPLE_ROWS, len(inputs["numbers"]), dtype=torch.float64),
        torch.zeros(_EXAMPLE_ROWS, len(inputs["categories"]), dtype=torch.int64),
        torch.zeros(_EXAMPLE_ROWS, len(inputs["dates"]), dtype=torch.int64),
    )
    rows = {0: torch.export.Dim("n")}
    program = torch.export.export(module, example, dynamic_shapes=(rows, rows, rows), strict=False)
    hidden = ("groups", "format", "matrix_width")
    facts = {name: value for name, value in parts.description.items() if name not in hidden}
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={METADATA: json.dumps(facts | {"inputs": inputs})})
    return buffer.getvalue()


class _Group(nn.Module):
    """Folds that use the same columns: mean predictions times the share of the group."""

    location: Tensor
    scale: Tensor
    lower: Tensor
    upper: Tensor

    def __init__(self, parts: ModelParts, number: int, inputs: Mapping[str, Any]) -> None:
        super().__init__()
        group = parts.description["groups"][number]
        name = f"group{number}"
        self.sections = nn.ModuleList(
            SECTIONS[section["kind"]](group, section, parts.of(f"{name}.section{place}"), inputs)
            for place, section in enumerate(group["sections"])
        )
        self.members = nn.ModuleList(
            _Member(parts, f"{name}.member{place}", member) for place, member in enumerate(group["members"])
        )
        self._places = [(section["start"], section["stop"]) for section in group["sections"]]
        self._n_encoders: int = group["n_encoders"]
        self._weights = [group["share"] * member["weight"] for member in group["members"]]
        self._task: str = parts.description["task"]
        self._has_log_link = parts.description["link"] == "log"
        for key, array in parts.of(name).items():
            if key in ("location", "scale", "lower", "upper"):
                self.register_buffer(key, as_tensor(array)[:, None])

    def forward(self, numbers: Tensor, categories: Tensor, dates: Tensor) -> Tensor:
        found, end = [], 0
        n_rows = numbers.shape[0]
        for section, (start, stop) in zip(self.sections, self._places, strict=True):
            if start > end:  # columns that no network sees
                found.append(numbers.new_zeros((n_rows, self._n_encoders, start - end), dtype=torch.float32))
            found.append(section(numbers, categories, dates))
            end = stop
        rows = torch.cat(found, dim=2).transpose(0, 1)
        total: Tensor | None = None
        for member, weight in zip(self.members, self._weights, strict=True):
            mean = weight * self._mean(member, member(rows).double())
            total = mean if total is None else total + mean
        assert total is not None
        return total

    def _mean(self, member: nn.Module, outputs: Tensor) -> Tensor:
        """Mean predictions ``(n, C)`` of outputs ``(F, K, n, C)``."""
        if self._task == "regression":
            outputs = outputs.mean(dim=1)
            if isinstance(member.curve, _Curve):
                decoded: Tensor = member.curve(outputs)
                return decoded.mean(dim=0)
            if self._has_log_link:
                outputs = outputs.clamp(-MAX_LOG, MAX_LOG).exp()
            values = outputs * self.scale + self.location
            return torch.minimum(torch.maximum(values, self.lower), self.upper).mean(dim=0)
        if self._task == "multilabel":
            return outputs.mean(dim=1).sigmoid().mean(dim=0)
        if self._task == "binary":
            return torch.cat([-outputs, outputs], dim=3).sigmoid().mean(dim=(0, 1))
        return outputs.softmax(dim=3).mean(dim=(0, 1))


class _Member(nn.Module):
    """Networks of one configuration, with outputs ``(F, K, n, C)``."""

    columns: Tensor
    frequency: Tensor
    phase: Tensor
    mixing: Tensor
    offset: Tensor

    def __init__(self, parts: ModelParts, name: str, member: Mapping[str, Any]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            _Layer(layer, parts.of(f"{name}.layer{place}")) for place, layer in enumerate(member["layers"])
        )
        waves = parts.of(f"{name}.waves")
        self._has_waves = bool(waves)
        curve = parts.of(f"{name}.curve")
        self.curve = _Curve(curve) if curve else None
        places = np.concatenate([np.arange(first, end) for first, end in member["columns"]])
        self.register_buffer("columns", torch.tensor(places))
        for key, array in waves.items():
            self.register_parameter(key, nn.Parameter(as_tensor(array)))

    def forward(self, rows: Tensor) -> Tensor:
        values = rows.index_select(2, self.columns)
        if self._has_waves:
            n_folds, n_numbers = self.frequency.shape[:2]
            numbers = values[:, :, :n_numbers].transpose(1, 2)[..., None]
            mixed = (numbers * self.frequency + self.phase).cos() @ self.mixing + self.offset
            mixed = mixed.transpose(1, 2).flatten(2)
            values = torch.cat([values.expand(n_folds, -1, -1), mixed], dim=2)
        values = values[:, None]
        for layer in self.layers:
            values = layer(values)
        return values


class _Curve(nn.Module):
    """Map from outputs ``(F, n, C)`` to a target that was transformed, linear between knots."""

    start: Tensor
    step: Tensor
    values: Tensor
    offset: Tensor

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        super().__init__()
        n_folds, n_outputs, self._n_knots = arrays["values"].shape
        for name in ("start", "step"):
            self.register_buffer(name, as_tensor(arrays[name])[:, None])
        self.register_buffer("values", as_tensor(arrays["values"]).flatten())
        offset = self._n_knots * torch.arange(n_folds * n_outputs)
        self.register_buffer("offset", offset.view(n_folds, 1, n_outputs))

    def forward(self, outputs: Tensor) -> Tensor:
        place = ((outputs - self.start) / self.step).clamp(0, self._n_knots - 1)
        whole = place.floor().clamp(max=self._n_knots - 2)
        knot = whole.long() + self.offset
        low = self.values[knot]
        return low + (place - whole) * (self.values[knot + 1] - low)


class _Layer(nn.Module):
    """Layer of `inference.networks.PlainLayer`."""

    weight: Tensor
    bias: Tensor
    input_factor: Tensor
    output_factor: Tensor
    gain: Tensor
    shift: Tensor
    projection: Tensor

    def __init__(self, layer: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
        super().__init__()
        for name, array in arrays.items():
            self.register_parameter(name, nn.Parameter(as_tensor(array)))
        self.activation = ACTIVATION_MODULES[layer["activation"]]()
        self._residual: bool = layer["residual"]
        self._has = frozenset(arrays)

    def forward(self, inputs: Tensor) -> Tensor:
        values: Tensor = inputs * self.input_factor if "input_factor" in self._has else inputs
        values = values @ self.weight
        if "output_factor" in self._has:
            values = values * self.output_factor
        if "bias" in self._has:
            values = values + self.bias
        if "gain" in self._has:
            values = nn.functional.layer_norm(values, values.shape[-1:], eps=LAYER_NORM_EPSILON)
            values = values * self.gain + self.shift
        values = self.activation(values)
        if self._residual:
            values = values + (inputs @ self.projection if "projection" in self._has else inputs)
        return values
