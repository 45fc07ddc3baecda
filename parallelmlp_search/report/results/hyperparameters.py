"""Importance of hyperparameters: how well the rank of a trial can be predicted with and without each.

A forest predicts the ranks from the configurations. It is scored on trials that it has not seen, before and
after the values of one hyperparameter are shuffled between them (Breiman, "Random forests", 2001). Ranks take
part because scores of different rungs are not comparable.

Trials that were drawn from the whole space at random are used if they suffice. In refined trials, which are
near the elites, hyperparameters are correlated with each other and with the rank. On 300 trials on spambase,
those drawn at random agreed with fANOVA that the learning rate comes first (0.52 and 0.51); with the refined
ones among them it came third.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parallelmlp_search.report.results.finished import FinishedSearch

MIN_TRIALS = 30
"""Ranked trials from which importance is computed."""

MAX_TRIALS = 2000
"""Most trials that the forest learns from; of more, a random sample."""

N_FOLDS, N_REPEATS, N_TREES = 3, 5, 60

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class HyperparameterImportance:
    """Importance of each hyperparameter, the most important first.

    Attributes
    ----------
    names, values
        Hyperparameters, and the share of the variance of ranks that is no longer explained without each.
    explained
        Share of the variance of the ranks of unseen trials that the forest explains.
    n_trials
        Trials that were used.
    at_random
        True if all of them were drawn from the space at random.
    """

    names: tuple[str, ...]
    values: tuple[float, ...]
    explained: float
    n_trials: int
    at_random: bool = False


def importance_in_search(search: FinishedSearch) -> HyperparameterImportance | None:
    """Return the importance of hyperparameters, from the trials drawn at random if there are enough.

    None for fewer than :data:`MIN_TRIALS` ranked trials, or if all have the same configuration.
    """
    table, at_random = search.hyperparameters, search.at_random
    if at_random.sum() < MIN_TRIALS:
        return hyperparameter_importance(table)
    found = hyperparameter_importance(table[at_random].reset_index(drop=True))
    return None if found is None else replace(found, at_random=True)


def hyperparameter_importance(hyperparameters: pd.DataFrame) -> HyperparameterImportance | None:
    """Return the importance of hyperparameters.

    Parameters
    ----------
    hyperparameters
        Fields of the configurations of ranked trials, best first.

    Returns
    -------
    HyperparameterImportance or None
        None for fewer than :data:`MIN_TRIALS` trials, or if all have the same configuration.
    """
    hyperparameters = hyperparameters.loc[:, hyperparameters.nunique() > 1]
    if len(hyperparameters) < MIN_TRIALS or hyperparameters.shape[1] == 0:
        return None
    from sklearn.ensemble import ExtraTreesRegressor

    generator = np.random.default_rng(0)
    order = generator.permutation(len(hyperparameters))[:MAX_TRIALS]
    target = order / len(hyperparameters)
    names = list(hyperparameters.columns)
    codes = np.column_stack([_codes(hyperparameters[name]) for name in names])[order]
    folds = np.arange(len(order)) % N_FOLDS
    variance = float(np.var(target))
    lost, explained = np.zeros(len(names)), 0.0
    for fold in range(N_FOLDS):
        inside, outside = folds != fold, folds == fold
        forest = ExtraTreesRegressor(
            N_TREES, min_samples_leaf=2, max_features=1.0, random_state=fold, n_jobs=1
        ).fit(codes[inside], target[inside])
        rows, truth = codes[outside], target[outside]
        base = _error(forest.predict(rows), truth)
        explained += (1.0 - base / variance) / N_FOLDS
        changed = np.concatenate(
            [_shuffled(rows, column, generator) for column in range(len(names)) for _ in range(N_REPEATS)]
        )
        predictions = forest.predict(changed).reshape(len(names), N_REPEATS, len(rows))
        errors = ((predictions - truth) ** 2).mean(axis=(1, 2))
        lost += (errors - base) / variance / N_FOLDS
    best = np.argsort(-lost, kind="stable")
    return HyperparameterImportance(
        tuple(names[place] for place in best),
        tuple(max(0.0, float(lost[place])) for place in best),
        explained,
        len(order),
    )


def _codes(values: pd.Series) -> Doubles:
    """Numbers as they are, other values by their order; -1 for missing values below all others."""
    if pd.api.types.is_numeric_dtype(values.dtype):
        numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
        low = np.nanmin(numbers) if np.isfinite(numbers).any() else 0.0
        return np.where(np.isnan(numbers), low - 1.0, numbers)
    codes, _ = pd.factorize(values.astype("string"), sort=True)
    return codes.astype(np.float64)


def _shuffled(rows: Doubles, column: int, generator: np.random.Generator) -> Doubles:
    changed = rows.copy()
    changed[:, column] = generator.permutation(rows[:, column])
    return changed


def _error(predictions: Doubles, truth: Doubles) -> float:
    return float(((predictions - truth) ** 2).mean())
