"""Samplers of configurations: fresh ones from the space, and ones near the elites."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from scipy.stats import qmc

from parallelmlp_search.search.run.trial import Trial
from parallelmlp_search.space import MLPConfig, SearchSpace

MUTATION_SHARE = 0.7
"""Share of the proposals near the elites that change one elite; the others cross two."""

N_ELITES = 12

FINEST_GRID = 16
"""Values of each domain in the finest grid."""

MAX_LISTED = 10_000
"""Points of a grid that is listed. All 777,600 of the default space's coarsest grid take 40 seconds."""

TRIES = 20
"""Draws per configuration that is wanted, since some repeat."""

N_CANDIDATES = 4
"""Configurations of which one is taken where cheap ones are preferred."""

COST_EXPONENT = 1.0
"""Probabilities fall with this power of the cost. At 1, cheap and expensive ones get equal times."""


def propose_fresh(
    space: SearchSpace, sampler: str, n: int, rng: np.random.Generator, *, known: Sequence[MLPConfig]
) -> list[MLPConfig]:
    """Draw configurations that are not among ``known``.

    Parameters
    ----------
    space, rng
        Search space and random generator.
    sampler
        ``random``; ``qmc`` for scrambled Sobol points, which leave no large gaps; ``grid`` for points of the
        coarsest grid that is large enough, in random order if it is larger than wanted.
    n, known
        Most configurations, fewer where the space is exhausted; configurations to leave out.

    Returns
    -------
    list of MLPConfig
    """
    if sampler == "random":
        return space.sample(n, rng, exclude=known)
    candidates: Iterable[MLPConfig] = (
        _grid(space, n, len(known), rng) if sampler == "grid" else _sobol(space, n + len(known), rng)
    )
    taken = {space.key(config) for config in known}
    chosen: list[MLPConfig] = []
    for config in candidates:
        if len(chosen) == n:
            break
        identity = space.key(config)
        if identity not in taken:
            taken.add(identity)
            chosen.append(config)
    return chosen


def _grid(space: SearchSpace, n: int, n_known: int, rng: np.random.Generator) -> Iterable[MLPConfig]:
    """Points of the coarsest grid that holds ``n + n_known`` points, or of the finest.

    A larger grid is shuffled, since its first points differ in the last names only.
    """
    wanted = n + n_known
    resolution, size = 1, space.grid_size(1)
    while size < wanted and resolution < FINEST_GRID:
        resolution += 1
        finer = space.grid_size(resolution)
        if finer == size and resolution > FINEST_GRID // 2:
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


def propose_cheap(
    propose: Callable[[int], list[MLPConfig]],
    n: int,
    cost: Callable[[MLPConfig], float] | None,
    rng: np.random.Generator,
) -> list[MLPConfig]:
    """Proposals of a function, cheap ones with a higher probability.

    They are drawn from several times as many one after the other without replacement, with probabilities in
    proportion to ``cost ** -COST_EXPONENT``, by the Gumbel trick (Efraimidis and Spirakis 2006; Kool et al.
    2019).

    Parameters
    ----------
    propose
        Returns the given number of configurations, or fewer.
    n
        Number of proposals.
    cost
        Seconds of training a configuration; None to take ``n`` proposals as they are.
    rng
        Random generator.

    Returns
    -------
    list of MLPConfig
    """
    if cost is None:
        return propose(n)
    configs = propose(N_CANDIDATES * n)
    if len(configs) <= n:
        return configs
    costs = np.array([cost(config) for config in configs])
    order = np.argsort(COST_EXPONENT * np.log(costs) - rng.gumbel(size=len(costs)))
    return [configs[index] for index in order[:n]]


def propose_near(
    space: SearchSpace,
    trials: Sequence[Trial],
    n: int,
    rng: np.random.Generator,
    *,
    known: Sequence[MLPConfig],
) -> list[MLPConfig]:
    """Propose configurations near the elites: a change of one, or a cross of two.

    The probability of an elite falls with its rank. The scale of a change is drawn each time, so that there
    are fine and coarse steps.

    Parameters
    ----------
    space, rng
        Search space and random generator.
    trials
        Trials so far; the best are the elites.
    n, known
        Most configurations; configurations to leave out.

    Returns
    -------
    list of MLPConfig
    """
    ranked = [trial for trial in sorted(trials, key=lambda trial: trial.standing) if np.isfinite(trial.error)]
    elites = [trial.config for trial in ranked[:N_ELITES]]
    if not elites:
        return []
    taken = {space.key(config) for config in known}
    ranks = np.arange(len(elites), 0, -1, dtype=float)
    share = ranks / ranks.sum()
    chosen: list[MLPConfig] = []
    for _ in range(TRIES * n):
        if len(chosen) == n:
            break
        first = elites[rng.choice(len(elites), p=share)]
        scale = float(rng.choice([0.05, 0.15, 0.4]))
        if rng.random() < MUTATION_SHARE or len(elites) == 1:
            child = space.mutate(first, rng, scale)
        else:
            second = elites[rng.choice(len(elites), p=share)]
            child = space.mutate(space.crossover(first, second, rng), rng, 0.05)
        if "seed" not in space.domains:
            child = child.replace(seed=int(rng.integers(0, 2**31)))
        identity = space.key(child)
        if identity not in taken:
            taken.add(identity)
            chosen.append(child)
    return chosen
