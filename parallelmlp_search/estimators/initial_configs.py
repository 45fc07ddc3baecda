"""Configurations to begin a search with: given one by one, or the best of a run or of a study."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.search import RunDirectory
from parallelmlp_search.space import MLPConfig, SearchSpace

if TYPE_CHECKING:
    import optuna

__all__ = ["initial_configs"]

MAX_TAKEN = 32
"""Configurations that are taken over from a run or a study."""


def initial_configs(
    source: Sequence[MLPConfig] | str | os.PathLike[str] | optuna.Study | None, space: SearchSpace
) -> tuple[MLPConfig, ...]:
    """Configurations to begin with, best first.

    Parameters
    ----------
    source
        Configurations, which must all be of the space; the folder of a finished run or a study of Optuna, of
        which the best 32 that are of the space are taken; or None for nothing.
    space
        What may be tried.

    Raises
    ------
    InvalidParameterError
        If a configuration is not of the space, or none of a run or a study is.
    RunDirectoryError
        If the folder holds no finished run.
    """
    if source is None:
        return ()
    if isinstance(source, str | os.PathLike):
        best = RunDirectory.open(source).best_configs(10 * MAX_TAKEN)
        found = [config for config in best if space.contains(config)]
        name = f"the run in {os.fspath(source)!r}"
    elif isinstance(source, Sequence):
        return tuple(cast("Sequence[MLPConfig]", source))
    elif hasattr(source, "get_trials"):
        from parallelmlp_search.integrations.optuna import configs_from_study

        found = configs_from_study(source, space, MAX_TAKEN)
        name = f"the study {source.study_name!r}"
    else:
        raise InvalidParameterError(
            "initial_configs must be a list of configurations, the folder of a run or a study, "
            f"but got {source!r}"
        )
    if not found:
        raise InvalidParameterError(
            f"initial_configs must hold a configuration of the search space, but {name} has none: "
            "search the space that it searched, or leave it out"
        )
    return tuple(found[:MAX_TAKEN])
