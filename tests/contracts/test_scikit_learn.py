"""All of scikit-learn's estimator checks, for every estimator."""

from __future__ import annotations

from typing import Any

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from parallelmlp_search import (
    PackedSearchCV,
    ParallelMLPClassifier,
    ParallelMLPRegressor,
    SingleMLPClassifier,
    SingleMLPRegressor,
)

SINGLE: dict[str, Any] = {"widths": (16,), "learning_rate": 0.01, "max_epochs": 40}
PACKED: dict[str, Any] = {"sampler": "grid", "cv": 2, "n_jobs": 1, "random_state": 0}

ESTIMATORS = [
    ParallelMLPClassifier("small", n_trials=4, max_epochs=40, n_folds=2, random_state=0),
    ParallelMLPRegressor("small", n_trials=4, max_epochs=40, n_folds=2, random_state=0),
    SingleMLPClassifier(**SINGLE, random_state=0),
    SingleMLPRegressor(**SINGLE, random_state=0),
    PackedSearchCV(SingleMLPClassifier(**SINGLE), {"dropout": [0.0, 0.1]}, **PACKED),
    PackedSearchCV(SingleMLPRegressor(**SINGLE), {"dropout": [0.0, 0.1]}, **PACKED),
]

# Rows of weight zero are ignored exactly. A row of weight three is in one fold and one minibatch; three
# copies of a row are sampled, shuffled and split independently.
STOCHASTIC_ROWS = "folds and minibatches are sampled from rows, so a weight differs from a number of copies"
EXPECTED_FAILURES = {
    "check_sample_weight_equivalence_on_dense_data": STOCHASTIC_ROWS,
    "check_sample_weight_equivalence_on_sparse_data": STOCHASTIC_ROWS,
}


def expected_failures(estimator: Any) -> dict[str, str]:
    # `fit` of a search has no parameter `sample_weight`, so these checks skip it
    return {} if isinstance(estimator, PackedSearchCV) else EXPECTED_FAILURES


# some checks fit so few rows that a class is in one fold only, for which the splitter warns
@pytest.mark.filterwarnings("ignore:The least populated class in y has only:UserWarning")
@parametrize_with_checks(ESTIMATORS, expected_failed_checks=expected_failures)
def test_contract(estimator: Any, check: Any) -> None:
    check(estimator)
