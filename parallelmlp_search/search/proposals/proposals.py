"""Proposals: initial configurations, fresh ones, then configurations that learn from earlier trials."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from parallelmlp_search.search.problem.settings import FRESH_SAMPLERS, SearchSettings
from parallelmlp_search.search.proposals.samplers import propose_cheap, propose_fresh, propose_near
from parallelmlp_search.search.run.journal import Journal
from parallelmlp_search.search.run.trial import Trial
from parallelmlp_search.space import MLPConfig, tuned_defaults_in

if TYPE_CHECKING:
    from parallelmlp_search.search.problem.latency import LatencyMeter
    from parallelmlp_search.search.proposals.optuna_sampler import OptunaProposals

PROPOSING_SHARE = 0.1
"""Share of the time left that a sampler of Optuna can take for the proposals of one round."""

MIN_PROPOSALS = 8
"""Proposals of a round after the fresh ones, if that many are left."""

DEFAULTS_SHARE = 0.5
"""Most of the fresh trials that are tuned defaults."""

SAMPLERS_WITH_DEFAULTS = ("random", "qmc", "tpe", "cmaes", "gp")


class Proposals:
    """Source of the configurations of each round.

    Parameters
    ----------
    settings
        Space, sampler, initial configurations, seed.
    journal
        Keeps proposals that depend on the clock.
    n_fresh, n_refined
        Trials to draw from the whole space, and from the results of others.
    n_rounds
        Rounds over which the latter are spread.
    deadline
        Reading of the monotonic clock, or None.
    cost
        Seconds of training a configuration, if cheap ones are to be preferred.
    latency
        Limit of the latency of a configuration, or None.
    """

    def __init__(
        self,
        settings: SearchSettings,
        journal: Journal,
        *,
        n_fresh: int,
        n_refined: int = 0,
        n_rounds: int = 1,
        deadline: float | None = None,
        cost: Callable[[MLPConfig], float] | None = None,
        latency: LatencyMeter | None = None,
    ) -> None:
        self.settings = settings
        self.journal = journal
        self.deadline = deadline
        self.cost = cost
        self.latency = latency
        self._fresh_left = n_fresh
        self._refined_left = n_refined
        self._portion = max(MIN_PROPOSALS, math.ceil(n_refined / max(1, n_rounds)))
        self._initial = self._fitting_ones(_initial(settings, n_fresh))
        self._optuna = _optuna_proposals(settings)

    def extend(self, n: int) -> None:
        """Add ``n`` proposals, in the settings' proportion of fresh and refined ones."""
        refined = round(self.settings.refined_share * n)
        self._fresh_left += n - refined
        self._refined_left += refined

    def wanted(self, room: int) -> int:
        """Proposals that are due in a round with this room."""
        if self._fresh_left > 0:
            return min(self._fresh_left, room)
        return min(self._refined_left, room, self._portion)

    def take(self, number: int, n: int, trials: Sequence[Trial]) -> list[tuple[MLPConfig, str]]:
        """New configurations for a round.

        Parameters
        ----------
        number
            Number of the round.
        n
            Most configurations; there are fewer where the space is exhausted.
        trials
            All trials so far.

        Returns
        -------
        list of (MLPConfig, str)
            Configurations and their origins.
        """
        fresh = self._fresh_left > 0
        rng = np.random.default_rng([self.settings.seed, 7, number])
        initial, self._initial = self._initial[:n], self._initial[n:]
        known = [trial.config for trial in trials] + [config for config, _ in initial]
        missing = n - len(initial)
        space, name = self.settings.space, self.settings.sampler_name
        if fresh and (self._optuna is None or self._optuna.name):
            name = name if self._optuna is None else "random"
            # grids and quasi-random points are spread evenly only as a whole
            cost = self.cost if name == "random" else None
            new = self._draw(
                number, lambda n: propose_fresh(space, name, n, rng, known=known), missing, cost, rng
            )
        elif self._optuna is None:
            name = "refined"
            new = self._draw(
                number, lambda n: propose_near(space, trials, n, rng, known=known), missing, self.cost, rng
            )
        else:
            new = self._ask_optuna(number, missing, trials, rng, known)
        left = 0 if len(new) < missing else (self._fresh_left if fresh else self._refined_left) - n
        if fresh:
            self._fresh_left = left
        else:
            self._refined_left = left
        return initial + [(config, name) for config in new]

    def _draw(
        self,
        number: int,
        propose: Callable[[int], list[MLPConfig]],
        n: int,
        cost: Callable[[MLPConfig], float] | None,
        rng: np.random.Generator,
    ) -> list[MLPConfig]:
        """Proposals of a function, cheap ones with a higher probability; under a limit, fast ones only."""
        if self.latency is None:
            return propose_cheap(propose, n, cost, rng)
        fitting = self.latency.fitting(propose)
        # latencies depend on the clock, so a resumed run needs the proposals
        return self._recorded(f"drawn-{number}", lambda: propose_cheap(fitting, n, cost, rng))

    def _recorded(self, key: str, propose: Callable[[], list[MLPConfig]]) -> list[MLPConfig]:
        """Proposals that the journal keeps."""
        kept = self.journal.entry(key, lambda: [one.to_dict() for one in propose()])
        return [MLPConfig.from_dict(values) for values in kept]

    def _fitting_ones(self, initial: list[tuple[MLPConfig, str]]) -> list[tuple[MLPConfig, str]]:
        """First configurations without tuned defaults that are too slow."""
        if self.latency is None:
            return initial
        fits = self.latency.fits
        kept = self._recorded(
            "drawn-first", lambda: [c for c, origin in initial if origin != "known" or fits(c)]
        )
        return [(config, origin) for config, origin in initial if config in kept]

    def _ask_optuna(
        self,
        number: int,
        n: int,
        trials: Sequence[Trial],
        rng: np.random.Generator,
        known: list[MLPConfig],
    ) -> list[MLPConfig]:
        """Proposals of a sampler of Optuna; under a deadline it can take a tenth of the time left."""
        assert self._optuna is not None
        optuna = self._optuna
        if self.deadline is None:
            return optuna.propose(trials, n, rng, known=known)
        seconds = PROPOSING_SHARE * (self.deadline - time.monotonic())

        # the number of questions depends on the clock, so a resumed run needs the answers
        return self._recorded(
            f"drawn-{number}", lambda: optuna.propose(trials, n, rng, known=known, seconds=seconds)
        )


