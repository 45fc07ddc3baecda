"""Coefficients of the optimizer and of the averaged weights as functions of the step number.

AdamW (Loshchilov and Hutter 2019) updates ``p <- p (1 - lr wd) - lr m' / (sqrt(v') + eps)``, with corrected
moments ``m' = m / c1`` and ``v' = v / c2``. This is ``p <- p keep - m / (scale sqrt(v) + offset)`` with
``scale = c1 / (lr sqrt(c2))`` and ``offset = eps c1 / lr``: seven passes for members with different
hyperparameters, and no state but the two moments. For SGD, ``keep`` is the decay added to the gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from parallelmlp_search.engine.schedule import schedule_factors
from parallelmlp_search.space import MLPConfig

__all__ = ["MemberVectors", "average_share", "constant_table", "is_averaging"]

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


def constant_table(configs: Sequence[MLPConfig], dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """Return the constants of the optimizer for each member.

    Parameters
    ----------
    configs
        Configurations of ``P`` members.
    dtype, device
        Of the result.

    Returns
    -------
    Tensor of shape (5, P)
        ``1 - beta1``, ``1 - beta2``, momentum, largest norm of the gradient, label smoothing.
    """
    table = [
        [1.0 - config.beta1 for config in configs],
        [1.0 - config.beta2 for config in configs],
        [config.momentum for config in configs],
        [config.clip_norm or float("inf") for config in configs],
        [config.label_smoothing for config in configs],
    ]
    return torch.tensor(table, dtype=torch.float64).to(device, dtype)


@dataclass(frozen=True)
class MemberVectors:
    """Hyperparameters of members on which the coefficients of a step depend, float64.

    Populations have few distinct schedules and betas. Each pair holds the distinct values, for which factors
    and powers are computed, and the index of each member's value.
    """

    schedules: tuple[tuple[str, ...], Tensor]
    decay_schedules: tuple[tuple[str, ...], Tensor]
    is_adamw: Tensor
    rates: Tensor
    decays: Tensor
    betas: tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]

    @classmethod
    def of(cls, configs: Sequence[MLPConfig], device: torch.device | str) -> MemberVectors:
        """Return the vectors of members on a device."""

        def vector(values: list[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float64)

        def distinct(values: list[float]) -> tuple[Tensor, Tensor]:
            found, index = torch.unique(vector(values), return_inverse=True)
            return found.to(device), index.to(device)

        def distinct_names(names: list[str]) -> tuple[tuple[str, ...], Tensor]:
            found = tuple(sorted(set(names)))
            return found, torch.tensor([found.index(name) for name in names]).to(device)

        return cls(
            schedules=distinct_names([config.schedule for config in configs]),
            decay_schedules=distinct_names([config.weight_decay_schedule for config in configs]),
            is_adamw=torch.tensor([config.optimizer == "adamw" for config in configs]).to(device),
            rates=vector([config.learning_rate for config in configs]).to(device),
            decays=vector([config.weight_decay for config in configs]).to(device),
            betas=(
                distinct([config.beta1 for config in configs]),
                distinct([config.beta2 for config in configs]),
            ),
        )

    def coefficients(self, steps: range, total_steps: int, frozen: Tensor) -> Tensor:
        """Compute the coefficients of several steps, on the device of the vectors.

        Parameters
        ----------
        steps
            Numbers of the steps.
        total_steps
            Steps of the full training, the horizon of the schedules.
        frozen
            Members ``(P,)`` bool whose learning rate is 0.

        Returns
        -------
        Tensor of shape (steps, 4, P)
            Rate, keep, scale and offset.
        """
        device = self.rates.device
        numbers = torch.arange(steps.start, steps.stop, dtype=torch.float64, device=device)
        progress = numbers / max(1, total_steps)
        names, index = self.schedules
        rates = schedule_factors(names, progress)[:, index] * self.rates
        rates[:, frozen.to(device)] = 0.0
        names, index = self.decay_schedules
        decays = schedule_factors(names, progress)[:, index] * self.decays
        keeps = torch.where(self.is_adamw, 1.0 - rates * decays, decays)
        counts = (numbers + 1.0).unsqueeze(1)
        first, second = ((1.0 - values**counts)[:, index] for values, index in self.betas)
        # a rate of 0 becomes tiny instead of a divisor of zero
        floors = rates.clamp(min=1e-30)
        scales = first / (floors * second.sqrt())
        offsets = EPSILON * first / floors
        return torch.stack([rates, keeps, scales, offsets], dim=1)
