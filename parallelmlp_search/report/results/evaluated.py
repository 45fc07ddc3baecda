"""Rows with known targets, and predictions of networks that have not seen them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from parallelmlp_search.explain.columns import cell_text
from parallelmlp_search.explain.rows import ExplainedRows
from parallelmlp_search.explain.tables import ExplainedTable

if TYPE_CHECKING:
    from parallelmlp_search.inference import TrainedModel

MAX_SECONDS = 2.0
"""Predicted seconds on one core to predict all rows."""

MIN_ROWS = 2000
"""Rows that are predicted however long it takes."""

Doubles = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class EvaluatedRows:
    """Targets and predictions of rows.

    Attributes
    ----------
    labels
        Names of the classes, or of the outputs of a regression.
    target
        Class numbers ``(n,)``, or values ``(C, n)``.
    predictions
        Probabilities or values ``(C, n)``.
    predicted
        Numbers of the predicted classes ``(n,)``; None for a regression.
    weight
        Weights ``(n,)``, with mean 1.
    origin
        ``out-of-fold`` if networks of a fold predicted rows that they were not trained on, ``new`` if the
        search had none of the rows.
    """

    labels: tuple[str, ...]
    target: NDArray[np.generic]
    predictions: Doubles
    predicted: NDArray[np.intp] | None
    weight: Doubles
    origin: str

    def __len__(self) -> int:
        return int(self.predictions.shape[1])

    @property
    def classifies(self) -> bool:
        """True for classes."""
        return self.predicted is not None


def evaluated_rows(model: TrainedModel, rows: ExplainedRows, *, seed: int = 0) -> EvaluatedRows | None:
    """Predict rows with known targets.

    Parameters
    ----------
    model, rows
        Model, and rows with what is known of them.
    seed
        Seed of the sample of very many rows.

    Returns
    -------
    EvaluatedRows or None
        None if no row has both a known target and networks that have not seen it, and for several labels.
    """
    if rows.target is None or model.task == "multilabel":
        return None
    numbers = np.arange(len(rows)) if rows.folds is None else np.flatnonzero(rows.folds >= 0)
    if not len(numbers):
        return None
    first = rows.take(numbers[:1])
    most = max(MIN_ROWS, int(MAX_SECONDS / ExplainedTable.of(model, first).unseen_seconds))
    if len(numbers) > most:
        numbers = np.sort(np.random.default_rng([seed, 6]).choice(numbers, most, replace=False))
    chosen = rows.take(numbers)
    table = ExplainedTable.of(model, chosen)
    order = np.arange(len(chosen))
    predictions = table.predict_unseen(table.compose(order, {}), order)
    assert chosen.target is not None
    target, predicted = chosen.target, None
    if model.classes is None:
        target = np.atleast_2d(np.asarray(target, dtype=np.float64).T)
        labels = model.output_columns(model.target_name or "target")
    else:
        labels = [cell_text(label) for label in model.classes]
        predicted = model.class_numbers(predictions)
    weight = np.ones(len(chosen)) if chosen.weight is None else np.asarray(chosen.weight, dtype=np.float64)
    origin = "new" if rows.folds is None else "out-of-fold"
    return EvaluatedRows(tuple(labels), target, predictions, predicted, weight / weight.mean(), origin)
