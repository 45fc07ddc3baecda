"""Rows with soft targets: what an ensemble predicts, for rows of the table and for augmented ones.

Sources: Bucila, Caruana and Niculescu-Mizil, "Model compression", KDD 2006 (augmented rows); Ba and Caruana,
"Do deep nets really need to be deep?", NIPS 2014 (logits as the target of a regression).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parallelmlp_search.inference import TrainedModel

SWAP_SHARE = 0.15
"""Share of the cells of an augmented row that come from another row."""

AUGMENTED_PER_ROW = 3
MAX_ROWS = 200_000
"""Augmented rows per row of the table, and most rows of both kinds unless the table has more."""

MAX_LOGIT = 12.0
"""Largest logit of a soft target: probabilities of 6e-6 and less count as equal."""

Floats = NDArray[np.float64]


class SoftRows(NamedTuple):
    """Rows and their soft targets ``(n, C)``: logits of the classes, or scaled values or their logarithms."""

    frame: pd.DataFrame
    target: Floats


def soft_targets(model: TrainedModel, frame: pd.DataFrame) -> Floats:
    """Return what a student is to output for rows of plain numbers and categories.

    Parameters
    ----------
    model
        Ensemble.
    frame
        Rows as the networks read them.

    Returns
    -------
    array of shape (n, C)
        One logit for two classes; for more, logits with mean 0; values in the units of the networks, or their
        logarithms if the networks have a log link.
    """
    predictions = model.predictions_of_read(frame)
    if model.classes is None:
        scaling = model.target_scaling
        values = predictions.T if scaling is None else scaling.apply(predictions.T)
        return np.log(values) if model.folds[0].head.link == "log" else values
    logs = np.log(np.maximum(predictions, np.exp(-2 * MAX_LOGIT)))
    logits = logs[1:] - logs[:1] if len(logs) == 2 else logs - logs.mean(axis=0)
    clipped: Floats = np.clip(logits, -MAX_LOGIT, MAX_LOGIT).T
    return clipped


def augmented(frame: pd.DataFrame, rng: np.random.Generator, share: float = SWAP_SHARE) -> pd.DataFrame:
    """Return new rows, each a row of a table with some cells of another one.

    Parameters
    ----------
    frame
        Table.
    rng
        Random generator.
    share
        Share of the cells that are swapped.

    Returns
    -------
    pandas.DataFrame
        As many rows as there is room for, with the columns and types of the table.
    """
    n_rows = len(frame)
    count = min(AUGMENTED_PER_ROW * n_rows, max(0, MAX_ROWS - n_rows))
    source = np.arange(count) % n_rows
    partner = rng.integers(0, n_rows, count)
    columns = {
        name: column.take(np.where(rng.random(count) < share, partner, source)).reset_index(drop=True)
        for name, column in frame.items()
    }
    return pd.DataFrame(columns, columns=frame.columns, index=pd.RangeIndex(count))


def rows_of(
    model: TrainedModel, frame: pd.DataFrame, target: Floats | None, rng: np.random.Generator
) -> SoftRows:
    """Return rows of a table with augmented ones, and the soft targets of all.

    Parameters
    ----------
    model
        Ensemble, which labels the augmented rows.
    frame
        Rows of the table.
    target
        Their soft targets ``(n, C)``; None for those of the ensemble.
    rng
        Random generator.

    Returns
    -------
    SoftRows
    """
    own = soft_targets(model, frame) if target is None else target
    extra = augmented(frame, rng)
    if not len(extra):
        return SoftRows(frame, own)
    both = pd.concat([frame, extra], ignore_index=True)
    return SoftRows(both, np.concatenate([own, soft_targets(model, extra)]))


def out_of_fold_targets(model: TrainedModel, frame: pd.DataFrame, folds: NDArray[np.integer]) -> Floats:
    """Return soft targets of the rows of a search by networks that were not trained on them.

    Parameters
    ----------
    model
        Ensemble with the networks of all folds.
    frame, folds
        Rows, and the fold that has not seen each; -1 for rows that the whole ensemble labels.

    Returns
    -------
    array of shape (n, C)
    """
    target = soft_targets(model, frame)
    for number in range(len(model.folds)):
        rows = np.flatnonzero(folds == number)
        if len(rows):
            target[rows] = soft_targets(model.of_fold(number), frame.iloc[rows])
    return target
