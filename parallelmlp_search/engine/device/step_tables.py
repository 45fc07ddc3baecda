"""What the steps ahead need, as tensors on the device: order of rows, coefficients, shares of the average.

The plain training loop asks for these step by step. A device that takes many steps without asking back, in a
captured graph or in the persistent kernel, gets them as tables beforehand. The numbers are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from parallelmlp_search.engine.batches import BatchStream
from parallelmlp_search.engine.optimizer import AVERAGE_EVERY, EPSILON, average_share
from parallelmlp_search.engine.schedule import schedule_factors
from parallelmlp_search.kernels.triton.launch import StepTables
from parallelmlp_search.space import MLPConfig

__all__ = [
    "MemberVectors",
    "coefficient_table",
    "constant_table",
    "is_averaging",
    "order_of_rows",
    "step_tables",
]


def is_averaging(step: int) -> bool:
    """Whether the averaged weights are updated after step number ``step``."""
    return step == 0 or (step + 1) % AVERAGE_EVERY == 0


def constant_table(configs: Sequence[MLPConfig], *, dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """Per-member constants ``(5, P)``, rows as ``CONSTANTS`` of the kernels' launches lists them."""
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
    """What the coefficients of members depend on, put on the device once; float64.

    Powers of the betas are computed for each value that occurs and then shared out, since populations rarely
    have more than a few.
    """

    schedules: tuple[str, ...]
    which_schedule: Tensor
    decay_schedules: tuple[str, ...]
    which_decay_schedule: Tensor
    adaptive: Tensor
    rates: Tensor
    decays: Tensor
    betas: tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]
    """For both moments: the values that occur, and which of them each member has."""

    @classmethod
    def of(cls, configs: Sequence[MLPConfig], device: torch.device | str) -> MemberVectors:
        """Vectors of members in the order of ``configs``."""

        def vector(values: list[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float64)

        def values_and_which(values: list[float]) -> tuple[Tensor, Tensor]:
            found, which = torch.unique(vector(values), return_inverse=True)
            return found.to(device), which.to(device)

        def names_and_which(names: list[str]) -> tuple[tuple[str, ...], Tensor]:
            found = tuple(sorted(set(names)))
            return found, torch.tensor([found.index(name) for name in names]).to(device)

        schedules, which_schedule = names_and_which([config.schedule for config in configs])
        decay_schedules, which_decay = names_and_which([config.weight_decay_schedule for config in configs])
        return cls(
            schedules=schedules,
            which_schedule=which_schedule,
            decay_schedules=decay_schedules,
            which_decay_schedule=which_decay,
            adaptive=torch.tensor([config.optimizer == "adamw" for config in configs]).to(device),
            rates=vector([config.learning_rate for config in configs]).to(device),
            decays=vector([config.weight_decay for config in configs]).to(device),
            betas=(
                values_and_which([config.beta1 for config in configs]),
                values_and_which([config.beta2 for config in configs]),
            ),
        )


def coefficient_table(
    vectors: MemberVectors, first_step: int, n_steps: int, total_steps: int, *, frozen: Tensor
) -> Tensor:
    """``(n_steps, 4, P)``: rate, keep (decay for SGD), scale and offset, see
    :mod:`parallelmlp_search.engine.optimizer`.

    Computed on the device, in float64: 10,000 members and 313 steps are 12 million numbers an epoch.
    """
    device = vectors.rates.device
    steps = torch.arange(first_step, first_step + n_steps, dtype=torch.float64, device=device)
    progress = steps / max(1, total_steps)
    rates = schedule_factors(vectors.schedules, progress)[:, vectors.which_schedule] * vectors.rates
    rates[:, frozen.to(device)] = 0.0
    decays = schedule_factors(vectors.decay_schedules, progress)[:, vectors.which_decay_schedule]
    decays *= vectors.decays
    keeps = torch.where(vectors.adaptive, 1.0 - rates * decays, decays)
    counts = (steps + 1.0).unsqueeze(1)
    first, second = ((1.0 - values**counts)[:, which] for values, which in vectors.betas)
    # a rate of 0 becomes one so small that nothing moves, instead of a division by zero
    floors = rates.clamp(min=1e-30)
    scales = first / (floors * second.sqrt())
    offsets = EPSILON * first / floors
    return torch.stack([rates, keeps, scales, offsets], dim=1)


def order_of_rows(stream: BatchStream, first_step: int, n_steps: int) -> Tensor:
    """Row numbers of consecutive batches, one after the other, int64 ``(n_steps * N,)``, on the CPU."""
    begin = first_step * stream.batch_size
    end = begin + n_steps * stream.batch_size
    pieces = [torch.empty(0, dtype=torch.int64)]
    while begin < end:
        epoch, start = divmod(begin, stream.n_rows)
        stop = min(stream.n_rows, start + end - begin)
        pieces.append(stream.permutation(epoch)[start:stop])
        begin += stop - start
    return torch.cat(pieces)


def step_tables(
    vectors: MemberVectors,
    stream: BatchStream,
    first_step: int,
    n_steps: int,
    total_steps: int,
    *,
    frozen: Tensor,
    dtype: torch.dtype,
) -> StepTables:
    """All tables of ``n_steps`` steps from ``first_step`` on, on the device of ``vectors``."""
    device = vectors.rates.device
    shares = [average_share(s) if is_averaging(s) else 0.0 for s in range(first_step, first_step + n_steps)]
    return StepTables(
        order=order_of_rows(stream, first_step, n_steps).to(device, torch.int32),
        first_position=first_step * stream.batch_size,
        coefficients=coefficient_table(vectors, first_step, n_steps, total_steps, frozen=frozen).to(dtype),
        shares=torch.tensor(shares, dtype=torch.float64).to(device, dtype),
    )
