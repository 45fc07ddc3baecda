"""scikit-learn estimators."""

from parallelmlp_search.estimators.search_cv import PackedSearchCV
from parallelmlp_search.estimators.search_estimators import ParallelMLPClassifier, ParallelMLPRegressor
from parallelmlp_search.estimators.single import SingleMLPClassifier, SingleMLPRegressor

__all__ = [
    "PackedSearchCV",
    "ParallelMLPClassifier",
    "ParallelMLPRegressor",
    "SingleMLPClassifier",
    "SingleMLPRegressor",
]
