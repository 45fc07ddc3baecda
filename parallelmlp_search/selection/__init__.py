"""Metrics, leaderboard, ensemble selection, honest score, calibration and decision thresholds."""

from parallelmlp_search.data.task import TASKS
from parallelmlp_search.selection.best_threshold import at_best_threshold
from parallelmlp_search.selection.bias_correction import (
    HonestScore,
    adjust_for_postprocessing,
    bias_corrected_score,
)
from parallelmlp_search.selection.bootstrap import Bootstrap
from parallelmlp_search.selection.calibration import (
    apply_temperature,
    fit_label_temperature,
    fit_temperature,
)
from parallelmlp_search.selection.cost_formulas import Matrix
from parallelmlp_search.selection.costs import Costs, decided_by, decision_matrix, with_costs
from parallelmlp_search.selection.ensemble import CostLimit, GreedyEnsemble, greedy_ensemble
from parallelmlp_search.selection.fold_averaging import adjust_for_averaging, averaging_gain
from parallelmlp_search.selection.leaderboard import Entry, Leaderboard
from parallelmlp_search.selection.metrics import LABEL_METRICS, METRICS, Metric, get_metric, metrics_of
from parallelmlp_search.selection.thresholds import (
    Decision,
    DecisionWeights,
    tune_thresholds,
    weight_classes,
)

__all__ = [
    "LABEL_METRICS",
    "METRICS",
    "TASKS",
    "Bootstrap",
    "CostLimit",
    "Costs",
    "Decision",
    "DecisionWeights",
    "Entry",
    "GreedyEnsemble",
    "HonestScore",
    "Leaderboard",
    "Matrix",
    "Metric",
    "adjust_for_averaging",
    "adjust_for_postprocessing",
    "apply_temperature",
    "at_best_threshold",
    "averaging_gain",
    "bias_corrected_score",
    "decided_by",
    "decision_matrix",
    "fit_label_temperature",
    "fit_temperature",
    "get_metric",
    "greedy_ensemble",
    "metrics_of",
    "tune_thresholds",
    "weight_classes",
    "with_costs",
]
