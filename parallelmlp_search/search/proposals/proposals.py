"""The configurations of each round: those to begin with, fresh ones, then ones that learn from the others."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from parallelmlp_search.search.problem.settings import FRESH_SAMPLERS, SearchSettings
from parallelmlp_search.search.proposals.samplers import draw_fresh, draw_near, draw_thriftily
from parallelmlp_search.search.run.journal import Journal
from parallelmlp_search.search.run.trial import Trial
from parallelmlp_search.space import MLPConfig, tuned_defaults_in

if TYPE_CHECKING:
    from parallelmlp_search.search.proposals.optuna_sampler import LearnedDraws

__all__ = ["Draws", "thrifty_share"]

DRAWING_SHARE = 0.1
"""Share of the time that is left which a sampler that learns may take for one draw."""

SMALLEST_DRAW = 8

KNOWN_SHARE = 0.5
"""Share of the fresh trials that settings known to do well may make up."""

KNOWING_SAMPLERS = ("random", "qmc", "tpe", "cmaes", "gp")


class Draws:
    """Draws what a search is going to try.

    Parameters
    ----------
    settings
        Space, sampler, initial configurations, seed.
    n_fresh, n_refined
        Trials to draw from the whole space, and with what the others have taught.
    n_rounds
        Rounds over which the latter are spread, so that later ones know more.
    journal
        Keeps draws that depend on the clock.
    deadline
        Reading of the monotonic clock, or None.
    cost
        Seconds of training a configuration, if cheap ones are to be preferred.
    """

    def __init__(
        self,
        settings: SearchSettings,
        n_fresh: int,
        n_refined: int,
        n_rounds: int,
        journal: Journal,
        deadline: float | None,
        cost: Callable[[MLPConfig], float] | None = None,
    ) -> None:
        self.settings = settings
        self.journal = journal
        self.deadline = deadline
        self.cost = cost
        self._fresh_left = n_fresh
        self._refined_left = n_refined
        self._portion = max(SMALLEST_DRAW, math.ceil(n_refined / max(1, n_rounds)))
        self._initial = _beginning(settings, n_fresh)
        self._learned = _learned_draws(settings)

    def extend(self, n: int) -> None:
        """Draw ``n`` more, fresh ones and others in the settings' proportion."""
        refined = round(self.settings.refined_share * n)
        self._fresh_left += n - refined
        self._refined_left += refined

    def wanted(self, room: int) -> int:
        """Draws that are due in a round that has room for so many."""
        if self._fresh_left > 0:
            return min(self._fresh_left, room)
        return min(self._refined_left, room, self._portion)

    def take(self, number: int, n: int, trials: Sequence[Trial]) -> list[tuple[MLPConfig, str]]:
        """Up to ``n`` new configurations for a round, and where each came from.

        Fewer come where the space is exhausted; then no more will be wanted.
        """
        fresh = self._fresh_left > 0
        rng = np.random.default_rng([self.settings.seed, 7, number])
        beginning, self._initial = self._initial[:n], self._initial[n:]
        initial = [config for config, _ in beginning]
        known = [trial.config for trial in trials] + initial
        missing = n - len(initial)
        space, name = self.settings.space, self.settings.sampler_name
        if fresh and (self._learned is None or self._learned.name):
            name = name if self._learned is None else "random"
            # grids and quasi-random points are only evenly spread as a whole
            cost = self.cost if name == "random" else None
            drawn = draw_thriftily(
                lambda count: draw_fresh(space, name, count, rng, known=known), missing, cost, rng
            )
        elif self._learned is None:
            name = "refined"
            drawn = draw_thriftily(
                lambda count: draw_near(space, trials, count, rng, known=known), missing, self.cost, rng
            )
        else:
            drawn = self._draw_learned(self._learned, number, missing, trials, rng, known)
        left = 0 if len(drawn) < missing else (self._fresh_left if fresh else self._refined_left) - n
        if fresh:
            self._fresh_left = left
        else:
            self._refined_left = left
        return beginning + [(config, name) for config in drawn]

    def _draw_learned(
        self,
        learned: LearnedDraws,
        number: int,
        n: int,
        trials: Sequence[Trial],
        rng: np.random.Generator,
        known: list[MLPConfig],
    ) -> list[MLPConfig]:
        """Draws of a sampler that learns; under a deadline it may take a tenth of the time that is left."""
        if self.deadline is None:
            return learned.draw(trials, n, rng, known=known)
        seconds = DRAWING_SHARE * (self.deadline - time.monotonic())

        def draw() -> list[dict[str, object]]:
            drawn = learned.draw(trials, n, rng, known=known, seconds=seconds)
            return [config.to_dict() for config in drawn]

        # how many it was asked for depends on the clock, so the draws are kept for resuming
        return [MLPConfig.from_dict(values) for values in self.journal.entry(f"drawn-{number}", draw)]


def thrifty_share(settings: SearchSettings) -> float:
    """Share of the draws of which cheap ones are preferred, where a time limit gives reason to."""
    if settings.sampler == "random":
        return 1.0
    if settings.sampler in FRESH_SAMPLERS:
        return settings.refined_share
    # before a sampler that learns knows anything, those with a name are given random draws
    return 1.0 - settings.refinement if isinstance(settings.sampler, str) else 0.0


def _beginning(settings: SearchSettings, n_fresh: int) -> list[tuple[MLPConfig, str]]:
    """What is tried before anything is drawn: what the settings name, then what is known to do well.

    The latter makes up a share of the fresh trials at most, and grids and samplers of one's own go without.
    """
    space = settings.space
    found = {space.key(config): (config, "initial") for config in settings.initial}
    if settings.sampler in KNOWING_SAMPLERS:
        for config in tuned_defaults_in(space)[: int(KNOWN_SHARE * n_fresh)]:
            found.setdefault(space.key(config), (config, "known"))
    return list(found.values())


def _learned_draws(settings: SearchSettings) -> LearnedDraws | None:
    if settings.sampler in FRESH_SAMPLERS:
        return None
    from parallelmlp_search.search.proposals.optuna_sampler import LearnedDraws

    return LearnedDraws(settings.space, settings.sampler, settings.seed)
