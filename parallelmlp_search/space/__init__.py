"""What may be tried: configurations and the spaces they are drawn from."""

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
from parallelmlp_search.space.known import KNOWN, known_configs
from parallelmlp_search.space.presets import PRESETS
from parallelmlp_search.space.search_space import SearchSpace

__all__ = [
    "ACTIVATIONS",
    "CATEGORY_EMBEDDINGS",
    "INITIALIZATIONS",
    "KNOWN",
    "NORMALIZATIONS",
    "NO_GROUPS",
    "NUMERIC_EMBEDDINGS",
    "NUMERIC_SCALINGS",
    "OPTIMIZERS",
    "PRESETS",
    "SCHEDULES",
    "Categorical",
    "ColumnGroups",
    "Domain",
    "Float",
    "Int",
    "MLPConfig",
    "SearchSpace",
    "When",
    "domain_from_dict",
    "known_configs",
]
