"""Sizes and kinds of one member's tensors, as far as they decide how it is packed. Free of torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from parallelmlp_search.space import NO_GROUPS, ColumnGroups, MLPConfig
from parallelmlp_search.space.config import PERIODIC_FREQUENCIES, PERIODIC_OUTPUTS, category_dimension

__all__ = ["EMBEDDING", "Architecture"]

EMBEDDING = -1
"""Layer of the blocks that lie before the first: a periodic embedding, scales of the inputs."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """Everything that decides which tensors a member has and which operations its training needs.

    The network sees ``n_inputs`` columns of the rows, those of ``columns`` (``(first, end)`` of each run,
    empty for all); the first ``n_periodic`` of them enter a periodic embedding. ``residual[l]`` says whether
    hidden layer ``l`` adds its own input; it is only ever true where both widths agree, and never of inputs
    with scales. ``dropout`` and ``clip`` say whether the member uses them at all, not how much; ``scaled``
    whether its inputs have scales. With more than one of
    ``submembers`` the member is an ensemble of so many, which share their weights in the way of ``sharing``;
    what it says is the mean of their outputs, or of the probabilities that those stand for if it
    ``classifies``. ``categories`` are ``(first, size)`` of the columns, among those that it sees, that stand
    for one category each and that it embeds.
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

    @classmethod
    def of(
        cls,
        config: MLPConfig,
        *,
        n_inputs: int,
        n_outputs: int,
        columns: ColumnGroups = NO_GROUPS,
        classifies: bool = False,
    ) -> Architecture:
        """The architecture that a configuration has on data of this size.

        Parameters
        ----------
        config
            The configuration.
        n_inputs
            Columns of the rows.
        n_outputs
            Outputs ``C``.
        columns
            What the columns are.
        classifies
            Whether the outputs are logits: one for two classes, or one a class.
        """
        runs = columns.seen_by(config, n_inputs)
        n_periodic = config.n_embedded(columns.n_numbers)
        n_seen = sum(end - first for first, end in runs)
        embedded = config.embedded(columns.without(n_inputs - n_seen).categories)
        n_inputs = n_seen
        scaled = config.has_scales
        fan_ins = (n_inputs + PERIODIC_OUTPUTS * n_periodic, *config.widths)
        return cls(
            n_inputs=n_inputs,
            widths=config.widths,
            n_outputs=n_outputs,
            activation=config.activation,
            bias=config.bias,
            normalization=config.normalization,
            residual=tuple(
                config.residual and width == fan_in and not ((scaled or embedded) and layer == 0)
                for layer, (width, fan_in) in enumerate(zip(config.widths, fan_ins, strict=False))
            ),
            optimizer=config.optimizer,
            dropout=config.dropout > 0,
            clip=config.clip_norm is not None,
            columns=runs,
            n_periodic=n_periodic,
            scaled=scaled,
            submembers=config.submembers,
            sharing="full" if config.shares_fully and config.widths else "mini",
            classifies=classifies and config.submembers > 1,
            categories=embedded,
        )

    @property
    def is_expanded(self) -> bool:
        """Whether it stands for other networks, plain ones, that are computed with weights of their own:
        several of them, or one that sees a column for each category."""
        return self.submembers > 1 or bool(self.categories)

    @property
    def expanded(self) -> Architecture:
        """Of each plain network that it stands for, into whose weights adapters and scales are multiplied."""
        if not self.is_expanded:
            return self
        return replace(self, submembers=1, sharing="mini", classifies=False, scaled=False, categories=())

    def has_adapter(self, layer: int, *, output: bool = False) -> bool:
        """Whether submembers multiply the inputs, or the outputs, of a layer by factors of their own.

        Heads have none, since each submember has its own.
        """
        if self.submembers == 1 or layer >= self.depth:
            return False
        return self.sharing == "full" or (layer == 0 and not output)

    @property
    def fan_in(self) -> int:
        """Inputs of the first layer: the columns, or what embeddings make of categories in their place, and
        what the embedding makes of the numbers."""
        saved = sum(size - category_dimension(size) for _, size in self.categories)
        return self.n_inputs - saved + PERIODIC_OUTPUTS * self.n_periodic

    def input_runs(self) -> Iterator[tuple[slice, slice, slice | None]]:
        """Runs of columns (with mixtures of numbers), of the inputs of the first layer that they become, and
        for those of categories of the embedding's block."""
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
        """Waves of the embedding for one row."""
        return PERIODIC_FREQUENCIES * self.n_periodic

    @property
    def n_activations(self) -> int:
        """Numbers that a row becomes inside the network: embedding, hidden layers, outputs; in each of the
        submembers."""
        embedded = self.n_waves + self.fan_in if self.n_periodic else 0
        return self.submembers * (embedded + sum(self.widths) + self.n_outputs)

    @property
    def depth(self) -> int:
        """Number of hidden layers."""
        return len(self.widths)

    @property
    def family(self) -> tuple[object, ...]:
        """What must agree before two members can share a bucket, whatever their widths and activations.

        Not dropout: at rate 0 its factors are exactly 1, so a member without may sit beside one with it.
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
        )

    def block_shapes(self) -> Iterator[tuple[int, str, int, int]]:
        """``(layer, kind, rows, columns)`` of each parameter tensor, in the canonical order.

        Kinds are ``weight`` (rows, columns), ``bias``, ``gain`` and ``shift`` (rows, 1).
        The last layer is the head. Layer :data:`EMBEDDING` has ``frequency`` and ``phase`` (numbers,
        frequencies), ``mixing`` (numbers times outputs, frequencies) and ``offset`` (numbers times outputs,
        1), ``category`` (categories times their numbers, 1), one column of the table after the other, and
        ``scale`` (inputs of the first layer, 1).

        Submembers have ``input_adapter`` and ``output_adapter`` (submembers, inputs or outputs of the layer),
        the latter with biases of their own, ``bias`` (submembers, outputs). Their heads lie one below the
        other.
        """
        if self.n_periodic:
            mixtures = PERIODIC_OUTPUTS * self.n_periodic
            yield EMBEDDING, "frequency", self.n_periodic, PERIODIC_FREQUENCIES
            yield EMBEDDING, "phase", self.n_periodic, PERIODIC_FREQUENCIES
            yield EMBEDDING, "mixing", mixtures, PERIODIC_FREQUENCIES
            yield EMBEDDING, "offset", mixtures, 1
        if self.categories:
            yield (
                EMBEDDING,
                "category",
                sum(size * category_dimension(size) for _, size in self.categories),
                1,
            )
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
