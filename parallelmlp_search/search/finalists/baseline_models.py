"""Models of scikit-learn that a search is compared with: a linear model and histogram gradient boosting.

They see the inputs that the networks see, without piecewise encodings and normal scores, which are meant for
networks. Gradient boosting gets the codes of categories instead of their indicators.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parallelmlp_search.engine import Head
from parallelmlp_search.engine.rows import Rows, as_tensor, select, take_rows
from parallelmlp_search.selection import Metric
from parallelmlp_search.selection.formulas import AbsoluteError, Pinball
from parallelmlp_search.space import ColumnGroups

Floats = NDArray[Any]
Predictor = Callable[[Floats], Floats]
"""Maps inputs ``(n, d)`` to probabilities or standardized values ``(C, n)``."""

LINEAR_ITERATIONS = 100
MAX_CATEGORIES = 255
"""Most categories of a column of gradient boosting in scikit-learn."""
LEARNING_RATE = 10.0
"""Learning rate of gradient boosting times its iterations: 0.1 with 100 of them."""


class Effort(NamedTuple):
    """Training rows and iterations of a baseline."""

    n_rows: int
    n_iterations: int


@dataclass(frozen=True)
class TrainingTable:
    """Training rows of a baseline on one fold.

    Attributes
    ----------
    inputs
        Inputs ``(n, d)``.
    target
        Class numbers ``(n,)``, or standardized values or labels ``(n, C)``.
    weight
        Weights ``(n,)``, or None.
    is_category
        For each input, True if it holds codes of categories.
    level
        Quantile that a regression predicts; None for the mean.
    power
        Power of the Tweedie loss of a regression, or None; values are then relative to the mean.
    """

    inputs: Floats
    target: Floats
    weight: Floats | None
    is_category: NDArray[np.bool_]
    level: float | None
    power: float | None = None


@dataclass(frozen=True)
class BaselineModel:
    """Model with its inputs and its predicted time.

    Attributes
    ----------
    name
        Name in ``result.json``.
    takes_codes
        True if categories are codes, False if they are indicators.
    iterations
        Numbers of iterations to select from, the most first.
    seconds
        Predicted seconds of a fit on one core, given the effort, inputs and outputs.
    row_bytes, input_bytes
        Bytes of each input of a training row, besides those of all inputs of networks, and of each input.
    fit
        Trains the model with a number of iterations, given the task.
    """

    name: str
    takes_codes: bool
    iterations: tuple[int, ...]
    seconds: Callable[[Effort, int, int], float]
    row_bytes: float
    input_bytes: float
    fit: Callable[[TrainingTable, str, int], Predictor]


def predicted_level(metric: Metric) -> float | None:
    """Return the quantile that minimizes a metric of a regression; None for the mean."""
    if isinstance(metric.formula, Pinball):
        return metric.formula.alpha
    return 0.5 if isinstance(metric.formula, AbsoluteError) else None


def model_inputs(rows: Rows, numbers: NDArray[np.intp], columns: ColumnGroups, *, codes: bool) -> Floats:
    """Return the inputs of a baseline for some rows.

    Parameters
    ----------
    rows, numbers
        Inputs of networks ``(n, D)``, and the numbers ``(m,)`` of the wanted rows.
    columns
        Groups of these inputs.
    codes
        True for codes of categories (NaN where no indicator is set), False for their indicators.

    Returns
    -------
    array of shape (m, d)
    """
    start = columns.n_quantiles + columns.n_pieces
    seen = select(rows, ((start, rows.shape[1] - columns.n_means),))
    values = as_tensor(take_rows(seen, torch.from_numpy(numbers).to(seen.device))).cpu().numpy()
    if not codes:
        return values
    plain = np.ones(values.shape[1], dtype=bool)
    parts = []
    for first, count in _coded(columns):
        plain[first : first + count] = False
        indicators = values[:, first : first + count]
        parts.append(np.where(indicators.max(axis=1) > 0.5, indicators.argmax(axis=1), np.nan))
    return np.column_stack([values[:, plain], *parts])


def category_mask(columns: ColumnGroups, n_inputs: int, *, codes: bool) -> NDArray[np.bool_]:
    """Return for each input of a baseline whether it holds codes of categories.

    Parameters
    ----------
    columns, n_inputs
        Groups and number of the inputs of networks.
    codes
        As for :func:`model_inputs`.

    Returns
    -------
    array of shape (d,)
    """
    n_seen = n_inputs - columns.n_quantiles - columns.n_pieces - columns.n_means
    coded = _coded(columns) if codes else []
    n_plain = n_seen - sum(count for _, count in coded)
    is_category: NDArray[np.bool_] = np.arange(n_plain + len(coded)) >= n_plain
    return is_category


def _coded(columns: ColumnGroups) -> list[tuple[int, int]]:
    """First column, after the left-out ones, and width of each category that becomes a column of codes."""
    start = columns.n_quantiles + columns.n_pieces
    return [(first - start, count) for first, count in columns.categories if count <= MAX_CATEGORIES]


def values_of(head: Head, standardized: Floats) -> Floats:
    """Return values ``(C, n)`` in the units of the target, clipped to its range like those of networks."""
    scale, location, low, high = (
        np.array(part)[:, None] for part in (head.scale, head.location, head.lower, head.upper)
    )
    values: Floats = np.clip(standardized * scale + location, low, high)
    return values


# ---------------------------------------------------------------------- models


def _fit_linear(table: TrainingTable, task: str, n_iterations: int) -> Predictor:
    from sklearn.linear_model import LogisticRegression, Ridge, TweedieRegressor

    if task != "regression":
        return _classifier(partial(LogisticRegression, max_iter=n_iterations), table)
    if table.power is not None:
        alpha = 1.0 / len(table.inputs)  # its loss is a mean, that of Ridge a sum
        glm = {"power": table.power, "link": "log", "alpha": alpha, "max_iter": n_iterations}
        return _of_outputs(lambda: TweedieRegressor(**glm), table)
    model = Ridge().fit(table.inputs, table.target, table.weight)
    fitted = model.predict(table.inputs).reshape(table.target.shape)
    shift = 0.0 if table.level is None else np.quantile(table.target - fitted, table.level, axis=0)

    def predict(inputs: Floats) -> Floats:
        values: Floats = model.predict(inputs).reshape(len(inputs), -1) + shift
        return values.T

    return predict


def _fit_boosting(table: TrainingTable, task: str, n_iterations: int) -> Predictor:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    options: dict[str, Any] = {
        "max_iter": n_iterations,
        "learning_rate": LEARNING_RATE / n_iterations,
        "categorical_features": table.is_category if table.is_category.any() else None,
        "early_stopping": False,
        "random_state": 0,
    }
    if task != "regression":
        return _classifier(partial(HistGradientBoostingClassifier, **options), table)
    if table.level is not None:
        options |= {"loss": "quantile", "quantile": table.level}
    elif table.power is not None:  # Poisson's loss stands for that of amounts that can be zero
        options["loss"] = "gamma" if table.power == 2 else "poisson"
    return _of_outputs(lambda: HistGradientBoostingRegressor(**options), table)


def _of_outputs(create: Callable[[], Any], table: TrainingTable) -> Predictor:
    """Predictor of a regression that has one model per output."""
    models = [create().fit(table.inputs, column, table.weight) for column in table.target.T]
    return lambda inputs: np.stack([model.predict(inputs) for model in models])


def _classifier(kind: Callable[[], Any], table: TrainingTable) -> Predictor:
    """Predictor of a classifier, or of one for each label; rows can lack some of the classes."""
    if table.target.ndim == 1:
        model = kind().fit(table.inputs, table.target, table.weight)
        return lambda inputs: _with_all_classes(model.predict_proba(inputs).T, model.classes_)
    models = [  # a label that all rows have or lack is a constant
        kind().fit(table.inputs, label > 0.5, table.weight) if np.ptp(label) > 0 else float(label[0])
        for label in table.target.T
    ]
    return lambda inputs: np.stack(
        [
            np.full(len(inputs), one) if isinstance(one, float) else one.predict_proba(inputs)[:, 1]
            for one in models
        ]
    )


def _with_all_classes(probabilities: Floats, classes: Floats) -> Floats:
    """Probabilities of classes 0 to the last known one; unknown ones have probability 0."""
    found = np.zeros((int(classes.max()) + 1, probabilities.shape[1]))
    found[classes] = probabilities
    return found


# Seconds were measured with scikit-learn 1.7 on one core of an Intel Xeon with AVX-512.


def _linear_seconds(effort: Effort, n_inputs: int, n_outputs: int) -> float:
    return 2e-3 + 1e-9 * effort.n_rows * n_inputs * n_outputs * effort.n_iterations


def _boosting_seconds(effort: Effort, n_inputs: int, n_outputs: int) -> float:
    """A tree takes 0.35 ms of 200 rows, 1.2 ms of 1,000 and 3.7 ms of 40,000, with 14 inputs."""
    n_rows = effort.n_rows
    tree = 3e-4 + 1e-3 * min(1.0, n_rows / 1000) + 4e-5 * n_inputs + 5e-9 * n_rows * n_inputs
    return effort.n_iterations * n_outputs * tree


MODELS = (
    BaselineModel("linear", False, (LINEAR_ITERATIONS,), _linear_seconds, 0.5, 0.0, _fit_linear),
    # double precision, bins, and histograms of 255 bins in 31 leaves
    BaselineModel("gradient_boosting", True, (100, 50, 30), _boosting_seconds, 16.0, 190e3, _fit_boosting),
)


def efforts(model: BaselineModel, n_rows: int, least_rows: int) -> Iterator[Effort]:
    """Yield efforts of a model, the largest first: fewer iterations, then half the rows again and again.

    Parameters
    ----------
    model, n_rows
        Model, and rows that there are.
    least_rows
        Rows below which they are not halved.

    Yields
    ------
    Effort
    """
    for n_iterations in model.iterations:
        yield Effort(n_rows, n_iterations)
    while n_rows // 2 >= least_rows:
        n_rows //= 2
        yield Effort(n_rows, model.iterations[-1])


def training_target(target: Tensor, numbers: NDArray[np.intp]) -> Floats:
    """Return class numbers ``(m,)``, or values ``(m, C)``, of some training rows."""
    chosen: Floats = target[..., torch.from_numpy(numbers).to(target.device)].cpu().numpy()
    return chosen if chosen.ndim == 1 else chosen.T
