"""Draws of an Optuna sampler that learns from the trials so far.

A study in memory is made anew for every draw, from all that the rungs have found out: a trial that is still
climbing counts as what it is worth now. So a draw is a function of the trials and of the sampler alone, and a
search that is resumed draws again what it drew before.
"""

from __future__ import annotations

import copy
import inspect
import math
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, TPESampler
from optuna.search_space import intersection_search_space
from optuna.trial import FrozenTrial, TrialState, create_trial
from scipy.special import ndtri

from parallelmlp_search._optional import require
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.search.proposals.distributions import asked_of, suggest_values
from parallelmlp_search.search.run.trial import Trial
from parallelmlp_search.space import MLPConfig, SearchSpace

__all__ = ["NAMED", "LearnedDraws", "named_sampler", "quiet"]

NAMED = ("tpe", "cmaes", "gp")
"""Samplers of Optuna that have a short name."""

MAX_KNOWN = {"gp": 100}
"""Trials that a sampler is told of, best first and then evenly; a Gaussian process costs their cube."""

MAX_KNOWN_OTHERS = 300

MIN_SOURCES = 10
"""Trials that can tell CMA-ES where to begin: it looks at the best tenth of them (Nomura et al. 2021)."""

MAX_ASKED = {"gp": 16}
"""Draws that a sampler is asked for at a time; the rest of a round falls near those."""

TRIES = 4
"""So often a sampler may repeat itself before its suggestion is changed a little."""

REACH = 0.1
"""Reach of that change, in units of each domain."""


