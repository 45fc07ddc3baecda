"""Output side of a network: number of outputs, default loss, and predictions from outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from parallelmlp_search.packing import DataShape
from parallelmlp_search.space import ColumnGroups

Task = Literal["binary", "multiclass", "regression"]


@dataclass(frozen=True)
class Head:
    """Output side of all networks of a population.

    Attributes
    ----------
    task
        Kind of target.
    n_predictions
        Rows of a prediction: classes, or outputs of a regression.
    location, scale
        Mean and standard deviation of each target of a regression, by which it was standardized.
    lower, upper
        Range of each training target of a regression, to which predictions are clipped.
    """

    task: Task
    n_predictions: int
    location: Sequence[float] = ()
    scale: Sequence[float] = ()
    lower: Sequence[float] = ()
    upper: Sequence[float] = ()

    @property
    def n_outputs(self) -> int:
        """Outputs ``C`` of the network: one logit for two classes, else one per prediction."""
        return 1 if self.task == "binary" else self.n_predictions

    @property
    def default_loss(self) -> str:
        """Loss that training minimizes by default."""
        losses = {"binary": "binary_logits", "multiclass": "cross_entropy", "regression": "squared_error"}
        return losses[self.task]

    def data_shape(self, n_inputs: int, columns: ColumnGroups) -> DataShape:
        """Return the inputs and outputs of networks with this head."""
        return DataShape(n_inputs, self.n_outputs, columns, classifies=self.task != "regression")

    def stable_predictions(self, outputs: Tensor) -> Tensor:
        """Compute :meth:`predictions` with the same bits for a row at any place.

        Single-precision exponentials are vectorized except for the last few of a tensor, whose last bit may
        differ, so equal rows would not tie. This method computes in double precision.
        """
        return self.predictions(outputs.double()).to(outputs.dtype)

    def predictions(self, outputs: Tensor) -> Tensor:
        """Map outputs ``(P, n_outputs, n)`` to predictions ``(P, n_predictions, n)``.

        Predictions are probabilities of the classes, or values in the units of the target.
        """
        if self.task == "binary":
            # both from the logit, so that neither probability is lost to rounding
            return torch.cat([torch.sigmoid(-outputs), torch.sigmoid(outputs)], dim=1)
        if self.task == "multiclass":
            return torch.softmax(outputs, dim=1)

        def column(values: Sequence[float]) -> Tensor:
            return torch.tensor(list(values), dtype=outputs.dtype, device=outputs.device).view(1, -1, 1)

        values = outputs * column(self.scale) + column(self.location)
        return torch.minimum(torch.maximum(values, column(self.lower)), column(self.upper))
