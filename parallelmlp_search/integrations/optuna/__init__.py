"""Optuna: studies whose trials are trained in packed batches, and search spaces both ways."""

from parallelmlp_search.integrations.optuna.distributions import (
    space_from_distributions,
    space_to_distributions,
)
from parallelmlp_search.integrations.optuna.objective import PackedObjective
from parallelmlp_search.integrations.optuna.optimize import optimize
from parallelmlp_search.integrations.optuna.suggest import suggest

__all__ = ["PackedObjective", "optimize", "space_from_distributions", "space_to_distributions", "suggest"]
