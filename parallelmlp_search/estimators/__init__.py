"""scikit-learn estimators: searches that ensemble networks, single networks, and a parameter search."""

from typing import TYPE_CHECKING

from parallelmlp_search._lazy import lazy_names

if TYPE_CHECKING:
    from parallelmlp_search.estimators.loading import load
    from parallelmlp_search.estimators.packed_search_cv import PackedSearchCV
    from parallelmlp_search.estimators.parallel_mlp import ParallelMLPClassifier, ParallelMLPRegressor
    from parallelmlp_search.estimators.single_mlp import SingleMLPClassifier, SingleMLPRegressor

__all__ = [
    "PackedSearchCV",
    "ParallelMLPClassifier",
    "ParallelMLPRegressor",
    "SingleMLPClassifier",
    "SingleMLPRegressor",
    "load",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "loading": "load",
        "packed_search_cv": "PackedSearchCV",
        "parallel_mlp": "ParallelMLPClassifier ParallelMLPRegressor",
        "single_mlp": "SingleMLPClassifier SingleMLPRegressor",
    },
)
