"""Predicted memory of the baselines."""

from __future__ import annotations

from dataclasses import dataclass

from parallelmlp_search.distribute import ShardData
from parallelmlp_search.search.finalists.baseline_models import MODELS, BaselineModel, category_mask
from parallelmlp_search.search.problem.preparation import Preparation
from parallelmlp_search.search.run.context import SearchContext

MAX_CELLS = 1 << 23
"""Most inputs of the training rows of a fold; gradient boosting copies them in double precision (64 MiB)."""

MAX_SCORED_ROWS = 50_000

FIXED_BYTES = 5e6
"""Memory of a model on a table without rows."""

IMPORT_BYTES = 15_000_000
"""Memory of the modules of scikit-learn that the models need."""


@dataclass(frozen=True)
class TableSizes:
    """Sizes of the table of a baseline.

    Attributes
    ----------
    n_inputs, n_seen
        Inputs of the model, and those of networks from which they are made.
    n_outputs, n_predictions
        Outputs of the model, and predictions of all wanted rows.
    """

    n_inputs: int
    n_seen: int
    n_outputs: int
    n_predictions: int


def predicted_bytes(model: BaselineModel, n_rows: int, sizes: TableSizes) -> int:
    """Return the memory that a model takes on one fold.

    Parameters
    ----------
    model, n_rows, sizes
        Model, its training rows, and sizes of its table.

    Returns
    -------
    int
        On adult, diamonds, letter, a table of 1,240 inputs and one of 100,000 rows, the measured peaks are
        between 0.6 and 1.3 times as large.
    """
    inputs = n_rows * (4.0 * sizes.n_seen + model.row_bytes * sizes.n_inputs)
    outputs = 24.0 * n_rows * (1 + sizes.n_outputs) + 16.0 * sizes.n_predictions
    return round(FIXED_BYTES + inputs + model.input_bytes * sizes.n_inputs + outputs)


def table_sizes(preparation: Preparation, data: ShardData, model: BaselineModel) -> TableSizes:
    """Return the sizes of the table of a baseline.

    Parameters
    ----------
    preparation, data, model
        Rows, inputs of networks, and model.

    Returns
    -------
    TableSizes
    """
    n_inputs = len(category_mask(data.columns, data.n_inputs, codes=model.takes_codes))
    n_wanted = min(preparation.problem.n_rows, MAX_SCORED_ROWS + len(preparation.validation_rows))
    n_seen = data.n_inputs - data.columns.n_quantiles - data.columns.n_pieces - data.columns.n_means
    n_predictions = n_wanted * preparation.problem.head.n_predictions
    return TableSizes(n_inputs, n_seen, data.head.n_outputs, n_predictions)


def baseline_bytes(context: SearchContext, n_folds: int) -> int:
    """Return the memory that the baselines take under a memory limit, without one 0.

    Parameters
    ----------
    context, n_folds
        Context of the search, and its folds.

    Returns
    -------
    int
    """
    preparation, data = context.preparation, context.data
    if context.memory is None or preparation.is_tiny or not context.settings.baselines:
        return 0
    n_rows = preparation.problem.n_rows * (n_folds - 1) // max(2, n_folds)
    sizes = [(model, table_sizes(preparation, data, model)) for model in MODELS]
    largest = max(
        predicted_bytes(model, min(n_rows, MAX_CELLS // max(1, one.n_inputs)), one) for model, one in sizes
    )
    return min(context.memory.room, IMPORT_BYTES + largest)
