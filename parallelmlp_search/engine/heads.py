"""Predictions from the outputs of networks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from parallelmlp_search.data.target_curve import TargetCurve
from parallelmlp_search.packing import MAX_LOG, Head


def stable_head_predictions(head: Head, outputs: Tensor) -> Tensor:
    """Compute :func:`head_predictions` with the same bits for a row at any place.

    Single-precision exponentials are vectorized except for the last few of a tensor, whose last bit may
    differ, so equal rows would not tie. This function computes in double precision.
    """
    return head_predictions(head, outputs.double()).to(outputs.dtype)


def head_predictions(head: Head, outputs: Tensor) -> Tensor:
    """Map outputs ``(P, n_outputs, n)`` to predictions ``(P, n_predictions, n)``.

    Predictions are probabilities of the classes or labels, or values in the units of the target. The twin for
    NumPy is :func:`parallelmlp_search.inference.outputs.predictions`.
    """
    if head.task == "binary":
        # both from the logit, so that neither probability is lost to rounding
        return torch.cat([torch.sigmoid(-outputs), torch.sigmoid(outputs)], dim=1)
    if head.task == "multilabel":
        return torch.sigmoid(outputs)
    if head.task == "multiclass":
        return torch.softmax(outputs, dim=1)

    def column(values: Sequence[float]) -> Tensor:
        return torch.tensor(list(values), dtype=outputs.dtype, device=outputs.device).view(1, -1, 1)

    if head.link == "log":
        outputs = outputs.clamp(-MAX_LOG, MAX_LOG).exp()
    values = outputs * column(head.scale) + column(head.location)
    return torch.minimum(torch.maximum(values, column(head.lower)), column(head.upper))


def curve_predictions(curve: TargetCurve, outputs: Tensor) -> Tensor:
    """Map outputs ``(P, C, n)`` of networks with a transformed target to its values, of the same shape.

    They are computed on the host in double precision, with the same bits for a row at any place.
    """
    values = [curve.decode(own) for own in outputs.detach().cpu().numpy()]
    return torch.from_numpy(np.stack(values)).to(outputs)
