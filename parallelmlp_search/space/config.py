"""One network and how it is trained, as plain values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from dataclasses import replace as dataclass_replace
from itertools import pairwise
from numbers import Integral, Real
from typing import Any

import numpy as np

from parallelmlp_search.exceptions import InvalidParameterError, near_miss

__all__ = [
    "ACTIVATIONS",
    "FIELD_NAMES",
    "INITIALIZATIONS",
    "MOST_EMBEDDED",
    "NORMALIZATIONS",
    "NUMERIC_EMBEDDINGS",
    "OPTIMIZERS",
    "PERIODIC_FREQUENCIES",
    "PERIODIC_OUTPUTS",
    "SCHEDULES",
    "MLPConfig",
]

ACTIVATIONS: tuple[str, ...] = (
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
    "silu",
    "softplus",
    "sine",
)
"""The paper's ten in its order, then three of our own."""

OPTIMIZERS: tuple[str, ...] = ("adamw", "sgd")
SCHEDULES: tuple[str, ...] = ("constant", "linear", "cosine", "flat_cosine", "cosine_log", "one_cycle")
INITIALIZATIONS: tuple[str, ...] = (
    "kaiming_uniform",
    "kaiming_normal",
    "xavier_uniform",
    "xavier_normal",
    "lecun_normal",
)
NORMALIZATIONS: tuple[str, ...] = ("none", "layer")
NUMERIC_EMBEDDINGS: tuple[str, ...] = ("piecewise", "none", "periodic")

PERIODIC_FREQUENCIES = 16
"""Waves that a number becomes in a periodic embedding."""

PERIODIC_OUTPUTS = 3
"""Mixtures of its waves that join the inputs of the first layer."""

MOST_EMBEDDED = 64
"""Numbers of a table above which a periodic embedding embeds none: with 36 it triples the time of a network
of 128 and 128 neurons, and with the 784 of an image it would be some thirteen times that time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MLPConfig:
    """A multi-layer perceptron and the recipe that trains it.

    Values are checked and turned into plain Python ones (``np.int64(3)`` becomes ``3``, a list becomes a
    tuple), so that equal configurations compare, hash and serialise alike.

    Parameters
    ----------
    widths
        Neurons of each hidden layer, first to last; empty means a linear model.
    activation
        One of `ACTIVATIONS`, used after every hidden layer.
    learning_rate
        Peak learning rate, > 0.
    weight_decay
        Decay of the weights, >= 0, as a rate per unit of learning rate: decoupled in AdamW, added to the
        gradient in SGD.
    dropout
        Share of hidden activations that are zeroed while training, in [0, 1).
    label_smoothing
        Share of probability spread over all classes, in [0, 1); a regression ignores it.
    optimizer
        One of `OPTIMIZERS`.
    beta1, beta2
        Decay rates of the two moments of AdamW, in [0, 1).
    momentum
        Momentum of SGD, in [0, 1).
    schedule
        One of `SCHEDULES`, of the learning rate over the whole training.
    batch_size
        Rows of a minibatch, >= 1.
    initialization
        One of `INITIALIZATIONS`. ``"kaiming_uniform"`` is that of ``torch.nn.Linear`` (a = sqrt 5, bias
        uniform within 1 / sqrt(fan in)).
    bias
        Whether the linear maps, the head included, have a bias.
    residual
        Whether a hidden block adds its own input to its output, where both have the same width.
    normalization
        One of `NORMALIZATIONS`; ``"layer"`` puts a LayerNorm with gain and shift into each hidden block.
    clip_norm
        Largest Euclidean norm of the member's whole gradient, > 0, or None for no clipping.
    numeric_embedding
        One of `NUMERIC_EMBEDDINGS`: what the network sees of each number besides the number itself.
        ``"piecewise"``: pieces (piecewise linear encoding, Gorishniy et al. 2022), where the preprocessing
        makes any. ``"periodic"``: three mixtures of sixteen waves whose frequencies it learns (PBLD,
        Holzmueller et al. 2024), where the table has at most 64 numbers.
    seed
        Non-negative integer that decides the initial weights.

    Raises
    ------
    InvalidParameterError
        If a value breaks its rule.
    """

    widths: tuple[int, ...] = (64,)
    activation: str = "relu"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    dropout: float = 0.0
    label_smoothing: float = 0.0
    optimizer: str = "adamw"
    beta1: float = 0.9
    beta2: float = 0.999
    momentum: float = 0.9
    schedule: str = "constant"
    batch_size: int = 128
    initialization: str = "kaiming_uniform"
    bias: bool = True
    residual: bool = False
    normalization: str = "none"
    clip_norm: float | None = None
    numeric_embedding: str = "piecewise"
    seed: int = 0

    def __post_init__(self) -> None:
        def keep(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        keep("widths", _widths(self.widths))
        keep("activation", _name("activation", self.activation, ACTIVATIONS))
        keep("learning_rate", _positive("learning_rate", self.learning_rate))
        keep("weight_decay", _non_negative("weight_decay", self.weight_decay))
        keep("dropout", _share("dropout", self.dropout))
        keep("label_smoothing", _share("label_smoothing", self.label_smoothing))
        keep("optimizer", _name("optimizer", self.optimizer, OPTIMIZERS))
        keep("beta1", _share("beta1", self.beta1))
        keep("beta2", _share("beta2", self.beta2))
        keep("momentum", _share("momentum", self.momentum))
        keep("schedule", _name("schedule", self.schedule, SCHEDULES))
        keep("batch_size", _whole("batch_size", self.batch_size, least=1))
        keep("initialization", _name("initialization", self.initialization, INITIALIZATIONS))
        keep("bias", _switch("bias", self.bias))
        keep("residual", _switch("residual", self.residual))
        keep("normalization", _name("normalization", self.normalization, NORMALIZATIONS))
        keep("clip_norm", None if self.clip_norm is None else _positive("clip_norm", self.clip_norm))
        keep("numeric_embedding", _name("numeric_embedding", self.numeric_embedding, NUMERIC_EMBEDDINGS))
        keep("seed", _whole("seed", self.seed, least=0))

    @property
    def depth(self) -> int:
        """Number of hidden layers."""
        return len(self.widths)

    def identity(self) -> tuple[object, ...]:
        """Everything but the seed, hashable: two configurations that share it are the same choice."""
        return tuple(getattr(self, name) for name in FIELD_NAMES if name != "seed")

    def n_embedded(self, n_numbers: int) -> int:
        """How many of a table's numbers the network embeds, which is all of them or none."""
        wanted = self.numeric_embedding == "periodic" and n_numbers <= MOST_EMBEDDED
        return n_numbers if wanted else 0

    def n_parameters(self, n_inputs: int, n_outputs: int, *, n_numbers: int = 0) -> int:
        """Trainable numbers of the network: weights, biases, LayerNorm's gains and shifts, embedding.

        Parameters
        ----------
        n_inputs, n_outputs
            Columns that the network sees (D) and values that leave the head (C), both >= 1.
        n_numbers
            How many of the columns are numbers, >= 0.
        """
        n_inputs = _whole("n_inputs", n_inputs, least=1)
        n_outputs = _whole("n_outputs", n_outputs, least=1)
        embedded = self.n_embedded(_whole("n_numbers", n_numbers, least=0))
        # frequencies and phases; weights and biases of the mixtures
        embedding = embedded * (2 * PERIODIC_FREQUENCIES + PERIODIC_OUTPUTS * (PERIODIC_FREQUENCIES + 1))
        sizes = (n_inputs + PERIODIC_OUTPUTS * embedded, *self.widths, n_outputs)
        weights = sum(before * after for before, after in pairwise(sizes))
        biases = sum(sizes[1:]) if self.bias else 0
        norms = 2 * sum(self.widths) if self.normalization == "layer" else 0
        return weights + biases + norms + embedding

    def replace(self, **changes: Any) -> MLPConfig:
        """A copy with some fields changed; unknown names raise `InvalidParameterError`."""
        _known(changes)
        return dataclass_replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """All fields as values that JSON can hold; `from_dict` is the inverse."""
        values: dict[str, Any] = {name: getattr(self, name) for name in FIELD_NAMES}
        values["widths"] = list(self.widths)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MLPConfig:
        """Configuration from a mapping of field names; fields left out keep their defaults."""
        _known(values)
        return cls(**values)


