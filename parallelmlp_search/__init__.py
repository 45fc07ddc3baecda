"""Train thousands of MLP configurations at once, rank them without selection bias, ensemble the best.

Public names are imported on first use, so that ``import parallelmlp_search`` does not import torch or pandas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from parallelmlp_search._lazy import lazy_names

__version__ = "0.1.0"

if TYPE_CHECKING:
    from parallelmlp_search.estimators import (
        PackedSearchCV,
        ParallelMLPClassifier,
        ParallelMLPRegressor,
        SingleMLPClassifier,
        SingleMLPRegressor,
        load,
    )
    from parallelmlp_search.runs import Run
    from parallelmlp_search.space import MLPConfig, SearchSpace

__all__ = [
    "MLPConfig",
    "PackedSearchCV",
    "ParallelMLPClassifier",
    "ParallelMLPRegressor",
    "Run",
    "SearchSpace",
    "SingleMLPClassifier",
    "SingleMLPRegressor",
    "__version__",
    "load",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "estimators": (
            "PackedSearchCV ParallelMLPClassifier ParallelMLPRegressor SingleMLPClassifier "
            "SingleMLPRegressor load"
        ),
        "runs": "Run",
        "space": "MLPConfig SearchSpace",
    },
)