class LearnedDraws:
    """Asks an Optuna sampler for configurations.

    Parameters
    ----------
    space
        Where to draw from.
    sampler
        ``tpe``, ``cmaes``, ``gp``, or a sampler of Optuna, which is copied.
    seed
        Seed of a sampler that is given by name.

    Raises
    ------
    MissingDependencyError
        If ``cmaes`` is asked for and not installed.
    InvalidParameterError
        If ``sampler`` is another text: what a run directory remembers of an object.
    """

    def __init__(self, space: SearchSpace, sampler: str | BaseSampler, seed: int) -> None:
        self.space = space
        self.seed = seed
        self.name = sampler if isinstance(sampler, str) else ""
        self._given = None if isinstance(sampler, str) else copy.deepcopy(sampler)
        if self.name == "cmaes":
            require("cmaes", extra="cmaes", purpose="to draw by CMA-ES")
        elif self._given is None and self.name not in NAMED:
            raise InvalidParameterError(
                f"sampler {self.name!r} stands for an object that only Python can give: "
                "fit again with the same sampler instead of resuming from the shell"
            )
        # what samplers such as CMA-ES write on trials, to read it from them later
        self._marks: dict[tuple[object, ...], dict[str, Any]] = {}

    def draw(
        self,
        trials: Sequence[Trial],
        n: int,
        rng: np.random.Generator,
        *,
        known: Sequence[MLPConfig],
        seconds: float = math.inf,
    ) -> list[MLPConfig]:
        """Up to ``n`` configurations that differ from each other and from ``known``.

        Parameters
        ----------
        trials
            All trials so far.
        n
            How many are wanted; fewer come where the space is nearly exhausted.
        rng
            Source of the configurations' seeds, and of changes to suggestions that came before.
        known
            Configurations that must not come again.
        seconds
            When so many have passed, the sampler is asked no more, and the rest falls near what it has said.
        """
        until = time.monotonic() + seconds
        taken = {self.space.key(config): config for config in known}
        chosen: list[MLPConfig] = []
        with quiet():
            past = self._past(trials)
            study = optuna.create_study(direction="minimize", sampler=self._sampler(len(trials), past))
            study.add_trials(past)
            for _ in range(min(n, MAX_ASKED.get(self.name, n))):
                found = self._ask(study, rng, taken)
                if found is None:
                    break
                config, marks = found
                taken[self.space.key(config)] = config
                self._marks[self.space.key(config)] = marks
                chosen.append(config)
                if time.monotonic() > until:
                    break
        asked = list(chosen)
        while asked and len(chosen) < n:
            parent = asked[int(rng.integers(len(asked)))]
            child = self._changed(parent, rng, taken)
            if child is None:
                break
            taken[self.space.key(child)] = child
            chosen.append(child)
        return chosen

    def _ask(
        self, study: optuna.Study, rng: np.random.Generator, taken: dict[tuple[object, ...], MLPConfig]
    ) -> tuple[MLPConfig, dict[str, Any]] | None:
        for _ in range(TRIES):
            trial = study.ask()
            config = self.space.to_config(suggest_values(trial, self.space), int(rng.integers(2**31)))
            if self.space.key(config) not in taken:
                return config, dict(study.get_trials(deepcopy=False)[trial.number].system_attrs)
        changed = self._changed(config, rng, taken)
        return None if changed is None else (changed, {})

    def _changed(
        self, config: MLPConfig, rng: np.random.Generator, taken: dict[tuple[object, ...], MLPConfig]
    ) -> MLPConfig | None:
        """A configuration near this one that is new, or None."""
        for attempt in range(50):
            child = self.space.mutate(config, rng, REACH * (1 + attempt // 10))
            if self.space.key(child) not in taken:
                return child
        # near this one everything is known
        return next(iter(self.space.sample(1, rng, exclude=taken.values())), None)

    def _sampler(self, n_trials: int, past: list[FrozenTrial]) -> BaseSampler:
        if self._given is not None:
            return self._given
        seed = int(np.random.default_rng([self.seed, 11, n_trials]).integers(2**31))
        # evolution begins where the fresh draws were best instead of in the middle of the space
        return named_sampler(self.name, seed, _numbers_of(past) if self.name == "cmaes" else [])

    def _past(self, trials: Sequence[Trial]) -> list[FrozenTrial]:
        """What is known, as finished trials; the value is the normal score of a trial's standing.

        Errors of different rungs cannot be compared, standings can; and no outlier drowns the others in a
        Gaussian process.
        """
        ranked = [t for t in sorted(trials, key=lambda t: t.standing) if math.isfinite(t.error)]
        most = MAX_KNOWN.get(self.name, MAX_KNOWN_OTHERS)
        told = range(len(ranked))
        if len(ranked) > most:
            best = most // 2
            others = np.linspace(best, len(ranked) - 1, most - best).astype(int).tolist()
            told = [*range(best), *others]  # type: ignore[assignment]
        scores = ndtri((np.arange(len(ranked)) + 0.5) / max(1, len(ranked)))
        past = [(ranked[place].number, self._frozen(ranked[place], float(scores[place]))) for place in told]
        return [frozen for _, frozen in sorted(past, key=lambda pair: pair[0])]

    def _frozen(self, trial: Trial, value: float) -> FrozenTrial:
        params, distributions = asked_of(self.space, trial.config)
        return create_trial(
            state=TrialState.COMPLETE,
            value=value,
            params=params,
            distributions=distributions,
            system_attrs=self._marks.get(self.space.key(trial.config), {}),
        )


def named_sampler(name: str, seed: int, source: Sequence[FrozenTrial] = ()) -> BaseSampler:
    """Optuna's sampler of a short name, as it suits spaces of networks that are drawn in batches.

    Parameters
    ----------
    name
        One of :data:`NAMED`.
    seed
        Its seed.
    source
        Trials whose best tell CMA-ES where to begin, if they are enough; they hold its parameters and no
        others.
    """
    if name == "tpe":
        # groups keep conditional names apart; the liar keeps a batch from crowding into one place
        return TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)
    if name == "gp":
        hushed: dict[str, Any] = {"warn_independent_sampling": False}
        known = inspect.signature(GPSampler).parameters  # from Optuna 4.5 on it can be told so
        return GPSampler(seed=seed, **{name: value for name, value in hushed.items() if name in known})
    require("cmaes", extra="cmaes", purpose="to draw by CMA-ES")
    told = list(source) if len(source) >= MIN_SOURCES else None
    return CmaEsSampler(seed=seed, source_trials=told, warn_independent_sampling=False)


def _numbers_of(past: list[FrozenTrial]) -> list[FrozenTrial]:
    """The same trials with those parameters alone that CMA-ES handles: numbers that every trial has."""
    numbers: dict[str, BaseDistribution] = {
        name: distribution
        for name, distribution in intersection_search_space(past).items()
        if isinstance(distribution, FloatDistribution | IntDistribution) and not distribution.single()
    }
    if not numbers:
        return []
    return [
        create_trial(
            value=trial.value, params={name: trial.params[name] for name in numbers}, distributions=numbers
        )
        for trial in past
    ]


@contextmanager
def quiet() -> Iterator[None]:
    """Optuna's remarks on experimental parts, and on each trial, do not concern the user of a search."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
