"""Output side of a network: number of outputs, default loss, and the range of its predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from parallelmlp_search.packing.architecture import DataShape
from parallelmlp_search.space import ColumnGroups

Task = Literal["binary", "multiclass", "regression", "multilabel"]

MAX_LOG = 20.0
"""Largest logarithm, positive or negative, of a prediction relative to the scale of its target."""


@dataclass(frozen=True)
class Head:
    """Output side of all networks of a population.

    Attributes
    ----------
    task
        Kind of target.
    n_predictions
        Rows of a prediction: classes, labels, or outputs of a regression.
    location, scale
        Mean and standard deviation of each target of a regression, by which it was standardized.
    lower, upper
        Range of each training target of a regression, to which predictions are clipped.
    link
        ``log`` if the networks of a regression output the logarithm of a prediction divided by `scale`;
        `location` is then 0.
    """

    task: Task
    n_predictions: int
    location: Sequence[float] = ()
    scale: Sequence[float] = ()
    lower: Sequence[float] = ()
    upper: Sequence[float] = ()
    link: Literal["identity", "log"] = "identity"

    @property
    def n_outputs(self) -> int:
        """Outputs ``C`` of the network: one logit for two classes, else one per prediction."""
        return 1 if self.task == "binary" else self.n_predictions

    @property
    def default_loss(self) -> str:
        """Loss that training minimizes by default."""
        if self.task == "regression":
            return "squared_error"
        return "cross_entropy" if self.task == "multiclass" else "binary_logits"

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, JSON-able; the link only if it is not the identity, for older versions."""
        values = asdict(self)
        return {name: value for name, value in values.items() if (name, value) != ("link", "identity")}

    def data_shape(self, n_inputs: int, columns: ColumnGroups) -> DataShape:
        """Return the inputs and outputs of networks with this head."""
        return DataShape(n_inputs, self.n_outputs, columns, classifies=self.task in ("binary", "multiclass"))
