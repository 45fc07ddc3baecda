"""Division of members into shards and buckets.

A worker trains one shard at a time. On a CPU, a shard is large enough to fill its buckets and to hide the
overhead of the interpreter, and small enough that there are several shards for the workers. On a device, it
is as large as the memory allows. The division depends on the members and the device, never on the number of
workers, and so do results.

Inside a shard, members of equal shape share a bucket. A small bucket is merged into a wider one if the cost
model predicts that padding is cheaper than the calls of another bucket. A bucket whose activations exceed the
cache of a core is split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from parallelmlp_search.packing.architecture import Architecture
from parallelmlp_search.packing.cost import bucket_seconds
from parallelmlp_search.packing.layout import Layout, build_layout

CACHE_ELEMENTS = 1 << 19
"""Activations (width times rows) of a bucket, waves of embeddings included: 2 MiB per buffer in float32.

With two hidden layers of 64 and 128 rows, buckets of 16 to 32 members are 2.8 times faster than of 256."""

SHARD_ELEMENTS = 1 << 21
"""Activations of a shard on a CPU, whose buckets take turns in the cache.

With 600 members of the default space this is a quarter faster than 1 << 19 (three members per bucket) and as
fast as 1 << 23."""

SHARD_NEURONS = 1 << 15
"""Neurons of a shard on a CPU; the limit where batches are small.

