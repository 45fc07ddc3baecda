"""How a deep network is trained: one flat buffer of parameters, one fused update, averaged weights.

The same for the serial twin and for each slice, and the same recipe that trains the members of a population:
decay of weights alone, an embedding that learns at its own rate, closed-form schedules, clipping by the
norm of the whole network, weights averaged over about the last tenth of training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from parallelmlp_search.engine.optimizer import AVERAGE_EVERY, average_share
from parallelmlp_search.engine.schedule import schedule_factors
from parallelmlp_search.exceptions import InvalidParameterError, near_miss
from parallelmlp_search.packing.periodic import Periodic
from parallelmlp_search.space import MLPConfig

__all__ = ["FlatOptimizer", "FlatParameters", "Recipe"]

OPTIMIZERS = ("adamw", "sgd")


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters of training; meanings as in :class:`MLPConfig`.

    Attributes
    ----------
    total_steps
        Steps of full training, the denominator of the schedule.
    averages
        Whether averaged weights are kept; networks with running statistics do without.
    """

    total_steps: int
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    momentum: float = 0.9
    schedule: str = "cosine"
    clip_norm: float | None = None
    embedding_rate: float = 0.1
    averages: bool = True

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise InvalidParameterError(
                f"optimizer must be one of {', '.join(OPTIMIZERS)}, but got {self.optimizer!r}"
                f"{near_miss(self.optimizer, OPTIMIZERS)}"
            )
        if self.total_steps < 1:
            raise InvalidParameterError(f"total_steps must be >= 1, but got {self.total_steps!r}")
        schedule_factors([self.schedule], torch.zeros(1))

    @classmethod
    def of(cls, config: MLPConfig, total_steps: int) -> Recipe:
        """The recipe of a configuration."""
        return cls(
            total_steps=max(1, total_steps),
            optimizer=config.optimizer,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            beta1=config.beta1,
            beta2=config.beta2,
            momentum=config.momentum,
            schedule=config.schedule,
            clip_norm=config.clip_norm,
            embedding_rate=config.embedding_rate,
        )


@dataclass(frozen=True)
class Span:
    """Parameters in a row, whether they decay, and whether they belong to an embedding."""

    place: slice
    decays: bool
    embeds: bool


