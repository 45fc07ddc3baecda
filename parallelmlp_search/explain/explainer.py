"""Computation of an explanation, table by table."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parallelmlp_search.distribute import one_thread
from parallelmlp_search.explain.attributions import attributed_rows, attribution_table, shapley_values
from parallelmlp_search.explain.columns import cell_text
from parallelmlp_search.explain.dependence import partial_dependence
from parallelmlp_search.explain.explanation import TABLES, Explanation, empty_table
from parallelmlp_search.explain.importance import permutation_importance
from parallelmlp_search.explain.rows import ExplainedRows, Numbers
from parallelmlp_search.explain.scoring import Scorer
from parallelmlp_search.explain.settings import ExplainSettings
from parallelmlp_search.explain.slices import worst_slices
from parallelmlp_search.explain.tables import ExplainedTable
from parallelmlp_search.explain.worst import worst_rows
from parallelmlp_search.inference import TrainedModel

MAX_ROWS = 100_000
"""Most rows that are read; of larger tables, a sample."""

SCORING_SECONDS = 1.0
"""Predicted seconds on one core to predict the rows that are scored."""

MIN_SCORED = 2000
"""Rows that are scored however long it takes."""

N_DEPENDENCE = 8
"""Columns whose partial dependence is computed by default."""

NO_TARGET = "importance, worst rows and slices were left out, because the target of the rows is not known"
NO_UNSEEN = (
    "importance, worst rows and slices were left out, because no row is known to be unseen by some network: "
    "give rows that the search has not seen"
)


@dataclass(frozen=True, eq=False)
class _Scored:
    """Rows with known targets that networks predict without having seen them."""

    scorer: Scorer
    rows: Numbers
    predictions: NDArray[np.float64]
    losses: NDArray[np.float64]


def explain_model(
    model: TrainedModel,
    rows: ExplainedRows,
    metric: Any,
    settings: ExplainSettings | None = None,
    *,
    report: Callable[[str], None] = lambda stage: None,
) -> Explanation:
    """Explain a model by some rows.

    Parameters
    ----------
    model, rows
        Model, and rows with what is known of them.
    metric
        Metric of the search: its name, a scorer or a function.
    settings
        Size of the explanation.
    report
        Called with the name of each stage when it begins.

    Returns
    -------
    Explanation

    Raises
    ------
    DataError
        If a column that the model needs is missing.
    InvalidParameterError
        If `settings` names a column that the model does not use.
    """
    with one_thread():  # threads of small tensor operations wait for each other
        return _explained(model, rows, metric, settings or ExplainSettings(), report)


def _explained(
    model: TrainedModel,
    rows: ExplainedRows,
    metric: Any,
    settings: ExplainSettings,
    report: Callable[[str], None],
) -> Explanation:
    started = time.monotonic()
    report("reading the rows")
    table = ExplainedTable.of(model, _sampled(rows, settings))
    table.check_names(settings.columns or ())
    outputs = output_names(model)
    tables: dict[str, pd.DataFrame] = {}
    summary: dict[str, Any] = {
        "rows": "new" if rows.folds is None else "out-of-fold",
        "n_rows": len(rows),
        "task": model.task,
        "outputs": [output for output in outputs if output],
    }
    notes = []
    scored = _scored(table, metric, settings)
    worst, names = np.empty(0, dtype=np.intp), list(settings.columns or ())
    if scored is None:
        notes.append(NO_TARGET if rows.target is None else NO_UNSEEN)
        summary |= {"rows": "new" if rows.folds is None else "training"}
    else:
        scorer = scored.scorer
        report("worst rows and slices")
        parts = (table, scorer, scored.rows, scored.predictions)
        worst, tables["worst_rows"] = worst_rows(*parts, scored.losses)
        tables["slices"] = worst_slices(*parts, scored.losses, np.random.default_rng([settings.seed, 3]))
        report("importance")
        found = permutation_importance(*parts, settings)
        tables["importance"] = found.table
        names = names or found.most_important(N_DEPENDENCE)
        summary |= {
            "n_rows": len(scored.rows),
            "metric": scorer.metric.name,
            "score": scorer.score(scored.predictions, scored.rows),
            "loss": scorer.loss_name,
            "n_permuted": found.n_rows,
            "n_repeats": found.n_repeats,
        }
    report("attributions")
    generator = np.random.default_rng([settings.seed, 4])
    chosen, n_background = attributed_rows(table, worst, settings, generator)
    if len(chosen):
        attributions = shapley_values(table, chosen, n_background, generator)
        tables["attributions"] = attribution_table(table, attributions, outputs)
        summary["n_background"] = n_background
    report("dependence")
    names = names or _by_attribution(tables.get("attributions"), table)
    tables["dependence"], tables["ice"] = partial_dependence(table, names, outputs, settings)
    summary |= {"notes": notes, "seconds": time.monotonic() - started}
    complete = {name: tables[name] if name in tables else empty_table(name) for name in TABLES}
    return Explanation(summary, **complete)


def output_names(model: TrainedModel) -> list[str]:
    """Return the name of each prediction; that of the first of two classes is empty.

    The second class has its probability, and the contributions to the first one are the same with the
    opposite sign.
    """
    if model.classes is not None:
        names = [cell_text(label) for label in model.classes]
        return ["", names[1]] if len(names) == 2 and model.task == "binary" else names
    return model.output_columns(model.target_name or "prediction")


def _sampled(rows: ExplainedRows, settings: ExplainSettings) -> ExplainedRows:
    """The rows, or a sample of very many."""
    if len(rows) <= MAX_ROWS:
        return rows
    generator = np.random.default_rng([settings.seed, 0])
    return rows.take(np.sort(generator.choice(len(rows), MAX_ROWS, replace=False)))


def _scored(table: ExplainedTable, metric: Any, settings: ExplainSettings) -> _Scored | None:
    """Rows that can be scored, at most as many as there is time for; None without any."""
    rows = table.rows
    if rows.target is None:
        return None
    numbers = np.arange(len(rows)) if rows.folds is None else np.flatnonzero(rows.folds >= 0)
    if not len(numbers):
        return None
    most = max(MIN_SCORED, int(SCORING_SECONDS / table.unseen_seconds))
    if len(numbers) > most:
        generator = np.random.default_rng([settings.seed, 5])
        numbers = np.sort(generator.choice(numbers, most, replace=False))
    scorer = Scorer.of(table.model, rows, metric)
    predictions = table.predict_unseen(table.compose(numbers, {}), numbers)
    return _Scored(scorer, numbers, predictions, scorer.losses(predictions, numbers))


def _by_attribution(attributions: pd.DataFrame | None, table: ExplainedTable) -> list[str]:
    """Columns with the largest contributions, where importance is not known."""
    if attributions is None:
        return table.names[:N_DEPENDENCE]
    size = attributions["attribution"].abs().groupby(attributions["column"], sort=False).mean()
    return [str(name) for name in size.sort_values(ascending=False, kind="stable").index[:N_DEPENDENCE]]
