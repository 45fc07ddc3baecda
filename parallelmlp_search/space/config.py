"""Configuration of a network and its training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from dataclasses import replace as dataclass_replace
from itertools import pairwise
from typing import Any

from parallelmlp_search._checks import (
    check_boolean,
    check_choice,
    check_fraction,
    check_integer,
    check_non_negative,
    check_positive,
)
from parallelmlp_search.exceptions import InvalidParameterError, near_miss

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
"""The ten activations of the ParallelMLPs paper in its order, and three more."""

OPTIMIZERS: tuple[str, ...] = ("adamw", "sgd")
SCHEDULES: tuple[str, ...] = ("constant", "linear", "cosine", "flat_cosine", "cosine_log", "one_cycle")
INITIALIZATIONS: tuple[str, ...] = (
    "kaiming_uniform",
    "kaiming_normal",
    "xavier_uniform",
    "xavier_normal",
    "lecun_normal",
    "data_driven",
)
HEAD_INITIALIZATIONS: tuple[str, ...] = ("same", "zero")
PARAMETRIZATIONS: tuple[str, ...] = ("standard", "neural_tangent")
NORMALIZATIONS: tuple[str, ...] = ("none", "layer")
NUMERIC_EMBEDDINGS: tuple[str, ...] = ("piecewise", "none", "periodic")
NUMERIC_SCALINGS: tuple[str, ...] = ("common", "quantile")
CATEGORY_EMBEDDINGS: tuple[str, ...] = ("none", "learned")
SHARINGS: tuple[str, ...] = ("mini", "full")
TARGET_TRANSFORMS: tuple[str, ...] = ("none", "log", "yeo_johnson", "quantile")

PERIODIC_FREQUENCIES = 16
"""Number of frequencies per number in a periodic embedding."""

PERIODIC_OUTPUTS = 3
"""Number of outputs per number of a periodic embedding."""

MAX_EMBEDDED = 64
"""Largest number of numeric columns for which a periodic embedding is used: 36 of them triple the time of a
network of two layers of 128 neurons, and the 784 of an image would take about thirteen times as long."""

MAX_ONE_HOT = 8
"""Largest number of categories that stay one-hot encoded, since an embedding would save nothing."""

MAX_CATEGORY_DIMENSION = 8
"""Largest dimension of a learned embedding of a category."""


def category_dimension(n_categories: int) -> int:
    """Return the dimension of the learned embedding of a column with this many categories."""
    return min(MAX_CATEGORY_DIMENSION, (n_categories + 1) // 2)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class MLPConfig:
    """Multi-layer perceptron and its training.

    Values are validated and become plain Python objects (``np.int64(3)`` becomes ``3``, a list becomes a
    tuple), so that equal configurations compare, hash and serialize alike. ``repr`` shows the fields that
    differ from their defaults, :meth:`to_dict` all of them.

    Parameters
    ----------
    widths
        Neurons of each hidden layer; empty for a linear model.
    activation
        Activation of all hidden layers, one of `ACTIVATIONS`.
    learning_rate
        Peak learning rate, > 0.
    weight_decay
        Weight decay, >= 0: decoupled and multiplied by the learning rate in AdamW, added to the gradient in
        SGD.
    weight_decay_schedule
        Schedule of the weight decay over the whole training, one of `SCHEDULES`. It is multiplied by the
        schedule of the learning rate.
    dropout
        Fraction of hidden activations that are zeroed in training, in [0, 1).
    dropout_schedule
        Schedule of the dropout over the whole training, one of `SCHEDULES`.
    label_smoothing
        Probability that is spread over all classes, in [0, 1); regressions ignore it.
    optimizer
        One of `OPTIMIZERS`.
    beta1, beta2
        Decay rates of the two moment estimates of AdamW, in [0, 1).
    momentum
        Momentum of SGD, in [0, 1).
    schedule
        Schedule of the learning rate over the whole training, one of `SCHEDULES`.
    batch_size
        Rows of a minibatch, >= 1.
    initialization
        One of `INITIALIZATIONS`. ``"kaiming_uniform"`` is that of ``torch.nn.Linear`` (a = sqrt 5, bias
        uniform within 1 / sqrt(fan in)). ``"data_driven"`` uses training rows: the pre-activation of every
        neuron starts with unit variance over them and is near zero at one of them.
    head_initialization
        ``"same"`` as the hidden layers, or ``"zero"``, for outputs that start at zero.
    parametrization
        ``"standard"``, or ``"neural_tangent"``: the weights are ``W / sqrt(fan in)`` and the optimizer
        updates ``W``, so that wide layers learn more slowly. Weight decay is not affected.
    bias_rate
        Learning rate of the biases relative to `learning_rate`, > 0.
    input_scale_rate
        Learning rate of a scale of each input relative to `learning_rate`; 0 for no scales. They start at 1
        and are subject to weight decay.
    bias
        True for a bias in all linear maps, the head included.
    residual
        True for residual connections around hidden layers whose input and output have the same width.
    normalization
        ``"none"``, or ``"layer"`` for a LayerNorm with gain and shift in each hidden layer.
    clip_norm
        Largest Euclidean norm of the whole gradient, > 0, or None for no clipping.
    numeric_embedding
        Inputs in addition to each number, one of `NUMERIC_EMBEDDINGS`. ``"piecewise"``: piecewise linear
        encoding (Gorishniy et al. 2022), if the preprocessing computes it. ``"periodic"``: three combinations
        of sixteen waves with learned frequencies (PBLD, Holzmueller et al. 2024), if the table has at most 64
        numbers.
    numeric_scaling
        ``"common"`` for the scaling of the preprocessing, or ``"quantile"`` for the normal scores of the
        quantiles, which suit long tails.
    category_embedding
        ``"none"`` for one-hot encoding, or ``"learned"``: columns of more than 8 categories get a learned
        embedding of dimension ``min(8, ceil(categories / 2))``.
    target_encoding
        True to add the mean target of each category, if the preprocessing computes it.
    frequency_scale
        Standard deviation of the initial frequencies of a periodic embedding, in periods per unit of the
        scaled number, > 0.
    embedding_rate
        Learning rate of a periodic embedding relative to `learning_rate`, > 0.
    submembers
        Number ``K`` >= 1 of submembers. With more than one, the network is an ensemble of ``K`` submembers
        that share weights (TabM, Gorishniy et al. 2024). Each has its own head and loss; the prediction is
        the mean of their outputs.
    sharing
        Difference between submembers, one of `SHARINGS`. ``"mini"``: a factor on each input of the first
        layer. ``"full"``: factors on the inputs and outputs of every hidden layer, and its biases.
    target_transform
        Transformation of the target of a regression, one of `TARGET_TRANSFORMS`; classifications ignore it.
        The network learns the transformed target, and its predictions are transformed back.
    seed
        Seed of the initial weights, >= 0.

    Raises
    ------
    InvalidParameterError
        If a value breaks its rule.
    """

    widths: tuple[int, ...] = (64,)
    activation: str = "relu"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    weight_decay_schedule: str = "constant"
    dropout: float = 0.0
    dropout_schedule: str = "constant"
    label_smoothing: float = 0.0
    optimizer: str = "adamw"
    beta1: float = 0.9
    beta2: float = 0.999
    momentum: float = 0.9
    schedule: str = "constant"
    batch_size: int = 128
    initialization: str = "kaiming_uniform"
    head_initialization: str = "same"
    parametrization: str = "standard"
    bias: bool = True
    bias_rate: float = 1.0
    input_scale_rate: float = 0.0
    residual: bool = False
    normalization: str = "none"
    clip_norm: float | None = None
    numeric_embedding: str = "piecewise"
    numeric_scaling: str = "common"
    category_embedding: str = "none"
    target_encoding: bool = False
    frequency_scale: float = 0.1
    embedding_rate: float = 0.1
    submembers: int = 1
    sharing: str = "mini"
    target_transform: str = "none"
    seed: int = 0

    def __post_init__(self) -> None:
        def keep(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        keep("widths", _checked_widths(self.widths))
        for name, allowed in _CHOICES.items():
            keep(name, check_choice(name, getattr(self, name), allowed))
        for name in ("learning_rate", "bias_rate", "frequency_scale", "embedding_rate"):
            keep(name, check_positive(name, getattr(self, name)))
        for name in ("weight_decay", "input_scale_rate"):
            keep(name, check_non_negative(name, getattr(self, name)))
        for name in ("dropout", "label_smoothing", "beta1", "beta2", "momentum"):
            keep(name, check_fraction(name, getattr(self, name)))
        for name in ("bias", "residual", "target_encoding"):
            keep(name, check_boolean(name, getattr(self, name)))
        for name, minimum in (("batch_size", 1), ("submembers", 1), ("seed", 0)):
            keep(name, check_integer(name, getattr(self, name), minimum))
        if self.clip_norm is not None:
            keep("clip_norm", check_positive("clip_norm", self.clip_norm))

    def __repr__(self) -> str:
        values = self.changes().items()
        return f"MLPConfig({', '.join(f'{name}={value!r}' for name, value in values)})"

    def changes(self) -> dict[str, Any]:
        """Return the fields that differ from their defaults."""
        pairs = ((field.name, field.default, getattr(self, field.name)) for field in fields(self))
        return {name: value for name, default, value in pairs if value != default}

    @property
    def depth(self) -> int:
        """Number of hidden layers."""
        return len(self.widths)

    def identity(self) -> tuple[object, ...]:
        """Return all fields but the seed, hashable."""
        return tuple(getattr(self, name) for name in FIELD_NAMES if name != "seed")

    @property
    def has_scales(self) -> bool:
        """True if each input has a learned scale."""
        return self.input_scale_rate > 0

    @property
    def shares_fully(self) -> bool:
        """True if submembers have factors and biases in every hidden layer."""
        return self.submembers > 1 and self.sharing == "full"

    def n_embedded(self, n_numbers: int) -> int:
        """Return the number of numeric columns with a periodic embedding: all of them or none."""
        is_embedded = self.numeric_embedding == "periodic" and n_numbers <= MAX_EMBEDDED
        return n_numbers if is_embedded else 0

    def embedded(self, categories: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
        """Return the categories, as ``(first column, number of columns)``, with a learned embedding."""
        if self.category_embedding == "none":
            return ()
        return tuple((first, size) for first, size in categories if size > MAX_ONE_HOT)

    def n_parameters(
        self, n_inputs: int, n_outputs: int, *, n_numbers: int = 0, categories: Iterable[tuple[int, int]] = ()
    ) -> int:
        """Return the number of trainable parameters of the network.

        Parameters
        ----------
        n_inputs, n_outputs
            Number of columns that the network uses (D) and of outputs of the head (C), both >= 1.
        n_numbers
            Number of numeric columns among them, >= 0.
        categories
            ``(first column, number of columns)`` of each one-hot encoded category.

        Returns
        -------
        int
            Number of parameters, those of all submembers included.
        """
        n_inputs = check_integer("n_inputs", n_inputs, 1)
        n_outputs = check_integer("n_outputs", n_outputs, 1)
        embedded = self.n_embedded(check_integer("n_numbers", n_numbers, 0))
        # frequencies and phases; weights and biases of the outputs
        embedding = embedded * (2 * PERIODIC_FREQUENCIES + PERIODIC_OUTPUTS * (PERIODIC_FREQUENCIES + 1))
        for _, size in self.embedded(categories):
            embedding += size * category_dimension(size)
            n_inputs -= size - category_dimension(size)
        sizes = (n_inputs + PERIODIC_OUTPUTS * embedded, *self.widths, n_outputs)
        *hidden, head = (before * after for before, after in pairwise(sizes))
        neurons = sum(self.widths)
        shared = not self.shares_fully
        weights = sum(hidden) + self.submembers * head
        biases = (neurons if shared else self.submembers * neurons) + self.submembers * n_outputs
        norms = 2 * neurons if self.normalization == "layer" else 0
        scales = sizes[0] if self.has_scales else 0
        adapters = 0
        if self.submembers > 1 and self.widths:
            adapters = self.submembers * (sizes[0] if shared else sum(sizes[:-2]) + neurons)
        return weights + self.bias * biases + norms + embedding + scales + adapters

    def replace(self, **changes: Any) -> MLPConfig:
        """Return a copy with some fields changed."""
        _check_names(changes)
        return dataclass_replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as values that JSON can hold; `from_dict` is the inverse."""
        values: dict[str, Any] = {name: getattr(self, name) for name in FIELD_NAMES}
        values["widths"] = list(self.widths)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MLPConfig:
        """Return the configuration that a mapping of fields describes; other fields keep their defaults.

        Fields of :data:`REMOVED_FIELDS` are dropped if they do not change the network.

        Raises
        ------
        InvalidParameterError
            If a field is unknown, breaks its rule, or was removed and changes the network.
        """
        kept = {name: value for name, value in values.items() if name not in REMOVED_FIELDS}
        for name in values.keys() - kept.keys():
            check_removed(name, values[name])
        _check_names(kept)
        return cls(**kept)