class FlatParameters:
    """The parameters of some modules as views of one buffer, their gradients as views of another.

    Weights come first, then what does not decay: biases, gains, shifts. Those of an embedding are last.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self.modules = list(modules)
        found = [p for module in self.modules for p in module.parameters() if p.requires_grad]
        unique = list(dict.fromkeys(found))
        treatment = {id(p): (p.ndim < 2, False) for p in unique}  # without decay, of an embedding
        for embedding in (m for module in self.modules for m in module.modules() if isinstance(m, Periodic)):
            treatment[id(embedding.frequency)] = treatment[id(embedding.mixing)] = (False, True)
            treatment[id(embedding.phase)] = treatment[id(embedding.offset)] = (True, True)
        kinds = ((False, False), (True, False), (False, True), (True, True))
        groups = [[p for p in unique if treatment[id(p)] == kind] for kind in kinds]
        ordered = [p for group in groups for p in group]
        self.spans: list[Span] = []
        """Parts of :attr:`values` that are treated alike, none of them empty."""
        for group, (spared, embeds) in zip(groups, kinds, strict=True):
            start = self.spans[-1].place.stop if self.spans else 0
            if group:
                place = slice(start, start + sum(p.numel() for p in group))
                self.spans.append(Span(place, not spared, embeds))
        size = sum(p.numel() for p in ordered)
        example = ordered[0] if ordered else torch.zeros(0)
        if len({(p.dtype, p.device) for p in ordered}) > 1:
            raise InvalidParameterError("parameters must share one dtype and one device")
        self.values = torch.empty(size, dtype=example.dtype, device=example.device)
        self.gradients = torch.zeros_like(self.values)
        offset = 0
        for parameter in ordered:
            place = slice(offset, offset + parameter.numel())
            self.values[place] = parameter.detach().reshape(-1)
            parameter.data = self.values[place].view(parameter.shape)
            parameter.grad = self.gradients[place].view(parameter.shape)
            offset = place.stop

    def leaves(self) -> list[Tensor]:
        """The spans of ``values``, with their gradients attached."""
        leaves = []
        for span in self.spans:
            leaf = self.values[span.place].requires_grad_()
            leaf.grad = self.gradients[span.place]
            leaves.append(leaf)
        return leaves

    def buffers(self) -> dict[str, Tensor]:
        """Running statistics and other buffers, by number of module and name."""
        return {
            f"{number}.{name}": buffer
            for number, module in enumerate(self.modules)
            for name, buffer in module.named_buffers()
        }


class FlatOptimizer:
    """AdamW or SGD over flat parameters, with schedule, clipping and averaged weights.

    Parameters
    ----------
    flat
        What to train.
    recipe
        How.
    total_norm
        Turns this process's squared gradient norm into that of the whole network; the identity if it holds
        all of it.
    """

    def __init__(
        self,
        flat: FlatParameters,
        recipe: Recipe,
        total_norm: Callable[[Tensor], Tensor] = lambda square: square,
    ) -> None:
        self.flat, self.recipe, self.total_norm = flat, recipe, total_norm
        self.step_number = 0
        progress = torch.arange(recipe.total_steps, dtype=torch.float64) / recipe.total_steps
        factors = schedule_factors([recipe.schedule], progress)[:, 0]
        self._rates: list[float] = (recipe.learning_rate * factors).tolist()
        self.average = flat.values.clone() if recipe.averages else None
        spans = flat.leaves()
        groups = [
            {"params": [leaf], "weight_decay": recipe.weight_decay if span.decays else 0.0}
            for leaf, span in zip(spans, flat.spans, strict=True)
        ]
        self._optimizer: torch.optim.Optimizer | None = None
        if not groups:
            return
        if recipe.optimizer == "adamw":
            self._optimizer = torch.optim.AdamW(
                groups, lr=recipe.learning_rate, betas=(recipe.beta1, recipe.beta2), fused=True
            )
        else:
            self._optimizer = torch.optim.SGD(
                groups, lr=recipe.learning_rate, momentum=recipe.momentum, fused=True
            )
        self._spans = spans

    def zero(self) -> None:
        """Forget the gradients."""
        self.flat.gradients.zero_()

    def step(self) -> None:
        """Take one step with the gradients at hand and count it."""
        number = self.step_number
        self.step_number += 1
        if self.recipe.clip_norm is not None:
            gradients = self.flat.gradients
            square = self.total_norm((gradients * gradients).sum().double())
            gradients.mul_(
                (self.recipe.clip_norm / (square.sqrt() + 1e-6)).clamp(max=1.0).to(gradients.dtype)
            )
        if self._optimizer is None:
            return
        rate = self._rates[min(number, len(self._rates) - 1)]
        for group, span in zip(self._optimizer.param_groups, self.flat.spans, strict=True):
            group["lr"] = self.recipe.embedding_rate * rate if span.embeds else rate
        self._optimizer.step()
        if self.average is not None and (number == 0 or (number + 1) % AVERAGE_EVERY == 0):
            with torch.no_grad():
                self.average.lerp_(self.flat.values, average_share(number))

    def state(self) -> dict[str, Tensor]:
        """Everything that going on needs, as tensors."""
        tensors = {"values": self.flat.values, "step": torch.tensor(self.step_number)}
        if self.average is not None:
            tensors["average"] = self.average
        if self._optimizer is not None:
            for number, span in enumerate(self._spans):
                for name, value in self._optimizer.state.get(span, {}).items():
                    if isinstance(value, Tensor):
                        tensors[f"moments.{number}.{name}"] = value
        return tensors | {f"buffers.{name}": value for name, value in self.flat.buffers().items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what :meth:`state` gave.

        Raises
        ------
        InvalidParameterError
            If it belongs to other parameters.
        """
        values = tensors.get("values")
        if values is None or values.shape != self.flat.values.shape:
            found = None if values is None else tuple(values.shape)
            raise InvalidParameterError(
                f"a checkpoint must hold {len(self.flat.values)} parameters, but has {found}"
            )
        with torch.no_grad():
            self.flat.values.copy_(values)
            if self.average is not None and "average" in tensors:
                self.average.copy_(tensors["average"])
            for name, buffer in self.flat.buffers().items():
                buffer.copy_(tensors[f"buffers.{name}"])
        self.step_number = int(tensors["step"])
        if self._optimizer is None:
            return
        for number, span in enumerate(self._spans):
            prefix = f"moments.{number}."
            found_state = {
                name.removeprefix(prefix): value.clone()
                for name, value in tensors.items()
                if name.startswith(prefix)
            }
            if found_state:
                self._optimizer.state[span] = {
                    name: value if name == "step" else value.to(span.device)
                    for name, value in found_state.items()
                }
