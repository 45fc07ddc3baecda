"""Where configurations come from: fresh draws from the space, and draws near the leaders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from scipy.stats import qmc

from parallelmlp_search.search.run.trial import Trial
from parallelmlp_search.space import MLPConfig, SearchSpace

__all__ = ["cheaper", "draw_fresh", "draw_near", "draw_thriftily"]

MUTATION_SHARE = 0.7
"""Share of draws near the leaders that change one leader; the others cross two."""

LEADERS = 12

FINEST = 16
"""Values of each domain in the finest grid."""

MAX_LISTED = 10_000
"""Points of a grid that is listed; with all 777,600 of the default space's coarsest that takes 40 seconds."""

TRIES = 20
"""Draws for each configuration that is wanted, since some come again."""

CANDIDATES = 4
"""Configurations from which one is taken where cheap ones are preferred."""

THRIFT = 1.0
"""Probabilities fall with this power of the cost; at 1, cheap and dear ones get equal shares of the time."""


def draw_fresh(
    space: SearchSpace, sampler: str, n: int, rng: np.random.Generator, *, known: Sequence[MLPConfig]
) -> list[MLPConfig]:
    """Up to ``n`` configurations that are not among ``known``; fewer where the space is exhausted.

    Parameters
    ----------
    space
        Where to draw from.
    sampler
        ``random``; ``qmc`` for scrambled Sobol points, which leave no large holes; ``grid`` for points
        of the coarsest grid that holds enough, at random where it holds more.
    n
        How many are wanted.
    rng
        Source of randomness.
    known
        Configurations that must not come again.
    """
    if sampler == "random":
        return space.sample(n, rng, exclude=known)
    candidates: Iterable[MLPConfig] = (
        _grid(space, n, len(known), rng) if sampler == "grid" else _sobol(space, n + len(known), rng)
    )
    taken = {_identity(space, config) for config in known}
    chosen: list[MLPConfig] = []
    for config in candidates:
        if len(chosen) == n:
            break
        identity = _identity(space, config)
        if identity not in taken:
            taken.add(identity)
            chosen.append(config)
    return chosen


def _identity(space: SearchSpace, config: MLPConfig) -> object:
    return config if "seed" in space.domains else config.identity()


def _grid(space: SearchSpace, n: int, n_known: int, rng: np.random.Generator) -> Iterable[MLPConfig]:
    """Points of the coarsest grid that holds all that are known and as many more, or of the finest there is.

    A grid that is wanted whole comes in its order; of a larger one come points at random, since those that
    come first would differ in the last names only.
    """
    wanted = n + n_known
    resolution, size = 1, space.grid_size(1)
    while size < wanted and resolution < FINEST:
        resolution += 1
        finer = space.grid_size(resolution)
        if finer == size and resolution > FINEST // 2:
            break
        size = finer
    if size > MAX_LISTED:
        return (space.grid_point(resolution, rng) for _ in range(TRIES * wanted))
    points = space.grid(resolution)
    return points if size <= wanted else [points[index] for index in rng.permutation(len(points))]


def _sobol(space: SearchSpace, n: int, rng: np.random.Generator) -> list[MLPConfig]:
    sobol = qmc.Sobol(space.n_dimensions, scramble=True, rng=rng)
    points = sobol.random_base2(max(1, int(np.ceil(np.log2(2 * n)))))
    seeds = rng.integers(0, 2**31, size=len(points))
    return [
        space.to_config(space.from_unit(point), seed=int(seed))
        for point, seed in zip(points, seeds, strict=True)
    ]


def cheaper(
    configs: Sequence[MLPConfig], n: int, cost: Callable[[MLPConfig], float], rng: np.random.Generator
) -> list[MLPConfig]:
    """``n`` of the configurations, the likelier the less they cost, or all if there are no more.

    Drawn one after the other without replacement, with probabilities in proportion to
    ``cost ** -THRIFT``, by the Gumbel trick (Efraimidis and Spirakis 2006; Kool et al. 2019).
    """
    if len(configs) <= n:
        return list(configs)
    costs = np.array([cost(config) for config in configs])
    order = np.argsort(THRIFT * np.log(costs) - rng.gumbel(size=len(costs)))
    return [configs[index] for index in order[:n]]


def draw_thriftily(
    draw: Callable[[int], list[MLPConfig]],
    n: int,
    cost: Callable[[MLPConfig], float] | None,
    rng: np.random.Generator,
) -> list[MLPConfig]:
    """What ``draw(n)`` gives, or, where there is a ``cost``, the :func:`cheaper` of several times as many."""
    return draw(n) if cost is None else cheaper(draw(CANDIDATES * n), n, cost, rng)


def draw_near(
    space: SearchSpace,
    trials: Sequence[Trial],
    n: int,
    rng: np.random.Generator,
    *,
    known: Sequence[MLPConfig],
) -> list[MLPConfig]:
    """Up to ``n`` configurations near the leading trials: a small change of one, or a cross of two.

    The better a leader, the more often it is chosen: the probability falls with the rank. The reach of a
    change is drawn anew each time, so that both fine and coarse steps occur.
    """
    ranked = [trial for trial in sorted(trials, key=lambda trial: trial.standing) if np.isfinite(trial.error)]
    leaders = [trial.config for trial in ranked[:LEADERS]]
    if not leaders:
        return []
    taken = {_identity(space, config) for config in known}
    ranks = np.arange(len(leaders), 0, -1, dtype=float)
    share = ranks / ranks.sum()
    chosen: list[MLPConfig] = []
    for _ in range(TRIES * n):
        if len(chosen) == n:
            break
        first = leaders[rng.choice(len(leaders), p=share)]
        scale = float(rng.choice([0.05, 0.15, 0.4]))
        if rng.random() < MUTATION_SHARE or len(leaders) == 1:
            child = space.mutate(first, rng, scale)
        else:
            second = leaders[rng.choice(len(leaders), p=share)]
            child = space.mutate(space.crossover(first, second, rng), rng, 0.05)
        if "seed" not in space.domains:
            child = child.replace(seed=int(rng.integers(0, 2**31)))
        identity = _identity(space, child)
        if identity not in taken:
            taken.add(identity)
            chosen.append(child)
    return chosen
