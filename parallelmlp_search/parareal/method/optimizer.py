"""Training of a deep network: flat parameters, a fused update, averaged weights.

The serial twin and each slice are trained in the same way, with the methods of the population's engine:
weight decay on weights alone, a learning rate of its own for an embedding, closed-form schedules, clipping by
the norm of the whole network, weights averaged over about the last tenth of training.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from parallelmlp_search._checks import check_choice, check_integer
from parallelmlp_search.engine.schedule import schedule_factors
from parallelmlp_search.engine.step_coefficients import average_share, is_averaging
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.packing.periodic import Periodic
from parallelmlp_search.space import MLPConfig

OPTIMIZERS = ("adamw", "sgd")


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters of training; all but these have the meaning that they have in :class:`MLPConfig`.

    Attributes
    ----------
    total_steps
        Number of steps of full training, the denominator of the schedule.
    averages
        True if averaged weights are kept. Networks with running statistics need False.

    Raises
    ------
    InvalidParameterError
        If optimizer, schedule or number of steps are invalid.
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
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_integer("total_steps", self.total_steps, 1)
        schedule_factors([self.schedule], torch.zeros(1))

    @classmethod
    def of(cls, config: MLPConfig, total_steps: int) -> Recipe:
        """Return the recipe of a configuration."""
        names = {field.name for field in fields(cls)} - {"total_steps", "averages"}
        return cls(total_steps=max(1, total_steps), **{name: getattr(config, name) for name in names})


@dataclass(frozen=True)
class _Span:
    """Consecutive parameters with the same learning rate and weight decay."""

    place: slice
    is_embedding: bool
    has_no_decay: bool


class FlatParameters:
    """Parameters of modules as views of one buffer, and their gradients as views of another.

    Weights come first, then parameters without weight decay: biases, gains, shifts. Those of an embedding
    come last.

    Parameters
    ----------
    modules
        Modules whose trainable parameters are replaced by views.

    Raises
    ------
    InvalidParameterError
        If parameters differ in dtype or device.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self.modules = list(modules)
        found = [p for module in self.modules for p in module.parameters() if p.requires_grad]
        unique = dict.fromkeys(found)  # modules may share parameters
        kinds = {p: (False, p.ndim < 2) for p in unique}  # is_embedding, has_no_decay
        for embedding in (m for module in self.modules for m in module.modules() if isinstance(m, Periodic)):
            kinds[embedding.frequency] = kinds[embedding.mixing] = (True, False)
            kinds[embedding.phase] = kinds[embedding.offset] = (True, True)
        if len({(p.dtype, p.device) for p in unique}) > 1:
            raise InvalidParameterError("parameters must share one dtype and one device")
        example = next(iter(unique), torch.zeros(0))
        size = sum(p.numel() for p in unique)
        self.values = torch.empty(size, dtype=example.dtype, device=example.device)
        self.gradients = torch.zeros_like(self.values)
        self.spans: list[_Span] = []
        offset = 0
        for kind, group in itertools.groupby(sorted(unique, key=kinds.__getitem__), kinds.__getitem__):
            start = offset
            for parameter in group:
                place = slice(offset, offset + parameter.numel())
                self.values[place] = parameter.detach().reshape(-1)
                parameter.data = self.values[place].view(parameter.shape)
                parameter.grad = self.gradients[place].view(parameter.shape)
                offset = place.stop
            self.spans.append(_Span(slice(start, offset), *kind))

    def buffers(self) -> dict[str, Tensor]:
        """Return running statistics and other buffers by number of the module and name."""
        numbered = enumerate(self.modules)
        return {f"{n}.{name}": buffer for n, module in numbered for name, buffer in module.named_buffers()}


class FlatOptimizer:
    """AdamW or SGD over flat parameters, with schedule, clipping and averaged weights.

    Parameters
    ----------
    flat
        Parameters to train.
    recipe
        Hyperparameters.
    total_norm
        Maps the squared gradient norm of these parameters to that of the whole network; the identity by
        default.
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
        self._leaves: list[Tensor] = []
        groups: list[dict[str, Any]] = []
        for span in flat.spans:
            leaf = flat.values[span.place].requires_grad_()
            leaf.grad = flat.gradients[span.place]
            self._leaves.append(leaf)
            groups.append(
                {"params": [leaf], "weight_decay": 0.0 if span.has_no_decay else recipe.weight_decay}
            )
        if not groups:  # a slice may have no parameters, an optimizer may not
            groups = [{"params": [torch.zeros(0)]}]
        self._optimizer: torch.optim.Optimizer
        if recipe.optimizer == "adamw":
            betas = (recipe.beta1, recipe.beta2)
            self._optimizer = torch.optim.AdamW(groups, betas=betas, fused=True)
        else:
            self._optimizer = torch.optim.SGD(groups, momentum=recipe.momentum, fused=True)

    def zero_grad(self) -> None:
        """Set all gradients to zero."""
        self.flat.gradients.zero_()

    def step(self) -> None:
        """Take one step with the accumulated gradients."""
        number = self.step_number
        self.step_number += 1
        if self.recipe.clip_norm is not None:
            gradients = self.flat.gradients
            square = self.total_norm((gradients * gradients).sum().double())
            factor = (self.recipe.clip_norm / (square.sqrt() + 1e-6)).clamp(max=1.0)
            gradients.mul_(factor.to(gradients.dtype))
        rate = self._rates[min(number, len(self._rates) - 1)]
        for group, span in zip(self._optimizer.param_groups, self.flat.spans, strict=False):
            group["lr"] = self.recipe.embedding_rate * rate if span.is_embedding else rate
        self._optimizer.step()
        if self.average is not None and is_averaging(number):
            with torch.no_grad():
                self.average.lerp_(self.flat.values, average_share(number))

    def state_dict(self) -> dict[str, Tensor]:
        """Return parameters, optimizer state and buffers as tensors."""
        tensors = {"values": self.flat.values, "step": torch.tensor(self.step_number)}
        if self.average is not None:
            tensors["average"] = self.average
        for number, leaf in enumerate(self._leaves):
            for name, value in self._optimizer.state.get(leaf, {}).items():
                if isinstance(value, Tensor):
                    tensors[f"moments.{number}.{name}"] = value
        return tensors | {f"buffers.{name}": value for name, value in self.flat.buffers().items()}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the state that :meth:`state_dict` returned.

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
        for name, value in tensors.items():
            if name.startswith("moments."):
                _, number, key = name.split(".", 2)
                leaf = self._leaves[int(number)]
                placed = value.clone() if key == "step" else value.to(leaf.device, copy=True)
                self._optimizer.state[leaf][key] = placed
