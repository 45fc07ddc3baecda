"""The search: trials, rungs, budgets, run directories."""

from typing import TYPE_CHECKING

from parallelmlp_search._lazy import lazy_names

if TYPE_CHECKING:
    from parallelmlp_search.inference import TrainedModel
    from parallelmlp_search.search.finalists.result import SearchResult
    from parallelmlp_search.search.problem.problem import Problem
    from parallelmlp_search.search.problem.settings import SAMPLERS, SearchSettings
    from parallelmlp_search.search.run.progress import Callback, Progress, Standing
    from parallelmlp_search.search.run.run_directory import RunDirectory
    from parallelmlp_search.search.run.trial import Trial, TrialState
    from parallelmlp_search.search.runner import run, screen

__all__ = [
    "SAMPLERS",
    "Callback",
    "Problem",
    "Progress",
    "RunDirectory",
    "SearchResult",
    "SearchSettings",
    "Standing",
    "TrainedModel",
    "Trial",
    "TrialState",
    "run",
    "screen",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        ".inference": "TrainedModel",
        "finalists.result": "SearchResult",
        "problem.problem": "Problem",
        "problem.settings": "SAMPLERS SearchSettings",
        "run.progress": "Callback Progress Standing",
        "run.run_directory": "RunDirectory",
        "run.trial": "Trial TrialState",
        "runner": "run screen",
    },
    shadowed=("run",),
)
