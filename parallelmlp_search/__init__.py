"""Train thousands of MLP configurations at once, rank them without selection bias, ensemble the best.

Public names are imported on first use, so that ``import parallelmlp_search`` does not import torch or pandas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from parallelmlp_search.estimators import (
        PackedSearchCV,
        ParallelMLPClassifier,
        ParallelMLPRegressor,
        SingleMLPClassifier,
        SingleMLPRegressor,
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
]

_MODULES = {
    "MLPConfig": "parallelmlp_search.space",
    "PackedSearchCV": "parallelmlp_search.estimators",
    "ParallelMLPClassifier": "parallelmlp_search.estimators",
    "ParallelMLPRegressor": "parallelmlp_search.estimators",
    "Run": "parallelmlp_search.runs",
    "SearchSpace": "parallelmlp_search.space",
    "SingleMLPClassifier": "parallelmlp_search.estimators",
    "SingleMLPRegressor": "parallelmlp_search.estimators",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value  # so that the next access does not call this function
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
