"""Comparison of promoted networks on out-of-fold rows, and selection of the ensemble among them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from parallelmlp_search._reading import load_tensors, reading
from parallelmlp_search.exceptions import SearchFailedError
from parallelmlp_search.parareal.promotion.candidates import Forecast
from parallelmlp_search.parareal.promotion.model import (
    PromotedMember,
    PromotedModel,
    untempered_decision_weights,
)
from parallelmlp_search.parareal.ranks.jobs import Job, Task
from parallelmlp_search.search import RunDirectory, TrainedModel
from parallelmlp_search.search.problem.preparation import Part, Preparation, seed_of
from parallelmlp_search.selection import (
    Bootstrap,
    GreedyEnsemble,
    HonestScore,
    adjust_for_averaging,
    apply_temperature,
    averaging_gain,
    bias_corrected_score,
    greedy_ensemble,
    weight_classes,
)

MIN_REPORTED_WAIT = 0.05
"""Share of the time without a core from which a remark mentions it."""

MIN_REPORTED_SPEEDUP = 1.15


@dataclass(frozen=True)
class PromotionContext:
    """A promotion whose networks are trained."""

    directory: RunDirectory
    preparation: Preparation
    parts: Sequence[Part]  # folds of the run
    forecasts: Sequence[Forecast]  # one per candidate
    job: Job
    tasks: Sequence[Task]  # each candidate with each number of slices on each fold


@dataclass(frozen=True)
class Contender:
    """A candidate in one of its two forms, trained."""

    trial: int
    depth: int  # hidden layers
    slices: int  # 1 for the serial twin
    score: float  # of out-of-fold predictions, in the metric's own orientation
    parameters: int
    seconds: float  # training on all folds
    step_seconds: float  # median
    predicted_step_seconds: float | None  # on as many devices as slices
    ranks: int  # processes that trained it
    waited: float = 0.0  # share of the time in which other programs had its cores
    failure: str | None = None  # reason for which training ended early on a fold
    weight: float = 0.0  # in the new ensemble


@dataclass(frozen=True)
class PromotionResult:
    """Result of a promotion. Scores are in the metric's own orientation."""

    metric: str
    contenders: tuple[Contender, ...]  # serial twins and parareal networks
    forecasts: tuple[Forecast, ...]
    score_before: float  # of the ensemble on the out-of-fold rows
    score_after: float
    honest_before: float | None  # corrected for the selection
    honest_after: float | None
    used: bool  # True if the ensemble contains promoted networks
    remarks: tuple[str, ...]  # sentences on gains in score and time
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able form."""
        return asdict(self) | {"forecasts": [f.to_dict() for f in self.forecasts]}


class _OutOfFoldRows:
    """Out-of-fold rows of a run with the predictions of its finalists.

    Predictions are multiplied by the class weights of the run's model, so that metrics of labels see its
    decisions.
    """

    def __init__(self, context: PromotionContext, base: TrainedModel) -> None:
        preparation = context.preparation
        path = context.directory.path / "oof.safetensors"
        stored, _ = load_tensors(path)
        with reading(path):
            _check_out_of_fold(stored, preparation.n_oof, base)
        self.covered = stored["covered"]
        rows = preparation.oof_rows[self.covered.numpy()]
        self.metric = preparation.metric
        self.target, self.weight = preparation.metric_target(rows), preparation.weights(rows)
        groups = preparation.problem.groups
        self.groups = None if groups is None else groups[rows]
        self.trials: list[int] = stored["trials"].tolist()
        of_labels = self.metric.needs == "label"
        self.decision_weights = untempered_decision_weights(base) if of_labels else None
        self.finalists = weight_classes(stored["predictions"][:, :, self.covered], self.decision_weights)

    def score(self, predictions: Tensor) -> float:
        """Score of predictions ``(C, n)``, by way of the error, as the ensemble's own score is computed."""
        error = self.metric.error(predictions.unsqueeze(0), self.target, self.weight)
        return self.metric.to_score(float(error[0]))


def _check_out_of_fold(stored: Mapping[str, Tensor], n_rows: int, base: TrainedModel) -> None:
    """Check that stored predictions are those of the finalists of a model on all out-of-fold rows."""
    covered, trials, predictions = (stored[name] for name in ("covered", "trials", "predictions"))
    expected = (len(trials), base.folds[0].head.n_predictions, n_rows)
    if tuple(predictions.shape) != expected or not predictions.is_floating_point():
        raise ValueError(f"its predictions must have the shape {expected}")
    if tuple(covered.shape) != (n_rows,) or covered.dtype != torch.bool:
        raise ValueError(f"its marks of covered rows must have the shape ({n_rows},)")
    if missing := set(base.trials) - set(trials.tolist()):
        raise ValueError(f"it lacks the trial {min(missing)}")


