"""A trained model as named arrays and a description that JSON can hold.

All formats of export are made of these parts. Names of arrays begin with that of their owner, for example
``group0.section1.left`` and ``group0.member2.layer0.weight``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parallelmlp_search.data.categorical import other_spellings
from parallelmlp_search.data.dates import CYCLIC, LINEAR, DateEncoder
from parallelmlp_search.data.numeric import MAX_VALUE, NumericEncoder
from parallelmlp_search.data.target_curve import TargetCurve
from parallelmlp_search.export.columns import input_columns, matrix_width
from parallelmlp_search.inference import PlainNetworks, TrainedModel
from parallelmlp_search.inference.encoding import (
    CategorySection,
    DateSection,
    MeanSection,
    NumberSection,
    PieceSection,
    Section,
)
from parallelmlp_search.inference.ensemble import FoldGroup
from parallelmlp_search.inference.raw_columns import ColumnReader

FORMAT = 1
"""Format of the description."""

_FIRST_START = -2.0 * MAX_VALUE
"""Start of the values below all quantiles; values are clipped to `MAX_VALUE`."""

_MAX_SLOPE = 1e300


@dataclass(frozen=True, eq=False)
class ModelParts:
    """Parts of a trained model.

    Attributes
    ----------
    description
        Everything but the arrays: columns, classes, sections of the encoding, and layers.
    arrays
        Arrays by name.
    """

    description: dict[str, Any]
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)

    def of(self, prefix: str) -> dict[str, NDArray[Any]]:
        """Return the arrays whose names begin with a prefix and a dot, without these."""
        start = f"{prefix}."
        return {name[len(start) :]: part for name, part in self.arrays.items() if name.startswith(start)}


def model_parts(model: TrainedModel, facts: Mapping[str, Any]) -> ModelParts:
    """Take a model apart.

    Parameters
    ----------
    model
        Model whose :func:`~parallelmlp_search.export.columns.input_columns` can be given.
    facts
        Further entries of the description, such as metric and honest score.

    Returns
    -------
    ModelParts
    """
    parts = ModelParts({})
    columns, groups = input_columns(model), model.ensemble.groups
    scaling = model.target_scaling
    parts.description.update(
        format=FORMAT,
        **facts,
        columns=columns,
        matrix_width=matrix_width(model, columns),
        task=model.task,
        link=model.folds[0].head.link,
        target=model.target_name,
        outputs=model.output_columns("prediction"),
        classes=None if model.classes is None else model.classes.tolist(),
        decision_weights=model.decision_weights and np.array(model.decision_weights).tolist(),
        temperature=model.temperature,
        flat_target=model.flat_target,
        target_center=None if scaling is None else list(scaling.center),
        target_unit=None if scaling is None else list(scaling.unit),
        groups=[
            _add_group(parts, f"group{number}", group, share)
            for number, (group, share) in enumerate(zip(groups, model.ensemble.shares, strict=True))
        ],
    )
    return parts


def _add_group(parts: ModelParts, prefix: str, group: FoldGroup, share: float) -> dict[str, Any]:
    """Description of a group of folds, whose arrays are added."""
    encoder = group.encoder
    sections = []
    for number, (section, place) in enumerate(encoder.sections):
        name = f"{prefix}.section{number}"
        values, arrays = _section(section, encoder.reader)
        sections.append({"start": place.start, "stop": place.stop, **values})
        parts.arrays.update({f"{name}.{key}": array for key, array in arrays.items()})
    if group.heads[0].task == "regression":
        for name in ("location", "scale", "lower", "upper"):
            rows = [getattr(head, name) for head in group.heads]
            parts.arrays[f"{prefix}.{name}"] = np.array(rows, dtype=np.float64)
    return {
        "share": share,
        "n_folds": len(group.heads),
        "n_encoders": encoder.n_folds,
        "width": encoder.width,
        "numbers": encoder.reader.numeric,
        "sections": sections,
        "members": [
            _add_member(parts, f"{prefix}.member{number}", *member)
            for number, member in enumerate(zip(group.networks, group.weights, group.curves, strict=True))
        ],
    }


def _add_member(
    parts: ModelParts,
    prefix: str,
    networks: PlainNetworks,
    weight: float,
    curves: Sequence[TargetCurve] | None,
) -> dict[str, Any]:
    """Description of the networks of a configuration, whose arrays are added."""
    if curves is not None:
        for key in ("start", "step", "values"):
            parts.arrays[f"{prefix}.curve.{key}"] = np.stack([getattr(curve, key) for curve in curves])
    if networks.waves is not None:
        parts.arrays.update({f"{prefix}.waves.{key}": array for key, array in vars(networks.waves).items()})
    for number, layer in enumerate(networks.layers):
        for key, array in vars(layer).items():
            if isinstance(array, np.ndarray):
                parts.arrays[f"{prefix}.layer{number}.{key}"] = array
    return {
        "weight": weight,
        "columns": [list(pair) for pair in networks.columns],
        "layers": [{"activation": layer.activation, "residual": layer.residual} for layer in networks.layers],
    }


def _section(section: Section, reader: ColumnReader) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Description and arrays of a section of the encoding."""
    if isinstance(section, NumberSection):
        encoders = [encoder for _, encoder in section.parts]
        sizes = [folds.stop - folds.start for folds, _ in section.parts]
        return _numbers(encoders, sizes, section.indicated)
    if isinstance(section, PieceSection):
        d = section.repeats.shape[1]
        number = [np.repeat(np.arange(d), repeats) for repeats in section.repeats]
        arrays = {"number": np.stack(number).astype(np.int64), "left": section.left, "size": section.size}
        return {"kind": "pieces"}, arrays
    if isinstance(section, DateSection):
        return _dates(section.encoders, reader.dates[section.number])
    if isinstance(section, MeanSection):
        return _category_rows(section.categories, reader), {"numbers": section.numbers}
    assert isinstance(section, CategorySection)
    tables: dict[str, NDArray[Any]] = {}
    if section.indicators.shape[2]:
        tables = {"pattern": section.pattern.astype(np.int64), "indicators": section.indicators}
    if section.numbers.shape[2]:
        tables["numbers"] = section.numbers
    return _category_rows(section, reader), tables


