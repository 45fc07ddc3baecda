"""Shapes and kinds of one member's tensors, as far as they decide how it is packed. Free of torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from parallelmlp_search.space import NO_GROUPS, ColumnGroups, MLPConfig, check_monotone
from parallelmlp_search.space.config import PERIODIC_FREQUENCIES, PERIODIC_OUTPUTS, category_dimension

EMBEDDING = -1
"""Layer number of the blocks before the first layer: embeddings and input scales."""


@dataclass(frozen=True, slots=True)
class DataShape:
    """Inputs and outputs that the data prescribes for every network.

    Attributes
    ----------
    n_inputs, n_outputs
        Columns ``D`` of the rows and outputs ``C`` of the network.
    columns
        Groups of the columns.
    classifies
        True if the outputs are logits: one for two classes, else one per class.
    """

    n_inputs: int
    n_outputs: int
    columns: ColumnGroups = NO_GROUPS
    classifies: bool = False


@dataclass(frozen=True, slots=True)
class Architecture:
    """Properties of a member that decide on its tensors and on the operations of its training.

    Attributes
    ----------
    n_inputs
        Columns that the network uses, which are the ranges ``(first, end)`` in `columns`; no range means all
        columns. The first `n_periodic` of them have a periodic embedding.
    residual
        For each hidden layer, True if it adds its input. Both widths are equal then, and the input has
        no scales, embedded categories or monotone columns.
    dropout, clip, scaled
        True if the member uses dropout, gradient clipping, input scales. Their amounts do not matter.
    submembers, sharing
        With more than one submember the member is an ensemble whose submembers share weights.
    classifies
        True if predictions of submembers are averaged as probabilities and not as outputs.
    categories
        ``(first, size)`` of the one-hot columns, among the used ones, of each embedded category.
    signs
        ``(first, end, sign)`` of the used columns in which the outputs may only grow (1) or fall (-1), see
        :mod:`parallelmlp_search.packing.monotone`.
    """

    n_inputs: int
    widths: tuple[int, ...]
    n_outputs: int
    activation: str = "relu"
    bias: bool = True
    normalization: str = "none"
    residual: tuple[bool, ...] = ()
    optimizer: str = "adamw"
    dropout: bool = False
    clip: bool = False
    columns: tuple[tuple[int, int], ...] = ()
    n_periodic: int = 0
    scaled: bool = False
    submembers: int = 1
    sharing: str = "mini"
    classifies: bool = False
    categories: tuple[tuple[int, int], ...] = ()
    signs: tuple[tuple[int, int, int], ...] = ()

    @classmethod
    @lru_cache(maxsize=1 << 14)  # planning asks for the same ones again and again
    def of(cls, config: MLPConfig, data: DataShape) -> Architecture:
        """Return the architecture of a configuration on data of a shape.

        Raises
        ------
        InvalidParameterError
            If there are monotone columns, and networks of the configuration cannot be monotone.
        """
        signs = data.columns.signs_seen_by(config, data.n_inputs)
        if signs:
            check_monotone(config)
        ranges = data.columns.seen_by(config, data.n_inputs)
        n_periodic = config.n_embedded(data.columns.n_numbers)
        n_inputs = sum(end - first for first, end in ranges)
        embedded = config.embedded(data.columns.kept_by(config, data.n_inputs).categories)
        scaled = config.has_scales
        fan_ins = (n_inputs + PERIODIC_OUTPUTS * n_periodic, *config.widths)
        return cls(
            n_inputs=n_inputs,
            widths=config.widths,
            n_outputs=data.n_outputs,
            activation=config.activation,
            bias=config.bias,
            normalization=config.normalization,
            residual=tuple(
                config.residual and width == fan_in and not ((scaled or embedded or signs) and layer == 0)
                for layer, (width, fan_in) in enumerate(zip(config.widths, fan_ins, strict=False))
            ),
            optimizer=config.optimizer,
            dropout=config.dropout > 0,
            clip=config.clip_norm is not None,
            columns=ranges,
            n_periodic=n_periodic,
            scaled=scaled,
            submembers=config.submembers,
            sharing="full" if config.shares_fully and config.widths else "mini",
            classifies=data.classifies and config.submembers > 1,
            categories=embedded,
            signs=signs,
        )

    @property
    def is_expanded(self) -> bool:
        """True if the member is computed as plain networks whose weights are derived from its own.

        These are its submembers, or one network whose inputs are the one-hot columns of embedded categories.
        """
        return self.submembers > 1 or bool(self.categories)

    @property
    def expanded(self) -> Architecture:
        """Architecture of each of these plain networks; adapters and scales are part of their weights."""
        if not self.is_expanded:
            return self
        return replace(self, submembers=1, sharing="mini", classifies=False, scaled=False, categories=())

    def has_adapter(self, layer: int, *, output: bool = False) -> bool:
        """Return True if submembers have their own factors on the inputs, or outputs, of a layer.

        Heads have none, since each submember has its own head.
        """
        if self.submembers == 1 or layer >= self.depth:
            return False
        return self.sharing == "full" or (layer == 0 and not output)

    @property
    def fan_in(self) -> int:
        """Inputs of the first layer, after embeddings."""
        saved = sum(size - category_dimension(size) for _, size in self.categories)
        return self.n_inputs - saved + PERIODIC_OUTPUTS * self.n_periodic

    def input_runs(self) -> Iterator[tuple[slice, slice, slice | None]]:
        """Yield runs of columns with the inputs of the first layer that they become.

        Columns include the outputs of the periodic embedding. For the one-hot columns of a category the third
        item are their elements of the block ``category``.
        """
        column = place = start = 0
        for first, size in self.categories:
            plain = first - column
            if plain:
                yield slice(column, first), slice(place, place + plain), None
            column, place = first + size, place + plain
            dimension = category_dimension(size)
            stop = start + size * dimension
            yield slice(first, column), slice(place, place + dimension), slice(start, stop)
            place, start = place + dimension, stop
        if place < self.fan_in:
            rest = self.fan_in - place
            yield slice(column, column + rest), slice(place, place + rest), None

    @property
    def n_waves(self) -> int:
        """Waves of the periodic embedding for one row."""
        return PERIODIC_FREQUENCIES * self.n_periodic

    @property
    def n_activations(self) -> int:
        """Intermediate values and outputs for one row, over all submembers."""
        embedded = self.n_waves + self.fan_in if self.n_periodic else 0
        return self.submembers * (embedded + sum(self.widths) + self.n_outputs)

    @property
    def depth(self) -> int:
        """Number of hidden layers."""
        return len(self.widths)

    @property
    def family(self) -> tuple[object, ...]:
        """Properties on which members of one bucket agree.

        Widths and activations may differ. Dropout may too: at rate 0 its factors are exactly 1.
        """
        return (
            self.depth,
            self.columns,
            self.n_periodic,
            self.n_inputs,
            self.n_outputs,
            self.bias,
            self.normalization,
            self.residual,
            self.optimizer,
            self.clip,
            self.scaled,
            self.submembers,
            self.sharing,
            self.classifies,
            self.categories,
            self.signs,
        )

    def block_shapes(self) -> Iterator[tuple[int, str, int, int]]:
        """Yield layer, kind, rows and columns of each parameter tensor, in canonical order.

        Layers have ``weight`` (outputs, inputs), ``bias``, ``gain`` and ``shift`` (outputs, 1). Layer
        :data:`EMBEDDING` has ``frequency`` and ``phase`` (numbers, frequencies), ``mixing`` (numbers times
        outputs, frequencies), ``offset`` (numbers times outputs, 1), ``category`` (all elements, 1) and
        ``scale`` (inputs of the first layer, 1). Submembers have ``input_adapter`` and ``output_adapter``
        (submembers, inputs or outputs), their heads one below the other in one ``weight``, and with full
        sharing ``bias`` (submembers, outputs).
        """
        if self.n_periodic:
            mixtures = PERIODIC_OUTPUTS * self.n_periodic
            yield EMBEDDING, "frequency", self.n_periodic, PERIODIC_FREQUENCIES
            yield EMBEDDING, "phase", self.n_periodic, PERIODIC_FREQUENCIES
            yield EMBEDDING, "mixing", mixtures, PERIODIC_FREQUENCIES
            yield EMBEDDING, "offset", mixtures, 1
        if self.categories:
            size = sum(size * category_dimension(size) for _, size in self.categories)
            yield EMBEDDING, "category", size, 1
        if self.scaled:
            yield EMBEDDING, "scale", self.fan_in, 1
        fan_in = self.fan_in
        for layer, width in enumerate((*self.widths, self.n_outputs)):
            n_heads = self.submembers if layer == self.depth else 1
            own_biases = self.has_adapter(layer, output=True)
            if self.has_adapter(layer):
                yield layer, "input_adapter", self.submembers, fan_in
            yield layer, "weight", n_heads * width, fan_in
            if own_biases:
                yield layer, "output_adapter", self.submembers, width
            if self.bias:
                rows, columns = (self.submembers, width) if own_biases else (n_heads * width, 1)
                yield layer, "bias", rows, columns
            if self.normalization == "layer" and layer < self.depth:
                yield layer, "gain", width, 1
                yield layer, "shift", width, 1
            fan_in = width

    @property
    def n_parameters(self) -> int:
        """Number of trained scalars of one member."""
        return sum(rows * columns for _, _, rows, columns in self.block_shapes())
