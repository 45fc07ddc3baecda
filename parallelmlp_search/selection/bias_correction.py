"""A score of the winner that is not flattered by having been chosen.

The best of many members looks better than it is on the rows that chose it. Bootstrap bias corrected
cross-validation (Tsamardinos, Greasidou and Borboudakis, "Bootstrapping the out-of-sample predictions for
efficient and accurate cross-validation", Machine Learning 107, 2018) repeats the whole choice on rows drawn
with replacement and scores it on the rows that were not drawn. No network is trained again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

from parallelmlp_search.exceptions import InvalidParameterError, SearchFailedError
from parallelmlp_search.selection.bootstrap import draws, spawned, units_of
from parallelmlp_search.selection.ensemble import (
    CHOICE_SECONDS,
    GreedyEnsemble,
    greedy_ensemble,
    pick_members,
    shares,
    simplest_first,
    weighted_average,
)
from parallelmlp_search.selection.inputs import check_inputs, finite_members
from parallelmlp_search.selection.metrics import Metric

__all__ = ["HonestScore", "as_predicted", "bias_corrected_score"]

N_ROUNDS = 25
"""Most picks of an ensemble where nothing else is said."""

N_REPEATS_FOR_ERROR = 100
"""Bootstraps behind the standard error, which then is itself known to 7 %."""

ERROR_SECONDS, MIN_REPEATS = 0.5, 10
"""What the error of treated predictions may take, and its fewest bootstraps however large the table."""

MIN_ROWS, MAX_ROWS = 1_000, 10_000
"""Rows that a repeated choice looks at, however dear or cheap the metric."""

MAX_DRAWS = 4
"""Draws tried per bootstrap wanted, since a draw may leave no row, or only one class, outside."""


@dataclass(frozen=True)
class HonestScore:
    """What to expect of the chosen member or ensemble on new rows, in the metric's own orientation.

    Parameters
    ----------
    score
        Mean score of the repeated choices on the rows outside each bootstrap.
    standard_error
        Uncertainty of ``score`` because the rows are finitely many.
    low, high
        Interval that holds 95 % of the outside scores, narrowed to what all rows would give.
    naive
        Score of the choice on the rows that made it.
    n_bootstraps
        Bootstraps that gave a score.
    averaging
        What of ``score`` is expected from averaging the networks of all folds, which no row can show.
    """

    score: float
    standard_error: float
    low: float
    high: float
    naive: float
    n_bootstraps: int
    averaging: float = 0.0


def bias_corrected_score(
    predictions: Tensor,
    target: Any,
    metric: Metric,
    *,
    weight: Any = None,
    groups: Any = None,
    ensemble: bool = True,
    chosen: GreedyEnsemble | None = None,
    complexity: Any = None,
    n_bootstraps: int = 30,
    n_rounds: int | None = None,
    max_rows: int | None = None,
    seed: int | np.random.SeedSequence = 0,
) -> HonestScore:
    """Score of the choice among members, corrected for the choosing.

    Parameters
    ----------
    predictions
        (P, C, N) out-of-fold predictions of all members that were up for choice, not of the best alone.
    target
        Class numbers (N,), or values (N,) or (C, N).
    metric
        What chooses and what is reported.
    weight
        Row weights (N,), or None.
    groups
        (N,) labels; rows of one group are drawn and left out together. None: each row is its own group.
    ensemble
        Whether the choice is a greedy ensemble or the best single member.
    chosen
        The choice made on all rows, where it is known already; found here where it is None.
    complexity
        (P,), as in `greedy_ensemble`.
    n_bootstraps
        Repetitions of the choice, >= 2.
    n_rounds
        Most picks of each ensemble; None for as many as `chosen` tried, or 25. With fewer picks than the real
        choice the score is too low.
    max_rows
        Most rows inside a bootstrap that the repeated choice looks at; all rows outside are scored. None for
        as many as keep the whole within about `CHOICE_SECONDS` on one core by the metrics' measured costs,
        1,000 to 10,000.
    seed
        Decides every draw; the same on every device.

    Raises
    ------
    InvalidParameterError
        If a parameter breaks its rule.
    SearchFailedError
        If no member has a finite score.

    Notes
    -----
    The rows outside a bootstrap are a share f of about 0.37 of all, so outside scores spread by
    sqrt((1 - f) / f) = 1.3 times the standard error on all rows (the delete-d jackknife). ``low`` and
    ``high`` are their percentiles, drawn towards the mean by that factor. ``standard_error`` is the larger of
    their spread, narrowed alike, and of the bootstrap error of the chosen predictions on all rows.

    Metrics that rank rows (ROC-AUC) compare out-of-fold predictions of different folds on one scale. Where
    the folds' networks are calibrated differently, this understates the AUC of each of them.

    Where no bootstrap leaves rows that can be scored (fewer than a handful of rows, or one class only), all
    fields but ``naive`` are NaN.
    """
    if n_rounds is None:
        n_rounds = len(chosen.scores) if chosen is not None else N_ROUNDS
    if not ensemble:
        n_rounds = 1
    for name, count, least in (
        ("n_bootstraps", n_bootstraps, 2),
        ("n_rounds", n_rounds, 1),
        ("max_rows", 2 if max_rows is None else max_rows, 2),
    ):
        if isinstance(count, bool) or not isinstance(count, Integral) or count < least:
            raise InvalidParameterError(f"{name} must be an integer >= {least}, but got {count!r}")
    original = predictions
    predictions, target, weight = check_inputs(predictions, target, weight, metric.formula.target_kind)
    n_members, _, n_rows = predictions.shape
    unit_of_row = units_of(groups, n_rows)

    order = simplest_first(complexity, n_members)
    if chosen is None:
        chosen = greedy_ensemble(
            original, target, metric, n_rounds=n_rounds, weight=weight, complexity=complexity
        )
    overall = metric.formula.condense(chosen.combine(predictions)[None], target)
    naive = float(metric.formula.score(overall, target, weight)[0])

    alive = finite_members(predictions).cpu()
    members = [p for p in order if alive[p]]
    if members != list(range(n_members)):
        predictions = predictions[members]
    condensed = metric.formula.condense(predictions, target)

    seconds = CHOICE_SECONDS / n_bootstraps
    if max_rows is None:
        per_row = metric.formula.nanoseconds * 1e-9 * condensed[..., 0].numel() * n_rounds
        max_rows = min(max(int(seconds / per_row), MIN_ROWS), MAX_ROWS)
    choice_seed, error_seed = spawned(seed)
    outside_scores: list[float] = []
    shares_outside: list[float] = []
    for counts, share_outside, random in draws(unit_of_row, choice_seed, MAX_DRAWS * n_bootstraps):
        inside = np.flatnonzero(counts)
        if len(inside) > max_rows:
            inside = np.sort(random.choice(inside, max_rows, replace=False))
        weights = _choose(condensed, target, weight, metric, counts, inside, n_rounds, seconds)
        score = _outside_score(condensed, target, weight, metric, counts, weights)
        if math.isfinite(score):
            outside_scores.append(score)
            shares_outside.append(share_outside)
        if len(outside_scores) == n_bootstraps:
            break
    if len(outside_scores) < 2:
        return HonestScore(math.nan, math.nan, math.nan, math.nan, naive, len(outside_scores))

    outside = np.asarray(outside_scores)
    share = float(np.mean(shares_outside))
    narrowing = math.sqrt(share / (1.0 - share))
    mean = float(outside.mean())
    # "weibull" puts the extremes of 30 draws at 1/31 and 30/31; the default would cut them short.
    low, high = np.quantile(outside, (0.025, 0.975), method="weibull").tolist()
    low, high = mean + narrowing * (low - mean), mean + narrowing * (high - mean)
    spread = narrowing * float(outside.std(ddof=1))
    error = _bootstrap_error(overall, target, weight, metric, unit_of_row, error_seed)
    return HonestScore(mean, max(spread, error), low, high, naive, len(outside_scores))


def as_predicted(
    honest: HonestScore,
    plain: Tensor,
    treated: Tensor,
    target: Any,
    metric: Metric,
    *,
    weight: Any = None,
    groups: Any = None,
    seed: int | np.random.SeedSequence = 0,
) -> HonestScore:
    """Score of a choice whose predictions go through something else before they are given out.

    What they go through (weights of the classes, a temperature) was fitted on other rows, so the difference
    that it makes on these is not flattered by it, and is added to the corrected score. It is taken for the
    one ensemble that was chosen here; that choice looked at the plain predictions only.

    Parameters
    ----------
    honest
        Score of the choice, corrected for the choosing.
    plain, treated
        (C, N) predictions of the chosen ensemble, before and after.
    target, metric, weight, groups, seed
        As in :func:`bias_corrected_score`.

    Returns
    -------
    HonestScore
        Moved by the difference; its error is at least that of the treated predictions as they are.
    """
    stacked, target, weight = check_inputs(
        torch.stack([plain, treated]), target, weight, metric.formula.target_kind
    )
    before, after = metric(stacked, target, weight).tolist()
    if torch.equal(plain, treated) or not math.isfinite(after - before):
        return honest
    condensed = metric.formula.condense(stacked[1:], target)
    units = units_of(groups, stacked.shape[2])
    once = metric.formula.nanoseconds * 1e-9 * condensed.numel()
    repeats = min(N_REPEATS_FOR_ERROR, max(MIN_REPEATS, int(ERROR_SECONDS / once)))
    error = _bootstrap_error(condensed, target, weight, metric, units, spawned(seed)[1], repeats)
    shift, score = after - before, honest.score + after - before
    return replace(
        honest,
        score=score,
        standard_error=max(honest.standard_error, error),
        low=min(honest.low + shift, score - 1.96 * error),
        high=max(honest.high + shift, score + 1.96 * error),
        naive=honest.naive + shift,
    )


def _choose(
    condensed: Tensor,
    target: Tensor,
    weight: Tensor,
    metric: Metric,
    counts: np.ndarray[Any, np.dtype[np.int64]],
    inside: np.ndarray[Any, np.dtype[np.int64]],
    n_rounds: int,
    seconds: float,
) -> Tensor | None:
    """(P,) weights of the choice on the rows inside, or None where nothing can be chosen on them."""
    rows = torch.from_numpy(inside).to(condensed.device)
    times = torch.from_numpy(counts[inside]).to(weight)
    inside_weight = weight[rows] * times
    if float(inside_weight.sum()) <= 0:
        return None
    try:
        picks, _, kept = pick_members(
            condensed.index_select(2, rows), target[..., rows], inside_weight, metric, n_rounds, seconds
        )
    except SearchFailedError:  # rows of one class only, where the metric is not defined
        return None
    return shares(picks[:kept], len(condensed))


def _outside_score(
    condensed: Tensor,
    target: Tensor,
    weight: Tensor,
    metric: Metric,
    counts: np.ndarray[Any, np.dtype[np.int64]],
    weights: Tensor | None,
) -> float:
    rows = torch.from_numpy(np.flatnonzero(counts == 0)).to(condensed.device)
    if weights is None or len(rows) == 0 or float(weight[rows].sum()) <= 0:
        return math.nan
    members = weights.nonzero()[:, 0]
    picked = condensed[members.to(condensed.device)].index_select(2, rows)
    average = weighted_average(picked, weights[members])
    return float(metric.formula.score(average[None], target[..., rows], weight[rows])[0])


def _bootstrap_error(
    overall: Tensor,
    target: Tensor,
    weight: Tensor,
    metric: Metric,
    unit_of_row: np.ndarray[Any, np.dtype[np.int64]],
    seed: np.random.SeedSequence,
    repeats: int = N_REPEATS_FOR_ERROR,
) -> float:
    """Standard error of the score of fixed predictions on all rows."""
    scores: list[float] = []
    for counts, _, _ in draws(unit_of_row, seed, repeats):
        drawn = weight * torch.from_numpy(counts).to(weight)
        if float(drawn.sum()) > 0:
            scores.append(float(metric.formula.score(overall, target, drawn)[0]))
    finite = [score for score in scores if math.isfinite(score)]
    return float(np.std(finite, ddof=1)) if len(finite) > 1 else 0.0
