"""A configuration from a trial, name by name, so that conditional spaces stay conditional."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from optuna.trial import BaseTrial

from parallelmlp_search.search.distributions import decode_value, encode_value
from parallelmlp_search.space import Categorical, Float, Int, MLPConfig, SearchSpace

__all__ = ["suggest"]


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
        A space, a preset's name, a file or a mapping.
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
    space = SearchSpace.resolve(space)
    values: dict[str, Any] = {}
    for name in space.names:
        if not space.is_active(name, values):
            continue
        domain = space.domains[name]
        stored: Any
        if isinstance(domain, Float):
            stored = trial.suggest_float(name, domain.low, domain.high, log=domain.log, step=domain.step)
        elif isinstance(domain, Int):
            stored = trial.suggest_int(name, domain.low, domain.high, log=domain.log, step=domain.step)
        else:
            assert isinstance(domain, Categorical)
            stored = trial.suggest_categorical(name, [encode_value(choice) for choice in domain.choices])
        values[name] = decode_value(domain, stored)
    return space.to_config(values, trial.number if seed is None else seed)
