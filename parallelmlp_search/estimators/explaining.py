"""Explanation of a fitted estimator."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import fields, replace
from typing import Any

from sklearn.utils import check_consistent_length

from parallelmlp_search.data.row_values import row_values, row_weights
from parallelmlp_search.estimators.constant_model import ConstantModel
from parallelmlp_search.estimators.inputs import check_table
from parallelmlp_search.exceptions import DataError, InvalidParameterError, PMLPError, near_miss
from parallelmlp_search.explain import ExplainedRows, ExplainSettings, Explanation, explain_model
from parallelmlp_search.explain.sources import new_rows, training_rows
from parallelmlp_search.runs import EXPLANATION
from parallelmlp_search.search import RunDirectory


def explain_estimator(
    estimator: Any,
    X: Any,
    y: Any,
    roles: Mapping[str, Any],
    background: Any,
    options: Mapping[str, Any],
) -> Explanation:
    """Explain a fitted estimator, and save the explanation if it has a run directory.

    Parameters
    ----------
    estimator, X, y
        Fitted estimator, table and target, or None for the target.
    roles
        ``sample_weight``, ``groups`` and ``time`` of the rows, or None.
    background
        Table of rows that stand for unknown values, or None.
    options
        Attributes of :class:`~parallelmlp_search.explain.ExplainSettings`.

    Returns
    -------
    Explanation

    Raises
    ------
    DataError
        If the model predicts a constant, or the data are not valid.
    InvalidParameterError
        If an option is unknown or not valid.
    """
    known = [field.name for field in fields(ExplainSettings)]
    for name in options:
        if name not in known:
            raise InvalidParameterError(
                f"explain has no option {name!r}{near_miss(name, known)}; it has {', '.join(known)}"
            )
    if isinstance(estimator.model_, ConstantModel):
        raise DataError("the model predicts a constant, because X had no informative column in fit")
    if estimator.result_ is None:
        raise DataError("explain needs the run of the search, but the estimator was loaded from a model")
    rows = rows_to_explain(estimator, X, y, roles, background)
    settings = ExplainSettings(**options)
    found = explain_model(estimator.model_, rows, _metric_of(estimator), settings)
    if estimator.run_directory is not None and not estimator._is_updated:  # the run has other networks
        found.save(RunDirectory.open(estimator.run_directory).path / EXPLANATION)
    return found


def rows_to_explain(
    estimator: Any, X: Any, y: Any, roles: Mapping[str, Any], background: Any = None
) -> ExplainedRows:
    """Return the rows of ``fit``, or other rows that the search has not seen.

    Parameters
    ----------
    estimator, X, y, roles, background
        As of :func:`explain_estimator`.

    Returns
    -------
    ExplainedRows
    """
    twin = copy(estimator)  # checks of data store attributes
    return _rows_of_fit(twin, X, y, roles) or _other_rows(twin, X, y, roles, background)


def _metric_of(estimator: Any) -> Any:
    """Metric of the search: the scorer or function of the user, else its name."""
    given = estimator.metric
    is_name = given is None or (isinstance(given, str) and not given.startswith("python:"))
    return estimator.result_.metric if is_name else given


def _rows_of_fit(estimator: Any, X: Any, y: Any, roles: Mapping[str, Any]) -> ExplainedRows | None:
    """Rows of ``fit``, or None if the data are others."""
    if y is None or estimator.result_ is None:
        return None
    try:
        problem = estimator._problem(X, y, **roles, names=estimator._columns)
    except PMLPError:
        return None  # for example rows of one class only, which fit would refuse
    result, model = estimator.result_, estimator.model_
    if problem.fingerprint() != result.fingerprint:
        return None
    return training_rows(model, problem, result.oof_folds)


def _other_rows(estimator: Any, X: Any, y: Any, roles: Mapping[str, Any], background: Any) -> ExplainedRows:
    """Rows that the search has not seen."""
    names, model = estimator._columns, estimator.model_
    frame = check_table(estimator, X, names=names)
    target = None if y is None else estimator._check_target(y)
    check_consistent_length(frame, target)
    weight = roles["sample_weight"]
    if weight is not None:
        weight = row_weights(weight, len(frame), "sample_weight")
    pool = None if background is None else check_table(estimator, background, names=names)
    rows = new_rows(model, frame, target, weight, background=pool)
    if roles["groups"] is None:
        return rows
    return replace(rows, groups=row_values(roles["groups"], len(frame), "groups").to_numpy())
