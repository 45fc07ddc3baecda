"""Configurations of networks and search spaces of configurations."""

from parallelmlp_search.space.columns import NO_GROUPS, ColumnGroups
from parallelmlp_search.space.conditions import When
from parallelmlp_search.space.config import (
    ACTIVATIONS,
    CATEGORY_EMBEDDINGS,
    INITIALIZATIONS,
    NORMALIZATIONS,
    NUMERIC_EMBEDDINGS,
    NUMERIC_SCALINGS,
    OPTIMIZERS,
    SCHEDULES,
    MLPConfig,
)
from parallelmlp_search.space.domain_base import Domain
from parallelmlp_search.space.domains import Categorical, Float, Int, domain_from_dict
from parallelmlp_search.space.monotone import check_monotone, monotone_space
from parallelmlp_search.space.presets import PRESETS
from parallelmlp_search.space.search_space import SearchSpace
from parallelmlp_search.space.tuned_defaults import TUNED_DEFAULTS, tuned_defaults_in

__all__ = [
    "ACTIVATIONS",
    "CATEGORY_EMBEDDINGS",
    "INITIALIZATIONS",
    "NORMALIZATIONS",
    "NO_GROUPS",
    "NUMERIC_EMBEDDINGS",
    "NUMERIC_SCALINGS",
    "OPTIMIZERS",
    "PRESETS",
    "SCHEDULES",
    "TUNED_DEFAULTS",
    "Categorical",
    "ColumnGroups",
    "Domain",
    "Float",
    "Int",
    "MLPConfig",
    "SearchSpace",
    "When",
    "check_monotone",
    "domain_from_dict",
    "monotone_space",
    "tuned_defaults_in",
]