def cheap_share(settings: SearchSettings) -> float:
    """Share of the proposals that prefer cheap configurations under a time limit."""
    if settings.sampler == "random":
        return 1.0
    if settings.sampler in FRESH_SAMPLERS:
        return settings.refined_share
    # a sampler of Optuna with a name begins with random draws
    return 1.0 - settings.refinement if isinstance(settings.sampler, str) else 0.0


def _initial(settings: SearchSettings, n_fresh: int) -> list[tuple[MLPConfig, str]]:
    """Configurations of the settings, then tuned defaults, which grids and sampler objects leave out."""
    space = settings.space
    found = {space.key(config): (config, "initial") for config in settings.initial}
    if settings.sampler in SAMPLERS_WITH_DEFAULTS:
        known = tuned_defaults_in(space, monotone=settings.monotonic is not None)
        for config in known[: int(DEFAULTS_SHARE * n_fresh)]:
            found.setdefault(space.key(config), (config, "known"))
    return list(found.values())


def _optuna_proposals(settings: SearchSettings) -> OptunaProposals | None:
    if settings.sampler in FRESH_SAMPLERS:
        return None
    from parallelmlp_search.search.proposals.optuna_sampler import OptunaProposals

    return OptunaProposals(settings.space, settings.sampler, settings.seed)
