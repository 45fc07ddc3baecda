"""Members into shards and buckets.

A shard is what one worker trains at a time: small enough that its activations and gradients stay in the
cache of one core, large enough that the interpreter does not matter. The cut depends on the members alone,
never on the number of workers, so that results do not either.

Inside a shard, members of equal shape share a bucket. Where a bucket would hold few members, it is merged
upwards into a wider one if the cost model says that padding is cheaper than another round of calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from parallelmlp_search.packing.cost import bucket_seconds, member_bytes
from parallelmlp_search.packing.layout import Architecture, Layout, build_layout

__all__ = ["cut_shards", "plan"]

CACHE_ELEMENTS = 1 << 19
"""Hidden activations (width times rows) of a shard: 2 MiB a buffer in float32.

Measured with two hidden layers of 64 and 128 rows: 16 to 32 members a shard, 2.8 times faster than 256."""

MAX_EXACT_SHAPES = 96
"""Above this many distinct shapes of one family the pairwise merge first rounds widths up to a grid."""


def plan(architectures: Sequence[Architecture], *, n_rows: int = 128, merge: bool = True) -> Layout:
    """Plan the flat buffer of a population.

    Parameters
    ----------
    architectures
        One per member.
    n_rows
        Rows of a minibatch; only the cost model reads it.
    merge
        Whether small buckets may be merged upwards; with False every bucket has exact widths.

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
        exact: dict[tuple[int, ...], list[int]] = {}
        for member in families[family]:
            exact.setdefault(members[member].widths, []).append(member)
        template = members[families[family][0]]
        if merge and len(exact) > 1:
            exact = _merge(exact, template, n_rows)
        groups.extend((replace(template, widths=widths), exact[widths]) for widths in sorted(exact))
    return build_layout(groups, members)


def _merge(
    exact: dict[tuple[int, ...], list[int]], template: Architecture, n_rows: int
) -> dict[tuple[int, ...], list[int]]:
    """Join the pair of buckets that saves the most predicted time, until no pair saves any."""
    start = _rounded_up(exact) if len(exact) > MAX_EXACT_SHAPES else exact
    groups = {widths: list(rows) for widths, rows in start.items()}

    def seconds(widths: tuple[int, ...], count: int) -> float:
        return bucket_seconds(replace(template, widths=widths), count, n_rows)

    def saving(first: tuple[int, ...], second: tuple[int, ...]) -> tuple[float, tuple[int, ...]]:
        union = tuple(max(pair) for pair in zip(first, second, strict=True))
        n_first, n_second = len(groups[first]), len(groups[second])
        apart = seconds(first, n_first) + seconds(second, n_second)
        return apart - seconds(union, n_first + n_second), union

    savings = {
        (first, second): saving(first, second) for first in groups for second in groups if first < second
    }
    while savings:
        # ties are broken by the widths themselves, so that the plan is a function of the members alone
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
    merged_seconds = sum(seconds(widths, len(rows)) for widths, rows in groups.items())
    exact_seconds = sum(seconds(widths, len(rows)) for widths, rows in exact.items())
    return groups if merged_seconds <= exact_seconds else exact


def _rounded_up(exact: dict[tuple[int, ...], list[int]]) -> dict[tuple[int, ...], list[int]]:
    """Round widths up to a grid that grows by about a sixth a step, coarser until few shapes are left."""
    step = 4
    while True:
        grid: dict[tuple[int, ...], list[int]] = {}
        for widths in sorted(exact):
            rounded = tuple(_grid_width(width, step) for width in widths)
            grid.setdefault(rounded, []).extend(exact[widths])
        if len(grid) <= MAX_EXACT_SHAPES or step >= 1024:
            break
        step *= 2
    # a bucket is never wider than its widest member
    tight: dict[tuple[int, ...], list[int]] = {}
    by_member = {member: widths for widths, rows in exact.items() for member in rows}
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
    cache_elements: int = CACHE_ELEMENTS,
    memory_limit: int | None = None,
) -> list[tuple[int, ...]]:
    """Cut members that share rows and batch size into shards that fit a core's cache.

    Members are sorted by shape first, so that a shard has few buckets. A shard always holds at least one
    member, however large.

    Parameters
    ----------
    architectures
        One per member.
    n_rows
        Rows of a minibatch.
    cache_elements
        Hidden activations that a shard may have.
    memory_limit
        Bytes that the training state of a shard may take.

    Returns
    -------
    list of tuple of int
        Member indices of each shard; together every member exactly once.
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
    elements = n_bytes = 0
    for member in order:
        architecture = architectures[member]
        more = (sum(architecture.widths) + architecture.n_outputs) * n_rows
        more_bytes = member_bytes(architecture, n_rows)
        over_memory = memory_limit is not None and n_bytes + more_bytes > memory_limit
        if current and (elements + more > cache_elements or over_memory):
            shards.append(tuple(current))
            current, elements, n_bytes = [], 0, 0
        current.append(member)
        elements += more
        n_bytes += more_bytes
    if current:
        shards.append(tuple(current))
    return shards
