"""Greedy ensemble selection with replacement.

Source: Caruana, Niculescu-Mizil, Crew and Ksikes, "Ensemble selection from libraries of models", ICML 2004.
Predictions have to be out-of-fold: on its training rows an overfitted member would be selected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from parallelmlp_search._checks import check_integer
from parallelmlp_search.exceptions import InvalidParameterError, SearchFailedError
from parallelmlp_search.selection.formulas import Formula, SquaredFormula
from parallelmlp_search.selection.inputs import GroundTruth, check_inputs, finite_members
from parallelmlp_search.selection.metrics import Metric, member_chunks

MAX_SELECTION_SECONDS = 4.0
"""Time limit of all rounds but the first on one core, by the measured costs of the formulas."""

MIN_CANDIDATES = 8
"""Minimum number of members that the rounds after the first select from, however slow a round is."""

MIN_ROUNDS = 5
"""Minimum number of rounds for a metric that scores one member per call."""


@dataclass(frozen=True, eq=False)
class CostLimit:
    """Most that the members of an ensemble may cost together; each counts once, whatever its weight.

    Parameters
    ----------
    costs
        Cost of each member ``(P,)``, for example its latency.
    budget
        Largest sum.
    uses
        Whether each member needs each shared part ``(P, K)``, bool.
    part_costs
        Costs of the shared parts ``(K,)``, which count once if any member needs them.
    """

    costs: Tensor
    budget: float
    uses: Tensor
    part_costs: Tensor

    def of(self, members: Sequence[int]) -> CostLimit:
        """Return the limit for some of the members, in this order."""
        rows = list(members)
        return replace(self, costs=self.costs[rows], uses=self.uses[rows])

    @property
    def alone(self) -> Tensor:
        """Cost of each member without others ``(P,)``, with all parts that it needs."""
        return self.costs + self.uses.double() @ self.part_costs

    def exceeded_by(self, picks: Sequence[int], candidates: Tensor) -> Tensor:
        """Return a mask of the candidates that cost too much beside members that are picked.

        Parameters
        ----------
        picks, candidates
            Members.

        Returns
        -------
        Tensor
            Bool, of the shape of ``candidates``.
        """
        picked = torch.zeros(len(self.costs), dtype=torch.bool)
        picked[list(picks)] = True
        present = self.uses[picked].any(dim=0)
        left = self.budget - float(self.costs[picked].sum() + self.part_costs[present].sum())
        more = self.costs[candidates] + (self.uses[candidates] & ~present).double() @ self.part_costs
        return ~picked[candidates] & (more > left)


@dataclass(frozen=True, eq=False)
class GreedyEnsemble:
    """Members and their weights.

    Parameters
    ----------
    weights
        (P,) float64, >= 0, with sum 1.
    selected
        Members in the order of selection, repeats included, up to the best round.
    scores
        Score after each round in the metric's own orientation. ``selected`` ends at the first best round.
    limit
        Limit of the cost that it was selected with, or None.
    """

    weights: Tensor
    selected: tuple[int, ...]
    scores: tuple[float, ...]
    limit: CostLimit | None = None

    @property
    def score(self) -> float:
        """Score on the rows of the selection, which is optimistic."""
        return self.scores[len(self.selected) - 1]

    def combine(self, predictions: Tensor) -> Tensor:
        """Weighted average (C, N) of predictions (P, C, N). Members of weight 0 may have missing values.

        Raises
        ------
        InvalidParameterError
            If there is not one prediction per member.
        """
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
    limit: CostLimit | None = None,
) -> GreedyEnsemble:
    """Select one member per round: the one that improves the average of the selected members most.

    Parameters
    ----------
    predictions
        (P, C, N) out-of-fold predictions. Members with a non-finite value are never selected.
    target
        Class numbers (N,), or values (N,) or (C, N).
    metric
        Metric to improve.
    n_rounds
        Maximum number of rounds, >= 1. The rounds up to the first best score are kept.
    weight
        Row weights (N,), or None.
    complexity
        (P,), for example the number of parameters. It breaks ties: the simplest member is selected, then the
        first. None: the first.
    limit
        Limit of the cost of all members together, or None.

    Returns
    -------
    GreedyEnsemble
        Weights of all P members, and the rounds.

    Raises
    ------
    InvalidParameterError
        If a parameter breaks its rule.
    SearchFailedError
        If no member has a finite score, or none is within the limit.

    Notes
    -----
    One round scores P averages. For squared errors (RMSE, R2, Brier) the members' Gram matrices are computed
    once, and a round costs next to nothing. If all rounds over all members would take more than
    `MAX_SELECTION_SECONDS` by a fixed cost model, the rounds after the first select from the members that are
    best alone, at least 8 (library pruning: Caruana, Munson and Niculescu-Mizil, "Getting the most out of
    ensemble selection", ICDM 2006). With 32 members, 36,000 rows and two classes no metric exceeds the limit.

    Scores that differ only by rounding (1e-12 in float64, 1e-7 in float32) count as equal.
    """
    n_rounds = check_integer("n_rounds", n_rounds, 1)
    predictions, truth = check_inputs(predictions, target, weight, metric.formula.target_kind)
    n_members = len(predictions)
    order = order_by_complexity(complexity, n_members)
    finite = finite_members(predictions).cpu()
    members = [p for p in order if finite[p]]
    if not members:
        raise SearchFailedError(
            f"no member can be selected, since all {n_members} have a missing or infinite prediction"
        )
    if members != list(range(n_members)):
        predictions = predictions[members]
    projected = metric.formula.project(predictions, truth.target)
    pool = MemberPool(projected, truth, metric, None if limit is None else limit.of(members))
    ensemble = pool.select(n_rounds)
    weights = torch.zeros(n_members, dtype=torch.float64)
    weights[members] = ensemble.weights
    selected = tuple(members[pick] for pick in ensemble.selected)
    return GreedyEnsemble(weights.to(predictions.device), selected, ensemble.scores, limit)


@dataclass(frozen=True, eq=False)
class MemberPool:
    """Members to select from.

    Parameters
    ----------
    projected
        (P, K, N) projected predictions, finite, simplest member first.
    truth
        Target and row weights.
    metric
        Metric to improve.
    limit
        Limit of the cost of the members, or None.
    """

    projected: Tensor
    truth: GroundTruth
    metric: Metric
    limit: CostLimit | None = None

    def select(self, n_rounds: int, seconds: float = MAX_SELECTION_SECONDS) -> GreedyEnsemble:
        """Run the rounds of the selection, those after the first within a time limit by the cost model.

        Raises
        ------
        SearchFailedError
            If no member has a finite score.
        """
        metric, n_members = self.metric, len(self.projected)
        candidates: _AveragedCandidates | _QuadraticCandidates
        n_kept = n_members
        if isinstance(metric.formula, SquaredFormula):
            candidates = _QuadraticCandidates(self.projected, self.truth, metric.formula)
        else:
            candidates = _AveragedCandidates(self.projected, self.truth, metric.formula)
            cost = metric.formula.seconds(self.projected[0].numel(), 1)
            n_kept = max(MIN_CANDIDATES, int(seconds / (cost * max(1, n_rounds - 1))))
            if metric.formula.call_ns:
                n_rounds = min(n_rounds, max(MIN_ROUNDS, int(seconds / (cost * min(n_kept, n_members)))))
        rounding = 1e-12 if self.projected.dtype == torch.float64 else 1e-7

        picks: list[int] = []
        errors: list[float] = []
        members = list(range(n_members))  # of each candidate
        for _ in range(n_rounds):
            error = metric.to_error(candidates.scores()).cpu()
            if self.limit is not None:
                error[self.limit.exceeded_by(picks, torch.tensor(members))] = torch.inf
            if not picks:
                # A member without a finite score of its own would make every average with it non-finite.
                keep = torch.argsort(error, stable=True)[:n_kept]
                keep = keep[torch.isfinite(error[keep])].sort().values
                members = keep.tolist()
                candidates.keep(keep)
                error = error[keep]
            error = torch.where(torch.isfinite(error), error, torch.inf)
            best = float(error.min()) if members else float("inf")
            if best == float("inf"):
                break
            pick = int((error <= best + _tolerance(best, metric, rounding)).nonzero()[0])
            picks.append(members[pick])
            errors.append(float(error[pick]))
            if best <= metric.least_error:
                break
            candidates.add(pick)
        if not picks:
            raise SearchFailedError(f"no member can be selected, since none has a finite {metric.name}")
        best = min(errors)
        tolerance = _tolerance(best, metric, rounding)
        n_selected = 1 + next(i for i, error in enumerate(errors) if error <= best + tolerance)
        counts = torch.bincount(torch.tensor(picks[:n_selected]), minlength=n_members)
        scores = tuple(metric.to_score(error) for error in errors)
        return GreedyEnsemble(counts.double() / n_selected, tuple(picks[:n_selected]), scores)


def _tolerance(best: float, metric: Metric, rounding: float) -> float:
    # The rounding error of 1 - score is that of a number of size 1; a loss has that of its own size.
    return rounding * (max(1.0, abs(best)) if metric.greater_is_better else abs(best))


def order_by_complexity(complexity: Sequence[float] | Tensor | None, n_members: int) -> list[int]:
    """Sort member numbers by increasing complexity, then by number.

    Raises
    ------
    InvalidParameterError
        If there is not one value per member, or one is missing.
    """
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


def weighted_average(predictions: Tensor, weights: Tensor) -> Tensor:
    """Average (P, C, N) predictions with weights (P,) to (C, N), over the members with a weight only."""
    members = weights.nonzero()[:, 0]
    selected = predictions[members.to(predictions.device)]
    average: Tensor = torch.tensordot(weights[members].to(selected), selected, dims=1)
    return average


class _AveragedCandidates:
    """Candidates of a round: averages of the selected members and one more member each.

    Every average is computed, a few members at a time.
    """

    def __init__(self, projected: Tensor, truth: GroundTruth, formula: Formula) -> None:
        self.projected, self.truth, self.formula = projected, truth, formula
        self.total: Tensor | None = None
        self.n_picks = 0

    def scores(self) -> Tensor:
        """(P,) score of each average."""
        chunks = member_chunks(self.projected)
        return torch.cat([self.formula.score(self._averages(members), self.truth) for members in chunks])

    def _averages(self, members: slice) -> Tensor:
        chunk = self.projected[members]
        return chunk if self.total is None else (chunk + self.total).div_(self.n_picks + 1)

    def keep(self, members: Tensor) -> None:
        """Drop all other members, before the first pick."""
        if len(members) < len(self.projected):
            self.projected = self.projected[members.to(self.projected.device)]

    def add(self, pick: int) -> None:
        """Add a candidate to the selected members."""
        member = self.projected[pick]
        self.total = member.clone() if self.total is None else self.total.add_(member)
        self.n_picks += 1


class _QuadraticCandidates:
    """Candidates for squared errors, computed from the Gram matrices G of the residuals.

    Let c count how often each member is among the n picks. With member p added, the mean squared residual is
    (c'Gc + 2 (Gc)_p + G_pp) / (n + 1)^2. A round computes P numbers instead of P x N.
    """

    def __init__(self, projected: Tensor, truth: GroundTruth, formula: SquaredFormula) -> None:
        self.truth, self.formula = truth, formula
        residuals = projected.double()
        scaled = truth.weight / truth.weight.sum()
        self.gram = torch.stack([row @ (row * scaled).T for row in residuals.unbind(1)])  # (K, P, P)
        self.own = self.gram.diagonal(dim1=1, dim2=2)  # (K, P)
        self.cross = torch.zeros_like(self.own)  # Gc
        self.square = self.own.new_zeros(len(self.gram))  # c'Gc
        self.n_picks = 0

    def scores(self) -> Tensor:
        squares = (self.square[:, None] + 2 * self.cross + self.own) / (self.n_picks + 1) ** 2
        # If residuals cancel, rounding may make the result negative.
        return self.formula.from_mean_squares(squares.clamp_min(0).T, self.truth)

    def keep(self, members: Tensor) -> None:
        members = members.to(self.gram.device)
        self.gram = self.gram[:, members][:, :, members]
        self.own, self.cross = self.own[:, members], self.cross[:, members]

    def add(self, pick: int) -> None:
        self.square = self.square + 2 * self.cross[:, pick] + self.own[:, pick]
        self.cross = self.cross + self.gram[:, :, pick]
        self.n_picks += 1
