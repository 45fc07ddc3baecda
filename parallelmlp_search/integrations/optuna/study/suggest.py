"""Configurations suggested by a trial, parameter by parameter, so that spaces may be conditional."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import BaseTrial

from parallelmlp_search.search.proposals.distributions import space_from_distributions, suggest_values
from parallelmlp_search.space import MLPConfig, SearchSpace


def resolve_space(space: SearchSpace | str | os.PathLike[str] | Mapping[str, Any]) -> SearchSpace:
    """Return a space given as itself, a preset's name, a file, or a mapping to domains or distributions."""
    if isinstance(space, Mapping):
        space = {
            name: space_from_distributions({name: one}).domains[name]
            if isinstance(one, BaseDistribution)
            else one
            for name, one in space.items()
        }
    return SearchSpace.resolve(space)


def suggest(
    trial: BaseTrial,
    space: SearchSpace | str | os.PathLike[str] | Mapping[str, Any] = "default",
    *,
    seed: int | None = None,
) -> MLPConfig:
    """Let a trial's sampler choose a configuration.

    Parameters are asked one after the other, and only those that are active given the values before them: a
    network of one layer never suggests the width of a second.

    Parameters
    ----------
    trial
        Trial of a study, or a :class:`optuna.trial.FixedTrial`.
    space
        Search space, name of a preset, file, or mapping to domains or Optuna distributions.
    seed
        Seed of the configuration if the space does not contain ``seed``; None for the trial's number.

    Returns
    -------
    MLPConfig
    """
    space = resolve_space(space)
    return space.to_config(suggest_values(trial, space), trial.number if seed is None else seed)
