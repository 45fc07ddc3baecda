"""Greedy ensemble selection, with replacement, from the predictions of many members.

Source: Caruana, Niculescu-Mizil, Crew and Ksikes, "Ensemble selection from libraries of models", ICML 2004.
The predictions have to be out-of-fold: on rows that a member was trained on, it wins for the wrong reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Protocol

import torch
from torch import Tensor

from parallelmlp_search.exceptions import InvalidParameterError, SearchFailedError
from parallelmlp_search.selection.formulas import Formula, SquaredFormula
from parallelmlp_search.selection.inputs import check_inputs, finite_members
from parallelmlp_search.selection.metrics import Metric, member_chunks

__all__ = ["GreedyEnsemble", "greedy_ensemble", "pick_members", "simplest_first"]


CHOICE_SECONDS = 4.0
"""Most seconds on one core, by the formulas' measured costs, for all rounds but the first."""

MIN_CANDIDATES = 8
"""Members that later rounds choose from at least, however much a round costs."""


@dataclass(frozen=True, eq=False)
class GreedyEnsemble:
    """Members with weights.

    Parameters
    ----------
    weights
        (P,) float64, >= 0, with sum 1.
    selected
        Members in the order they were picked, repeats included, up to the best round.
    scores
        Score after each round that was tried, in the metric's own orientation; ``selected`` stops at the
        first of the best.
    """

    weights: Tensor
    selected: tuple[int, ...]
    scores: tuple[float, ...]

    @property
    def score(self) -> float:
        """Score of the ensemble on the rows that chose it, so an optimistic one."""
        return self.scores[len(self.selected) - 1]

    def combine(self, predictions: Tensor) -> Tensor:
        """(P, C, N) -> (C, N): the weighted average. Members without weight are never looked at."""
        if predictions.ndim != 3 or len(predictions) != len(self.weights):
            raise InvalidParameterError(
                f"predictions must have shape ({len(self.weights)}, C, N), but got {tuple(predictions.shape)}"
            )
        return weighted_average(predictions, self.weights)


def greedy_ensemble(
    predictions: Tensor,
    target: Any,
    metric: Metric,
    *,
    n_rounds: int = 25,
    weight: Any = None,
    complexity: Sequence[float] | Tensor | None = None,
) -> GreedyEnsemble:
    """Pick members, one a round, each time the one whose addition gives the best average.

    Parameters
    ----------
    predictions
        (P, C, N) out-of-fold predictions. Members with a non-finite value are never picked.
    target
        Class numbers (N,), or values (N,) or (C, N).
    metric
        What to improve.
    n_rounds
        Most picks, >= 1. The shortest beginning of them that reaches the best score is kept.
    weight
        Row weights (N,), or None.
    complexity
        (P,), such as the number of parameters: of equally good members the least complex is picked, then
        the first. None lets the order alone decide.

    Raises
    ------
    InvalidParameterError
        If a parameter breaks its rule.
    SearchFailedError
        If no member has a finite score.

    Notes
    -----
    One round costs one score of P averages; for squared errors (RMSE, R2, Brier) the members' Gram matrices
    are formed once and a round costs next to nothing. Where all rounds over all members would take more than
    `CHOICE_SECONDS` by a fixed cost model, the rounds after the first choose from the members that are best
    alone (library pruning: Caruana, Munson and Niculescu-Mizil, ICDM 2006), 8 at least; 32 members of 36,000
    rows and two classes stay below that with every metric.

    Scores that differ by rounding alone (1e-12 in float64, 1e-7 in float32) count as equal.
    """
    if isinstance(n_rounds, bool) or not isinstance(n_rounds, Integral) or n_rounds < 1:
        raise InvalidParameterError(f"n_rounds must be an integer >= 1, but got {n_rounds!r}")
    predictions, target, weight = check_inputs(predictions, target, weight, metric.formula.target_kind)
    n_members = len(predictions)
    order = simplest_first(complexity, n_members)
    alive = [p for p, fine in zip(order, finite_members(predictions)[order].tolist(), strict=True) if fine]
    if not alive:
        raise SearchFailedError(
            f"no member can be picked, since all {n_members} have a missing or infinite prediction"
        )
    if alive != list(range(n_members)):
        predictions = predictions[alive]
    condensed = metric.formula.condense(predictions, target)
    picks, scores, kept = pick_members(condensed, target, weight, metric, int(n_rounds))
    selected = tuple(alive[pick] for pick in picks[:kept])
    return GreedyEnsemble(shares(selected, n_members).to(predictions.device), selected, tuple(scores))


