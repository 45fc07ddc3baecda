"""The search: trials, rungs, budgets, run directories."""

from parallelmlp_search.search.model import TrainedModel
from parallelmlp_search.search.problem import Problem
from parallelmlp_search.search.progress import Callback, Progress, Standing
from parallelmlp_search.search.result import SearchResult
from parallelmlp_search.search.run_directory import RunDirectory
from parallelmlp_search.search.runner import run, screen
from parallelmlp_search.search.settings import SAMPLERS, SearchSettings
from parallelmlp_search.search.trial import Trial, TrialState

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
