"""Schedules as functions of the progress of training.

Each maps the progress ``t`` in [0, 1] to a factor, and has no state. So a member can stop at any rung and go
on in another population.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from parallelmlp_search.exceptions import InvalidParameterError, near_miss
from parallelmlp_search.space import MLPConfig


def _constant(t: Tensor) -> Tensor:
    return torch.ones_like(t)


def _linear(t: Tensor) -> Tensor:
    return 1.0 - t


def _cosine(t: Tensor) -> Tensor:
    """Half a cosine from 1 to 0 (Loshchilov and Hutter 2017)."""
    return 0.5 * (1.0 + torch.cos(math.pi * t))


def _flat_cosine(t: Tensor) -> Tensor:
    """1 in the first half, then half a cosine to 0."""
    return _cosine((2.0 * t - 1.0).clamp(min=0.0))


def _cosine_log(t: Tensor) -> Tensor:
    """Four cycles of growing length (Holzmueller et al. 2024): ``(1 - cos(2 pi log2(1 + 15 t))) / 2``."""
    return 0.5 * (1.0 - torch.cos(2.0 * math.pi * torch.log2(1.0 + 15.0 * t)))


def _one_cycle(t: Tensor) -> Tensor:
    """Half a cosine from 1/25 to 1 in the first 30 %, then down to 0 (Smith and Topin 2018)."""
    rise = 0.04 + 0.96 * 0.5 * (1.0 - torch.cos(math.pi * (t / 0.3).clamp(max=1.0)))
    fall = _cosine(((t - 0.3) / 0.7).clamp(min=0.0))
    return torch.where(t < 0.3, rise, fall)


SCHEDULE_FUNCTIONS = {
    "constant": _constant,
    "linear": _linear,
    "cosine": _cosine,
    "flat_cosine": _flat_cosine,
    "cosine_log": _cosine_log,
    "one_cycle": _one_cycle,
}
"""Factor as a function of progress, by name."""


def schedule_factors(names: Sequence[str], progress: Tensor) -> Tensor:
    """Return the factors ``(steps, P)`` of the schedules of ``P`` members at progress ``(steps,)``.

    Progress above 1 counts as 1.

    Raises
    ------
    InvalidParameterError
        If a schedule is unknown.
    """
    progress = progress.clamp(0.0, 1.0)
    columns: dict[str, Tensor] = {}
    for name in dict.fromkeys(names):
        if name not in SCHEDULE_FUNCTIONS:
            raise InvalidParameterError(
                f"schedule must be one of {', '.join(SCHEDULE_FUNCTIONS)}, but got {name!r}"
                f"{near_miss(name, SCHEDULE_FUNCTIONS)}"
            )
        columns[name] = SCHEDULE_FUNCTIONS[name](progress)
    places = {name: place for place, name in enumerate(columns)}
    # each schedule once, then indexed: a stack with one column per member takes ten times as long
    return torch.stack(list(columns.values()), dim=1)[:, [places[name] for name in names]]


def dropout_rates(configs: Sequence[MLPConfig], progress: Tensor) -> Tensor | None:
    """Return the dropout rates of ``P`` members at progress ``(steps,)``, float64 ``(steps, P)``.

    None means that all rates are constant.
    """
    if all(config.dropout_schedule == "constant" or config.dropout == 0.0 for config in configs):
        return None
    rates = torch.tensor([config.dropout for config in configs], dtype=torch.float64)
    return rates * schedule_factors([config.dropout_schedule for config in configs], progress)
