"""scikit-learn estimators: searches that ensemble networks, single networks, and a parameter search."""

from parallelmlp_search.estimators.packed_search_cv import PackedSearchCV
from parallelmlp_search.estimators.parallel_mlp import ParallelMLPClassifier, ParallelMLPRegressor
from parallelmlp_search.estimators.single_mlp import SingleMLPClassifier, SingleMLPRegressor

__all__ = [
    "PackedSearchCV",
    "ParallelMLPClassifier",
    "ParallelMLPRegressor",
    "SingleMLPClassifier",
    "SingleMLPRegressor",
]