def _category_rows(section: CategorySection, reader: ColumnReader) -> dict[str, Any]:
    """Description of a section whose tables have a row for each category, in all of its spellings."""
    rows = dict(section.row)
    rows |= {spelling: section.row[key] for spelling, key in other_spellings(section.row).items()}
    return {"kind": "categories", "column": reader.categories[section.number], "rows": rows}


def _numbers(
    encoders: Sequence[NumericEncoder], sizes: Sequence[int], indicated: NDArray[np.intp]
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Scaled numbers: arrays ``(E, d)``, and for normal scores tables of quantiles."""
    names = ("low", "high") if encoders[0].scaling == "quantile" else ("low", "high", "center", "scale")
    arrays = {
        name: np.concatenate(
            [getattr(one, name).reshape(size, -1) for one, size in zip(encoders, sizes, strict=True)]
        )
        for name in names
    }
    if encoders[0].scaling == "quantile":
        n_quantiles = max(len(one.grid) for one in encoders)
        found = [_quantiles(one, size, n_quantiles) for one, size in zip(encoders, sizes, strict=True)]
        arrays |= {name: np.concatenate([one[name] for one in found]) for name in found[0]}
    return {"kind": "numbers", "scaling": encoders[0].scaling, "indicated": indicated.tolist()}, arrays


def _quantiles(encoder: NumericEncoder, n_folds: int, n_quantiles: int) -> dict[str, NDArray[Any]]:
    """Tables by the number ``u`` of quantiles that are at most the value.

    The level of ``x`` is ``tie[u]`` if ``x == start[u]``, else ``level[u] + (x - start[u]) slope[u]``. The
    tables are ``(E, d, q + 1)``; ``grid`` is ``(E, d, q)``, filled up with infinity; ``margin``, the least
    level, is ``(E, 1)``.
    """
    grid = encoder.grid.T  # (columns, own quantiles)
    n_columns, n_own = grid.shape
    levels = np.linspace(0.0, 1.0, n_own)
    steps = np.diff(grid, axis=1)
    slope = np.divide(np.diff(levels), steps, out=np.zeros_like(steps), where=steps > 0)
    is_first = np.diff(grid, axis=1, prepend=np.nan) != 0
    first = np.maximum.accumulate(np.where(is_first, np.arange(n_own), 0), axis=1)
    tables = {
        "start": np.full((n_columns, n_quantiles + 1), _FIRST_START),
        "level": np.ones((n_columns, n_quantiles + 1)),
        "tie": np.ones((n_columns, n_quantiles + 1)),
        "slope": np.zeros((n_columns, n_quantiles + 1)),
    }
    own = slice(1, n_own + 1)
    tables["start"][:, own] = grid
    tables["level"][:, own] = levels
    tables["tie"][:, own] = 0.5 * (levels[first] + levels)
    tables["slope"][:, 1:n_own] = np.minimum(slope, _MAX_SLOPE)
    tables["level"][:, 0] = 0.0
    constant = encoder.scale == 0
    for name, value in (("level", 0.5), ("tie", 0.5), ("slope", 0.0)):
        tables[name][constant] = value
    padded = np.full((n_columns, n_quantiles), np.inf)
    padded[:, :n_own] = grid
    tables["grid"] = padded
    split = {name: table.reshape(n_folds, -1, table.shape[1]) for name, table in tables.items()}
    return split | {"margin": np.full((n_folds, 1), 0.5 / n_own)}


def _dates(encoders: Sequence[DateEncoder], column: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Parts of dates, as places in a row of candidates.

    The candidates are the scaled year and elapsed days of each encoder, sine and cosine of month, weekday and
    hour, and the indicator of a missing date.
    """
    width = max(encoder.width for encoder in encoders)
    n_linear = 2 * len(encoders)
    last = n_linear + 2 * len(CYCLIC)
    center, scale = np.zeros((len(encoders), 2)), np.zeros((len(encoders), 2))
    place = np.full((len(encoders), width), last, dtype=np.int64)
    for number, encoder in enumerate(encoders):
        mine = [LINEAR.index(name) for name in encoder.linear]
        center[number, mine], scale[number, mine] = encoder.scaler.center, encoder.scaler.scale
        found = [2 * number + part for part in mine]
        for name in encoder.cyclic:
            start = n_linear + 2 * CYCLIC.index(name)
            found += [start, start + 1]
        place[number, : len(found)] = found
    return {"kind": "dates", "column": column}, {"center": center, "scale": scale, "place": place}