@dataclass(frozen=True)
class _Trained:
    contender: Contender
    member: PromotedMember
    predictions: Tensor
    diverged: bool


@dataclass(frozen=True)
class _Selection:
    """Ensemble after the promotion; ``shares`` are the weights of the promoted networks."""

    weights: Tensor
    shares: list[float]
    score_before: float
    score_after: float
    honest: HonestScore | None  # None if no promoted network is used


def compare_contenders(
    context: PromotionContext,
) -> tuple[PromotionResult, PromotedModel, HonestScore | None]:
    """Score all contenders on out-of-fold rows and select the ensemble again.

    Parameters
    ----------
    context
        The promotion.

    Returns
    -------
    (PromotionResult, PromotedModel, HonestScore or None)
        The comparison, the model, and the honest score of its ensemble if it contains promoted networks.

    Raises
    ------
    SearchFailedError
        If every promoted network diverged.
    """
    base = TrainedModel.load(context.directory.model_folder)
    rows = _OutOfFoldRows(context, base)
    trained = [
        _trained(context, rows, forecast, slices)
        for forecast in context.forecasts
        for slices in dict.fromkeys(task.slices for task in context.tasks)
    ]
    if all(one.diverged for one in trained):
        raise SearchFailedError(
            "every promoted network diverged: lower the learning rate, or the depth factor"
        )
    selection = _select_ensemble(context, rows, base, trained)
    pairs = list(zip(trained, selection.shares, strict=True))
    contenders = [replace(one.contender, weight=share) for one, share in pairs]
    members = [replace(one.member, weight=share) for one, share in pairs]
    model = PromotedModel.of(base, selection.weights.numpy(), members)
    result = context.directory.result()
    previous = (result.get("promotion") or {}).get("honest_of_search") or result.get("honest") or {}
    greater = rows.metric.greater_is_better
    remarks = _remarks(contenders, greater) + _ensemble_remarks(selection, previous, greater)
    promotion = PromotionResult(
        metric=rows.metric.name,
        contenders=tuple(contenders),
        forecasts=tuple(context.forecasts),
        score_before=selection.score_before,
        score_after=selection.score_after,
        honest_before=previous.get("score"),
        honest_after=selection.honest.score if selection.honest else previous.get("score"),
        used=selection.honest is not None,
        remarks=tuple(remarks),
        seconds=0.0,
    )
    return promotion, model, selection.honest


def _trained(context: PromotionContext, rows: _OutOfFoldRows, forecast: Forecast, slices: int) -> _Trained:
    """Results of a candidate with a number of slices on all folds."""
    job, candidate = context.job, forecast.candidate
    tasks = [t for t in context.tasks if t.key.startswith(f"trial-{candidate.trial}-{slices}-")]
    outcomes = [job.outcome(task) for task in tasks]
    place_of = {int(row): place for place, row in enumerate(context.preparation.oof_rows)}
    predictions = torch.full((rows.finalists.shape[1], len(place_of)), math.nan)
    for task, part in zip(tasks, context.parts, strict=True):
        places = torch.tensor([place_of[int(row)] for row in part.predicted_rows], dtype=torch.int64)
        predictions[:, places] = job.prediction(task)
    predictions = weight_classes(predictions[:, rows.covered], rows.decision_weights)
    contender = Contender(
        trial=candidate.trial,
        depth=candidate.config.depth,
        slices=slices,
        score=rows.score(predictions),
        parameters=outcomes[0]["parameters"],
        seconds=sum(outcome["seconds"] for outcome in outcomes),
        step_seconds=statistics.median_high(outcome["step_seconds"] for outcome in outcomes),
        predicted_step_seconds=forecast.step_seconds(slices),
        ranks=outcomes[0]["ranks"],
        waited=max(outcome.get("waited", 0.0) for outcome in outcomes),
        failure=next((outcome["failure"] for outcome in outcomes if outcome["failure"]), None),
    )
    states = tuple(job.weights(task) for task in tasks)
    member = PromotedMember(candidate.trial, candidate.config, slices, tuple(outcomes[0]["cuts"]), states)
    diverged = not all(math.isfinite(outcome["error"]) for outcome in outcomes)
    return _Trained(contender, member, predictions, diverged)