def pick_members(
    condensed: Tensor,
    target: Tensor,
    weight: Tensor,
    metric: Metric,
    n_rounds: int,
    seconds: float = CHOICE_SECONDS,
) -> tuple[list[int], list[float], int]:
    """The rounds themselves, on condensed predictions (P, K, N) of finite members, simplest first.

    Returns
    -------
    (picks, scores, kept)
        The member and the score of each round, and how many rounds the best score takes.

    Raises
    ------
    SearchFailedError
        If no member has a finite score.
    """
    candidates: _Candidates
    most = len(condensed)
    if isinstance(metric.formula, SquaredFormula):
        candidates = _QuadraticCandidates(condensed, target, weight, metric.formula)
    else:
        candidates = _AveragedCandidates(condensed, target, weight, metric.formula)
        cost = metric.formula.nanoseconds * 1e-9 * condensed[0].numel() * max(1, n_rounds - 1)
        most = max(MIN_CANDIDATES, int(seconds / cost))
    rounding = 1e-12 if condensed.dtype == torch.float64 else 1e-7

    picks: list[int] = []
    errors: list[float] = []
    members = list(range(len(condensed)))  # of each candidate
    for _ in range(n_rounds):
        error = metric.to_error(candidates.scores()).cpu()
        if not picks:
            # A member without a finite score of its own would only spoil the sums of others.
            keep = torch.argsort(error, stable=True)[:most]
            keep = keep[torch.isfinite(error[keep])].sort().values
            members = keep.tolist()
            candidates.keep(keep)
            error = error[keep]
        error = torch.where(torch.isfinite(error), error, torch.inf)
        best = float(error.min()) if members else float("inf")
        if best == float("inf"):
            break
        pick = int((error <= best + _slack(best, metric, rounding)).nonzero()[0])
        picks.append(members[pick])
        errors.append(float(error[pick]))
        if best <= 0.0:  # no error of any metric is below 0
            break
        candidates.add(pick)
    if not picks:
        raise SearchFailedError(f"no member can be picked, since none has a finite {metric.name}")
    best = min(errors)
    kept = 1 + next(i for i, error in enumerate(errors) if error <= best + _slack(best, metric, rounding))
    scores = [metric.to_score(error) for error in errors]
    return picks, scores, kept


def _slack(best: float, metric: Metric, rounding: float) -> float:
    # 1 - score carries the rounding of a number of size 1, a loss that of its own size.
    return rounding * (max(1.0, abs(best)) if metric.greater_is_better else abs(best))


def simplest_first(complexity: Sequence[float] | Tensor | None, n_members: int) -> list[int]:
    """Members by growing complexity, then by number."""
    if complexity is None:
        return list(range(n_members))
    values = torch.as_tensor(complexity, dtype=torch.float64).flatten().tolist()
    if len(values) != n_members:
        raise InvalidParameterError(
            f"complexity must have one value per member ({n_members}), but got {len(values)}"
        )
    if any(value != value for value in values):
        raise InvalidParameterError("complexity must not be missing, but got nan")
    return sorted(range(n_members), key=lambda member: (values[member], member))


def shares(selected: Sequence[int], n_members: int) -> Tensor:
    """(P,) float64: how often each member was picked, as a share of all picks."""
    picks = torch.as_tensor(selected, dtype=torch.int64)
    return torch.bincount(picks, minlength=n_members).double() / len(picks)


def weighted_average(predictions: Tensor, weights: Tensor) -> Tensor:
    """(P, C, N), (P,) -> (C, N), from the members with weight alone."""
    members = weights.nonzero()[:, 0]
    chosen = predictions[members.to(predictions.device)]
    average: Tensor = torch.tensordot(weights[members].to(chosen), chosen, dims=1)
    return average


class _Candidates(Protocol):
    """The averages that the next round chooses from: the picks so far and one more member each."""

    def scores(self) -> Tensor:
        """(P,) score of each average."""

    def keep(self, members: Tensor) -> None:
        """Before the first pick, drop all members but these."""

    def add(self, pick: int) -> None:
        """Make that candidate part of the picks."""


class _AveragedCandidates:
    """Forms every average, a few members at a time."""

    def __init__(self, condensed: Tensor, target: Tensor, weight: Tensor, formula: Formula) -> None:
        self.condensed, self.target, self.weight, self.formula = condensed, target, weight, formula
        self.total: Tensor | None = None
        self.n_picks = 0

    def scores(self) -> Tensor:
        return torch.cat(
            [
                self.formula.score(self._averages(members), self.target, self.weight)
                for members in member_chunks(self.condensed)
            ]
        )

    def _averages(self, members: slice) -> Tensor:
        chunk = self.condensed[members]
        return chunk if self.total is None else (chunk + self.total).div_(self.n_picks + 1)

    def keep(self, members: Tensor) -> None:
        if len(members) < len(self.condensed):
            self.condensed = self.condensed[members.to(self.condensed.device)]

    def add(self, pick: int) -> None:
        member = self.condensed[pick]
        self.total = member.clone() if self.total is None else self.total.add_(member)
        self.n_picks += 1


class _QuadraticCandidates:
    """Squared errors of averages from the Gram matrices G of the residuals.

    With n picks and c how often each member is among them, adding member p gives the mean square
    (c'Gc + 2 (Gc)_p + G_pp) / (n + 1)^2: P numbers a round instead of P x N.
    """

    def __init__(self, condensed: Tensor, target: Tensor, weight: Tensor, formula: SquaredFormula) -> None:
        self.target, self.weight, self.formula = target, weight, formula
        residuals = condensed.double()
        scaled = weight / weight.sum()
        self.gram = torch.stack([row @ (row * scaled).T for row in residuals.unbind(1)])  # (K, P, P)
        self.own = self.gram.diagonal(dim1=1, dim2=2)  # (K, P)
        self.cross = torch.zeros_like(self.own)  # Gc
        self.square = self.own.new_zeros(len(self.gram))  # c'Gc
        self.n_picks = 0

    def scores(self) -> Tensor:
        squares = (self.square[:, None] + 2 * self.cross + self.own) / (self.n_picks + 1) ** 2
        # Residuals that cancel leave a rounding error of either sign.
        return self.formula.finish(squares.clamp_min(0).T, self.target, self.weight)

    def keep(self, members: Tensor) -> None:
        members = members.to(self.gram.device)
        self.gram = self.gram[:, members][:, :, members]
        self.own, self.cross = self.own[:, members], self.cross[:, members]

    def add(self, pick: int) -> None:
        self.square = self.square + 2 * self.cross[:, pick] + self.own[:, pick]
        self.cross = self.cross + self.gram[:, :, pick]
        self.n_picks += 1
