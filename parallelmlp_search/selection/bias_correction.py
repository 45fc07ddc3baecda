"""Honest score: the score of a selected ensemble, corrected for the selection bias.

The best of many members looks better than it is on the rows that it was selected on. Bootstrap bias corrected
cross-validation (BBC-CV; Tsamardinos, Greasidou and Borboudakis, "Bootstrapping the out-of-sample predictions
for efficient and accurate cross-validation", Machine Learning 107, 2018) repeats the selection on bootstrap
samples of the rows and scores it on the out-of-bag rows. No network is trained again.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from parallelmlp_search.exceptions import MetricError, SearchFailedError
from parallelmlp_search.selection.bootstrap import (
    Bootstrap,
    BootstrapSample,
    bootstrap_samples,
    sampling_units,
    spawn_seeds,
)
from parallelmlp_search.selection.ensemble import (
    MAX_SELECTION_SECONDS,
    GreedyEnsemble,
    MemberPool,
    order_by_complexity,
    weighted_average,
)
from parallelmlp_search.selection.inputs import check_inputs, finite_members
from parallelmlp_search.selection.metrics import Metric

N_ERROR_SAMPLES = 100
"""Bootstrap samples of a standard error, which is then itself known to 7 %."""

MAX_ERROR_SECONDS, MIN_ERROR_SAMPLES = 0.5, 10
"""Time limit of the standard error after postprocessing, and the samples that are drawn in any case."""

MAX_CALL_SECONDS = 1.0
"""Limit of the repeated selections after their first rounds, for a metric that scores a member per call."""

MIN_ROWS, MAX_ROWS = 1_000, 10_000
"""Limits of the default number of rows that a selection is repeated on."""

MAX_TRIES = 4
"""Samples drawn per sample wanted: one may leave no out-of-bag row, or only one class."""


@dataclass(frozen=True)
class HonestScore:
    """Bias-corrected score of the selected ensemble: its expected score on new rows.

    All scores are in the metric's own orientation and in its range, ends of the interval included.

    Parameters
    ----------
    score
        Mean score of the repeated selections on their out-of-bag rows.
    standard_error
        Standard error of ``score``, due to the finite number of rows.
    low, high
        95 % interval of ``score``.
    naive
        Uncorrected score of the ensemble, on the rows that it was selected on.
    n_bootstraps
        Bootstrap samples that yielded a score.
    averaging
        Part of ``score`` that is the expected gain of averaging the networks of all folds.
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
    ensemble: GreedyEnsemble,
    *,
    weight: Any = None,
    complexity: Sequence[float] | Tensor | None = None,
    bootstrap: Bootstrap | None = None,
) -> HonestScore:
    """Score of a selected ensemble, corrected for the selection.

    Parameters
    ----------
    predictions
        (P, C, N) out-of-fold predictions of all members that were candidates, not only of the best.
    target
        Class numbers (N,), or values (N,) or (C, N).
    metric
        Metric of the selection and of the score.
    ensemble
        Ensemble that was selected on all rows. Each repeated selection has as many rounds, and its limit.
    weight
        Row weights (N,), or None.
    complexity
        (P,), as in :func:`greedy_ensemble`.
    bootstrap
        Number of samples, rows, groups and seed; None for the defaults.

    Returns
    -------
    HonestScore
        All fields but ``naive`` are NaN if fewer than two samples can be scored, because there are only a
        handful of rows or a single class.

    Notes
    -----
    A share f of about 0.37 of the rows is out of bag, so out-of-bag scores spread by sqrt((1 - f) / f) = 1.3
    times the standard error of the score on all rows (delete-d jackknife). ``low`` and ``high`` are their
    percentiles, moved towards the mean by that factor on the scale of
    :mod:`parallelmlp_search.selection.score_range`. ``standard_error`` is the larger of two: the standard
    deviation of the out-of-bag scores, divided by the same factor, and the bootstrap standard error of the
    selected ensemble's score on all rows.

    ROC-AUC ranks out-of-fold predictions of different folds on one scale. If the networks of the folds are
    calibrated differently, this understates the AUC of each of them.
    """
    bootstrap = bootstrap or Bootstrap()
    predictions, truth = check_inputs(predictions, target, weight, metric.formula.target_kind)
    units = sampling_units(bootstrap.groups, predictions.shape[2])
    selected = metric.formula.project(ensemble.combine(predictions)[None], truth.target)
    naive = float(metric.formula.score(selected, truth)[0])

    finite = finite_members(predictions).cpu()
    members = [p for p in order_by_complexity(complexity, len(predictions)) if finite[p]]
    if members != list(range(len(predictions))):
        predictions = predictions[members]
    limit = None if ensemble.limit is None else ensemble.limit.of(members)
    pool = MemberPool(metric.formula.project(predictions, truth.target), truth, metric, limit)

    n_rounds = len(ensemble.scores)
    most = MAX_CALL_SECONDS if metric.formula.call_ns else MAX_SELECTION_SECONDS
    seconds = min(most, bootstrap.seconds or most) / bootstrap.n_samples
    max_rows = bootstrap.max_rows
    if max_rows is None:
        per_row = metric.formula.cost_ns * 1e-9 * pool.projected[..., 0].numel() * n_rounds
        max_rows = min(max(int(seconds / per_row), MIN_ROWS), MAX_ROWS)
    selection_seed, error_seed = spawn_seeds(bootstrap.seed)
    samples = bootstrap_samples(units, selection_seed, MAX_TRIES * bootstrap.n_samples)

    def repeat(sample: BootstrapSample) -> tuple[float, float]:
        weights = _repeat_selection(pool, sample, max_rows, n_rounds, seconds)
        score = math.nan if weights is None else _out_of_bag_score(pool, sample, weights)
        return score, sample.out_of_bag

    scores, shares = _finite_scores(repeat, samples, bootstrap)
    if len(scores) < 2:
        return HonestScore(math.nan, math.nan, math.nan, math.nan, naive, len(scores))

    share = float(np.mean(shares))
    narrowing = math.sqrt(share / (1.0 - share))
    mean = float(np.mean(scores))
    # "weibull" puts the extremes of 30 samples at 1/31 and 30/31; the default gives a too short interval.
    low, high = np.quantile(scores, (0.025, 0.975), method="weibull").tolist()
    bounds = metric.formula.score_range(predictions.shape[1])
    low, high = (bounds.at(mean, narrowing * bounds.distance(mean, end)) for end in (low, high))
    spread = narrowing * _deviation(scores)
    n_samples = _n_error_samples(metric, selected) if metric.formula.call_ns else N_ERROR_SAMPLES
    error = _standard_error(MemberPool(selected, truth, metric), units, error_seed, n_samples)
    return HonestScore(mean, max(spread, error), low, high, naive, len(scores))


