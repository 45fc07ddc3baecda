"""Networks trained alone with torch.nn and torch.optim, which packed training must equal."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from parallelmlp_search.engine import BatchStream, Population, TrainingRows, TrainingSettings, train
from parallelmlp_search.engine.batches import dropout_fields
from parallelmlp_search.engine.initialization import initial_vector
from parallelmlp_search.packing import Architecture, DataShape
from parallelmlp_search.packing.modules import CategoryEmbedding
from parallelmlp_search.packing.pack import build_module, module_vector, read_member
from parallelmlp_search.packing.submembers import AdaptedLinear, SubmemberHeads, SubmemberMean
from parallelmlp_search.space import ColumnGroups, MLPConfig


def _one_cycle(t: float) -> float:
    if t < 0.3:
        return 0.04 + 0.48 * (1 - math.cos(math.pi * t / 0.3))
    return 0.5 * (1 + math.cos(math.pi * (t - 0.3) / 0.7))


# independent of the package, to detect its errors
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda t: 1.0,
    "linear": lambda t: 1 - t,
    "cosine": lambda t: 0.5 * (1 + math.cos(math.pi * t)),
    "flat_cosine": lambda t: 1.0 if t < 0.5 else 0.5 * (1 + math.cos(math.pi * (2 * t - 1))),
    "cosine_log": lambda t: 0.5 * (1 - math.cos(2 * math.pi * math.log2(1 + 15 * t))),
    "one_cycle": _one_cycle,
}


Linear = nn.Linear | AdaptedLinear | SubmemberHeads


def _row_losses(name: str, outputs: Tensor, target: Tensor, smoothing: float) -> Tensor:
    """Losses (N,) of the rows of one network, outputs (N, C)."""
    if name == "cross_entropy":
        return F.cross_entropy(outputs, target, reduction="none", label_smoothing=smoothing)
    if name == "binary_logits":
        wanted = (1 - smoothing) * target.to(outputs.dtype) + smoothing / 2
        return F.binary_cross_entropy_with_logits(outputs[:, 0], wanted, reduction="none")
    target = target.T
    if name == "squared_error":
        return F.mse_loss(outputs, target, reduction="none").mean(dim=1)
    kind, _, level = name.partition(":")
    if kind == "poisson":
        return F.poisson_nll_loss(outputs, target, reduction="none").mean(dim=1)
    if kind == "gamma":
        return (outputs + target * (-outputs).exp()).mean(dim=1)
    if kind == "huber":
        return F.huber_loss(outputs, target, reduction="none", delta=float(level)).mean(dim=1)
    short = target - outputs
    return torch.maximum(float(level) * short, (float(level) - 1) * short).mean(dim=1)


class SharedDropout(nn.Module):
    """Dropout with the shared field of the layer instead of torch's generator.

    Of K submembers (N, K, H) each takes the noise of the row that is a K-th of the batch further on.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.field = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        rate = torch.tensor(self.rate, dtype=torch.float32)  # as precise as the field
        dropped = rate > self.field[: x.shape[-1]].T
        if x.ndim == 3:
            n_rows, n_submembers, _ = x.shape
            ahead = [k * n_rows // n_submembers for k in range(n_submembers)]
            dropped = torch.stack([dropped[[(n + a) % n_rows for n in range(n_rows)]] for a in ahead], dim=1)
        return torch.where(dropped, 0.0, x / (1 - self.rate))


@dataclass(frozen=True)
class Problem:
    """Training rows and batches."""

    inputs: Tensor
    target: Tensor
    n_outputs: int
    loss: str = "cross_entropy"
    weight: Tensor | None = None
    n_steps: int = 50
    total_epochs: int = 20
    batch_size: int = 16
    seed: int = 5
    n_numbers: int = 0
    categories: tuple[tuple[int, int], ...] = ()

    @property
    def columns(self) -> ColumnGroups:
        """Groups of the inputs."""
        return ColumnGroups(n_numbers=self.n_numbers, categories=self.categories)

    @property
    def stream(self) -> BatchStream:
        """A fresh stream of batches."""
        return BatchStream(len(self.inputs), self.batch_size, self.seed)

    def packed(self, configs: Sequence[MLPConfig], *, merge: bool) -> Population:
        """All configurations trained as one population."""
        population = Population.create(
            configs,
            DataShape(self.inputs.shape[1], self.n_outputs, columns=self.columns),
            rows=self.inputs,
            merge=merge,
        )
        train(
            population,
            TrainingRows(self.inputs, self.target, self.weight),
            TrainingSettings(
                stream=self.stream,
                loss=self.loss,
                until_epoch=self.n_steps * self.batch_size / len(self.inputs),
                total_epochs=self.total_epochs,
            ),
        )
        assert population.step == self.n_steps
        return population

    def alone(self, config: MLPConfig) -> Tensor:
        """Weights of one configuration after as many steps of torch.optim on the same batches."""
        architecture = Architecture.of(
            config, DataShape(n_inputs=self.inputs.shape[1], n_outputs=self.n_outputs, columns=self.columns)
        )
        start = initial_vector(architecture, config, rows=self.inputs).to(self.inputs.dtype)
        network = build_module(architecture, start, dropout=config.dropout)
        _reparametrize(network, lambda child: Lookup(child) if isinstance(child, CategoryEmbedding) else None)
        if config.parametrization == "neural_tangent":
            _reparametrize(network, lambda child: TangentLinear(child) if isinstance(child, Linear) else None)
        noises = _share_dropout(network)
        optimizer = _optimizer(config, network)
        stream = self.stream
        widest = max(config.widths, default=0)
        for step in range(self.n_steps):
            rows = stream.rows(step)
            progress = step / stream.steps(self.total_epochs)
            if noises:
                fields = dropout_fields(self.seed, step, len(noises), widest, self.batch_size)
                for noise, field in zip(noises, fields, strict=True):
                    noise.field = field
                    noise.rate = config.dropout * SCHEDULES[config.dropout_schedule](progress)
            factor = SCHEDULES[config.schedule](progress)
            decay = SCHEDULES[config.weight_decay_schedule](progress)
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * group["share"] * factor
                group["weight_decay"] = config.weight_decay * decay if group["decays"] else 0.0
            optimizer.zero_grad()
            target = self.target[:, rows] if self.target.ndim == 2 else self.target[rows]
            if isinstance(network[-1], SubmemberMean):
                outputs = network[:-1](self.inputs[rows]).unbind(1)  # each submember has its own loss
            else:
                outputs = [network(self.inputs[rows])]
            each = [_row_losses(self.loss, own, target, config.label_smoothing) for own in outputs]
            losses = torch.stack(each).mean(0)
            if self.weight is None:
                losses.mean().backward()
            else:
                weight = self.weight[rows]
                ((losses * weight).sum() / weight.sum()).backward()
            if config.clip_norm is not None:
                nn.utils.clip_grad_norm_(network.parameters(), config.clip_norm)
            optimizer.step()
        _reparametrize(network, lambda child: child.inner if isinstance(child, Lookup) else None)
        _reparametrize(network, lambda child: child.plain() if isinstance(child, TangentLinear) else None)
        return module_vector(network)

    def difference(self, population: Population, member: int, expected: Tensor) -> float:
        """Largest difference of a member's weights from the expected ones."""
        vector = read_member(population.parameters, population.layout, member)
        assert bool(vector.isfinite().all())
        return float((vector - expected).abs().max())


class Lookup(nn.Module):
    """Embedding of categories by lookup, as in torch; a missing value becomes zeros."""

    def __init__(self, inner: CategoryEmbedding) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        parts, column = [], 0
        for (first, size), embedding in zip(self.inner.categories, self.inner.embeddings, strict=True):
            block = x[:, first : first + size]
            looked_up = embedding(block.argmax(1)) * block.sum(1, keepdim=True)
            parts += [x[:, column:first], looked_up]
            column = first + size
        return torch.cat([*parts, x[:, column:]], dim=1)


class TangentLinear(nn.Module):
    """Linear layer in the neural tangent parametrization: ``W x / sqrt(fan in) + b``."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.root = math.sqrt(inner.in_features)
        inner.weight.data.mul_(self.root)

    def forward(self, x: Tensor) -> Tensor:
        return functional_call(self.inner, {"weight": self.inner.weight / self.root}, (x,))

    def plain(self) -> nn.Module:
        """The same function as an ordinary linear map."""
        self.inner.weight.data.div_(self.root)
        return self.inner


def _reparametrize(network: nn.Module, other: Callable[[nn.Module], nn.Module | None]) -> None:
    """Replace each child by the result of ``other``, unless that is None."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            found = other(child)
            if found is not None:
                setattr(parent, name, found)


def _optimizer(config: MLPConfig, network: nn.Module) -> torch.optim.Optimizer:
    """Optimizer of torch with the rate and the decay of each kind of parameter."""
    groups: list[dict[str, Any]] = []
    for module in network.modules():
        linear = isinstance(module, Linear)
        for kind, parameter in module.named_parameters(recurse=False):
            shares = {"scale": config.input_scale_rate}
            shares |= dict.fromkeys(("frequency", "phase", "mixing", "offset"), config.embedding_rate)
            if linear:
                shares["bias"] = config.bias_rate
            decays = kind in ("frequency", "mixing", "scale")
            decays |= kind == "weight" and isinstance(module, Linear | nn.Embedding)
            groups.append({"params": [parameter], "decays": decays, "share": shares.get(kind, 1.0)})
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(config.beta1, config.beta2))
    return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum)


