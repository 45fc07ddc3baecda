"""Slices of a table in which the model is worse than elsewhere.

A slice is an interval or a category of one column, or a pair of these. Slices are searched on one half of the
rows and measured on the other half, because the worst of many slices looks worse than it is. Columns are cut
into intervals as in SliceLine (Sagadeeva and Boehm, 2021).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parallelmlp_search.explain.columns import MISSING, ColumnValues, position_text
from parallelmlp_search.explain.explanation import TABLES, empty_table
from parallelmlp_search.explain.scoring import Scorer, p_value, unit_of
from parallelmlp_search.explain.tables import ExplainedTable

Doubles = NDArray[np.float64]
Numbers = NDArray[np.intp]

N_INTERVALS = 8
MAX_CATEGORIES = 12
OTHERS = "any other"
MIN_ROWS, MIN_SHARE = 20, 0.01
"""Least rows, and share of the rows, of a slice in each half."""

MAX_PAIRED = 20
"""Columns that are paired: those with the worst slices of their own."""

MIN_Z = 2.0
"""Least difference of a slice on the first half, in standard errors."""

N_CANDIDATES = 30
"""Slices that are measured on the other half."""

N_SLICES = 15
"""Slices that are kept."""

MAX_OVERLAP = 0.7
"""Share of common rows from which two slices count as the same."""

MAX_P_VALUE = 0.05
"""Largest p-value of a slice that is kept, corrected for the number of candidates (Holm)."""


@dataclass(frozen=True, eq=False)
class Cut:
    """Column cut into intervals or categories.

    Attributes
    ----------
    codes
        Number of the level of each row ``(m,)``.
    texts
        Description of each level.
    """

    codes: Numbers
    texts: list[str]


@dataclass(frozen=True, eq=False)
class Candidate:
    """Slice: its description, its rows as a mask ``(m,)``, and its z-value on the first half."""

    text: str
    mask: NDArray[np.bool_]
    z: float


def worst_slices(
    table: ExplainedTable,
    scorer: Scorer,
    rows: Numbers,
    predictions: Doubles,
    losses: Doubles,
    generator: np.random.Generator,
) -> pd.DataFrame:
    """Return the slices with a larger loss than the other rows.

    Parameters
    ----------
    table, scorer
        Rows to explain, and their scores.
    rows, predictions, losses
        Numbers of rows ``(m,)`` with their predictions ``(C, m)`` and losses ``(m,)``.
    generator
        Divides the rows into halves; rows of a group are in one half.

    Returns
    -------
    DataFrame
        One row per slice, that with the largest loss first: ``slice``, ``n_rows`` and ``share`` of the rows,
        ``loss`` in the slice and ``other_loss`` in the other rows, their ``difference`` with
        ``standard_error`` and ``p_value`` (one-sided, corrected for the number of slices), and ``score`` in
        the slice. All but the number of rows are measured on rows that did not select the slice.
    """
    units = scorer.units[rows]
    _, unit = np.unique(units, return_inverse=True)
    second = (generator.permutation(int(unit.max()) + 1)[unit] % 2).astype(bool)
    cuts = {name: cut_column(table.values[name], rows) for name in table.names}
    candidates = _distinct(_candidates(cuts, losses, ~second), ~second)
    found = []
    for one in candidates:
        mask = one.mask & second
        if mask.sum() < MIN_ROWS // 2:
            continue
        difference, error, freedom = _difference(losses, mask, second & ~one.mask)
        found.append(
            (
                one.text,
                int(one.mask.sum()),
                float(one.mask.mean()),
                float(losses[mask].mean()),
                float(losses[second & ~one.mask].mean()),
                difference,
                error,
                p_value(difference, error, freedom),
                scorer.score(predictions[:, mask], rows[mask]),
            )
        )
    if not found:
        return empty_table("slices")
    result = pd.DataFrame(found, columns=list(TABLES["slices"]))
    result["p_value"] = _holm(result["p_value"].to_numpy(dtype=np.float64))
    kept = result[result["p_value"] <= MAX_P_VALUE].sort_values("loss", ascending=False, kind="stable")
    return kept.head(N_SLICES).reset_index(drop=True)


def cut_column(values: ColumnValues, rows: Numbers) -> Cut:
    """Return the intervals or categories of a column.

    Parameters
    ----------
    values, rows
        Values of the column, and the numbers of the rows ``(m,)``.

    Returns
    -------
    Cut
    """
    if values.is_ordered:
        return _intervals(values, values.positions[rows])
    if values.scale == "categorical":
        codes, labels = values.codes[rows], values.labels
    else:
        codes, labels = np.where(values.missing[rows], -1, 0), []
    counts = np.bincount(codes[codes >= 0], minlength=max(1, len(labels)))
    frequent = np.argsort(-counts, kind="stable")[: MAX_CATEGORIES if labels else 0]
    place = np.full(len(counts) + 1, len(frequent), dtype=np.intp)  # all others
    place[frequent] = np.arange(len(frequent))
    place[-1] = len(frequent) + 1  # missing: code -1
    texts = [f"{values.name} = {labels[code]}" for code in frequent.tolist()]
    present = f"{values.name} = {OTHERS}" if labels else f"{values.name} present"
    return Cut(place[codes], [*texts, present, f"{values.name} {MISSING}"])


def _intervals(values: ColumnValues, positions: Doubles) -> Cut:
    present = positions[~np.isnan(positions)]
    if not len(present):
        return Cut(np.zeros(len(positions), dtype=np.intp), [f"{values.name} {MISSING}"])
    edges = np.unique(np.quantile(present, np.linspace(0, 1, N_INTERVALS + 1)[1:-1], method="lower"))
    # level k holds the values in (edge k - 1, edge k]
    codes = np.searchsorted(edges, positions, side="left")
    texts = []
    for level in range(len(edges) + 1):
        mine = present[np.searchsorted(edges, present, side="left") == level]
        if not len(mine):
            texts.append("")
            continue
        low, high = (position_text(float(end), values.scale) for end in (mine.min(), mine.max()))
        texts.append(f"{values.name} = {low}" if low == high else f"{values.name} {low} to {high}")
    codes[np.isnan(positions)] = len(texts)
    return Cut(codes, [*texts, f"{values.name} {MISSING}"])


def _candidates(cuts: dict[str, Cut], losses: Doubles, first: NDArray[np.bool_]) -> Iterator[Candidate]:
    """Slices of one and of two columns whose loss on the first half is significantly larger."""
    single = {name: _z_values(cut.codes, len(cut.texts), losses, first) for name, cut in cuts.items()}
    for name, z in single.items():
        for level in np.flatnonzero(z > MIN_Z).tolist():
            yield Candidate(cuts[name].texts[level], cuts[name].codes == level, float(z[level]))
    paired = sorted(cuts, key=lambda name: -single[name].max())[:MAX_PAIRED]
    for one, other in combinations([name for name in cuts if name in paired], 2):
        width = len(cuts[other].texts)
        codes = cuts[one].codes * width + cuts[other].codes
        z = _z_values(codes, len(cuts[one].texts) * width, losses, first)
        parts = np.maximum(single[one][:, None], single[other]).ravel()
        for code in np.flatnonzero(z > 1.0 + np.maximum(parts, MIN_Z)).tolist():  # worse than both parts
            text = f"{cuts[one].texts[code // width]}, {cuts[other].texts[code % width]}"
            yield Candidate(text, codes == code, float(z[code]))


def _z_values(codes: Numbers, n_levels: int, losses: Doubles, first: NDArray[np.bool_]) -> Doubles:
    """Difference between the loss of each level and of all other rows, in standard errors (Welch)."""
    codes, losses = codes[first], losses[first] / unit_of(losses[first])
    count = np.bincount(codes, minlength=n_levels).astype(np.float64)
    total = np.bincount(codes, losses, minlength=n_levels)
    square = np.bincount(codes, losses**2, minlength=n_levels)
    least = max(MIN_ROWS, MIN_SHARE * len(losses))
    usable = (count >= least) & (len(losses) - count >= least)
    mine, others = np.where(usable, count, 1.0), np.where(usable, len(losses) - count, 1.0)
    mean, other_mean = total / mine, (losses.sum() - total) / others
    variance = np.maximum(square / mine - mean**2, 0.0) / mine
    variance += np.maximum(((losses**2).sum() - square) / others - other_mean**2, 0.0) / others
    z = (mean - other_mean) / np.sqrt(np.where(variance > 0, variance, 1.0))
    found: Doubles = np.where(usable & (variance > 0), z, 0.0)
    return found


def _distinct(candidates: Iterator[Candidate], first: NDArray[np.bool_]) -> list[Candidate]:
    """Candidates with the largest z-values that do not overlap much."""
    kept: list[Candidate] = []
    for one in sorted(candidates, key=lambda candidate: -candidate.z):
        mine = one.mask & first
        if all(_overlap(mine, other.mask & first) < MAX_OVERLAP for other in kept):
            kept.append(one)
        if len(kept) == N_CANDIDATES:
            break
    return kept


def _overlap(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float((one & other).sum() / max(1, (one | other).sum()))


def _difference(
    losses: Doubles, mask: NDArray[np.bool_], others: NDArray[np.bool_]
) -> tuple[float, float, float]:
    """Difference of mean losses, its standard error, and the degrees of freedom (Welch)."""
    unit = unit_of(losses)
    parts = [losses[mask] / unit, losses[others] / unit]
    difference = unit * float(parts[0].mean() - parts[1].mean())
    variances = [float(part.var(ddof=1)) / len(part) for part in parts]
    total = sum(variances)
    if total == 0:
        return difference, 0.0, 1.0
    freedom = total**2 / sum(v**2 / (len(part) - 1) for v, part in zip(variances, parts, strict=True))
    return difference, unit * float(np.sqrt(total)), float(freedom)


def _holm(values: Sequence[float] | Doubles) -> Doubles:
    """P-values corrected for their number (Holm, 1979)."""
    found = np.asarray(values, dtype=np.float64)
    order = np.argsort(found, kind="stable")
    steps = np.maximum.accumulate(found[order] * (len(found) - np.arange(len(found))))
    corrected = np.empty_like(found)
    corrected[order] = np.minimum(steps, 1.0)
    return corrected
