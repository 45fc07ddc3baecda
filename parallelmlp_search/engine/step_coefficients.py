"""Coefficients of the optimizer and of the averaged weights as functions of the step number.

AdamW (Loshchilov and Hutter 2019) updates ``p <- p (1 - lr wd) - lr m' / (sqrt(v') + eps)``, with corrected
moments ``m' = m / c1`` and ``v' = v / c2``. This is ``p <- p keep - m / (scale sqrt(v) + offset)`` with
``scale = c1 / (lr sqrt(c2))`` and ``offset = eps c1 / lr``: seven passes for members with different
hyperparameters, and no state but the two moments. For SGD, ``keep`` is the decay added to the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parallelmlp_search.engine.schedule import schedule_factors
from parallelmlp_search.space import MLPConfig

_Value = TypeVar("_Value", float, str)
_Table = TypeVar("_Table")

TABLE_STEPS, MAX_TABLE_STEPS = 64, 1024
"""Least and most steps whose coefficients are computed at once, a multiple of the vectors of any CPU."""

MAX_TABLE_ELEMENTS = 1 << 14
"""Steps times members of a table above the least. The calls for a table of one member take 0.5 ms, whether it
has 64 or 1,024 steps; 64 steps of a small network take 5 ms."""

EPSILON = 1e-8
"""Epsilon of AdamW, as in torch."""

AVERAGE_EVERY = 4
"""Steps between two updates of the averaged weights."""

AVERAGE_POWER = 9.0
"""Step ``s`` enters the averaged weights in proportion to ``s**9``, so they average about the last tenth of
training (polynomial-decay averaging, Shamir and Zhang 2013)."""


def is_averaging(step: int) -> bool:
    """Return True if the averaged weights are updated after step number ``step``."""
    return step == 0 or (step + 1) % AVERAGE_EVERY == 0


def average_share(step: int) -> float:
    """Return the share of the weights after step number ``step`` in their average; 0 if it is not updated."""
    if not is_averaging(step):
        return 0.0
    count = (step + 1) // AVERAGE_EVERY
    return 1.0 if step == 0 else min(1.0, (AVERAGE_POWER + 1.0) / (count + AVERAGE_POWER + 1.0))


class StepTable(Generic[_Table]):
    """Table of values by step, computed for many steps at once.

    Parameters
    ----------
    n_members
        Members ``P`` that have values.
    """

    def __init__(self, n_members: int) -> None:
        fitting = MAX_TABLE_ELEMENTS // (TABLE_STEPS * max(1, n_members))
        self._n_steps = TABLE_STEPS * max(1, min(MAX_TABLE_STEPS // TABLE_STEPS, fitting))
        self._steps = range(0)
        self._values: _Table | None = None

    def at(self, steps: range, compute: Callable[[range], _Table]) -> tuple[_Table, slice]:
        """Return a table that holds at most :data:`TABLE_STEPS` consecutive steps, and their place in it.

        ``compute`` returns the values of consecutive steps. The table does not keep it: the method of an
        object that holds the table would keep that object alive until garbage is collected.
        """
        if self._values is None or not self._steps.start <= steps.start <= steps.stop <= self._steps.stop:
            self._steps = range(steps.start, steps.start + self._n_steps)
            self._values = compute(self._steps)
        first = steps.start - self._steps.start
        return self._values, slice(first, first + len(steps))

    def clear(self) -> None:
        """Forget the values, because what they depend on has changed."""
        self._values = None


def average_shares(steps: range) -> NDArray[np.float32]:
    """Return :func:`average_share` of consecutive steps, float32 ``(T,)``."""
    numbers = np.arange(steps.start, steps.stop)
    counts = (numbers + 1) // AVERAGE_EVERY
    shares: NDArray[np.float64] = np.minimum(1.0, (AVERAGE_POWER + 1.0) / (counts + AVERAGE_POWER + 1.0))
    shares[(numbers + 1) % AVERAGE_EVERY != 0] = 0.0
    shares[numbers == 0] = 1.0
    return shares.astype(np.float32)


def constant_table(configs: Sequence[MLPConfig], like: Tensor) -> Tensor:
    """Return the constants ``(5, P)`` of members, with the dtype and device of a tensor.

    Rows are ``1 - beta1``, ``1 - beta2``, momentum, largest norm of the gradient, and label smoothing.
    """
    table = [
        [1.0 - config.beta1 for config in configs],
        [1.0 - config.beta2 for config in configs],
        [config.momentum for config in configs],
        [config.clip_norm or float("inf") for config in configs],
        [config.label_smoothing for config in configs],
    ]
    return torch.tensor(table, dtype=torch.float64).to(like)


class StepCoefficients:
    """Coefficients of the steps of all members, float64.

    Parameters
    ----------
    configs
        Configurations of ``P`` members.
    total_steps
        Steps of the full training, the horizon of the schedules.
    device
        Device of the results.
    """

    def __init__(self, configs: Sequence[MLPConfig], total_steps: int, device: torch.device | str) -> None:
        self.device = device
        self.total_steps = max(1, total_steps)

        def vector(values: Sequence[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float64).to(device)

        def distinct(values: list[_Value]) -> tuple[list[_Value], Tensor]:
            """Distinct values, which are few in a population, and the index of each member's value."""
            found = sorted(set(values))
            places = {value: place for place, value in enumerate(found)}
            return found, torch.tensor([places[value] for value in values]).to(device)

        self._schedules = distinct([config.schedule for config in configs])
        self._decay_schedules = distinct([config.weight_decay_schedule for config in configs])
        betas = ([config.beta1 for config in configs], [config.beta2 for config in configs])
        self._betas = [(vector(values), index) for values, index in map(distinct, betas)]
        self._is_adamw = torch.tensor([config.optimizer == "adamw" for config in configs]).to(device)
        self._rates = vector([config.learning_rate for config in configs])
        self._decays = vector([config.weight_decay for config in configs])

    def table(self, steps: range, frozen: Tensor) -> Tensor:
        """Return rate, keep, scale and offset ``(steps, 4, P)``; the rate of ``frozen`` members (P,) is 0."""
        numbers = torch.arange(steps.start, steps.stop, dtype=torch.float64, device=self.device)
        progress = numbers / self.total_steps
        names, index = self._schedules
        rates = schedule_factors(names, progress)[:, index] * self._rates
        rates[:, frozen.to(self.device)] = 0.0
        names, index = self._decay_schedules
        decays = schedule_factors(names, progress)[:, index] * self._decays
        keeps = torch.where(self._is_adamw, 1.0 - rates * decays, decays)
        counts = (numbers + 1.0).unsqueeze(1)
        first, second = ((1.0 - values**counts)[:, index] for values, index in self._betas)
        # a rate of 0 becomes tiny instead of a divisor of zero
        floors = rates.clamp(min=1e-30)
        scales = first / (floors * second.sqrt())
        offsets = EPSILON * first / floors
        return torch.stack([rates, keeps, scales, offsets], dim=1)