def _finite_scores(
    repeat: Callable[[BootstrapSample], tuple[float, float]],
    samples: Iterator[BootstrapSample],
    bootstrap: Bootstrap,
) -> tuple[list[float], list[float]]:
    """Scores of the first samples that can be scored, as many as wanted, and their out-of-bag shares."""
    found: list[tuple[float, float]] = []
    n_threads = torch.get_num_threads()
    with ThreadPoolExecutor(
        bootstrap.n_workers, initializer=lambda: torch.set_num_threads(n_threads)
    ) as pool:
        while not bootstrap.is_over(len(found)):
            # few at once, since each has a count of every row
            wanted = min(2 * bootstrap.n_workers, bootstrap.n_samples - len(found))
            batch = list(itertools.islice(samples, wanted))
            if not batch:
                break
            found += [one for one in pool.map(repeat, batch) if math.isfinite(one[0])]
    return [score for score, _ in found], [share for _, share in found]


def adjust_for_postprocessing(
    honest: HonestScore,
    plain: Tensor,
    processed: Tensor,
    target: Any,
    metric: Metric,
    *,
    weight: Any = None,
    bootstrap: Bootstrap | None = None,
) -> HonestScore:
    """Add the effect of postprocessing (a temperature, decision weights) to an honest score.

    Postprocessing was fitted on other rows, so its effect on these rows is unbiased. It is measured with the
    selected ensemble only; that ensemble was selected by its plain predictions.

    Parameters
    ----------
    honest
        Score without postprocessing.
    plain, processed
        (C, N) out-of-fold predictions of the selected ensemble, before and after.
    target, metric, weight
        As in :func:`bias_corrected_score`.
    bootstrap
        Groups and seed as in :func:`bias_corrected_score`.

    Returns
    -------
    HonestScore
        Shifted by the effect. Its standard error is at least that of the processed predictions.
    """
    bootstrap = bootstrap or Bootstrap()
    stacked, truth = check_inputs(torch.stack([plain, processed]), target, weight, metric.formula.target_kind)
    before, after = metric(stacked, truth.target, truth.weight).tolist()
    # a temperature does not change ranks, nor the area under the ROC curve of two classes
    is_same = after == before if metric.needs != "label" else torch.equal(plain, processed)
    if is_same or not math.isfinite(after - before):
        return honest
    selected = MemberPool(metric.formula.project(stacked[1:], truth.target), truth, metric)
    n_samples = _n_error_samples(metric, selected.projected)
    units = sampling_units(bootstrap.groups, stacked.shape[2])
    error = _standard_error(selected, units, spawn_seeds(bootstrap.seed)[1], n_samples)
    bounds = metric.formula.score_range(stacked.shape[1])
    score, low, high, naive = (
        bounds.shift(value, after - before) for value in (honest.score, honest.low, honest.high, honest.naive)
    )
    return replace(
        honest,
        score=score,
        standard_error=max(honest.standard_error, error),
        low=min(low, bounds.shift(score, -1.96 * error)),
        high=max(high, bounds.shift(score, 1.96 * error)),
        naive=naive,
    )


