"""One network and how it is trained, as plain values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from dataclasses import replace as dataclass_replace
from itertools import pairwise
from typing import Any

from parallelmlp_search.exceptions import InvalidParameterError, near_miss
from parallelmlp_search.space import checks

__all__ = [
    "ACTIVATIONS",
    "CATEGORY_DIMENSIONS",
    "CATEGORY_EMBEDDINGS",
    "FEW_CATEGORIES",
    "FIELD_NAMES",
    "HEAD_INITIALIZATIONS",
    "INITIALIZATIONS",
    "MAX_EMBEDDED",
    "NORMALIZATIONS",
    "NUMERIC_EMBEDDINGS",
    "NUMERIC_SCALINGS",
    "OPTIMIZERS",
    "PARAMETRIZATIONS",
    "PERIODIC_FREQUENCIES",
    "PERIODIC_OUTPUTS",
    "REMOVED_FIELDS",
    "SCHEDULES",
    "SHARINGS",
    "MLPConfig",
    "category_dimension",
    "check_removed",
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
    "data_driven",
)
HEAD_INITIALIZATIONS: tuple[str, ...] = ("same", "zero")
PARAMETRIZATIONS: tuple[str, ...] = ("standard", "neural_tangent")
NORMALIZATIONS: tuple[str, ...] = ("none", "layer")
NUMERIC_EMBEDDINGS: tuple[str, ...] = ("piecewise", "none", "periodic")
NUMERIC_SCALINGS: tuple[str, ...] = ("common", "quantile")
CATEGORY_EMBEDDINGS: tuple[str, ...] = ("none", "learned")
SHARINGS: tuple[str, ...] = ("mini", "full")

PERIODIC_FREQUENCIES = 16
"""Waves that a number becomes in a periodic embedding."""

PERIODIC_OUTPUTS = 3
"""Mixtures of its waves that join the inputs of the first layer."""

MAX_EMBEDDED = 64
"""Numbers of a table above which a periodic embedding embeds none: with 36 it triples the time of a network
of 128 and 128 neurons, and with the 784 of an image it would be some thirteen times that time."""

FEW_CATEGORIES = 8
"""Columns of a category that are not embedded, as there is nothing to save."""

CATEGORY_DIMENSIONS = 8
"""Numbers that a category becomes in a learned embedding, at most."""


def category_dimension(n_categories: int) -> int:
    """Numbers that each of so many categories becomes in a learned embedding."""
    return min(CATEGORY_DIMENSIONS, (n_categories + 1) // 2)


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
    weight_decay_schedule
        One of `SCHEDULES`, of the decay over the whole training, by which that of the learning rate is
        multiplied.
    dropout
        Share of hidden activations that are zeroed while training, in [0, 1).
    dropout_schedule
        One of `SCHEDULES`, of that share over the whole training.
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
        uniform within 1 / sqrt(fan in)). ``"data_driven"`` looks at training rows: every neuron starts with a
        variance of one over them, and with its zero near one of them.
    head_initialization
        ``"same"`` as the hidden layers, or ``"zero"``, so that all outputs start at zero.
    parametrization
        ``"standard"``, or ``"neural_tangent"``, in which the weights are ``W / sqrt(fan in)`` and the
        optimiser sees ``W``: wide layers learn more slowly. Weight decay keeps its own pace.
    bias_rate
        Learning rate of the biases in units of `learning_rate`, > 0.
    input_scale_rate
        Learning rate of a scale of each input, in the same units; 0 for no such scales. They start at 1, and
        weight decay reaches them.
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
    numeric_scaling
        One of `NUMERIC_SCALINGS`: ``"common"`` as the preprocessing scales numbers, or ``"quantile"``, the
        normal scores of their quantiles, for numbers with long tails.
    category_embedding
        One of `CATEGORY_EMBEDDINGS`: ``"none"``, one column a category, or ``"learned"``: each of more than 8
        categories becomes ``min(8, ceil(categories / 2))`` numbers, which the network learns.
    frequency_scale
        Standard deviation of the first frequencies of a periodic embedding, in waves a unit of the scaled
        number, > 0.
    embedding_rate
        Learning rate of a periodic embedding in units of `learning_rate`, > 0.
    submembers
        ``K`` >= 1: with more than one the network is an ensemble of so many that share their weights (TabM,
        Gorishniy et al. 2024). Each has a head and a loss of its own; what the network says is the mean of
        their outputs.
    sharing
        One of `SHARINGS`; counts only with more than one submember. ``"mini"``: submembers differ by a factor
        on each input of the first layer. ``"full"``: by factors on inputs and outputs and by the biases of
        every hidden layer.
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
    frequency_scale: float = 0.1
    embedding_rate: float = 0.1
    submembers: int = 1
    sharing: str = "mini"
    seed: int = 0

    def __post_init__(self) -> None:
        def keep(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        keep("widths", checks.widths(self.widths))
        keep("activation", checks.name("activation", self.activation, ACTIVATIONS))
        keep("optimizer", checks.name("optimizer", self.optimizer, OPTIMIZERS))
        keep("initialization", checks.name("initialization", self.initialization, INITIALIZATIONS))
        keep("normalization", checks.name("normalization", self.normalization, NORMALIZATIONS))
        keep("parametrization", checks.name("parametrization", self.parametrization, PARAMETRIZATIONS))
        head = checks.name("head_initialization", self.head_initialization, HEAD_INITIALIZATIONS)
        keep("head_initialization", head)
        embedding = checks.name("numeric_embedding", self.numeric_embedding, NUMERIC_EMBEDDINGS)
        keep("numeric_embedding", embedding)
        keep("numeric_scaling", checks.name("numeric_scaling", self.numeric_scaling, NUMERIC_SCALINGS))
        categories = checks.name("category_embedding", self.category_embedding, CATEGORY_EMBEDDINGS)
        keep("category_embedding", categories)
        keep("sharing", checks.name("sharing", self.sharing, SHARINGS))
        for name in ("schedule", "weight_decay_schedule", "dropout_schedule"):
            keep(name, checks.name(name, getattr(self, name), SCHEDULES))
        for name in ("learning_rate", "bias_rate", "frequency_scale", "embedding_rate"):
            keep(name, checks.positive(name, getattr(self, name)))
        for name in ("weight_decay", "input_scale_rate"):
            keep(name, checks.non_negative(name, getattr(self, name)))
        for name in ("dropout", "label_smoothing", "beta1", "beta2", "momentum"):
            keep(name, checks.share(name, getattr(self, name)))
        for name in ("bias", "residual"):
            keep(name, checks.switch(name, getattr(self, name)))
        for name in ("batch_size", "submembers"):
            keep(name, checks.whole(name, getattr(self, name), least=1))
        keep("seed", checks.whole("seed", self.seed, least=0))
        keep("clip_norm", None if self.clip_norm is None else checks.positive("clip_norm", self.clip_norm))

    @property
    def depth(self) -> int:
        """Number of hidden layers."""
        return len(self.widths)

    def identity(self) -> tuple[object, ...]:
        """Everything but the seed, hashable: two configurations that share it are the same choice."""
        return tuple(getattr(self, name) for name in FIELD_NAMES if name != "seed")

    @property
    def has_scales(self) -> bool:
        """True if each input has a learned scale."""
        return self.input_scale_rate > 0

    @property
    def shares_fully(self) -> bool:
        """Whether submembers differ by more than a factor on each input."""
        return self.submembers > 1 and self.sharing == "full"

    def n_embedded(self, n_numbers: int) -> int:
        """How many of a table's numbers the network embeds, which is all of them or none."""
        wanted = self.numeric_embedding == "periodic" and n_numbers <= MAX_EMBEDDED
        return n_numbers if wanted else 0

    def embedded(self, categories: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
        """Those of a table's ``(first column, columns)`` of categories that the network embeds."""
        if self.category_embedding == "none":
            return ()
        return tuple((first, size) for first, size in categories if size > FEW_CATEGORIES)

    def n_parameters(
        self, n_inputs: int, n_outputs: int, *, n_numbers: int = 0, categories: Iterable[tuple[int, int]] = ()
    ) -> int:
        """Trainable numbers of the network: weights, biases, LayerNorm's gains and shifts, embedding, scales,
        adapters of submembers.

        Parameters
        ----------
        n_inputs, n_outputs
            Columns that the network sees (D) and values that leave the head (C), both >= 1.
        n_numbers
            How many of the columns are numbers, >= 0.
        categories
            ``(first column, columns)`` of the columns that stand for one category each.
        """
        n_inputs = checks.whole("n_inputs", n_inputs, least=1)
        n_outputs = checks.whole("n_outputs", n_outputs, least=1)
        embedded = self.n_embedded(checks.whole("n_numbers", n_numbers, least=0))
        # frequencies and phases; weights and biases of the mixtures
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
        """Configuration from a mapping of field names; fields left out keep their defaults.

        Fields of :data:`REMOVED_FIELDS` are dropped where they change nothing.

        Raises
        ------
        InvalidParameterError
            If a field is unknown, breaks its rule, or was removed and changes the network.
        """
        kept = {name: value for name, value in values.items() if name not in REMOVED_FIELDS}
        for name in values.keys() - kept.keys():
            check_removed(name, values[name])
        _known(kept)
        return cls(**kept)


FIELD_NAMES: tuple[str, ...] = tuple(field.name for field in fields(MLPConfig))
"""Field names of `MLPConfig`, in their order."""


REMOVED_FIELDS: Mapping[str, float] = {"parametric_rate": 0.0, "feature_share": 1.0}
"""Fields that version 0.1.0 was the last to have, with the value at which they change nothing."""


def check_removed(name: str, value: object) -> None:
    """Refuse a value of a removed field that changes the network.

    Raises
    ------
    InvalidParameterError
        If the value is not the neutral one of :data:`REMOVED_FIELDS`.
    """
    neutral = REMOVED_FIELDS[name]
    if value != neutral:
        raise InvalidParameterError(
            f"{name} must be {neutral}, since it was removed after version 0.1.0, but got {value!r}: "
            "use parallelmlp-search 0.1.0"
        )


def _known(values: Mapping[str, object]) -> None:
    for name in values:
        if name not in FIELD_NAMES:
            hint = near_miss(str(name), FIELD_NAMES)
            raise InvalidParameterError(f"a configuration has no field {name!r}{hint}")