def _select_ensemble(
    context: PromotionContext, rows: _OutOfFoldRows, base: TrainedModel, trained: Sequence[_Trained]
) -> _Selection:
    """Select the ensemble among its members and the promoted networks; keep the old one if it is as good."""
    # finalists outside of the ensemble are not stored and cannot be selected, but they were candidates of the
    # search, so the bias correction includes them
    finalists, metric = rows.finalists, rows.metric
    stored = [rows.trials.index(trial) for trial in base.trials]
    networks = torch.cat([finalists, torch.stack([one.predictions for one in trained]).to(finalists.dtype)])
    allowed = [*stored, *range(len(finalists), len(networks))]
    complexity = [0.0] * len(finalists) + [float(one.contender.parameters) for one in trained]
    picked = greedy_ensemble(
        networks[allowed],
        rows.target,
        metric,
        weight=rows.weight,
        complexity=[complexity[i] for i in allowed],
    )
    weights = torch.zeros(len(networks), dtype=torch.float64)
    own = torch.from_numpy(base.weights)
    weights[stored] = own.double()
    before = GreedyEnsemble(weights, (), ()).combine(networks)
    if rows.decision_weights is None and base.classes is not None:  # metrics of labels ignore the temperature
        before = apply_temperature(before, base.temperature)
    score_before = rows.score(before)
    shares = picked.weights[len(stored) :].tolist()
    better = picked.score > score_before if metric.greater_is_better else picked.score < score_before
    if not (better and any(share > 0 for share in shares)):
        return _Selection(own, [0.0] * len(shares), score_before, score_before, None)
    weights = torch.zeros(len(networks), dtype=torch.float64)
    weights[allowed] = picked.weights
    honest = bias_corrected_score(
        networks,
        rows.target,
        metric,
        GreedyEnsemble(weights, tuple(allowed[i] for i in picked.selected), picked.scores),
        weight=rows.weight,
        complexity=complexity,
        bootstrap=Bootstrap(groups=rows.groups, seed=seed_of(context.preparation.settings.seed, 3)),
    )
    gain = averaging_gain(networks, rows.target, metric, weights, len(context.parts), weight=rows.weight)
    return _Selection(
        weights=picked.weights[: len(stored)],
        shares=shares,
        score_before=score_before,
        score_after=picked.score,
        honest=adjust_for_averaging(honest, gain, metric.formula.score_range(networks.shape[1])),
    )


def _remarks(contenders: Sequence[Contender], greater: bool) -> list[str]:
    """Sentences on the networks: failures, gains against the serial twin, waiting for cores."""
    found = []
    for ended in (c for c in contenders if c.failure):
        trial = f"trial {ended.trial}"
        name = f"{trial} in {ended.slices} slices" if ended.slices > 1 else f"the serial twin of {trial}"
        found.append(f"training of {name} ended early: {ended.failure}")
    twins = {c.trial: c for c in contenders if c.slices == 1}
    for sliced in (c for c in contenders if c.slices > 1):
        twin = twins[sliced.trial]
        gain = sliced.score - twin.score if greater else twin.score - sliced.score
        order = "better than" if gain > 0 else ("worse than" if gain < 0 else "as good as")
        found.append(
            f"trial {sliced.trial} in {sliced.slices} slices is {order} its serial twin"
            + (f", by {abs(gain):.4f}" if gain else "")
        )
        found.append(_time_remark(sliced, twin))
    waited = max(contender.waited for contender in contenders)
    if waited > MIN_REPORTED_WAIT:
        found.append(
            f"other programs or ranks had the cores for {100 * min(1.0, waited):.0f} % of the time: on free "
            "cores steps would be shorter"
        )
    return found


def _time_remark(sliced: Contender, twin: Contender) -> str:
    speedup = twin.step_seconds / sliced.step_seconds
    if sliced.ranks == 1:
        text = "it was trained in one process, which gains no time"
        if sliced.predicted_step_seconds:
            ratio = twin.step_seconds / sliced.predicted_step_seconds
            text += f"; {sliced.slices} devices are predicted to be {ratio:.1f} times as fast"
        return text
    if speedup < MIN_REPORTED_SPEEDUP:
        return f"over {sliced.ranks} ranks a step took {1 / speedup:.2f} times as long, which gains no time"
    return f"over {sliced.ranks} ranks a step was {speedup:.2f} times as fast"


def _ensemble_remarks(selection: _Selection, previous: dict[str, Any], greater: bool) -> list[str]:
    """Sentence on the ensemble."""
    honest = selection.honest
    if honest is None:
        return [
            "the ensemble is not better with promoted networks on out-of-fold rows and does not change: "
            "depth does not pay"
        ]
    if previous.get("score") is None:
        return []
    gain = honest.score - previous["score"] if greater else previous["score"] - honest.score
    small = ", less than its standard error" if gain < honest.standard_error else ""
    return [f"the ensemble contains promoted networks; its honest score changes by {gain:+.4f}{small}"]
