"""The refinement of parallelmlp-search as a sampler for any Optuna study."""

from parallelmlp_search.integrations.optuna import RefinementSampler

__all__ = ["RefinementSampler"]
