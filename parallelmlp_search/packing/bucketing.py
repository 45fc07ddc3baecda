"""Members into shards and buckets.

A shard is what one worker trains at a time: large enough that its buckets are full and the interpreter does
not matter, and small enough that there are several for the workers to share. The cut depends on the members
alone, never on the number of workers, so that results do not either.

Inside a shard, members of equal shape share a bucket. Where a bucket would hold few members, it is merged
upwards into a wider one if the cost model says that padding is cheaper than another round of calls. Where it
holds so many that their activations leave the cache of a core, it is split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from parallelmlp_search.packing.cost import bucket_seconds, member_bytes
from parallelmlp_search.packing.layout import Architecture, Layout, build_layout

__all__ = ["cut_shards", "plan"]

CACHE_ELEMENTS = 1 << 19
"""Hidden activations (width times rows) of a bucket, waves of embeddings included: 2 MiB a buffer in float32.

Measured with two hidden layers of 64 and 128 rows: 16 to 32 members at once, 2.8 times faster than 256."""

SHARD_ELEMENTS = 1 << 21
"""Hidden activations of a shard, whose buckets take turns in the cache.

Measured with 600 members of the default space (three members a bucket at 1 << 19): a quarter faster than
1 << 19, and no slower than 1 << 23."""

SHARD_NEURONS = 1 << 15
"""Hidden neurons of a shard, which count where batches are small.

A step of 32 rows does so little with each weight that it is bound by fetching weights and moments. Measured
with the paper's population: 6.6 us a member-step with 32,768 neurons, 9.9 with 65,536."""

MAX_EXACT_SHAPES = 96
"""Above this many distinct shapes of one family the pairwise merge first rounds widths up to a grid."""


Shape = tuple[int, ...]
"""Whether a bucket drops activations out (0 or 1), and its widths: what may grow when buckets merge."""


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
        Rows of a minibatch; only the cost model reads it.
    merge
        Whether small buckets may be merged upwards; with False every bucket has exact widths.
    bucket_elements
        Hidden activations that a bucket may have before it is split evenly; None for any number.
    speed
        How much faster than a core the device computes, for the cost model.

    Returns
    -------
    Layout
        Buckets in order of family and widths; the same members always give the same layout.
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
            # in the order of the rows of a bucket, so that a split keeps activations together
            rows = sorted(exact[shape], key=lambda member: (members[member].activation, member))
            groups.extend(
                (architecture, part) for part in _split(rows, architecture, n_rows, bucket_elements)
            )
    return build_layout(groups, members)


def _of_shape(template: Architecture, shape: Shape) -> Architecture:
    return replace(template, dropout=bool(shape[0]), widths=shape[1:])


def _split(rows: list[int], shape: Architecture, n_rows: int, elements: int | None) -> list[list[int]]:
    """Members of one shape in the fewest equal parts that fit the cache."""
    if elements is None:
        return [rows]
    most = max(1, elements // max(1, n_rows * shape.n_activations))
    n_parts = -(-len(rows) // most)
    size = -(-len(rows) // n_parts)
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _merge(
    exact: dict[Shape, list[int]], template: Architecture, n_rows: int, speed: float
) -> dict[Shape, list[int]]:
    """Join the pair of buckets that saves the most predicted time, until no pair saves any."""
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
        # ties are broken by the shapes themselves, so that the plan is a function of the members alone
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
    # rounding up comes without a look at its cost: where every shape is full it does not pay
    merged_seconds = sum(seconds(shape, len(rows)) for shape, rows in groups.items())
    exact_seconds = sum(seconds(shape, len(rows)) for shape, rows in exact.items())
    return groups if merged_seconds <= exact_seconds else exact


def _rounded_up(exact: dict[Shape, list[int]]) -> dict[Shape, list[int]]:
    """Round widths up to a grid that grows by about a sixth a step, coarser until few shapes are left."""
    step = 4
    while True:
        grid: dict[Shape, list[int]] = {}
        for shape in sorted(exact):
            rounded = (shape[0], *(_grid_width(width, step) for width in shape[1:]))
            grid.setdefault(rounded, []).extend(exact[shape])
        if len(grid) <= MAX_EXACT_SHAPES or step >= 1024:
            break
        step *= 2
    # a bucket is never wider than its widest member
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
    memory_limit: int | None = None,
) -> list[tuple[int, ...]]:
    """Cut members that share rows and batch size into shards.

    Members are sorted by shape first, so that a shard has few buckets. A shard always holds at least one
    member, however large.

    Parameters
    ----------
    architectures
        One per member.
    n_rows
        Rows of a minibatch.
    shard_elements
        Hidden activations (width times rows) that a shard may have; besides, it has at most
        :data:`SHARD_NEURONS` neurons.
    memory_limit
        Bytes that the training state of a shard may take.

    Returns
    -------
    list of tuple of int
        Member indices of each shard; together every member exactly once.
    """
    shard_elements = min(shard_elements, SHARD_NEURONS * n_rows)
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
    elements = n_bytes = 0
    for member in order:
        architecture = architectures[member]
        more = architecture.n_activations * n_rows
        more_bytes = member_bytes(architecture, n_rows)
        over_memory = memory_limit is not None and n_bytes + more_bytes > memory_limit
        if current and (elements + more > shard_elements or over_memory):
            shards.append(tuple(current))
            current, elements, n_bytes = [], 0, 0
        current.append(member)
        elements += more
        n_bytes += more_bytes
    if current:
        shards.append(tuple(current))
    return shards
