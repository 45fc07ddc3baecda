"""The verdict on a promotion: contenders on out-of-fold rows, the ensemble chosen anew, what it is worth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from parallelmlp_search._files import load_tensors
from parallelmlp_search.exceptions import SearchFailedError
from parallelmlp_search.parareal.promotion.candidates import Candidate, Forecast
from parallelmlp_search.parareal.promotion.promoted import PromotedMember, PromotedModel, plain_decision
from parallelmlp_search.parareal.ranks.jobs import Job, Task
from parallelmlp_search.search import RunDirectory, TrainedModel
from parallelmlp_search.search.problem.preparation import Part, Preparation, seed_of
from parallelmlp_search.selection import (
    Bootstrap,
    GreedyEnsemble,
    HonestScore,
    Metric,
    adjust_for_averaging,
    apply_temperature,
    averaging_gain,
    bias_corrected_score,
    greedy_ensemble,
    weight_classes,
)

__all__ = ["Contender", "Promotion", "judge"]

NOTABLE_WAIT = 0.05
"""Share of the time without a core from which it is said."""


@dataclass(frozen=True)
class Contender:
    """A candidate in one of its two forms, as it turned out.

    Attributes
    ----------
    trial, depth, slices
        The finalist that it comes from, hidden layers, and slices (1: the serial twin).
    score
        Score of its out-of-fold predictions, in the metric's own orientation.
    parameters
        Trainable numbers.
    seconds
        Training on all folds, wall-clock.
    step_seconds
        Median step.
    predicted_step_seconds
        What the cost model says of a step on as many devices as slices, or None.
    ranks
        Processes that it was trained with.
    waited
        Share of the time that other programs on the same cores cost it.
    failure
        Why training ended early on some fold, or None.
    weight
        Share in the new ensemble.
    """

    trial: int
    depth: int
    slices: int
    score: float
    parameters: int
    seconds: float
    step_seconds: float
    predicted_step_seconds: float | None
    ranks: int
    waited: float = 0.0
    failure: str | None = None
    weight: float = 0.0


@dataclass(frozen=True)
class Promotion:
    """What a promotion has come to.

    Attributes
    ----------
    metric
        What scores measure.
    contenders
        Serial twins and parareal networks.
    forecasts
        What the cost model said.
    score_before, score_after
        Score of the ensemble on the rows that chose it, without and with what was promoted.
    honest_before, honest_after
        The same, corrected for the choice.
    used
        Whether the ensemble now holds promoted networks.
    remarks
        Sentences on whether it pays.
    seconds
        Wall-clock time of everything.
    """

    metric: str
    contenders: tuple[Contender, ...]
    forecasts: tuple[Forecast, ...]
    score_before: float
    score_after: float
    honest_before: float | None
    honest_after: float | None
    used: bool
    remarks: tuple[str, ...]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self) | {"forecasts": [f.to_dict() for f in self.forecasts]}


def judge(
    directory: RunDirectory,
    preparation: Preparation,
    parts: Sequence[Part],
    chosen: Sequence[Candidate],
    job: Job,
    tasks: Sequence[Task],
    forecasts: Sequence[Forecast],
) -> tuple[Promotion, PromotedModel]:
    """Score all contenders on out-of-fold rows and choose the ensemble anew."""
    metric = preparation.metric
    result = directory.result()
    kept, _ = load_tensors(directory.path / "oof.safetensors")
    covered = kept["covered"]
    rows = preparation.oof_rows[covered.numpy()]
    target, weight = preparation.metric_target(rows), preparation.weights(rows)
    base = TrainedModel.load(directory.model_folder)
    decision = plain_decision(base)
    contenders, members, found, sound = [], [], [], []
    for candidate, seen in zip(chosen, forecasts, strict=True):
        for count in dict.fromkeys(task.slices for task in tasks):
            mine = [t for t in tasks if t.key.startswith(f"trial-{candidate.trial}-{count}-")]
            outcomes = [job.outcome(task) for task in mine]
            predictions = _out_of_fold(job, mine, parts, preparation, kept["predictions"])[:, covered]
            predictions = weight_classes(predictions, decision)
            error = float(metric.error(predictions.unsqueeze(0), target, weight)[0])
            predicted = {p.slices: p.step for p in seen.predictions} | {1: seen.predictions[0].serial}
            contenders.append(
                Contender(
                    trial=candidate.trial,
                    depth=candidate.config.depth,
                    slices=count,
                    score=metric.to_score(error),
                    parameters=outcomes[0]["parameters"],
                    seconds=sum(outcome["seconds"] for outcome in outcomes),
                    step_seconds=sorted(outcome["step_seconds"] for outcome in outcomes)[len(outcomes) // 2],
                    predicted_step_seconds=predicted.get(count),
                    ranks=outcomes[0]["ranks"],
                    waited=max(outcome.get("waited", 0.0) for outcome in outcomes),
                    failure=next((outcome["failure"] for outcome in outcomes if outcome["failure"]), None),
                )
            )
            states = tuple(job.weights(task) for task in mine)
            cuts = tuple(outcomes[0]["cuts"])
            members.append(PromotedMember(candidate.trial, candidate.config, count, cuts, states))
            found.append(predictions)
            sound.append(all(math.isfinite(outcome["error"]) for outcome in outcomes))
    if not any(sound):
        raise SearchFailedError(
            "every promoted network diverged: lower the learning rate, or the depth factor"
        )
    # finalists that the ensemble had left out are not stored any more and may not be picked, but they were up
    # for choice once, so that the correction looks at them as well
    finalists = weight_classes(kept["predictions"][:, :, covered], decision)
    trials = kept["trials"].tolist()
    stored = [trials.index(trial) for trial in base.trials]
    everyone = torch.cat([finalists, torch.stack(found).to(finalists.dtype)])
    allowed = [*stored, *range(len(finalists), len(everyone))]
    complexity = [0.0] * len(finalists) + [float(contender.parameters) for contender in contenders]
    picked = greedy_ensemble(
        everyone[allowed], target, metric, weight=weight, complexity=[complexity[i] for i in allowed]
    )
    old = torch.zeros(len(everyone), dtype=torch.float64)
    old[stored] = base.weights.double()
    plain = GreedyEnsemble(old, (), ()).combine(everyone)
    # as the model gives them out so far; metrics of labels see the same classes at any temperature
    given = (
        plain if decision is not None or base.classes is None else apply_temperature(plain, base.temperature)
    )
    before = _score(metric, given, target, weight)
    shares = picked.weights[len(stored) :].tolist()
    better = picked.score > before if metric.greater_is_better else picked.score < before
    used = any(share > 0 for share in shares) and better
    after = picked.score if used else before
    honest = None
    if used:
        spread = torch.zeros(len(everyone), dtype=torch.float64)
        spread[allowed] = picked.weights
        groups = preparation.problem.groups
        honest = bias_corrected_score(
            everyone,
            target,
            metric,
            GreedyEnsemble(spread, tuple(allowed[i] for i in picked.selected), picked.scores),
            weight=weight,
            complexity=complexity,
            bootstrap=Bootstrap(
                groups=None if groups is None else groups[rows], seed=seed_of(preparation.settings.seed, 3)
            ),
        )
        gain = averaging_gain(everyone, target, metric, spread, len(parts), weight=weight)
        honest = adjust_for_averaging(honest, gain)
    else:
        shares = [0.0] * len(shares)
    contenders = [replace(c, weight=share) for c, share in zip(contenders, shares, strict=True)]
    model = PromotedModel.of(base, picked.weights[: len(stored)] if used else base.weights, members, shares)
    previous = (result.get("promotion") or {}).get("honest_of_search") or result.get("honest") or {}
    promotion = Promotion(
        metric=metric.name,
        contenders=tuple(contenders),
        forecasts=tuple(forecasts),
        score_before=before,
        score_after=after,
        honest_before=previous.get("score"),
        honest_after=honest.score if honest else previous.get("score"),
        used=used,
        remarks=tuple(_remarks(contenders, metric.greater_is_better, used, honest, previous)),
        seconds=0.0,
    )
    if honest is not None:
        directory.update(promoted_honest=asdict(honest))
    return promotion, model


def _out_of_fold(
    job: Job, tasks: Sequence[Task], parts: Sequence[Part], preparation: Preparation, like: Tensor
) -> Tensor:
    """Predictions ``(C, n)`` of the reporting rows, each by the fold that has not seen it."""
    place_of = {int(row): place for place, row in enumerate(preparation.oof_rows)}
    found = torch.full(tuple(like.shape[1:]), math.nan)
    for task, part in zip(tasks, parts, strict=True):
        places = torch.tensor([place_of[int(row)] for row in part.predicted_rows], dtype=torch.int64)
        found[:, places] = job.prediction(task)
    return found


def _score(metric: Metric, predictions: Tensor, target: Tensor, weight: Tensor | None) -> float:
    # by way of the error, as the ensemble's own score comes: the two are compared to the last bit
    return metric.to_score(float(metric.error(predictions.unsqueeze(0), target, weight)[0]))


def _remarks(
    contenders: Sequence[Contender],
    greater: bool,
    used: bool,
    honest: HonestScore | None,
    previous: dict[str, Any],
) -> list[str]:
    """Whether it pays, in sentences."""
    found = []
    for ended in (c for c in contenders if c.failure):
        trial = f"trial {ended.trial}"
        whom = f"{trial} in {ended.slices} slices" if ended.slices > 1 else f"the serial twin of {trial}"
        found.append(f"{whom} did not come to its end: {ended.failure}")
    pairs = {c.trial: c for c in contenders if c.slices == 1}
    for sliced in (c for c in contenders if c.slices > 1):
        serial = pairs[sliced.trial]
        gain = sliced.score - serial.score if greater else serial.score - sliced.score
        how = "better than" if gain > 0 else ("worse than" if gain < 0 else "as good as")
        found.append(
            f"trial {sliced.trial} in {sliced.slices} slices is {how} its serial twin"
            + (f", by {abs(gain):.4f}" if gain else "")
        )
        speed = serial.step_seconds / sliced.step_seconds
        if sliced.ranks == 1:
            told = sliced.predicted_step_seconds
            sentence = "trained here in one process, so that no time was gained"
            if told:
                ratio = serial.step_seconds / told
                sentence += f"; {sliced.slices} devices are predicted to be {ratio:.1f} times as fast"
            found.append(sentence)
        elif speed < 1.15:
            found.append(
                f"over {sliced.ranks} ranks a step took {1 / speed:.2f} times as long: it does not pay"
            )
        else:
            found.append(f"over {sliced.ranks} ranks a step was {speed:.2f} times as fast")
    waited = max(contender.waited for contender in contenders)
    if waited > NOTABLE_WAIT:
        found.append(
            f"a core was wanted and had by other programs or ranks for {100 * min(1.0, waited):.0f} % of the "
            "time: on free cores steps would be shorter"
        )
    if not used:
        found.append(
            "the ensemble is no better with them on out-of-fold rows and stays as it was: depth does not pay"
        )
    elif honest is not None and previous.get("score") is not None:
        gain = honest.score - previous["score"] if greater else previous["score"] - honest.score
        small = gain < honest.standard_error
        found.append(
            f"the ensemble takes them in; its honest score moves by {gain:+.4f}"
            + (", less than its standard error" if small else "")
        )
    return found
