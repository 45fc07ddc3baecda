"""Time that a search needs after its training, predicted from sizes and from the measured speed."""

from __future__ import annotations

from parallelmlp_search.search.finalists.selection_cost import SelectionCost
from parallelmlp_search.search.finalists.uncertainty import uncertainty_seconds
from parallelmlp_search.search.run.context import SearchContext

SELECTION_SHARE = 0.05
"""Largest share of a time limit for the selection of the ensemble, and for the correction of its score."""

FIXED_SECONDS = 0.1
"""Seconds of small files, of the last lines on the terminal, and of the end of the process."""

WRITTEN_BYTES = 3e8
"""Bytes of predictions that are written in a second."""

TEMPERATURE_NS = 600.0
"""Nanoseconds per probability for fitting a temperature, in about 30 steps."""

MIN_FACTOR, MAX_FACTOR = 0.5, 10.0
"""Limits of measured over predicted seconds; a short measurement on a busy machine can be far off."""


def end_seconds(context: SearchContext, n_finalists: int) -> float:
    """Return the predicted time from the end of cross-fitting to the end of the process.

    Parameters
    ----------
    context
        Context of the search.
    n_finalists
        Finalists from which the ensemble is selected.

    Returns
    -------
    float
    """
    most = SELECTION_SHARE * (context.settings.time_limit or 0.0)
    cost, factor = SelectionCost.of(context.preparation, n_finalists), _factor(context)
    selecting = min(factor * cost.selecting, most)
    correcting = min(factor * cost.correcting / context.throughput.n_workers, most)
    scoring = factor * (2.0 * cost.once + cost.error)
    return scoring + selecting + correcting + closing_seconds(context, n_finalists)


def closing_seconds(context: SearchContext, n_finalists: int) -> float:
    """Return the predicted time from the corrected score to the end of the process.

    Parameters
    ----------
    context, n_finalists
        As of :func:`end_seconds`.

    Returns
    -------
    float
    """
    preparation = context.preparation
    cost, n_outputs = SelectionCost.of(preparation, n_finalists), preparation.problem.head.n_predictions
    seconds = FIXED_SECONDS + 4.0 * cost.once
    seconds += 4.0 * n_finalists * n_outputs * preparation.n_oof / WRITTEN_BYTES
    if preparation.problem.task != "regression":
        keeps_score = preparation.problem.task == "binary" and preparation.metric.name == "roc_auc"
        seconds += 0.0 if keeps_score else cost.limited_error  # after postprocessing
        seconds += 1e-9 * TEMPERATURE_NS * n_outputs * len(preparation.validation_rows)
    return _factor(context) * (seconds + uncertainty_seconds(preparation))


def _factor(context: SearchContext) -> float:
    """Measured over predicted seconds."""
    return min(MAX_FACTOR, max(MIN_FACTOR, context.throughput.factor))
