"""What a task needs of the network's outputs: how many, which loss, and how they become predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

__all__ = ["Head", "Task"]

Task = Literal["binary", "multiclass", "regression"]


@dataclass(frozen=True)
class Head:
    """The output side of a population.

    Attributes
    ----------
    task
        Kind of target.
    n_predictions
        Rows of a prediction: classes, or outputs of a regression.
    location, scale
        For a regression, what undoes the standardisation of each output.
    lower, upper
        For a regression, the range of the training target; predictions are clipped to it.
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
    def classifies(self) -> bool:
        """Whether outputs are logits."""
        return self.task != "regression"

    @property
    def default_loss(self) -> str:
        """Loss that training minimises unless another is asked for."""
        return {"binary": "binary_logits", "multiclass": "cross_entropy", "regression": "squared_error"}[
            self.task
        ]

    def stable_predictions(self, outputs: Tensor) -> Tensor:
        """The same as :meth:`predictions`, to the last bit whatever a row's place among the others.

        Exponentials of single precision are computed eight at a time, the last few of a tensor one by one,
        which may differ in the last bit: equal rows would no longer tie. So it is done in double precision.
        """
        return self.predictions(outputs.double()).to(outputs.dtype)

    def predictions(self, outputs: Tensor) -> Tensor:
        """Outputs ``(P, n_outputs, n)`` to predictions ``(P, n_predictions, n)``.

        Probabilities of the classes, or numbers in the target's own units.
        """
        if self.task == "binary":
            # both sides from the logit, so that neither probability is lost to rounding
            return torch.cat([torch.sigmoid(-outputs), torch.sigmoid(outputs)], dim=1)
        if self.task == "multiclass":
            return torch.softmax(outputs, dim=1)

        def column(values: Sequence[float]) -> Tensor:
            return torch.tensor(list(values), dtype=outputs.dtype, device=outputs.device).view(1, -1, 1)

        values = outputs * column(self.scale) + column(self.location)
        return torch.minimum(torch.maximum(values, column(self.lower)), column(self.upper))
