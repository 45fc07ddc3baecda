"""Refinement of this package's search as a sampler for any Optuna study."""

from __future__ import annotations

import math
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
from parallelmlp_search.integrations.optuna.sampler.axes import Axis
from parallelmlp_search.integrations.optuna.sampler.elites import Elites
from parallelmlp_search.integrations.optuna.sampler.trial_tree import Node, TrialTree

MUTATION_REACHES = (0.05, 0.15, 0.4)
"""Standard deviations of a move, in units of the whole domain; a trial gets one at random."""

CROSSOVER_REACH = 0.05

MEAN_MOVES = 2.0
"""Mean number of moved parameters."""

MAX_RANDOM_MOVES = 8
"""Random moves before the untried values of a parameter are searched one by one."""


class RefinementSampler(BaseSampler):
    """Evolutionary sampler: mutations of the best trials, and crossovers of two of them.

    The first trials are random. Each later one mutates about two parameters of an elite, the better ones more
    often, or crosses two elites. No model is fitted, so a trial costs a fraction of a millisecond for any
    number of trials. The number of a trial determines its parents and moves, so trials that are asked in a
    batch, before any is told, differ as much as those asked one by one.

    Search spaces may be conditional: a parameter that the parent lacks, or has from another distribution, is
    sampled at random. No trial is repeated while untried ones are left, whatever its state.

    Parameters
    ----------
    n_startup_trials
        Number of complete or pruned trials before the first refined one; until then, trials are random.
    n_elites
        Number of best trials that serve as parents.
    crossover_share
        Share of refined trials that cross two elites; the others mutate one.
    seed
        Random seed; None for a different one each time.

    Raises
    ------
    InvalidParameterError
        If a parameter is out of range.

    Notes
    -----
    Elites are complete trials by value, then pruned trials by last step and value. Feasible trials come
    before infeasible ones. With several objectives, nondominated fronts take the place of values. Trials with
    an infinite value, failed and running trials are never elites.

    The same seed gives the same trials if they run one at a time. As with all samplers of Optuna, threads of
    ``study.optimize`` change the seed.

    There is no relative sampling. Parents and moves are chosen before the first parameter and apply to all
    parameters jointly, also to those that a relative search space would not contain.

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
        n_elites: int = 12,
        crossover_share: float = 0.3,
        seed: int | None = None,
    ) -> None:
        self.n_startup_trials = check_integer("n_startup_trials", n_startup_trials, 0)
        self.n_elites = check_integer("n_elites", n_elites, 1)
        self.crossover_share = check_finite("crossover_share", crossover_share)
        if not 0.0 <= self.crossover_share <= 1.0:
            raise InvalidParameterError(f"crossover_share must be in [0, 1], but got {crossover_share!r}")
        self._seed = _new_seed() if seed is None else check_integer("seed", seed, 0)
        self._forget()

    def reseed_rng(self) -> None:
        """Change the seed, as threads of ``study.optimize`` need."""
        self._seed = _new_seed()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return an empty space: there is no relative sampling."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return no parameters: there is no relative sampling.

        Parameters
        ----------
        study, trial, search_space
            As of :class:`optuna.samplers.BaseSampler`.

        Returns
        -------
        dict
        """
        return {}

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Choose the parents, the moves and the reach of a trial."""
        self._plan(study, trial)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return the parent's value, moved or not, or a random one if the parent has none.

        Parameters
        ----------
        study, trial, param_name, param_distribution
            As of :class:`optuna.samplers.BaseSampler`.

        Returns
        -------
        float, int, str or any choice
        """
        record = self._record(study)
        plan = record.plans.get(trial.number) or self._plan(study, trial)
        rng = _generator(plan.seed, trial.number, 1 + zlib.crc32(param_name.encode("utf-8", "surrogatepass")))
        with self._lock:
            axis = record.tree.axis(param_name, param_distribution)
            inherited = plan.values.get(param_name)
            if inherited is None or not axis.accepts(*inherited):
                code = axis.domain.sample(rng)
            else:
                code = axis.encode(inherited[1])
                if param_name in plan.moves:
                    code = axis.domain.neighbour(code, rng, plan.reach)
            n_params = len(trial.params)
            # fixed parameters and those with a single value are not sampled and may have come in between
            node = plan.node if plan.node and plan.n_params == n_params else record.tree.add(trial)
            code = _untried_code(node, axis, code, rng, plan.reach)
            plan.node, plan.n_params = node.child(axis, code), n_params + 1
        return axis.decode(code)

    def _plan(self, study: Study, trial: FrozenTrial) -> _Plan:
        # The trials of all brackets of Hyperband, whose `study` shows one bracket only: complete trials are
        # comparable between brackets.
        trials = study._storage.get_all_trials(study._study_id, deepcopy=False)
        record = self._record(study)
        with self._lock:
            record.read(trials)
            rng = _generator(self._seed, trial.number)
            elites = record.elites.best(rng) if record.elites.n_finished >= self.n_startup_trials else []
            plan = self._refine(elites, rng) if elites else _Plan(self._seed)
            record.plans[trial.number] = plan
        return plan

    def _refine(self, elites: Sequence[FrozenTrial], rng: np.random.Generator) -> _Plan:
        share = np.arange(len(elites), 0, -1, dtype=float)
        share /= share.sum()
        first = elites[int(rng.choice(len(elites), p=share))]
        values = _values(first)
        reach = float(rng.choice(MUTATION_REACHES))
        if len(elites) > 1 and rng.random() < self.crossover_share:
            second = _values(elites[int(rng.choice(len(elites), p=share))])
            for name, value in second.items():
                # a parameter of one parent only is inherited from that one
                if name not in values or rng.random() < 0.5:
                    values[name] = value
            reach = CROSSOVER_REACH
        free = [name for name, (distribution, _) in values.items() if not distribution.single()]
        moves = {name for name in free if rng.random() < MEAN_MOVES / len(free)}
        if free and not moves:
            moves = {free[int(rng.integers(len(free)))]}
        return _Plan(self._seed, values, frozenset(moves), reach)

    def _record(self, study: Study) -> _StudyRecord:
        with self._lock:
            records = self._records.setdefault(study._storage, {})
            if study._study_id not in records:
                records[study._study_id] = _StudyRecord(Elites(study.directions, self.n_elites))
            return records[study._study_id]

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._records: WeakKeyDictionary[BaseStorage, dict[int, _StudyRecord]]
        self._records = WeakKeyDictionary()

    def __getstate__(self) -> dict[str, Any]:
        # records are read again from the studies
        return {name: value for name, value in vars(self).items() if name not in ("_lock", "_records")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget()


@dataclass(slots=True)
class _Plan:
    """Values that a trial inherits, none for a random one, and the tree node of its parameters so far."""

    seed: int
    values: dict[str, tuple[BaseDistribution, Any]] = field(default_factory=dict)
    moves: frozenset[str] = frozenset()
    reach: float = MUTATION_REACHES[-1]
    node: Node | None = None
    n_params: int = 0


class _StudyRecord:
    """Trials read from a study; each trial is read only until it has finished."""

    def __init__(self, elites: Elites) -> None:
        self.elites = elites
        self.tree = TrialTree()
        self.plans: dict[int, _Plan] = {}
        self._n_read = 0
        self._unfinished: dict[int, int] = {}  # known parameters by index of the trial

    def read(self, trials: Sequence[FrozenTrial]) -> None:
        """Read what has changed in the trials of the study since the last time."""
        indices = [*self._unfinished, *range(self._n_read, len(trials))]
        self._n_read = max(self._n_read, len(trials))
        for index in indices:
            if index >= len(trials):
                continue  # another thread has read a longer list
            trial = trials[index]
            if len(trial.params) > self._unfinished.get(index, 0):
                self.tree.add(trial)
            if trial.state.is_finished():
                self.elites.add(trial)
                self._unfinished.pop(index, None)
                self.plans.pop(trial.number, None)
            else:
                self._unfinished[index] = len(trial.params)


def _untried_code(node: Node, axis: Axis, code: Any, rng: np.random.Generator, reach: float) -> Any:
    """Return a code near ``code`` that leads to an untried trial, or ``code`` if there is none."""
    if not node.is_tried(code) or node.is_exhausted():
        return code
    for _ in range(MAX_RANDOM_MOVES):
        other = axis.domain.neighbour(code, rng, reach)
        if not node.is_tried(other):
            return other
    if math.isinf(axis.domain.n_values):
        return axis.domain.sample(rng)
    n_values = int(axis.domain.n_values)
    start = int(rng.integers(n_values))
    for offset in range(min(n_values, len(node.children) + 1)):
        other = axis.domain.value_at((start + offset) % n_values)
        if not node.is_tried(other):
            return other
    return code


def _values(trial: FrozenTrial) -> dict[str, tuple[BaseDistribution, Any]]:
    distributions = trial.distributions
    return {name: (distributions[name], value) for name, value in trial.params.items()}


def _generator(seed: int, *key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def _new_seed() -> int:
    return int(np.random.SeedSequence().generate_state(1, np.uint64)[0])