def _share_dropout(network: nn.Module) -> list[SharedDropout]:
    """Replace each nn.Dropout, in the order of the layers."""
    found: list[SharedDropout] = []
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Dropout):
                found.append(SharedDropout(child.p))
                setattr(parent, name, found[-1])
    # those inside residual blocks are found last, so restore the order of the layers
    order = {id(module): place for place, module in enumerate(network.modules())}
    return sorted(found, key=lambda module: order[id(module)])


@pytest.fixture(scope="session")
def make_problem() -> Callable[..., Problem]:
    """Function that draws random rows for a loss; it also takes any field of Problem."""

    def make(
        loss: str = "cross_entropy",
        *,
        n_outputs: int = 3,
        n_rows: int = 100,
        n_inputs: int = 7,
        dtype: torch.dtype = torch.float64,
        weighted: bool = False,
        **fields: int,
    ) -> Problem:
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn(n_rows, n_inputs, dtype=torch.float64, generator=generator).to(dtype)
        if loss == "cross_entropy":
            target = torch.randint(0, n_outputs, (n_rows,), generator=generator)
        elif loss == "binary_logits":
            target = torch.randint(0, 2, (n_rows,), generator=generator)
        else:
            target = torch.randn(n_outputs, n_rows, dtype=torch.float64, generator=generator).to(dtype)
            target = target.exp() if loss in ("poisson", "gamma") else target
        weight = torch.rand(n_rows, dtype=torch.float64, generator=generator).to(dtype) if weighted else None
        return Problem(inputs, target, n_outputs, loss, weight, **fields)

    return make
