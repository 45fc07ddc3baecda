"""Configurations that a search tries first: given directly, or the best of a run or a study."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.search import RunDirectory
from parallelmlp_search.space import MLPConfig, SearchSpace

if TYPE_CHECKING:
    import optuna

MAX_CONFIGS = 32
"""Maximum number of configurations taken from a run or a study."""


def initial_configs(
    source: Sequence[MLPConfig] | str | os.PathLike[str] | optuna.Study | None, space: SearchSpace
) -> tuple[MLPConfig, ...]:
    """Return the configurations that a search tries first, best first.

    Parameters
    ----------
    source
        Configurations; or the folder of a finished run or a study of Optuna, of which the best 32 inside the
        space are taken; or None.
    space
        Search space.

    Raises
    ------
    InvalidParameterError
        If a run or a study has no configuration inside the space.
    RunDirectoryError
        If the folder holds no finished run.
    """
    if source is None:
        return ()
    if isinstance(source, str | os.PathLike):
        best = RunDirectory.open(source).best_configs(10 * MAX_CONFIGS)
        found = [config for config in best if space.contains(config)]
        name = f"the run in {os.fspath(source)!r}"
    elif isinstance(source, Sequence):
        return tuple(cast("Sequence[MLPConfig]", source))
    elif hasattr(source, "get_trials"):
        from parallelmlp_search.integrations.optuna import configs_from_study

        found = configs_from_study(source, space, MAX_CONFIGS)
        name = f"the study {source.study_name!r}"
    else:
        raise InvalidParameterError(
            "initial_configs must be a list of configurations, the folder of a run or a study, "
            f"but got {source!r}"
        )
    if not found:
        raise InvalidParameterError(
            f"initial_configs must hold a configuration of the search space, but {name} has none: "
            "use the space of that search, or leave initial_configs out"
        )
    return tuple(found[:MAX_CONFIGS])
