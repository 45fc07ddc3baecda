"""Buckets and shards: exact widths, merging by predicted cost, every member once."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallelmlp_search.packing import (
    Architecture,
    DataShape,
    Layout,
    cut_shards,
    flops_per_step,
    member_seconds,
    plan,
)
from parallelmlp_search.packing.bucketing import CACHE_ELEMENTS, MAX_EXACT_SHAPES
from parallelmlp_search.packing.cost import BUCKET_OVERHEAD_SECONDS, bucket_seconds, peak_rate
from parallelmlp_search.space import MLPConfig
from parallelmlp_search.space.config import ACTIVATIONS

WIDTHS = st.lists(st.integers(1, 64), max_size=3).map(tuple)
ARCHITECTURES = st.lists(
    st.builds(
        lambda widths, activation, bias: _architecture(widths, activation=activation, bias=bias),
        WIDTHS,
        st.sampled_from(["relu", "tanh", "sigmoid"]),
        st.booleans(),
    ),
    min_size=1,
    max_size=25,
)


def _architecture(widths: tuple[int, ...], n_outputs: int = 3, **fields: object) -> Architecture:
    return Architecture.of(MLPConfig(widths=widths).replace(**fields), DataShape(7, n_outputs))


def _seconds(layout: Layout, n_rows: int) -> float:
    return sum(bucket_seconds(bucket.shape, bucket.n_members, n_rows) for bucket in layout.buckets)


def _occupancy(layout: Layout) -> float:
    """Share of the flat buffer that holds parameters."""
    return sum(layout.architecture(m).n_parameters for m in range(layout.n_members)) / layout.size


@given(ARCHITECTURES)
def test_without_merging_every_bucket_has_exact_widths(architectures: list[Architecture]) -> None:
    layout = plan(architectures, merge=False)
    assert not any(bucket.is_padded for bucket in layout.buckets)
    for bucket in layout.buckets:
        assert {architecture.widths for architecture in bucket.architectures} == {bucket.shape.widths}
    shapes = {(architecture.family, architecture.widths) for architecture in architectures}
    assert len(layout.buckets) == len(shapes)


@given(ARCHITECTURES, st.sampled_from([1, 32, 256]))
def test_merging_never_costs_more_and_never_loses_a_member(
    architectures: list[Architecture], n_rows: int
) -> None:
    exact = plan(architectures, n_rows=n_rows, merge=False)
    merged = plan(architectures, n_rows=n_rows)
    assert _seconds(merged, n_rows) <= _seconds(exact, n_rows) * (1 + 1e-12)
    assert len(merged.buckets) <= len(exact.buckets)
    assert sorted(merged.members) == list(range(len(architectures)))


def test_small_buckets_merge_and_full_ones_do_not() -> None:
    few = [_architecture((15,)), _architecture((16,))]
    assert len(plan(few).buckets) == 1
    assert plan(few).buckets[0].shape.widths == (16,)
    # padding many members costs more than the calls of another bucket
    many = [_architecture((8,))] * 2000 + [_architecture((64,))] * 2000
    assert len(plan(many).buckets) == 2


@pytest.mark.parametrize("share", [0.5, 0.9, 1.1, 1.5])
def test_a_bucket_is_merged_until_padding_costs_more_than_its_calls(share: float) -> None:
    narrow, wide, wider = _architecture((9,)), _architecture((60,)), _architecture((61,))
    padding = member_seconds(wider, 8) - member_seconds(narrow, 8)
    count = round(share * BUCKET_OVERHEAD_SECONDS / padding)
    layout = plan([wide, wider, *[narrow] * count], n_rows=8)
    # the pair of almost equal width is merged in any case
    expected = [(61,)] if share < 1 else [(9,), (61,)]
    assert [bucket.shape.widths for bucket in layout.buckets] == expected


def test_layers_merge_to_a_width_that_neither_member_has() -> None:
    layout = plan([_architecture((3, 8), residual=True), _architecture((8, 3), residual=True)])
    (bucket,) = layout.buckets
    assert bucket.shape.widths == (8, 8)
    # both layers have the same width now, but no member has a residual connection
    assert bucket.shape.residual == (False, False)


@pytest.mark.parametrize(
    "changes",
    [
        {"bias": False},
        {"normalization": "layer"},
        {"optimizer": "sgd"},
        {"clip_norm": 1.0},
        {"widths": (16, 16)},  # another depth
    ],
)
def test_families_never_share_a_bucket(changes: dict[str, object]) -> None:
    plain = _architecture((16,))
    other = Architecture.of(MLPConfig(widths=(16,)).replace(**changes), DataShape(7, 3))
    assert len(plan([plain, other]).buckets) == 2
    assert len(plan([plain, plain]).buckets) == 1


def test_members_with_and_without_dropout_share_a_bucket() -> None:
    plain, dropping = _architecture((16,)), _architecture((16,), dropout=0.1)
    (bucket,) = plan([plain, dropping]).buckets
    assert bucket.shape.dropout
    # a full bucket without dropout saves its passes
    assert [b.shape.dropout for b in plan([plain] * 20_000 + [dropping] * 20_000).buckets] == [False, True]


@given(ARCHITECTURES, st.sampled_from([1, 500, 5000]))
def test_buckets_that_exceed_the_cache_are_split(architectures: list[Architecture], most: int) -> None:
    whole, split = plan(architectures, n_rows=8), plan(architectures, n_rows=8, bucket_elements=most)
    assert sorted(split.members) == list(range(len(architectures)))
    assert {bucket.shape.widths for bucket in split.buckets} == {b.shape.widths for b in whole.buckets}
    for bucket in split.buckets:
        size = bucket.n_members * 8 * (sum(bucket.shape.widths) + bucket.shape.n_outputs)
        assert bucket.n_members == 1 or size <= most


def test_a_split_keeps_activations_together() -> None:
    mixed = [_architecture((16,), activation=name) for _ in range(4) for name in ("relu", "tanh")]
    layout = plan(mixed, n_rows=10, bucket_elements=4 * 10 * (16 + 3))
    assert [[segment.activation for segment in b.segments] for b in layout.buckets] == [["relu"], ["tanh"]]


@given(ARCHITECTURES, st.randoms(use_true_random=False))
def test_the_order_of_members_decides_rows_but_not_shapes(
    architectures: list[Architecture], rng: random.Random
) -> None:
    order = list(range(len(architectures)))
    rng.shuffle(order)
    first = plan(architectures)
    second = plan([architectures[member] for member in order])
    assert [bucket.shape for bucket in first.buckets] == [bucket.shape for bucket in second.buckets]
    assert first.size == second.size


@pytest.mark.parametrize("depth", [1, 3])
def test_more_shapes_than_the_pairwise_merge_takes(depth: int) -> None:
    rng = random.Random(depth)
    shapes = {tuple(rng.randint(1, 300 // depth**2) for _ in range(depth)) for _ in range(400)}
    architectures = [_architecture(widths) for widths in sorted(shapes) for _ in range(2)]
    assert len(shapes) > MAX_EXACT_SHAPES
    layout = plan(architectures)
    assert sorted(layout.members) == list(range(len(architectures)))
    assert 1 <= len(layout.buckets) <= MAX_EXACT_SHAPES
    for bucket in layout.buckets:
        for layer, width in enumerate(bucket.shape.widths):
            assert width == max(architecture.widths[layer] for architecture in bucket.architectures)
    assert layout == plan(architectures)


def test_full_buckets_stay_exact_however_many_shapes_there_are() -> None:
    full = [_architecture((width,)) for width in range(1, MAX_EXACT_SHAPES + 10)] * 100
    exact, merged = plan(full, merge=False), plan(full)
    assert _seconds(merged, 128) <= _seconds(exact, 128)
    # with one member per shape they merge
    assert len(plan(full[: MAX_EXACT_SHAPES + 9]).buckets) < MAX_EXACT_SHAPES


def test_the_population_of_the_paper_has_little_padding() -> None:
    # widths 1 to 100, ten activations, ten repetitions: four more shapes than are merged pairwise
    one_of_each = [
        _architecture((width,), activation=activation)
        for width in range(1, 101)
        for activation in ACTIVATIONS[:10]
    ]
    architectures = one_of_each * 10
    layout = plan(architectures, n_rows=32)
    assert layout.n_members == 10_000
    assert _occupancy(layout) > 0.9


@given(ARCHITECTURES, st.sampled_from([1, 32, 500]), st.sampled_from([1, 2000, 20_000, CACHE_ELEMENTS]))
def test_shards_partition_the_members_and_keep_to_their_size(
    architectures: list[Architecture], n_rows: int, shard_elements: int
) -> None:
    shards = cut_shards(architectures, n_rows=n_rows, shard_elements=shard_elements)
    assert sorted(member for shard in shards for member in shard) == list(range(len(architectures)))

    def elements(shard: tuple[int, ...]) -> int:
        return sum((sum(architectures[m].widths) + architectures[m].n_outputs) * n_rows for m in shard)

    for shard in shards:
        assert len(shard) == 1 or elements(shard) <= shard_elements
    # greedy: the first member of the next shard would not have fitted
    for shard, following in pairwise(shards):
        assert elements((*shard, following[0])) > shard_elements
    assert shards == cut_shards(architectures, n_rows=n_rows, shard_elements=shard_elements)


def test_shards_of_all_members_and_of_one() -> None:
    architectures = [_architecture((width,)) for width in (1, 7, 31, 64)]
    assert len(cut_shards(architectures, n_rows=8)) == 1
    assert len(cut_shards(architectures, n_rows=8, shard_elements=1)) == 4
    assert cut_shards([], n_rows=8) == []


def test_a_shard_holds_like_shapes() -> None:
    narrow, wide = _architecture((8,)), _architecture((64,))
    shards = cut_shards([narrow, wide] * 4, n_rows=10, shard_elements=4 * (8 + 3) * 10)
    assert shards[0] == (0, 2, 4, 6)


def test_flops_counted_by_hand() -> None:
    # first layer forward and weight gradient; hidden layer and head forward and both gradients
    architecture = _architecture((5, 4), n_outputs=2)
    products = 4 * 7 * 5 + 6 * 5 * 4 + 6 * 4 * 2
    assert flops_per_step(architecture, 10) == products * 10 + 20 * architecture.n_parameters


@given(WIDTHS.filter(bool), st.integers(1, 500))
def test_costs_grow_with_width_rows_and_members(widths: tuple[int, ...], n_rows: int) -> None:
    small, large = _architecture(widths), _architecture(tuple(width + 1 for width in widths))
    assert flops_per_step(small, n_rows) < flops_per_step(large, n_rows)
    assert bucket_seconds(small, 1, n_rows) < bucket_seconds(small, 2, n_rows)
    # two buckets cost the calls of one more bucket
    once = bucket_seconds(small, 2, n_rows)
    twice = 2 * bucket_seconds(small, 1, n_rows)
    assert twice - once == pytest.approx(BUCKET_OVERHEAD_SECONDS * (1 + small.depth) / 2)


@given(WIDTHS, st.integers(1, 500), st.integers(0, 6))
def test_costs_grow_with_embedded_numbers(widths: tuple[int, ...], n_rows: int, n_numbers: int) -> None:
    fewer, more = (replace(_architecture(widths), n_periodic=n) for n in (n_numbers, n_numbers + 1))
    assert flops_per_step(fewer, n_rows) < flops_per_step(more, n_rows)
    assert member_seconds(fewer, n_rows) < member_seconds(more, n_rows)
    assert bucket_seconds(fewer, 3, n_rows) < bucket_seconds(more, 3, n_rows)
    assert fewer.n_activations < more.n_activations


@given(WIDTHS, st.integers(1, 500), st.integers(1, 40))
def test_costs_grow_with_submembers(widths: tuple[int, ...], n_rows: int, submembers: int) -> None:
    plain = _architecture(widths)
    fewer, more = (replace(plain, submembers=n) for n in (submembers, submembers + 1))
    assert flops_per_step(fewer, n_rows) < flops_per_step(more, n_rows)
    assert member_seconds(fewer, n_rows) < member_seconds(more, n_rows)
    assert bucket_seconds(fewer, 3, n_rows) < bucket_seconds(more, 3, n_rows)
    assert more.n_activations == (submembers + 1) * plain.n_activations
    # each submember has its own products and activations; all share one optimizer step
    count = submembers + 1
    saved = count * flops_per_step(plain, n_rows) - flops_per_step(more, n_rows)
    assert saved == 20 * (count * plain.n_parameters - more.n_parameters)


def test_submembers_count_where_buckets_and_shards_are_cut() -> None:
    plain = [_architecture((32,))] * 64
    shared = [replace(architecture, submembers=4) for architecture in plain]
    elements = 8 * 35 * 128  # eight plain networks
    for members, expected in ((plain, 8), (shared, 32)):
        assert len(plan(members, n_rows=128, bucket_elements=elements).buckets) == expected
        assert len(cut_shards(members, n_rows=128, shard_elements=elements)) == expected


def test_waves_count_where_buckets_and_shards_are_cut() -> None:
    plain = [_architecture((32,))] * 64
    embedded = [replace(architecture, n_periodic=5) for architecture in plain]
    options = {"n_rows": 128, "bucket_elements": 1 << 17}
    assert len(plan(embedded, **options).buckets) > len(plan(plain, **options).buckets)
    assert len(cut_shards(embedded, n_rows=128, shard_elements=1 << 17)) > len(
        cut_shards(plain, n_rows=128, shard_elements=1 << 17)
    )


def test_narrow_products_reach_less_of_the_peak() -> None:
    peak = peak_rate(10**9)
    shares = [peak_rate(width) / peak for width in (1, 8, 16, 32, 64, 128)]
    assert shares == sorted(shares)
    assert shares[0] < 0.1
    assert shares[2] == pytest.approx(0.5, abs=0.1)
    assert shares[-1] == pytest.approx(0.9, abs=0.05)


def test_a_fast_device_pads_more_to_launch_less() -> None:
    members = [_architecture((width,), activation="relu") for width in range(1, 101) for _ in range(10)]
    core, device = plan(members, n_rows=32), plan(members, n_rows=32, speed=200.0)
    assert len(device.buckets) < len(core.buckets) / 4
    assert _occupancy(device) < _occupancy(core)


@pytest.mark.parametrize("sharing", ["mini", "full"])
def test_submembers_cost_as_much_as_networks_except_for_the_optimizer(sharing: str) -> None:
    plain = _architecture((32, 16))
    shared = _architecture((32, 16), submembers=8, sharing=sharing)
    products = [flops_per_step(a, 64) - 20.0 * a.n_parameters for a in (plain, shared)]
    assert products[1] == 8 * products[0]
    assert 7 < member_seconds(shared, 64) / member_seconds(plain, 64) < 8
    assert shared.n_parameters < 3 * plain.n_parameters
