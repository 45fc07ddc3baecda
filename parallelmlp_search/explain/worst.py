"""Rows with the largest losses."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parallelmlp_search.explain.columns import cell_text
from parallelmlp_search.explain.scoring import Scorer
from parallelmlp_search.explain.tables import ExplainedTable

Doubles = NDArray[np.float64]
Numbers = NDArray[np.intp]

N_WORST = 50
"""Rows that are kept."""


def worst_rows(
    table: ExplainedTable, scorer: Scorer, rows: Numbers, predictions: Doubles, losses: Doubles
) -> tuple[Numbers, pd.DataFrame]:
    """Return the rows with the largest losses.

    Parameters
    ----------
    table, scorer
        Rows to explain, and their targets.
    rows, predictions, losses
        Numbers of rows ``(m,)`` with their predictions ``(C, m)`` and losses ``(m,)``.

    Returns
    -------
    (array, DataFrame)
        Numbers of the rows, and one row for each, the worst first: ``row``, ``target``, ``prediction``,
        ``probability`` (of the true class; classes only), ``loss``, and the cells of the table as texts,
        named ``column: NAME``. With several outputs or labels, target and prediction are texts.
    """
    order = np.argsort(-losses, kind="stable")[:N_WORST]
    worst = rows[order]
    found: dict[str, object] = {"row": table.rows.row_numbers[worst]}
    model, mine = table.model, predictions[:, order]
    if model.task == "multilabel" and model.classes is not None:
        for name, present in (
            ("target", scorer.target[:, worst] == 1.0),
            ("prediction", model.has_labels(mine) == 1),
        ):
            found[name] = [", ".join(map(cell_text, model.classes[row])) for row in present.T]
    elif model.classes is not None:
        target = scorer.target[worst].astype(np.intp)
        found["target"] = [cell_text(model.classes[number]) for number in target]
        found["prediction"] = [cell_text(model.classes[number]) for number in model.class_numbers(mine)]
        found["probability"] = mine[target, np.arange(len(order))]
    else:
        for name, values in (("target", scorer.values(worst)), ("prediction", mine)):
            texts = [", ".join(cell_text(float(one)) for one in row) for row in values.T]
            found[name] = values[0] if len(values) == 1 else texts
    found["loss"] = losses[order]
    for name in table.names:
        found[f"column: {name}"] = [table.values[name].text(row) for row in worst.tolist()]
    return worst, pd.DataFrame(found)
