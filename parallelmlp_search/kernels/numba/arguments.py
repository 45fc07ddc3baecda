"""Arguments of the compiled loops as Python passes them: addresses and integers in one array.

This module does not import numba. The annotation of a field says how a loop reads it: ``Floats``,
``Doubles``, ``Integers`` and ``Flags`` are pointers to numbers of 4, 8, 8 and 1 bytes, ``int`` and ``float``
are numbers.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32]
Doubles: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]
Flags: TypeAlias = NDArray[np.bool_]

_ACTIVATIONS = "identity sigmoid tanh relu leaky_relu elu selu gelu silu mish hardshrink"
ACTIVATION_CODES = {name: code for code, name in enumerate(_ACTIVATIONS.split())}
"""Code of each activation that has a compiled loop. Members with the code -1 are skipped."""

_KINDS = "weight bias gain shift scale frequency phase mixing offset input_adapter output_adapter category"
KINDS = {kind: number for number, kind in enumerate(_KINDS.split())}
"""Number of each kind of block."""

CACHE_LINE = 16
"""Floats in a cache line."""

DIGIT_BITS, N_DIGITS = 11, 3
"""Bits of a digit and digits of a score of 32 bits, by which scores are sorted."""

N_DIGIT_COUNTS = N_DIGITS << DIGIT_BITS
"""Counts of the digits of scores."""

_DTYPES = {"Floats": np.float32, "Doubles": np.float64, "Integers": np.int64, "Flags": np.bool_}


class ActivationRows(NamedTuple):
    """Rows of activations, one per member.

    Attributes
    ----------
    source, target
        ``(P, K)``: values that are read, and values that are written or updated.
    codes
        ``(P,)``: code of the activation of each member, negative for members that are skipped.
    """

    source: Floats
    target: Floats
    codes: Integers
    n_members: int
    size: int


class GatheredBatches(NamedTuple):
    """Batches of several steps, gathered from a table.

    Attributes
    ----------
    table
        Rows of the table, ``stride`` numbers apart.
    numbers
        ``(T, n_true)``: row numbers.
    ranges
        ``(ranges, 2)``: first column and number of columns of each range that is copied.
    rows, columns
        ``(T, D, n_rows)`` and ``(T, n_true, n_columns)``: written, except for the padding.
    """

    table: Floats
    numbers: Integers
    ranges: Integers
    rows: Floats
    columns: Floats
    stride: int
    n_ranges: int
    n_steps: int
    n_true: int
    n_rows: int
    n_inputs: int
    n_columns: int


class NoiseFields(NamedTuple):
    """Uniform numbers of several steps, for dropout.

    Attributes
    ----------
    fields
        ``(T, layers, n_neurons, n_rows)``: written, the first neurons and rows of each field.
    widths
        ``(layers,)``: neurons of each layer that are written.
    scratch
        ``(10,)``.
    seed, first_step
        Seed of the batches, below 2^32, and number of the first step.
    n_true
        Rows that are written.
    """

    fields: Floats
    widths: Integers
    scratch: Integers
    seed: int
    first_step: int
    n_steps: int
    n_layers: int
    n_neurons: int
    n_true: int
    n_rows: int


class LossRows(NamedTuple):
    """Outputs of all members on the rows of a batch.

    Attributes
    ----------
    outputs, gradient
        ``(P, C, N)``: logits, and their gradient, which is written.
    classes
        ``(N,)``: class of each row.
    shares
        ``(N,)``: share of each row in the mean loss.
    smoothing, losses
        ``(P,)``: label smoothing, and losses, which are written.
    scratch
        ``(3, N)``.
    """

    outputs: Floats
    gradient: Floats
    classes: Integers
    shares: Floats
    smoothing: Floats
    losses: Floats
    scratch: Floats
    n_members: int
    n_outputs: int
    n_rows: int


class OptimizerStep(NamedTuple):
    """Step of AdamW, or of SGD with momentum, for a bucket in flat buffers.

    Attributes
    ----------
    parameters, gradients, first, second, average
        Flat buffers. SGD does not use `second`.
    blocks
        ``(blocks, 3)``: offset, size of a member's row, and 1 if weight decay applies.
    table
        ``(4, P)``: rate, keep, A and B of each member. SGD has the decay in place of keep.
    mixes
        ``(2, P)``: one minus each beta; SGD has the momentum in the first row.
    share
        Share of the new weights in their average, 0 for no update.
    adaptive
        1 for AdamW.
    """

    parameters: Floats
    gradients: Floats
    first: Floats
    second: Floats
    average: Floats
    blocks: Integers
    table: Floats
    mixes: Floats
    share: float
    n_blocks: int
    n_members: int
    adaptive: int


class Plan(NamedTuple):
    """Properties of a bucket for :func:`~parallelmlp_search.kernels.numba.training.member_steps`.

    Members without submembers are their own expanded networks.

    Attributes
    ----------
    parameters, first, second, averages
        Flat buffers of parameters, moments and averages.
    blocks, expanded
        ``(blocks, 7)``: blocks of a member and of an expanded network, see
        :class:`~parallelmlp_search.kernels.numba.member_memory.Blocks`.
    padded, expanded_padded
        ``(blocks, 2)``: rows and columns of the largest member.
    shapes, expanded_shapes
        ``(P, blocks, 2)``: true rows and columns.
    runs
        ``(runs, 5)``: see :class:`~parallelmlp_search.kernels.numba.compiled_members.Expansion`.
    codes
        ``(P,)``: code of the activation.
    settings
        ``(P, 4)``: label smoothing, largest norm of the gradient (infinite for none), and the two mixing
        coefficients of the optimizer.
    residual
        ``(layers,)``: true for a residual connection around a hidden layer.
    bounds
        ``(2, n_bounds)``: least and largest values of the elements of all padded blocks; empty for none.
    n_layers
        Number of layers with the head.
    n_numbers
        Number of columns with a periodic embedding.
    embedding_size
        Number of weights of the embeddings of categories.
    adaptive
        1 for AdamW, 0 for SGD.
    power
        Power of the Tweedie loss of a regression, in [1, 2]; 0 for the squared error.
    """

    parameters: Floats
    first: Floats
    second: Floats
    averages: Floats
    blocks: Integers
    padded: Integers
    shapes: Integers
    expanded: Integers
    expanded_padded: Integers
    expanded_shapes: Integers
    runs: Integers
    codes: Integers
    settings: Floats
    residual: Flags
    bounds: Floats
    n_members: int
    n_blocks: int
    n_expanded: int
    n_networks: int
    n_runs: int
    n_layers: int
    n_numbers: int
    embedding_size: int
    is_expanded: int
    has_residual: int
    adaptive: int
    power: float
    n_bounds: int


class Steps(NamedTuple):
    """Batches and schedule of several steps of a bucket.

    Attributes
    ----------
    rows, columns, classes, values, shares
        See :class:`~parallelmlp_search.kernels.numba.compiled_members.StepBatches`.
    tables
        ``(groups, T, 4, P)``: rate, keep, A and B of each member (see the optimizer).
    averaging
        ``(T,)``: share of the new weights in the average, 0 for no update.
    fields, rates
        ``(T, layers, H, N)`` and ``(T, P)``: uniform numbers and rates of dropout. Without dropout,
        `n_field_layers` is 0.
    alive
        ``(P,)``: false for members that are skipped.
    losses
        ``(T, P)``: written; 0 for members that are skipped.
    integers, workspace
        Memory of the loop.
    """

    rows: Floats
    columns: Floats
    classes: Integers
    values: Floats
    shares: Floats
    tables: Floats
    averaging: Floats
    fields: Floats
    rates: Floats
    alive: Flags
    losses: Floats
    integers: Integers
    workspace: Floats
    n_steps: int
    n_inputs: int
    n_true: int
    n_rows: int
    n_columns: int
    n_targets: int
    n_field_layers: int
    n_field_neurons: int
    is_regression: int
    of_labels: int


class RankedRows(NamedTuple):
    """Scores of all members on some rows, for the area under the ROC curve.

    Attributes
    ----------
    scores
        ``(P, N)``: finite.
    weights
        ``(N,)``: weight of each row, negative for rows of the negative class.
    areas
        ``(P,)``: written, the weight of the pairs of rows in the right order.
    scratch
        ``(2 N + N_DIGIT_COUNTS,)``.
    """

    scores: Floats
    weights: Doubles
    areas: Doubles
    scratch: Integers
    n_members: int
    n_rows: int


class OutputRows(NamedTuple):
    """Rows for which :func:`~parallelmlp_search.kernels.numba.prediction.member_outputs` computes outputs.

    Attributes
    ----------
    tiles
        ``(tiles, D, N)``: inputs, with padded rows.
    outputs
        ``(P, C, rows)``: written.
    fields
        Not read.
    integers, workspace
        Memory of the loop.
    """

    tiles: Floats
    outputs: Floats
    fields: Floats
    integers: Integers
    workspace: Floats
    n_tiles: int
    n_total: int
    n_inputs: int
    n_true: int
    n_rows: int
    n_columns: int
    n_field_layers: int
    n_field_neurons: int
    is_regression: int


@cache
def field_kinds(tuple_class: Any) -> list[str]:
    """Return the annotations of the fields of a named tuple of this module."""
    kinds = tuple_class.__annotations__.values()
    return [getattr(kind, "__forward_arg__", kind) for kind in kinds]


def pack(*parts: Any) -> Integers:
    """Return the fields of named tuples as an array of addresses and integers.

    The caller keeps the arrays alive as long as the result is used.

    Parameters
    ----------
    *parts
        Named tuples of this module.

    Returns
    -------
    ndarray of shape (fields,)
        Integers of 64 bits.

    Raises
    ------
    TypeError
        If an array has another dtype than its field or is not contiguous.
    """
    packed = []
    for part in parts:
        tuple_class: Any = type(part)
        for name, kind, value in zip(part._fields, field_kinds(tuple_class), part, strict=True):
            if kind == "int":
                packed.append(int(value))
            elif kind == "float":
                packed.append(int(np.float64(value).view(np.int64)))
            elif value.dtype != _DTYPES[kind] or not value.flags.c_contiguous:
                raise TypeError(f"{name} must be a contiguous array of {kind}, but is {value.dtype}")
            else:
                packed.append(value.__array_interface__["data"][0])
    return np.array(packed, dtype=np.int64)