FIELD_NAMES: tuple[str, ...] = tuple(field.name for field in fields(MLPConfig))
"""Field names of `MLPConfig`, in their order."""


def _known(values: Mapping[str, object]) -> None:
    for name in values:
        if name not in FIELD_NAMES:
            hint = near_miss(str(name), FIELD_NAMES)
            raise InvalidParameterError(f"a configuration has no field {name!r}{hint}")


def _name(parameter: str, value: object, allowed: tuple[str, ...]) -> str:
    if isinstance(value, str) and value in allowed:
        return str(value)
    hint = near_miss(value, allowed) if isinstance(value, str) else ""
    raise InvalidParameterError(f"{parameter} must be one of {', '.join(allowed)}, but got {value!r}{hint}")


def _number(parameter: str, value: object, rule: str) -> float:
    # bool is a subclass of int: `dropout=True` is a slip, not a rate of 1.
    if isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise InvalidParameterError(f"{parameter} must be {rule}, but got {value!r}")


def _positive(parameter: str, value: object) -> float:
    number = _number(parameter, value, "a finite number > 0")
    if number <= 0.0:
        raise InvalidParameterError(f"{parameter} must be > 0, but got {value!r}")
    return number


def _non_negative(parameter: str, value: object) -> float:
    number = _number(parameter, value, "a finite number >= 0")
    if number < 0.0:
        raise InvalidParameterError(f"{parameter} must be >= 0, but got {value!r}")
    return number


def _share(parameter: str, value: object) -> float:
    number = _number(parameter, value, "a number in [0, 1)")
    if not 0.0 <= number < 1.0:
        raise InvalidParameterError(f"{parameter} must be in [0, 1), but got {value!r}")
    return number


def _whole(parameter: str, value: object, least: int) -> int:
    # A whole float is let through, since tables and JSON turn a column of integers with gaps into floats.
    whole = isinstance(value, Integral) or (isinstance(value, Real) and float(value).is_integer())
    if not whole or isinstance(value, bool | np.bool_):
        raise InvalidParameterError(f"{parameter} must be an integer >= {least}, but got {value!r}")
    number = int(value)  # type: ignore[call-overload]
    if number < least:
        raise InvalidParameterError(f"{parameter} must be >= {least}, but got {value!r}")
    return int(number)


def _switch(parameter: str, value: object) -> bool:
    if isinstance(value, bool | np.bool_):
        return bool(value)
    raise InvalidParameterError(f"{parameter} must be True or False, but got {value!r}")


def _widths(value: object) -> tuple[int, ...]:
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise InvalidParameterError(f"widths must be a sequence of integers >= 1, but got {value!r}")
    return tuple(_whole("widths", width, least=1) for width in value)
