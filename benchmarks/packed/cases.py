"""Populations to train, data with labels that can be learned, and the work of a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from parallelmlp_search.packing import Architecture, DataShape, flops_per_step
from parallelmlp_search.space import MLPConfig

__all__ = ["CASES", "PAPER_ACTIVATIONS", "QUICK", "Case", "find"]

PAPER_ACTIVATIONS = (
    "identity",
    "sigmoid",
    "tanh",
    "relu",
    "leaky_relu",
    "elu",
    "gelu",
    "selu",
    "hardshrink",
    "mish",
)


@dataclass(frozen=True)
class Case:
    """A population on a table.

    Attributes
    ----------
    build
        Function that returns the population. A rival that cannot train all of it trains a sample.
    inputs, outputs, batch, rows
        ``D``, ``C``, ``N`` and rows of the table. One output means two classes and one logit.
    rivals
        Contenders besides ours.
    m3_members
        Networks that M3 trains at once, for two contenders: as many as memory allows (None for all, as in the
        paper), and a part that fits the caches, which the paper does not do.
    """

    name: str
    build: Callable[[], list[MLPConfig]]
    inputs: int = 10
    outputs: int = 1
    batch: int = 32
    rows: int = 1000
    optimizer: str = "adamw"
    rivals: tuple[str, ...] = ("sequential", "m3", "vmap")
    m3_members: tuple[int | None, int] = (None, 1000)
    group: str = "paper"

    def configs(self) -> list[MLPConfig]:
        """Return the population, each member with the batch size and the optimizer of the case."""
        changes = {"batch_size": self.batch, "optimizer": self.optimizer, "learning_rate": 1e-3}
        return [config.replace(**changes) for config in self.build()]

    def data(self) -> tuple[Tensor, Tensor]:
        """Return inputs ``(rows, D)`` and classes ``(rows,)`` of a random network of 16 neurons."""
        generator = torch.Generator().manual_seed(self.inputs)
        inputs = torch.randn(self.rows, self.inputs, generator=generator)
        first = torch.randn(self.inputs, 16, generator=generator)
        scores = torch.tanh(inputs @ first) @ torch.randn(16, max(2, self.outputs), generator=generator)
        return inputs, (scores - scores.mean(0)).argmax(1)

    def architecture(self, config: MLPConfig) -> Architecture:
        """Return the architecture of a member."""
        return Architecture.of(config, DataShape(self.inputs, self.outputs))

    def product_flops(self, configs: list[MLPConfig]) -> float:
        """Return the FLOP of the matrix products of one step (mean over members), without the optimizer."""
        architectures = [self.architecture(config) for config in configs]
        total = sum(flops_per_step(a, self.batch) - 20.0 * a.n_parameters for a in architectures)
        return total / len(configs)

    def state_bytes(self, configs: list[MLPConfig]) -> float:
        """Return the bytes that Adam reads and writes per member-step if nothing stays in a cache.

        Weights and both moments are read and written, gradients are read.
        """
        return 28.0 * self._parameters(configs)

    def kept_bytes(self, configs: list[MLPConfig], steps: float) -> float:
        """Return the bytes per member-step if weights, moments and averages move once per ``steps``."""
        return 32.0 * self._parameters(configs) / steps

    def _parameters(self, configs: list[MLPConfig]) -> float:
        return sum(self.architecture(config).n_parameters for config in configs) / len(configs)


def paper(repetitions: int = 10) -> list[MLPConfig]:
    """Return the paper's population: widths 1 to 100, ten activations, ten repetitions."""
    return [
        MLPConfig(widths=(width,), activation=activation, seed=repetition)
        for width in range(1, 101)
        for activation in PAPER_ACTIVATIONS
        for repetition in range(repetitions)
    ]


def uniform(widths: tuple[int, ...], members: int) -> list[MLPConfig]:
    """Return equal networks with different seeds."""
    return [MLPConfig(widths=widths, seed=seed) for seed in range(members)]


def ragged(members: int = 960) -> list[MLPConfig]:
    """Return networks of widths 1 to 128 in each layer, depths 1 to 3, and ten activations."""
    generator = torch.Generator().manual_seed(0)
    configs = []
    for seed in range(members):
        widths = torch.randint(1, 129, (1 + seed % 3,), generator=generator).tolist()
        configs.append(MLPConfig(widths=tuple(widths), activation=PAPER_ACTIVATIONS[seed % 10], seed=seed))
    return configs


def like_ragged(members: int = 960) -> list[MLPConfig]:
    """Return equal networks of two layers and ten activations, with the FLOP of :func:`ragged`."""
    case = Case("", list, 50, 10, 128)
    wanted = case.product_flops(ragged(members))
    width = min(range(8, 129), key=lambda w: abs(case.product_flops(uniform((w, w), 1)) - wanted))
    return [
        config.replace(activation=PAPER_ACTIVATIONS[config.seed % 10])
        for config in uniform((width, width), members)
    ]


HEADLINE = Case("paper, D=10 N=32 C=1", paper)
TWO_LAYERS = Case(
    "64-64, D=50 N=128 C=10",
    lambda: uniform((64, 64), 256),
    50,
    10,
    128,
    rivals=("sequential", "vmap"),
    group="uniform",
)

CASES: tuple[Case, ...] = (
    HEADLINE,
    replace(HEADLINE, name="paper, D=10 N=128 C=10", outputs=10, batch=128, m3_members=(1000, 100)),
    replace(HEADLINE, name="paper, D=10 N=32 C=1, SGD", optimizer="sgd"),
    replace(HEADLINE, name="paper, D=10 N=32 C=1, 100 rows", rows=100, rivals=()),
    replace(HEADLINE, name="paper, D=10 N=32 C=1, 10,000 rows", rows=10_000, rivals=()),
    *(
        replace(
            HEADLINE,
            name=f"paper, D={inputs} N={batch} C=1",
            inputs=inputs,
            batch=batch,
            rivals=("sequential", "m3"),
            m3_members=(None, 1000) if batch == 32 else (2000, 250),
        )
        for inputs in (5, 10, 50, 100)
        for batch in (32, 128, 256)
        if (inputs, batch) != (10, 32)
    ),
    TWO_LAYERS,
    replace(TWO_LAYERS, name="64-64, D=50 N=128 C=10, SGD", optimizer="sgd"),
    *(
        replace(
            TWO_LAYERS,
            name=f"{width}-{width}, D=50 N=128 C=10",
            build=lambda width=width, count=count: uniform((width, width), count),
        )
        for width, count in ((8, 1024), (16, 1024), (32, 512), (128, 64), (256, 32), (512, 8))
    ),
    *(
        replace(
            TWO_LAYERS,
            name=f"{'-'.join(['64'] * depth)}, D=50 N=128 C=10",
            build=lambda depth=depth: uniform((64,) * depth, 256),
        )
        for depth in (1, 3, 4)
    ),
    replace(TWO_LAYERS, name="ragged", build=ragged, rivals=("sequential",), group="ragged"),
    replace(TWO_LAYERS, name="uniform, FLOP of ragged", build=like_ragged, rivals=(), group="ragged"),
)

QUICK = ("paper, D=10 N=32 C=1", "64-64, D=50 N=128 C=10")
"""Cases of ``--quick``."""


def find(name: str) -> Case:
    """Return the case of a name."""
    return next(case for case in CASES if case.name == name)
