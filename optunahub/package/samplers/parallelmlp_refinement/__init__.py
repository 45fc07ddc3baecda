"""Refinement sampler of parallelmlp-search for any Optuna study."""

from parallelmlp_search.integrations.optuna import RefinementSampler

__all__ = ["RefinementSampler"]
