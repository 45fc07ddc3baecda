"""Permutation importance: increase of the error when the values of a column are shuffled between rows.

Rows are predicted by networks that were not trained on them, so a column that the networks have only learned
by heart has no importance (Breiman, "Random forests", 2001; Fisher, Rudin and Dominici, "All models are
wrong, but many are useful", 2019). Correlated columns replace each other, so each alone seems unimportant.
They are also shuffled together, as a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parallelmlp_search.explain.explanation import TABLES
from parallelmlp_search.explain.grouping import correlated_groups
from parallelmlp_search.explain.scoring import Scorer
from parallelmlp_search.explain.settings import ExplainSettings
from parallelmlp_search.explain.tables import ExplainedTable

Doubles = NDArray[np.float64]
Numbers = NDArray[np.intp]

IMPORTANCE_SECONDS = 3.0
"""Predicted seconds on one core of all permutations."""

MIN_ROWS, MAX_ROWS = 500, 10_000
"""Limits of the permuted rows."""

MAX_REPEATS = 5


@dataclass(frozen=True, eq=False)
class Importance:
    """Importance of all used columns.

    Attributes
    ----------
    table
        One row per column and per group of correlated columns, the most important first; the columns of a
        group follow it. ``name``; ``group``, the name of the group that a column is in, or None;
        ``is_group``; ``importance``, the increase of the error, in units of the metric; ``standard_error``
        and ``p_value``.
    n_rows, n_repeats
        Permuted rows, and permutations of each column.
    """

    table: pd.DataFrame
    n_rows: int
    n_repeats: int

    def most_important(self, count: int) -> list[str]:
        """Return the names of the most important single columns."""
        single = self.table[~self.table["is_group"]].sort_values("importance", ascending=False, kind="stable")
        return [str(name) for name in single["name"].head(count)]


def permutation_importance(
    table: ExplainedTable, scorer: Scorer, rows: Numbers, base: Doubles, settings: ExplainSettings
) -> Importance:
    """Return the importance of all used columns and of groups of correlated ones.

    Parameters
    ----------
    table, scorer
        Rows to explain, and their scores.
    rows, base
        Numbers of rows ``(m,)`` with known predictions ``(C, m)``.
    settings
        Numbers of rows and permutations, and the seed.

    Returns
    -------
    Importance
    """
    generator = np.random.default_rng([settings.seed, 1])
    groups = correlated_groups([table.values[name] for name in table.names], generator.permutation(rows))
    entries = [(name,) for name in table.names] + [tuple(group) for group in groups]
    n_rows, n_repeats = _effort(table, len(rows), len(entries), settings)
    chosen = np.arange(len(rows))
    if n_rows < len(rows):
        chosen = np.sort(generator.choice(len(rows), n_rows, replace=False))
    mine, predictions = rows[chosen], base[:, chosen]
    found = []
    for names in entries:
        changed = []
        for _ in range(n_repeats):
            shuffled = generator.permutation(mine)
            composed = table.compose(mine, dict.fromkeys(names, shuffled))
            changed.append(table.predict_unseen(composed, mine))
        found.append((names, scorer.increase(predictions, changed, mine, generator)))
    group_of = {name: group_name(group) for group in groups for name in group}
    records = [
        (group_name(names), group_of.get(names[0]) if len(names) == 1 else None, len(names) > 1, *difference)
        for names, difference in found
    ]
    return Importance(_ordered(pd.DataFrame(records, columns=list(TABLES["importance"]))), n_rows, n_repeats)


def group_name(names: Sequence[str]) -> str:
    """Return the name of a group of columns."""
    return " + ".join(names)


def _effort(table: ExplainedTable, n_rows: int, n_entries: int, settings: ExplainSettings) -> tuple[int, int]:
    """Rows and permutations: as many rows as there is time for, then further permutations."""
    affordable = int(IMPORTANCE_SECONDS / (n_entries * table.unseen_seconds))
    most = settings.max_rows or max(MIN_ROWS, min(MAX_ROWS, affordable))
    used = min(n_rows, most)
    return used, settings.n_repeats or max(1, min(MAX_REPEATS, affordable // used))


def _ordered(table: pd.DataFrame) -> pd.DataFrame:
    """Sort by importance, with the columns of a group below it."""
    by_name = table.set_index("name")["importance"]
    top = table["group"].map(by_name).where(table["group"].notna(), table["importance"])
    order = pd.DataFrame(
        {
            "top": -top,
            "group": table["group"].where(table["group"].notna(), table["name"]),
            "member": ~table["is_group"] & table["group"].notna(),
            "own": -table["importance"],
        }
    )
    ordered: pd.DataFrame = table.loc[
        order.sort_values(["top", "group", "member", "own"], kind="stable").index
    ].reset_index(drop=True)
    return ordered