def _n_error_samples(metric: Metric, projected: Tensor) -> int:
    """Number of bootstrap samples of a standard error that fit into its time limit."""
    seconds = metric.formula.seconds(projected.numel(), len(projected))
    return min(N_ERROR_SAMPLES, max(MIN_ERROR_SAMPLES, int(MAX_ERROR_SECONDS / seconds)))


def _repeat_selection(
    pool: MemberPool, sample: BootstrapSample, max_rows: int, n_rounds: int, seconds: float
) -> Tensor | None:
    """Select on the drawn rows. Return weights (P,), or None if no member has a score."""
    drawn = np.flatnonzero(sample.counts)
    if len(drawn) > max_rows:
        drawn = np.sort(sample.generator.choice(drawn, max_rows, replace=False))
    rows = torch.from_numpy(drawn).to(pool.projected.device)
    truth = pool.truth.take(rows)
    truth = truth.reweight(truth.weight * torch.from_numpy(sample.counts[drawn]).to(truth.weight))
    if float(truth.weight.sum()) <= 0:
        return None
    try:
        drawn_pool = MemberPool(pool.projected.index_select(2, rows), truth, pool.metric, pool.limit)
        return drawn_pool.select(n_rounds, seconds).weights
    except SearchFailedError:  # the rows are of one class, for which the metric is not defined
        return None


def _out_of_bag_score(pool: MemberPool, sample: BootstrapSample, weights: Tensor) -> float:
    """Score of an ensemble on the out-of-bag rows; NaN if there are none."""
    rows = torch.from_numpy(np.flatnonzero(sample.counts == 0)).to(pool.projected.device)
    truth = pool.truth.take(rows)
    if len(rows) == 0 or float(truth.weight.sum()) <= 0:
        return math.nan
    members = weights.nonzero()[:, 0]
    selected = pool.projected[members.to(pool.projected.device)].index_select(2, rows)
    average = weighted_average(selected, weights[members])
    try:
        return float(pool.metric.formula.score(average[None], truth)[0])
    except MetricError:  # it may not be defined on these rows
        return math.nan


def _standard_error(
    selected: MemberPool,
    units: np.ndarray[Any, np.dtype[np.int64]],
    seed: np.random.SeedSequence,
    n_samples: int,
) -> float:
    """Bootstrap standard error of the score of one member."""
    scores: list[float] = []
    for sample in bootstrap_samples(units, seed, n_samples):
        weight = selected.truth.weight * torch.from_numpy(sample.counts).to(selected.truth.weight)
        if float(weight.sum()) > 0:
            truth = selected.truth.reweight(weight)
            with contextlib.suppress(MetricError):  # it may not be defined on these rows
                scores.append(float(selected.metric.formula.score(selected.projected, truth)[0]))
    finite = [score for score in scores if math.isfinite(score)]
    return _deviation(finite) if len(finite) > 1 else 0.0


def _deviation(scores: Sequence[float]) -> float:
    """Standard deviation. Scaling by a power of two rounds nothing, and no square overflows or vanishes."""
    size = 2.0 ** max(-1000, math.frexp(max(map(abs, scores)))[1] - 1)
    return size * float(np.std(np.array(scores) / size, ddof=1))