_CHOICES = {
    "activation": ACTIVATIONS,
    "weight_decay_schedule": SCHEDULES,
    "dropout_schedule": SCHEDULES,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "initialization": INITIALIZATIONS,
    "head_initialization": HEAD_INITIALIZATIONS,
    "parametrization": PARAMETRIZATIONS,
    "normalization": NORMALIZATIONS,
    "numeric_embedding": NUMERIC_EMBEDDINGS,
    "numeric_scaling": NUMERIC_SCALINGS,
    "category_embedding": CATEGORY_EMBEDDINGS,
    "sharing": SHARINGS,
    "target_transform": TARGET_TRANSFORMS,
}

FIELD_NAMES: tuple[str, ...] = tuple(field.name for field in fields(MLPConfig))
"""Names of the fields of `MLPConfig`, in order."""


REMOVED_FIELDS: Mapping[str, float] = {"parametric_rate": 0.0, "feature_share": 1.0}
"""Fields that were removed after version 0.1.0, with the value that does not change the network."""


def check_removed(name: str, value: object) -> None:
    """Check that a removed field does not change the network.

    Raises
    ------
    InvalidParameterError
        If the value differs from that of :data:`REMOVED_FIELDS`.
    """
    neutral = REMOVED_FIELDS[name]
    if value != neutral:
        raise InvalidParameterError(
            f"{name} must be {neutral}, since it was removed after version 0.1.0, but got {value!r}: "
            "use parallelmlp-search 0.1.0"
        )


def _checked_widths(value: object) -> tuple[int, ...]:
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise InvalidParameterError(f"widths must be a sequence of integers >= 1, but got {value!r}")
    return tuple(check_integer("widths", width, 1) for width in value)


def _check_names(values: Mapping[str, object]) -> None:
    for name in values:
        if name not in FIELD_NAMES:
            hint = near_miss(str(name), FIELD_NAMES)
            raise InvalidParameterError(f"a configuration has no field {name!r}{hint}")
