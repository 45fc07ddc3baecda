"""Figures of a fitted estimator: ``estimator.plot.NAME()``."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from parallelmlp_search.estimators.constant_model import ConstantModel
from parallelmlp_search.estimators.explaining import rows_to_explain
from parallelmlp_search.exceptions import DataError, InvalidParameterError
from parallelmlp_search.report.plots import evaluation, explanation, hyperparameters, search
from parallelmlp_search.report.results.evaluated import EvaluatedRows, evaluated_rows
from parallelmlp_search.report.results.finished import FinishedSearch

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from parallelmlp_search.explain import Explanation


class EstimatorPlots:
    """Figures of a fitted estimator, drawn with plotly (extra ``plots``).

    Figures of predictions take rows with their target. Each row of the data of ``fit`` is predicted by
    networks that were not trained on it; other rows count as new.

    Parameters
    ----------
    estimator
        Fitted estimator.

    Raises
    ------
    DataError
        If the model predicts a constant.
    """

    def __init__(self, estimator: Any) -> None:
        if isinstance(estimator.model_, ConstantModel):
            raise DataError("the model predicts a constant, because X had no informative column in fit")
        self._estimator = estimator

    @cached_property
    def _search(self) -> FinishedSearch:
        result = self._estimator.result_
        if result is None:
            raise DataError("figures of the search need its run, but the estimator was loaded from a model")
        return FinishedSearch.of_result(result)

    def baselines(self) -> go.Figure:
        """Return the honest score with its interval, beside the scores of simple models."""
        return search.baselines(self._search)

    def ensemble_weights(self) -> go.Figure:
        """Return the weight of each network of the ensemble."""
        return search.ensemble_weights(self._search)

    def learning_curves(self) -> go.Figure:
        """Return the scores of trials on the validation rows after each rung."""
        return search.learning_curves(self._search)

    def score_by_size(self) -> go.Figure:
        """Return the score of each trial against its number of parameters."""
        return search.score_by_size(self._search)

    def score_by_latency(self) -> go.Figure:
        """Return the score of each trial against its predicted time for a row."""
        return search.score_by_latency(self._search, self._estimator.model_)

    def phases(self) -> go.Figure:
        """Return the elapsed time of each phase of the search."""
        return search.phases(self._search)

    def hyperparameter_importance(self) -> go.Figure:
        """Return the importance of hyperparameters for the rank of a trial."""
        return hyperparameters.importance_of_hyperparameters(self._search)

    def parallel_coordinates(self) -> go.Figure:
        """Return the configurations as lines over the hyperparameters."""
        return hyperparameters.parallel_coordinates(self._search)

    def calibration(self, X: Any, y: Any, **roles: Any) -> go.Figure:
        """Return the frequency of an event against its predicted probability.

        Parameters
        ----------
        X, y
            Rows and their target.
        **roles
            ``sample_weight``, ``groups`` and ``time`` as they were given to ``fit``.

        Returns
        -------
        Figure
        """
        return evaluation.calibration(self._rows(X, y, roles))

    def roc(self, X: Any, y: Any, **roles: Any) -> go.Figure:
        """Return ROC curves.

        Parameters
        ----------
        X, y, **roles
            As of :meth:`calibration`.

        Returns
        -------
        Figure
        """
        return evaluation.roc(self._rows(X, y, roles))

    def precision_recall(self, X: Any, y: Any, **roles: Any) -> go.Figure:
        """Return precision against recall.

        Parameters
        ----------
        X, y, **roles
            As of :meth:`calibration`.

        Returns
        -------
        Figure
        """
        return evaluation.precision_recall(self._rows(X, y, roles))

    def confusion_matrix(self, X: Any, y: Any, **roles: Any) -> go.Figure:
        """Return the predicted classes of the rows of each class.

        Parameters
        ----------
        X, y, **roles
            As of :meth:`calibration`.

        Returns
        -------
        Figure
        """
        return evaluation.confusion_matrix(self._rows(X, y, roles))

    def predicted_and_actual(self, X: Any, y: Any, **roles: Any) -> go.Figure:
        """Return the target of each row of a regression against its prediction.

        Parameters
        ----------
        X, y, **roles
            As of :meth:`calibration`.

        Returns
        -------
        Figure
        """
        return evaluation.predicted_and_actual(self._rows(X, y, roles))

    def residuals(self, X: Any, y: Any, **roles: Any) -> go.Figure:
        """Return target minus prediction of each row of a regression, against the prediction.

        Parameters
        ----------
        X, y, **roles
            As of :meth:`calibration`.

        Returns
        -------
        Figure
        """
        return evaluation.residuals(self._rows(X, y, roles))

    def importance(self, found: Explanation) -> go.Figure:
        """Return the importance of columns in an explanation, the result of ``estimator.explain``."""
        return explanation.importance(found)

    def dependence(self, found: Explanation, column: str | None = None) -> go.Figure:
        """Return the partial dependence on a column in an explanation, by default the most important one."""
        return explanation.dependence(found, column)

    def _rows(self, X: Any, y: Any, roles: dict[str, Any]) -> EvaluatedRows:
        known = ("sample_weight", "groups", "time")
        if unknown := [name for name in roles if name not in known]:
            raise InvalidParameterError(
                f"figures have no option {unknown[0]!r}; they have {', '.join(known)}"
            )
        rows = rows_to_explain(self._estimator, X, y, {name: roles.get(name) for name in known})
        found = evaluated_rows(self._estimator.model_, rows)
        if found is None:
            raise DataError(
                "no row is known to be unseen by some network, because the model was refitted on all rows: "
                "give rows that the search has not seen"
            )
        return found
