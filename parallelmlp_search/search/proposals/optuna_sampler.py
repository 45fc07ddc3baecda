"""Proposals of an Optuna sampler, which learns from the trials so far.

Every round of proposals uses a new study in memory with the results of all rungs; a trial that is still in
training counts with its current error. The proposals are a function of the trials and the sampler alone, so a
resumed search proposes the same.
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
from optuna.trial import FrozenTrial, create_trial
from scipy.special import ndtri

from parallelmlp_search._optional import require
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.search.proposals.distributions import asked_of, suggest_values
from parallelmlp_search.search.run.trial import Trial
from parallelmlp_search.space import MLPConfig, SearchSpace

NAMED = ("tpe", "cmaes", "gp")
"""Samplers of Optuna with a short name."""

MAX_KNOWN = {"gp": 100}
"""Most trials that a sampler is told: the best, and others evenly. A Gaussian process costs their cube."""

MAX_KNOWN_BY_DEFAULT = 300

MIN_SOURCES = 10
"""Least trials for a warm start of CMA-ES, which uses the best tenth of them (Nomura et al. 2021)."""

MAX_ASKED = {"gp": 16}
"""Most proposals of the sampler itself in a round; the others are changes of these."""

TRIES = 4
"""Repeated suggestions after which the last one is changed a little."""

CHANGE_SCALE = 0.1
"""Scale of that change, in units of each domain."""


class OptunaProposals:
    """Asks an Optuna sampler for configurations.

    Parameters
    ----------
    space
        Search space.
    sampler
        ``tpe``, ``cmaes``, ``gp``, or a sampler of Optuna, which is copied.
    seed
        Seed of a sampler that is given by name.

    Raises
    ------
    MissingDependencyError
        If ``cmaes`` is not installed.
    InvalidParameterError
        If ``sampler`` is another text: the name of a class, which a run directory keeps instead of an object.
    """

    def __init__(self, space: SearchSpace, sampler: str | BaseSampler, seed: int) -> None:
        self.space = space
        self.seed = seed
        self.name = sampler if isinstance(sampler, str) else ""
        self._given = None if isinstance(sampler, str) else copy.deepcopy(sampler)
        if self.name == "cmaes":
            require("cmaes", extra="cmaes", purpose="to sample by CMA-ES")
        elif self._given is None and self.name not in NAMED:
            raise InvalidParameterError(
                f"sampler {self.name!r} is an object that only Python can pass: "
                "fit again with the same sampler instead of resuming from the shell"
            )
        # attributes that samplers such as CMA-ES write on trials and read later
        self._attributes: dict[tuple[object, ...], dict[str, Any]] = {}

    def propose(
        self,
        trials: Sequence[Trial],
        n: int,
        rng: np.random.Generator,
        *,
        known: Sequence[MLPConfig],
        seconds: float = math.inf,
    ) -> list[MLPConfig]:
        """Propose configurations that differ from each other and from ``known``.

        Parameters
        ----------
        trials
            All trials so far.
        n, known
            Most configurations, fewer where the space is nearly exhausted; configurations to leave out.
        rng
            Generator of the configurations' seeds, and of changes of repeated suggestions.
        seconds
            Time after which the sampler is asked no more; the other proposals are changes of its answers.

        Returns
        -------
        list of MLPConfig
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
                config, attributes = found
                taken[self.space.key(config)] = config
                self._attributes[self.space.key(config)] = attributes
                chosen.append(config)
                if time.monotonic() > until:
                    break
        n_asked = len(chosen)
        while n_asked and len(chosen) < n:
            child = self._changed(chosen[int(rng.integers(n_asked))], rng, taken)
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
        """A new configuration near this one, or None."""
        for attempt in range(50):
            child = self.space.mutate(config, rng, CHANGE_SCALE * (1 + attempt // 10))
            if self.space.key(child) not in taken:
                return child
        return next(iter(self.space.sample(1, rng, exclude=taken.values())), None)

    def _sampler(self, n_trials: int, past: list[FrozenTrial]) -> BaseSampler:
        if self._given is not None:
            return self._given
        seed = int(np.random.default_rng([self.seed, 11, n_trials]).integers(2**31))
        # CMA-ES starts at the best fresh trials instead of the middle of the space
        return named_sampler(self.name, seed, _numeric_part(past) if self.name == "cmaes" else [])

    def _past(self, trials: Sequence[Trial]) -> list[FrozenTrial]:
        """Trials so far as finished trials of Optuna; values are normal scores of their ranks.

        Errors of different rungs cannot be compared, ranks can, and outliers do not spoil a Gaussian process.
        """
        ranked = [t for t in sorted(trials, key=lambda t: t.standing) if math.isfinite(t.error)]
        most = MAX_KNOWN.get(self.name, MAX_KNOWN_BY_DEFAULT)
        places = np.arange(len(ranked))
        if len(ranked) > most:
            best = most // 2
            places = np.r_[:best, np.linspace(best, len(ranked) - 1, most - best).astype(int)]
        scores = ndtri((np.arange(len(ranked)) + 0.5) / max(1, len(ranked)))
        past = []
        for place in sorted(places, key=lambda place: ranked[place].number):
            config = ranked[place].config
            params, distributions = asked_of(self.space, config)
            attributes = self._attributes.get(self.space.key(config), {})
            value = float(scores[place])
            past.append(
                create_trial(value=value, params=params, distributions=distributions, system_attrs=attributes)
            )
        return past


def named_sampler(name: str, seed: int, source: Sequence[FrozenTrial] = ()) -> BaseSampler:
    """Sampler of Optuna by its short name, set up for batches and conditional spaces.

    Parameters
    ----------
    name
        One of :data:`NAMED`.
    seed
        Its seed.
    source
        Trials for a warm start of CMA-ES, with its parameters only; used if there are enough.

    Returns
    -------
    optuna.samplers.BaseSampler
    """
    if name == "tpe":
        # `group` separates conditional names; `constant_liar` spreads a batch
        return TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)
    if name == "gp":
        options: dict[str, Any] = {"warn_independent_sampling": False}
        if "warn_independent_sampling" not in inspect.signature(GPSampler).parameters:
            options = {}  # before Optuna 4.5
        return GPSampler(seed=seed, **options)
    require("cmaes", extra="cmaes", purpose="to sample by CMA-ES")
    sources = list(source) if len(source) >= MIN_SOURCES else None
    return CmaEsSampler(seed=seed, source_trials=sources, warn_independent_sampling=False)


def _numeric_part(past: list[FrozenTrial]) -> list[FrozenTrial]:
    """Trials with the parameters that CMA-ES handles: numbers that every trial has."""
    numbers: dict[str, BaseDistribution] = {
        name: distribution
        for name, distribution in intersection_search_space(past).items()
        if isinstance(distribution, FloatDistribution | IntDistribution) and not distribution.single()
    }
    params = [{name: trial.params[name] for name in numbers} for trial in past if numbers]
    return [
        create_trial(value=trial.value, params=mine, distributions=numbers)
        for trial, mine in zip(past, params, strict=False)
    ]


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Optuna's messages about trials and experimental features, which search users do not need."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