A step on 32 rows is bound by fetching weights and moments. The population of the paper takes 6.6 us per
member-step with 32,768 neurons and 9.9 us with 65,536."""

MAX_EXACT_SHAPES = 96
"""With more distinct shapes of one family, widths are rounded up to a grid before buckets are merged."""

Shape = tuple[int, ...]
"""Dropout of a bucket (0 or 1) and its widths; the elementwise maximum is the shape of merged buckets."""


def plan(
    architectures: Sequence[Architecture],
    *,
    n_rows: int = 128,
    merge: bool = True,
    bucket_elements: int | None = None,
    speed: float = 1.0,
) -> Layout:
    """Plan the flat buffer of a population.

    Parameters
    ----------
    architectures
        One per member.
    n_rows
        Rows of a minibatch.
    merge
        True to merge small buckets into wider ones; with False every bucket has exact widths.
    bucket_elements
        Activations of a bucket above which it is split evenly, or None.
    speed
        Rate of products on the device relative to one core.

    Returns
    -------
    Layout
        Buckets in the order of family and widths. The same members always give the same layout.
    """
    members = list(architectures)
    families: dict[tuple[object, ...], list[int]] = {}
    for member, architecture in enumerate(members):
        families.setdefault(architecture.family, []).append(member)
    groups: list[tuple[Architecture, list[int]]] = []
    for family in sorted(families, key=repr):
        exact: dict[Shape, list[int]] = {}
        for member in families[family]:
            exact.setdefault((int(members[member].dropout), *members[member].widths), []).append(member)
        template = members[families[family][0]]
        if merge and len(exact) > 1:
            exact = _merge(exact, template, n_rows, speed)
        for shape in sorted(exact):
            architecture = _of_shape(template, shape)
            # sorted by activation, so that a split keeps each activation together
            rows = sorted(exact[shape], key=lambda member: (members[member].activation, member))
            groups.extend(
                (architecture, part) for part in _split(rows, architecture, n_rows, bucket_elements)
            )
    return build_layout(groups, members)


def _of_shape(template: Architecture, shape: Shape) -> Architecture:
    return replace(template, dropout=bool(shape[0]), widths=shape[1:])


def _split(rows: list[int], shape: Architecture, n_rows: int, elements: int | None) -> list[list[int]]:
    """Split members of one shape into the fewest equal parts that fit the cache."""
    if elements is None:
        return [rows]
    most = max(1, elements // max(1, n_rows * shape.n_activations))
    n_parts = -(-len(rows) // most)
    size = -(-len(rows) // n_parts)
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _merge(
    exact: dict[Shape, list[int]], template: Architecture, n_rows: int, speed: float
) -> dict[Shape, list[int]]:
    """Merge the pair of buckets that saves the most predicted time, until no pair saves any."""
    start = _rounded_up(exact) if len(exact) > MAX_EXACT_SHAPES else exact
    groups = {shape: list(rows) for shape, rows in start.items()}

    def seconds(shape: Shape, count: int) -> float:
        return bucket_seconds(_of_shape(template, shape), count, n_rows, speed)

    def saving(first: Shape, second: Shape) -> tuple[float, Shape]:
        union = tuple(max(pair) for pair in zip(first, second, strict=True))
        n_first, n_second = len(groups[first]), len(groups[second])
        apart = seconds(first, n_first) + seconds(second, n_second)
        return apart - seconds(union, n_first + n_second), union

    savings = {
        (first, second): saving(first, second) for first in groups for second in groups if first < second
    }
    while savings:
        # ties are broken by shape, so that the plan depends on the members alone
        (first, second), (gain, union) = max(savings.items(), key=lambda item: (item[1][0], item[0]))
        if gain <= 0:
            break
        rows = groups.pop(first) + groups.pop(second)
        groups[union] = groups.get(union, []) + rows
        savings = {
            pair: value for pair, value in savings.items() if not {first, second, union}.intersection(pair)
        }
        for other in groups:
            if other != union:
                pair = (min(other, union), max(other, union))
                savings[pair] = saving(*pair)
    # rounding up ignores the cost and does not pay if every bucket is full
    merged_seconds = sum(seconds(shape, len(rows)) for shape, rows in groups.items())
    exact_seconds = sum(seconds(shape, len(rows)) for shape, rows in exact.items())
    return groups if merged_seconds <= exact_seconds else exact


def _rounded_up(exact: dict[Shape, list[int]]) -> dict[Shape, list[int]]:
    """Round widths up to a grid with steps of about a sixth; coarsen it until few shapes remain."""
    step = 4
    while True:
        grid: dict[Shape, list[int]] = {}
        for shape in sorted(exact):
            rounded = (shape[0], *(_grid_width(width, step) for width in shape[1:]))
            grid.setdefault(rounded, []).extend(exact[shape])
        if len(grid) <= MAX_EXACT_SHAPES or step >= 1024:
            break
        step *= 2
    # buckets are as wide as their widest member
    tight: dict[Shape, list[int]] = {}
    by_member = {member: shape for shape, rows in exact.items() for member in rows}
    for rows in grid.values():
        widest = tuple(max(column) for column in zip(*(by_member[member] for member in rows), strict=True))
        tight.setdefault(widest, []).extend(rows)
    return tight


def _grid_width(width: int, step: int) -> int:
    spacing = max(step, 1 << max(0, width.bit_length() - 3))
    return -(-width // spacing) * spacing


def cut_shards(
    architectures: Sequence[Architecture],
    *,
    n_rows: int,
    shard_elements: int = SHARD_ELEMENTS,
    n_bytes: Sequence[int] | None = None,
    shard_bytes: int | None = None,
) -> list[tuple[int, ...]]:
    """Divide members that share rows and batch size into shards.

    Members are sorted by shape, so that a shard has few buckets. A shard holds at least one member.

    Parameters
    ----------
    architectures
        One per member.
    n_rows
        Rows of a minibatch.
    shard_elements
        Maximum number of activations (width times rows) of a shard.
    n_bytes, shard_bytes
        Memory of each member in training, and maximum of a shard; None for no limit.

    Returns
    -------
    list of tuple of int
        Indices of the members of each shard.
    """
    order = sorted(
        range(len(architectures)),
        key=lambda member: (
            repr(architectures[member].family),
            architectures[member].widths,
            architectures[member].activation,
            member,
        ),
    )
    shards: list[tuple[int, ...]] = []
    current: list[int] = []
    elements = used = 0
    for member in order:
        more = architectures[member].n_activations * n_rows
        memory = 0 if n_bytes is None else n_bytes[member]
        too_large = shard_bytes is not None and used + memory > shard_bytes
        if current and (elements + more > shard_elements or too_large):
            shards.append(tuple(current))
            current, elements, used = [], 0, 0
        current.append(member)
        elements += more
        used += memory
    if current:
        shards.append(tuple(current))
    return shards
