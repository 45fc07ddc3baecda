"""The verdict: metrics of all members at once, leaderboard, greedy ensemble and honest score."""

from parallelmlp_search.selection.ensemble import GreedyEnsemble, greedy_ensemble
from parallelmlp_search.selection.honesty import HonestScore, bias_corrected_score
from parallelmlp_search.selection.leaderboard import Entry, Leaderboard
from parallelmlp_search.selection.metrics import METRICS, TASKS, Metric, default_metric, get_metric

__all__ = [
    "METRICS",
    "TASKS",
    "Entry",
    "GreedyEnsemble",
    "HonestScore",
    "Leaderboard",
    "Metric",
    "bias_corrected_score",
    "default_metric",
    "get_metric",
    "greedy_ensemble",
]
