"""The verdict: metrics of all members at once, leaderboard, greedy ensemble and honest score."""

from parallelmlp_search.selection.best_threshold import at_best_cut
from parallelmlp_search.selection.bias_correction import HonestScore, as_predicted, bias_corrected_score
from parallelmlp_search.selection.calibration import fit_temperature, tempered
from parallelmlp_search.selection.ensemble import GreedyEnsemble, greedy_ensemble
from parallelmlp_search.selection.fold_averaging import as_averaged, averaging_gain
from parallelmlp_search.selection.leaderboard import Entry, Leaderboard
from parallelmlp_search.selection.metrics import METRICS, TASKS, Metric, default_metric, get_metric
from parallelmlp_search.selection.thresholds import Decision, tune_decision, weigh

__all__ = [
    "METRICS",
    "TASKS",
    "Decision",
    "Entry",
    "GreedyEnsemble",
    "HonestScore",
    "Leaderboard",
    "Metric",
    "as_averaged",
    "as_predicted",
    "at_best_cut",
    "averaging_gain",
    "bias_corrected_score",
    "default_metric",
    "fit_temperature",
    "get_metric",
    "greedy_ensemble",
    "tempered",
    "tune_decision",
    "weigh",
]
