"""A configuration from a trial, name by name, so that conditional spaces stay conditional."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import BaseTrial

from parallelmlp_search.search.proposals.distributions import space_from_distributions, suggest_values
from parallelmlp_search.space import MLPConfig, SearchSpace

__all__ = ["resolved", "suggest"]


def resolved(space: SearchSpace | str | os.PathLike[str] | Mapping[str, Any]) -> SearchSpace:
    """A space, or what names one; a mapping may hold distributions of Optuna."""
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
    """Let the trial's sampler choose a configuration.

    Names are asked for one after the other, and only those that count under the values before them: a
    network of one layer never suggests the width of a second.

    Parameters
    ----------
    trial
        Trial of a study, or a :class:`optuna.trial.FixedTrial`.
    space
        A space, a preset's name, a file, or a mapping to domains or distributions of Optuna.
    seed
        Seed of the configuration, unless the space names ``seed``; None for the trial's number.

    Returns
    -------
    MLPConfig

    Examples
    --------
    Conditions of one's own need no space at all: call ``trial.suggest_float`` and its like, and return an
    :class:`~parallelmlp_search.space.MLPConfig`.
    """
    space = resolved(space)
    return space.to_config(suggest_values(trial, space), trial.number if seed is None else seed)
