"""The refinement of our own search as a sampler for any study of Optuna."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial

from parallelmlp_search._checks import check_finite, check_integer
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.integrations.optuna.sampler.elites import Leaders
from parallelmlp_search.integrations.optuna.sampler.trial_tree import Node, Visited, open_place

__all__ = ["RefinementSampler"]

REACHES = (0.05, 0.15, 0.4)
"""Standard deviations of a move, in units of the whole domain: fine and coarse steps both occur."""

CROSSING_REACH = 0.05

MOVES = 2.0
"""How many parameters of a parent are moved on average."""


class RefinementSampler(BaseSampler):
    """Small changes of the leading trials, and crosses of two of them.

    The first trials are random. Each later one changes one of the leaders, the better ones more often, in
    about two of its parameters, or crosses two leaders. No model is fitted, so a trial costs a fraction of a
    millisecond however many there are; and since the number of the trial chooses parents and moves, trials
    that are asked for in batches, before any is told, are as different as those that come one by one.

    Spaces may be conditional: a parameter that the parent has not, or has from another distribution, is
    drawn afresh. Trials that have been, whatever became of them, are not repeated as long as anything else
    is left.

    Parameters
    ----------
    n_startup_trials
        Complete or pruned trials before the first change; all until then are random.
    n_leaders
        How many of the best trials have children.
    crossover_share
        Share of later trials that cross two leaders; the others change one.
    seed
        Of all that is random; None for another one each time.

    Raises
    ------
    InvalidParameterError
        If a parameter breaks its rule.

    Notes
    -----
    Leaders are the complete trials by value, then the pruned ones, of which those that came further and were
    better there lead. Feasible trials come before infeasible ones. With several objectives, fronts of trials
    that do not dominate each other take the place of values. Infinite values never lead; failed and running
    trials neither.

    With one trial at a time the same seed gives the same trials. As any sampler of Optuna, it takes another
    seed where ``study.optimize`` runs several threads.

    There is no relative sampling: the parents and moves of a trial are chosen before its first parameter,
    and so are joint for all of them, also for those that a relative search space could not know.

    Examples
    --------
    >>> import optuna
    >>> study = optuna.create_study(sampler=RefinementSampler(seed=0))
    >>> study.optimize(lambda trial: trial.suggest_float("x", -1, 1) ** 2, n_trials=50)
    """

    def __init__(
        self,
        *,
        n_startup_trials: int = 24,
        n_leaders: int = 12,
        crossover_share: float = 0.3,
        seed: int | None = None,
    ) -> None:
        self.n_startup_trials = check_integer("n_startup_trials", n_startup_trials)
        self.n_leaders = check_integer("n_leaders", n_leaders)
        self.crossover_share = check_finite("crossover_share", crossover_share)
        if self.n_startup_trials < 0:
            raise InvalidParameterError(f"n_startup_trials must be >= 0, but got {n_startup_trials!r}")
        if self.n_leaders < 1:
            raise InvalidParameterError(f"n_leaders must be >= 1, but got {n_leaders!r}")
        if not 0.0 <= self.crossover_share <= 1.0:
            raise InvalidParameterError(f"crossover_share must be in [0, 1], but got {crossover_share!r}")
        if seed is not None and check_integer("seed", seed) < 0:
            raise InvalidParameterError(f"seed must be None or an integer >= 0, but got {seed!r}")
        self._seed = _new_seed() if seed is None else int(seed)
        self._forget()

    def reseed_rng(self) -> None:
        """Take another seed, as threads of ``study.optimize`` ask for."""
        self._seed = _new_seed()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Nothing; see the notes above."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing; see the notes above."""
        return {}

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Choose the parents, the moves and the reach of a trial."""
        self._plan(study, trial)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The parent's value, moved or not, or a random one where there is none."""
        record = self._record(study)
        plan = record.plans.get(trial.number) or self._plan(study, trial)
        rng = _stream(plan.seed, trial.number, 1 + zlib.crc32(param_name.encode("utf-8", "surrogatepass")))
        with self._lock:
            axis = record.visited.axis(param_name, param_distribution)
            given = plan.values.get(param_name)
            if given is None or not axis.accepts(*given):
                place = axis.domain.sample(rng)
            else:
                place = axis.place(given[1])
                if param_name in plan.moves:
                    place = axis.domain.neighbour(place, rng, plan.reach)
            n_known = len(trial.params)
            # others may have come in between: fixed parameters, and those of a single value
            node = plan.node if plan.node and plan.n_known == n_known else record.visited.add(trial)
            place = open_place(node, axis, place, rng, plan.reach)
            plan.node, plan.n_known = node.enter(param_name, axis, place), n_known + 1
        return axis.value(place)

    # What is known of a study

    def _plan(self, study: Study, trial: FrozenTrial) -> _Plan:
        # all of them under Hyperband too: complete trials lead, and these are comparable between brackets
        trials = study._get_trials(deepcopy=False, use_cache=True)
        record = self._record(study)
        with self._lock:
            record.read(trials)
            rng = _stream(self._seed, trial.number)
            leaders = record.leaders.best(rng) if record.leaders.n_told >= self.n_startup_trials else []
            plan = self._refine(leaders, rng) if leaders else _Plan(self._seed)
            record.plans[trial.number] = plan
        return plan

    def _refine(self, leaders: Sequence[FrozenTrial], rng: np.random.Generator) -> _Plan:
        share = np.arange(len(leaders), 0, -1, dtype=float)
        share /= share.sum()
        first = leaders[int(rng.choice(len(leaders), p=share))]
        values = _values(first)
        reach = float(rng.choice(REACHES))
        if len(leaders) > 1 and rng.random() < self.crossover_share:
            second = _values(leaders[int(rng.choice(len(leaders), p=share))])
            for name, value in second.items():
                # a parameter that only one parent has comes from that one
                if name not in values or rng.random() < 0.5:
                    values[name] = value
            reach = CROSSING_REACH
        free = [name for name, (distribution, _) in values.items() if not distribution.single()]
        moves = {name for name in free if rng.random() < MOVES / len(free)}
        if free and not moves:
            moves = {free[int(rng.integers(len(free)))]}
        return _Plan(self._seed, values, frozenset(moves), reach)

    def _record(self, study: Study) -> _Record:
        with self._lock:
            records = self._records.setdefault(study._storage, {})
            if study._study_id not in records:
                records[study._study_id] = _Record(Leaders(study.directions, self.n_leaders))
            return records[study._study_id]

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._records: WeakKeyDictionary[BaseStorage, dict[int, _Record]]
        self._records = WeakKeyDictionary()

    def __getstate__(self) -> dict[str, Any]:
        # what is known of studies is read again from them
        return {name: value for name, value in vars(self).items() if name not in ("_lock", "_records")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget()


@dataclass(slots=True)
class _Plan:
    """What a trial takes from its parents, a random one nothing, and the node that it has come to."""

    seed: int
    values: dict[str, tuple[BaseDistribution, Any]] = field(default_factory=dict)
    moves: frozenset[str] = frozenset()
    reach: float = REACHES[-1]
    node: Node | None = None
    n_known: int = 0


class _Record:
    """What has been read of a study, so that each trial is looked at only until it has finished."""

    def __init__(self, leaders: Leaders) -> None:
        self.leaders = leaders
        self.visited = Visited()
        self.plans: dict[int, _Plan] = {}
        self._n_read = 0
        self._open: dict[int, int] = {}  # parameters that were seen of each unfinished trial, by place

    def read(self, trials: Sequence[FrozenTrial]) -> None:
        """Take in what has happened since the last time; ``trials`` is only ever longer than before."""
        places = [*self._open, *range(self._n_read, len(trials))]
        self._n_read = max(self._n_read, len(trials))
        for place in places:
            if place >= len(trials):
                continue  # another thread has a fresher list
            trial = trials[place]
            n_known = self._open.get(place, 0)
            if len(trial.params) > n_known:
                self.visited.add(trial)
            if trial.state.is_finished():
                self.leaders.add(trial)
                self._open.pop(place, None)
                self.plans.pop(trial.number, None)
            else:
                self._open[place] = len(trial.params)


def _values(trial: FrozenTrial) -> dict[str, tuple[BaseDistribution, Any]]:
    distributions = trial.distributions
    return {name: (distributions[name], value) for name, value in trial.params.items()}


def _stream(seed: int, *key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def _new_seed() -> int:
    return int(np.random.SeedSequence().generate_state(1, np.uint64)[0])
