"""Uncertainty of the model: errors on out-of-fold rows, from which intervals and sets are made.

The sizes of the errors of a regression are predicted by trees: those of a fold are trained on the errors of
the other folds. The coverage is measured fold by fold as well, with the errors of the other folds, in time
with those of earlier folds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parallelmlp_search.inference import TrainedModel
from parallelmlp_search.inference.conformal import ConformalScores, Floats
from parallelmlp_search.inference.outputs import tempered
from parallelmlp_search.inference.scale_trees import ScaleTrees
from parallelmlp_search.inference.uncertainty import Uncertainty, tree_features, with_predictions
from parallelmlp_search.search.finalists.cross_fitting import CrossFit
from parallelmlp_search.search.problem.preparation import Preparation, seed_of
from parallelmlp_search.search.run.context import SearchContext
from parallelmlp_search.selection import GreedyEnsemble

LEVELS = (0.5, 0.8, 0.9, 0.95, 0.99)
"""Coverages that are measured."""

MAX_ROWS = 10_000
"""Most out-of-fold rows whose errors are kept: the coverage of 90 % intervals then varies by 0.3 %."""

MAX_VALUES = 1 << 22
"""Most encoded values of these rows: 16 MiB."""

N_TREES = 100
"""Trees of all folds together."""

TREE_ROWS = 4000
"""Most rows that a tree is trained on."""

MIN_TREE_ROWS = 200
"""Out-of-fold rows from which the size of errors is predicted."""

LEAF_SHARE, MIN_LEAF_ROWS = 0.01, 20
"""Least share of the rows of a tree, and least rows, in a leaf. Larger leaves adapt less."""

LEAF_QUANTILE = 0.9
"""Quantile of the errors in a leaf that is the size which it predicts. In the mean of six tables, 90 %
intervals are 5 % narrower than with one size for all rows, and with the mean of the logarithms 2 %."""

SMALLEST_ERROR = 0.1
"""Errors below this share of their median count as that large: their logarithms say nothing of their size."""

ROW_NS, COLUMN_NS = 1800.0, 25.0
"""Nanoseconds per row and tree, and per compared column, with all levels of a tree. Measured on a core with
AVX-512: 0.2 to 0.9 s for concrete, communities and diamonds."""

FIXED_SECONDS = 0.1
"""Seconds of importing the trees, of encoding, and of measuring."""


@dataclass(frozen=True)
class OutOfFold:
    """Out-of-fold rows with the predictions of the ensemble.

    Attributes
    ----------
    inputs
        Columns of the whole table, as the encoder of the model takes them.
    rows
        Numbers of the out-of-fold rows in it ``(n,)``.
    target
        Numbers of the classes ``(n,)``, or values ``(C, n)``.
    predictions
        Probabilities or values ``(C, n)`` by networks that have not seen the row.
    folds
        Fold of these networks ``(n,)``.
    weight
        Weight of each row ``(n,)``, or None.
    in_time
        True if later folds hold later rows.
    """

    inputs: pd.DataFrame
    rows: NDArray[np.intp]
    target: NDArray[Any]
    predictions: Floats
    folds: NDArray[np.int16]
    weight: NDArray[np.float32] | None
    in_time: bool

    def take(self, places: NDArray[np.intp]) -> OutOfFold:
        """Return some of the rows."""
        weight = None if self.weight is None else self.weight[places]
        return OutOfFold(
            self.inputs, self.rows[places], self.target[..., places], self.predictions[:, places],
            self.folds[places], weight, self.in_time,
        )  # fmt: skip


def with_uncertainty(
    context: SearchContext, fit: CrossFit, ensemble: GreedyEnsemble, model: TrainedModel
) -> tuple[TrainedModel, dict[str, Any] | None]:
    """Add the errors on out-of-fold rows to a model, and measure the coverage.

    Parameters
    ----------
    context, fit, ensemble
        Context of the search; finalists with out-of-fold predictions, and their weights.
    model
        Final model, also if it was refitted on all rows.

    Returns
    -------
    (TrainedModel, dict or None)
        Model, and the entry ``uncertainty`` of the result. The model of a tiny table has no such rows, that
        of several labels no sets, and there is no entry.
    """
    preparation = fit.preparation
    if preparation.is_tiny or preparation.of_labels:
        return model, None
    rows = preparation.oof_rows[fit.covered.numpy()]
    predictions = ensemble.combine(fit.scored_predictions).double().numpy()
    scored = fit.scored_rows
    found = OutOfFold(
        preparation.problem.inputs,
        rows,
        scored.target.numpy(),
        predictions
        if model.classes is None
        else tempered(predictions / predictions.sum(0), model.temperature),
        fit.oof_folds[rows],
        None if scored.weight is None else scored.weight.numpy().astype(np.float32),
        preparation.problem.time is not None,
    )
    is_adaptive, limit = model.classes is None, context.settings.time_limit
    if is_adaptive and limit is not None:
        seconds = uncertainty_seconds(preparation) * max(1.0, context.throughput.factor)
        is_adaptive = context.journal.entry("adaptive", lambda: context.clock.left > seconds)
    return measure_uncertainty(model, found, seed_of(preparation.settings.seed, 7), is_adaptive=is_adaptive)


def uncertainty_seconds(preparation: Preparation) -> float:
    """Return the predicted seconds of :func:`with_uncertainty` for a regression; 0 for classes."""
    if preparation.problem.task != "regression":
        return 0.0
    n_rows = min(preparation.n_oof, MAX_ROWS, TREE_ROWS)
    per_row = ROW_NS + COLUMN_NS * len(preparation.problem.columns)
    return FIXED_SECONDS + 1e-9 * N_TREES * n_rows * per_row


def measure_uncertainty(
    model: TrainedModel, rows: OutOfFold, seed: int, *, is_adaptive: bool = True
) -> tuple[TrainedModel, dict[str, Any] | None]:
    """Add the errors on out-of-fold rows to a model, and measure the coverage.

    Parameters
    ----------
    model, rows
        Final model and out-of-fold rows.
    seed
        Seed of the rows that are kept, and of the trees.
    is_adaptive
        False for the same size of errors in all rows of a regression.

    Returns
    -------
    (TrainedModel, dict or None)
        As of :func:`with_uncertainty`.
    """
    n_rows = len(rows.folds)
    most = max(1000, min(MAX_ROWS, MAX_VALUES // max(1, model.folds[0].encoder.n_outputs)))
    if n_rows > most:
        rows = rows.take(np.sort(np.random.default_rng(seed).choice(n_rows, most, replace=False)))
    n_groups = int(rows.folds.max()) + 1
    if model.classes is not None:
        scores = (1.0 - rows.predictions[rows.target, np.arange(len(rows.target))])[None]
        found = Uncertainty(scores.astype(np.float32), rows.folds, n_groups, rows.weight)
        levels = [_measured_sets(model, rows, found.scores[0], level) for level in LEVELS]
    else:
        scales = np.ones_like(rows.predictions)
        trees = None
        if is_adaptive:
            trees, scales = _fit_trees(model, rows, n_groups, seed)
        lower = np.min([fold.head.lower for fold in model.folds], axis=0)
        upper = np.max([fold.head.upper for fold in model.folds], axis=0)
        bounds = np.stack([lower, upper])
        scores = (np.abs(rows.target - rows.predictions) / scales).astype(np.float32)
        found = Uncertainty(scores, rows.folds, n_groups, rows.weight, bounds, trees)
        levels = [_measured_intervals(model, rows, found, scales, level) for level in LEVELS]
    measured = [level for level in levels if level is not None]
    if model.refitted or len(model.folds) != n_groups:  # its networks are not those of all folds
        pooled = None if found.trees is None else found.trees.pooled()
        found = replace(found, groups=np.zeros_like(found.groups), n_groups=1, trees=pooled)
    facts = {"n_rows": n_rows, "adaptive": found.trees is not None, "levels": measured}
    return replace(model, uncertainty=found), facts


def _fit_trees(
    model: TrainedModel, rows: OutOfFold, n_groups: int, seed: int
) -> tuple[ScaleTrees | None, Floats]:
    """Trees of each fold, and the sizes ``(C, n)`` that they predict for its rows."""
    errors, scales = np.abs(rows.target - rows.predictions), np.ones_like(rows.predictions)
    counts = np.bincount(rows.folds, minlength=n_groups)
    if len(rows.folds) - counts.max() < MIN_TREE_ROWS:
        return None, scales
    from sklearn.ensemble import ExtraTreesRegressor  # 0.2 s that other tables need not wait for

    features = with_predictions(
        tree_features(model.folds[0].encoder, rows.inputs.iloc[rows.rows]), rows.predictions
    )
    middle = np.median(errors, axis=1, keepdims=True)
    least = np.where(middle > 0, SMALLEST_ERROR * middle, 1e-3 * errors.mean(axis=1, keepdims=True))
    logs = np.log(np.maximum(errors, np.maximum(least, np.finfo(float).tiny))).T
    logs = logs[:, 0] if logs.shape[1] == 1 else logs
    forests = []
    for fold in range(n_groups):
        others = np.flatnonzero(rows.folds != fold)
        n_sampled = min(TREE_ROWS, len(others))
        forest = ExtraTreesRegressor(
            max(4, round(N_TREES / n_groups)),
            min_samples_leaf=max(MIN_LEAF_ROWS, round(LEAF_SHARE * n_sampled)),
            bootstrap=True,
            max_samples=n_sampled,
            random_state=seed_of(seed, fold),
        )
        weight = None if rows.weight is None else rows.weight[others]
        forest.fit(features[others], logs[others], weight)
        own = errors[:, others]
        known = features[others], own, np.argsort(own, axis=1)
        forests.append([(one.tree_, _leaf_sizes(one.tree_, *known)) for one in forest.estimators_])
    trees = joined_trees(forests)
    for fold in range(n_groups):
        own = np.flatnonzero(rows.folds == fold)
        scales[:, own] = np.exp(trees.log_scales(fold, features[own]))
    return trees, scales


def _leaf_sizes(
    tree: Any, features: NDArray[np.float32], errors: Floats, by_size: NDArray[np.intp]
) -> Floats:
    """Logarithm of the quantile of errors ``(C, n)`` in each leaf ``(nodes, C)``, given the order by size."""
    leaves = tree.apply(features).astype(np.int16)  # at most 1 / LEAF_SHARE leaves; stable sorting is faster
    counts = np.bincount(leaves, minlength=tree.node_count)
    places = np.cumsum(counts) - counts + np.maximum(0, np.ceil(LEAF_QUANTILE * counts).astype(int) - 1)
    orders = (order[np.argsort(leaves[order], kind="stable")] for order in by_size)
    found = [own[order[places[counts > 0]]] for own, order in zip(errors, orders, strict=True)]
    sizes = np.zeros((tree.node_count, len(errors)))
    sizes[counts > 0] = np.log(np.maximum(np.stack(found, axis=1), np.finfo(float).tiny))
    return sizes


def joined_trees(forests: Sequence[Sequence[tuple[Any, Floats]]]) -> ScaleTrees:
    """Return trees of scikit-learn, with the values ``(nodes, C)`` of each, by group as arrays of nodes."""
    parts: Mapping[str, list[NDArray[Any]]] = {name: [] for name in ScaleTrees.DTYPES}
    start = 0
    for forest in forests:
        roots = []
        for tree, values in forest:
            places, is_leaf = np.arange(tree.node_count), tree.children_left < 0
            parts["feature"].append(np.where(is_leaf, 0, tree.feature))
            parts["threshold"].append(np.where(is_leaf, 0.0, tree.threshold))
            parts["left"].append(start + np.where(is_leaf, places, tree.children_left))
            parts["right"].append(start + np.where(is_leaf, places, tree.children_right))
            parts["value"].append(values)
            roots.append(start)
            start += tree.node_count
        parts["roots"].append(np.array([roots]))
    return ScaleTrees(
        **{name: np.concatenate(parts[name]).astype(kind) for name, kind in ScaleTrees.DTYPES.items()}
    )


def _thresholds(rows: OutOfFold, scores: NDArray[np.float32], level: float) -> Floats:
    """Threshold of each row ``(n,)`` from the scores of other folds; NaN where they are too few."""
    thresholds = np.full(len(scores), np.nan)
    for fold in np.unique(rows.folds):
        others = rows.folds < fold if rows.in_time else rows.folds != fold
        if not others.any() or (rows.weight is not None and not rows.weight[others].any()):
            continue
        own = None if rows.weight is None else rows.weight[others]
        known = ConformalScores(scores[others], np.zeros(int(others.sum()), dtype=np.int16), 1, own)
        if level <= known.max_coverage:
            thresholds[rows.folds == fold] = known.quantile(level)
    return thresholds


def _measured_intervals(
    model: TrainedModel, rows: OutOfFold, found: Uncertainty, scales: Floats, level: float
) -> dict[str, Any] | None:
    """Coverage, and mean width of each output, of intervals from the errors of other folds."""
    assert found.bounds is not None
    units = np.ones(len(scales)) if model.target_scaling is None else np.array(model.target_scaling.unit)
    covered, widths = [], []
    for output, scores in enumerate(found.scores):
        thresholds = _thresholds(rows, scores, level)
        known = ~np.isnan(thresholds)
        if not known.any():
            return None
        weight = None if rows.weight is None else rows.weight[known]
        if weight is not None and not weight.any():
            return None
        middle, half = rows.predictions[output, known], (thresholds * scales[output])[known]
        low, high = found.bounds[:, output]
        width = np.minimum(middle + half, high) - np.maximum(middle - half, low)
        covered.append(np.average(scores[known] <= thresholds[known], weights=weight))
        widths.append(float(units[output] * np.average(width, weights=weight)))
    return {"coverage": level, "measured": float(np.mean(covered)), "width": widths}


def _measured_sets(
    model: TrainedModel, rows: OutOfFold, scores: NDArray[np.float32], level: float
) -> dict[str, Any] | None:
    """Coverage and mean size of sets of classes from the errors of other folds."""
    thresholds = _thresholds(rows, scores, level)
    known = ~np.isnan(thresholds)
    weight = None if rows.weight is None else rows.weight[known]
    if not known.any() or (weight is not None and not weight.any()):
        return None
    sets = 1.0 - rows.predictions <= thresholds
    places = np.arange(len(scores))
    sets[model.class_numbers(rows.predictions), places] = True
    covered = sets[rows.target, places] | (scores <= thresholds)
    return {
        "coverage": level,
        "measured": float(np.average(covered[known], weights=weight)),
        "size": float(np.average(sets.sum(axis=0)[known], weights=weight)),
    }
