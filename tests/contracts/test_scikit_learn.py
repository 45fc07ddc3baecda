"""scikit-learn's own contract, all of its checks, for both estimators."""

from __future__ import annotations

from typing import Any

from sklearn.utils.estimator_checks import parametrize_with_checks

from parallelmlp_search import ParallelMLPClassifier, ParallelMLPRegressor

ESTIMATORS = [
    ParallelMLPClassifier("small", n_trials=4, max_epochs=40, n_folds=2, random_state=0),
    ParallelMLPRegressor("small", n_trials=4, max_epochs=40, n_folds=2, random_state=0),
]

# A row of weight zero is as if it were absent, to the bit (tests/test_estimators.py), but a row of weight
# three is in one fold and one minibatch, while three copies are drawn, shuffled and split one by one.
STOCHASTIC_ROWS = "folds and minibatches are drawn from rows, so that a weight is not a number of copies"
EXPECTED_FAILURES = {
    "check_sample_weight_equivalence_on_dense_data": STOCHASTIC_ROWS,
    "check_sample_weight_equivalence_on_sparse_data": STOCHASTIC_ROWS,
}


def expected_failures(estimator: Any) -> dict[str, str]:
    return EXPECTED_FAILURES


@parametrize_with_checks(ESTIMATORS, expected_failed_checks=expected_failures)
def test_contract(estimator: Any, check: Any) -> None:
    check(estimator)
