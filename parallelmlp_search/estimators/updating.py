"""Update of fitted estimators on new rows."""

from __future__ import annotations

import warnings
from copy import copy
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Self

from sklearn.utils import check_consistent_length
from sklearn.utils.validation import check_is_fitted

from parallelmlp_search.data.row_values import row_weights
from parallelmlp_search.estimators.constant_model import ConstantModel
from parallelmlp_search.estimators.inputs import check_table
from parallelmlp_search.estimators.table_estimator import TableEstimator
from parallelmlp_search.exceptions import DataError, DataWarning, InvalidParameterError, near_miss

if TYPE_CHECKING:
    from parallelmlp_search.search.update import UpdateResult


class UpdatedEstimator(TableEstimator):
    """Base of the estimators whose networks can train on with new rows."""

    update_: UpdateResult
    honest_score_: float | None

    @property
    def _is_updated(self) -> bool:
        """True if the networks are no longer those of the search."""
        return "update_" in vars(self) and self.honest_score_ is None

    def update(self, X: Any, y: Any, *, sample_weight: Any = None, **options: Any) -> Self:
        """Train the networks on with new rows, and keep them if they predict held-out new rows better.

        It starts from the present weights, with a lower learning rate and the preprocessing of ``fit``. A
        fifth of the rows chooses the epoch of each network and another fifth decides, so that the model never
        becomes worse on them. Otherwise the model stays as it is, with a warning. The outcome is stored in
        ``update_``. After an update ``honest_score_`` is None, since it was the score of other networks, and
        there are no prediction intervals; ``result_`` and the run directory remain those of the search.

        Parameters
        ----------
        X, y, sample_weight
            New rows with the columns of ``fit``, at least 40; old rows may be among them.
        **options
            Attributes of :class:`~parallelmlp_search.search.update.UpdateSettings`: ``epochs``, ``rate`` (of
            learning, relative to that of the search) and ``seed``.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a parameter or the data are not valid, or a class was not in the training target.
        """
        from parallelmlp_search.search.update import UpdateSettings, update_model

        check_is_fitted(self, "model_")
        if isinstance(self.model_, ConstantModel):
            raise DataError("the model predicts a constant, because X had no informative column in fit")
        twin = copy(self)  # checks of data store attributes
        frame, target = check_table(twin, X, names=self._columns), twin._check_target(y)
        check_consistent_length(frame, target)
        weight = None if sample_weight is None else row_weights(sample_weight, len(frame), "sample_weight")
        known = [field.name for field in fields(UpdateSettings)]
        for name in options:
            if name not in known:
                raise InvalidParameterError(
                    f"update has no option {name!r}{near_miss(name, known)}; it has {', '.join(known)}"
                )
        given: dict[str, Any] = {name: getattr(self, name, None) for name in ("metric", "loss")}
        settings = UpdateSettings(**given | options)
        model, self.update_ = update_model(
            self.model_, frame, target, weight, settings, n_jobs=getattr(self, "n_jobs", None)
        )
        if self.update_.used:
            self.model_, self.honest_score_ = model, None
        else:
            warnings.warn(self.update_.describe(), DataWarning, stacklevel=2)
        return self
