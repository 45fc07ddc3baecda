"""Groups of correlated columns, which share information that the model can take from either."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from scipy.stats import rankdata

from parallelmlp_search.explain.columns import ColumnValues

Doubles = NDArray[np.float64]
Numbers = NDArray[np.intp]

MIN_ASSOCIATION = 0.7
"""Association from which all columns of a group are correlated in pairs."""

MAX_ROWS = 4000
MAX_CATEGORIES = 200
"""Most categories of a column whose associations are computed; names and texts have more."""


def correlated_groups(columns: Sequence[ColumnValues], rows: Numbers) -> list[list[str]]:
    """Return groups of at least two columns that are correlated in pairs (complete linkage).

    Parameters
    ----------
    columns
        Values of the columns.
    rows
        Numbers of the rows to look at, of which the first 4,000 are used.

    Returns
    -------
    list of lists of names
    """
    if len(columns) < 2:
        return []
    strength = associations(columns, rows[:MAX_ROWS])
    distance = squareform(1.0 - strength, checks=False)
    labels = fcluster(linkage(distance, method="complete"), 1.0 - MIN_ASSOCIATION, criterion="distance")
    groups: dict[int, list[str]] = {}
    for column, label in zip(columns, labels.tolist(), strict=True):
        groups.setdefault(label, []).append(column.name)
    return [names for names in groups.values() if len(names) > 1]


def associations(columns: Sequence[ColumnValues], rows: Numbers) -> Doubles:
    """Return the strength of association of all pairs of columns, between 0 and 1.

    Two numbers or dates have the absolute rank correlation (Spearman). A number and a category have the
    correlation ratio of the ranks, corrected for the number of categories (epsilon squared, Kelley 1935). Two
    categories have Cramer's V with the correction of Bergsma ("A bias-correction for Cramer's V", 2013).

    Parameters
    ----------
    columns, rows
        Values of the columns, and the rows to look at.

    Returns
    -------
    array of shape (columns, columns)
    """
    strength = np.eye(len(columns))
    ordered = [number for number, column in enumerate(columns) if column.is_ordered]
    ranks = np.stack([_ranks(columns[number].positions[rows]) for number in ordered] or [np.empty(0)])
    if ordered:
        strength[np.ix_(ordered, ordered)] = np.abs(ranks @ ranks.T)
    codes = {}
    for number, column in enumerate(columns):
        if column.scale == "categorical" and len(column.labels) <= MAX_CATEGORIES:
            codes[number] = np.unique(column.codes[rows], return_inverse=True)[1].ravel()
    for place, (number, mine) in enumerate(codes.items()):
        if ordered:
            strength[number, ordered] = strength[ordered, number] = _correlation_ratios(ranks, mine)
        for other in list(codes)[:place]:
            strength[number, other] = strength[other, number] = _cramer(mine, codes[other])
    np.fill_diagonal(strength, 1.0)
    clipped: Doubles = np.clip(strength, 0.0, 1.0)
    return clipped


def _ranks(values: Doubles) -> Doubles:
    """Ranks with mean 0 and length 1; missing values have the mean rank, and equal values have length 0."""
    ranks = np.zeros(len(values))
    present = ~np.isnan(values)
    if present.any():
        ranks[present] = rankdata(values[present])
        ranks[present] -= ranks[present].mean()
    length = float(np.sqrt(ranks @ ranks))
    return ranks / length if length > 0 else ranks


def _correlation_ratios(ranks: Doubles, codes: Numbers) -> Doubles:
    """Corrected correlation ratio of each column of ranks ``(d, n)`` with categories ``(n,)``."""
    counts = np.bincount(codes)
    n_rows, n_categories = len(codes), len(counts)
    if not 1 < n_categories < n_rows:
        return np.zeros(len(ranks))
    sums = np.stack([np.bincount(codes, one) for one in ranks])
    between = (sums**2 / counts).sum(axis=1)  # of a total of 1
    corrected = 1.0 - (1.0 - between) * (n_rows - 1) / (n_rows - n_categories)
    corrected[(ranks == 0).all(axis=1)] = 0.0
    ratios: Doubles = np.sqrt(np.maximum(corrected, 0.0))
    return ratios


def _cramer(first: Numbers, second: Numbers) -> float:
    """Corrected V of two columns of codes ``(n,)``."""
    n_rows, r, k = len(first), int(first.max()) + 1, int(second.max()) + 1
    if min(r, k) < 2 or n_rows < 2:
        return 0.0
    table = np.bincount(first * k + second, minlength=r * k).reshape(r, k)
    expected = np.outer(table.sum(1), table.sum(0)) / n_rows
    phi = float(((table - expected) ** 2 / expected).sum()) / n_rows
    phi = max(0.0, phi - (r - 1) * (k - 1) / (n_rows - 1))
    rows, columns = r - (r - 1) ** 2 / (n_rows - 1), k - (k - 1) ** 2 / (n_rows - 1)
    most = min(rows, columns) - 1
    return float(np.sqrt(phi / most)) if most > 0 else 0.0
