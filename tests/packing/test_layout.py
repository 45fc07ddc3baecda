"""`Layout` and its parts: sizes, positions of members, no overlap."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallelmlp_search.packing import Architecture, Block, DataShape, Layout, MatmulLayout, Segment, plan
from parallelmlp_search.packing.layout import ALIGNMENT, aligned
from parallelmlp_search.space import ColumnGroups, MLPConfig
from parallelmlp_search.space.config import (
    ACTIVATIONS,
    NORMALIZATIONS,
    NUMERIC_EMBEDDINGS,
    OPTIMIZERS,
    SHARINGS,
)

CONFIGS = st.builds(
    MLPConfig,
    widths=st.lists(st.sampled_from([1, 2, 3, 5, 8, 13, 16, 31]), max_size=4).map(tuple),
    activation=st.sampled_from(ACTIVATIONS),
    dropout=st.sampled_from([0.0, 0.25]),
    optimizer=st.sampled_from(OPTIMIZERS),
    bias=st.booleans(),
    residual=st.booleans(),
    normalization=st.sampled_from(NORMALIZATIONS),
    clip_norm=st.sampled_from([None, 1.0]),
    numeric_embedding=st.sampled_from(NUMERIC_EMBEDDINGS),
    submembers=st.sampled_from([1, 1, 1, 2, 3]),
    sharing=st.sampled_from(SHARINGS),
)
POPULATIONS = st.lists(CONFIGS, min_size=1, max_size=12)


def _planned(
    configs: list[MLPConfig], *, n_inputs: int = 7, n_outputs: int = 3, merge: bool = True
) -> Layout:
    shapes = [Architecture.of(config, DataShape(n_inputs, n_outputs)) for config in configs]
    return plan(shapes, merge=merge)


@given(CONFIGS, st.integers(1, 20), st.integers(1, 10))
def test_parameters_are_counted_as_the_configuration_counts_them(
    config: MLPConfig, n_inputs: int, n_outputs: int
) -> None:
    n_numbers = n_inputs // 2
    groups = ColumnGroups(n_numbers=n_numbers)
    architecture = Architecture.of(config, DataShape(n_inputs, n_outputs, columns=groups))
    assert architecture.n_parameters == config.n_parameters(n_inputs, n_outputs, n_numbers=n_numbers)
    assert architecture.n_parameters != config.n_parameters(n_inputs + 1, n_outputs, n_numbers=n_numbers)
    assert architecture.depth == config.depth


@pytest.mark.parametrize(
    ("widths", "asked", "expected"),
    [
        ((7, 7, 5), True, (True, True, False)),  # the first layer adds the inputs where the widths agree
        ((7, 7, 5), False, (False, False, False)),
        ((5, 5, 7), True, (False, True, False)),  # as wide as the inputs, but not as the layer before
        ((7,), True, (True,)),
        ((), True, ()),  # a linear model
    ],
)
def test_residual_only_where_both_widths_agree(
    widths: tuple[int, ...], asked: bool, expected: tuple[bool, ...]
) -> None:
    config = MLPConfig(widths=widths, residual=asked)
    assert Architecture.of(config, DataShape(7, 3)).residual == expected


def test_amounts_do_not_matter_for_an_architecture() -> None:
    def of(**changes: object) -> Architecture:
        return Architecture.of(MLPConfig().replace(**changes), DataShape(7, 3))

    assert of(dropout=0.1) == of(dropout=0.9) != of(dropout=0.0)
    assert of(clip_norm=0.1) == of(clip_norm=9.0) != of(clip_norm=None)
    assert of(learning_rate=0.5, weight_decay=0.5, seed=3, batch_size=7) == of()
    assert of(optimizer="sgd").family != of().family
    assert of(sharing="full") == of()  # sharing needs several submembers
    assert len({of(submembers=K, sharing=s).family for K in (1, 2, 3) for s in ("mini", "full")}) == 5
    assert of(submembers=2, sharing="full", widths=()) == of(submembers=2, widths=())
    # activations and widths may share a bucket
    assert of(activation="tanh").family == of(widths=(9,)).family == of().family
    assert of(widths=(9, 9)).family != of().family


@pytest.mark.parametrize(("size", "expected"), [(0, 0), (1, 16), (15, 16), (16, 16), (17, 32)])
def test_aligned(size: int, expected: int) -> None:
    assert aligned(size) == expected


@given(POPULATIONS, st.booleans())
def test_every_member_has_one_position(configs: list[MLPConfig], merge: bool) -> None:
    layout = _planned(configs, merge=merge)
    assert sorted(layout.members) == list(range(len(configs))) == list(range(layout.n_members))
    for member, config in enumerate(configs):
        bucket_number, row = layout.positions[member]
        bucket = layout.buckets[bucket_number]
        assert bucket.members[row] == member
        assert layout.members[layout.row_offsets[bucket_number] + row] == member
        assert layout.architecture(member) == Architecture.of(config, DataShape(7, 3))
        assert bucket.architectures[row].family == bucket.shape.family
    assert layout.row_offsets[0] == 0
    assert layout.row_offsets[-1] == len(configs)


@given(POPULATIONS, st.booleans())
def test_blocks_are_aligned_and_never_overlap(configs: list[MLPConfig], merge: bool) -> None:
    layout = _planned(configs, merge=merge)
    spans: list[tuple[int, int]] = []
    for bucket in layout.buckets:
        assert [(b.layer, b.kind, b.rows, b.columns) for b in bucket.blocks] == list(
            bucket.shape.block_shapes()
        )
        for block in bucket.blocks:
            assert block.offset % ALIGNMENT == 0
            assert bucket.block(block.layer, block.kind) is block
            spans.append((block.offset, block.offset + bucket.n_members * block.row_size))
        assert bucket.block(99, "weight") is None
    spans.sort()
    assert all(first[1] <= second[0] for first, second in pairwise(spans))
    assert 0 == spans[0][0] <= spans[-1][1] <= layout.size < spans[-1][1] + ALIGNMENT


@given(POPULATIONS, st.booleans())
def test_segments_cut_a_bucket_into_runs_of_one_activation(configs: list[MLPConfig], merge: bool) -> None:
    for bucket in _planned(configs, merge=merge).buckets:
        assert bucket.segments[0].start == 0
        assert bucket.segments[-1].stop == bucket.n_members
        for first, second in pairwise(bucket.segments):
            assert first.stop == second.start
            assert first.activation != second.activation
        for segment in bucket.segments:
            rows = bucket.architectures[segment.start : segment.stop]
            assert {architecture.activation for architecture in rows} == {segment.activation}
        common = bucket.segments[0].activation if len(bucket.segments) == 1 else ""
        assert bucket.shape.activation == common


@given(POPULATIONS, st.booleans())
def test_padding_is_counted(configs: list[MLPConfig], merge: bool) -> None:
    layout = _planned(configs, merge=merge)
    assert layout.size >= sum(config.n_parameters(7, 3) for config in configs)
    for bucket in layout.buckets:
        assert bucket.is_padded == any(bucket.padded_layers())
        assert len(bucket.padded_layers()) == bucket.shape.depth
        for architecture in bucket.architectures:
            assert all(
                own <= wide for own, wide in zip(architecture.widths, bucket.shape.widths, strict=True)
            )
        # no bucket is wider than its widest member
        for layer, width in enumerate(bucket.shape.widths):
            assert width == max(architecture.widths[layer] for architecture in bucket.architectures)


def test_sizes_that_are_multiples_of_the_alignment_need_no_padding() -> None:
    aligned_members = _planned([MLPConfig(widths=(16,))] * 2, n_inputs=16, n_outputs=8)
    assert aligned_members.size == 2 * MLPConfig(widths=(16,)).n_parameters(16, 8)
    one = _planned([MLPConfig(widths=(16,))], n_inputs=16, n_outputs=8)
    assert one.size == MLPConfig(widths=(16,)).n_parameters(16, 8) + 8  # 8 biases in 16
    assert plan([]).size == plan([]).n_members == 0


@given(POPULATIONS, st.booleans())
def test_equal_members_give_equal_plans(configs: list[MLPConfig], merge: bool) -> None:
    first, second = _planned(configs, merge=merge), _planned(list(configs), merge=merge)
    assert first == second
    assert hash(first) == hash(second)
    assert len({first, second}) == 1
    # cached properties are not compared
    assert first.row_offsets == second.row_offsets
    assert hash(first) == hash(second)
    longer = _planned([*configs, MLPConfig()], merge=merge)
    assert longer != first


def test_plans_are_frozen() -> None:
    layout = _planned([MLPConfig()])
    parts: list[tuple[object, str]] = [
        (layout, "size"),
        (layout.buckets[0], "members"),
        (layout.buckets[0].blocks[0], "offset"),
        (layout.buckets[0].segments[0], "start"),
        (layout.architecture(0), "widths"),
        (MatmulLayout((1,), (1,)), "in_widths"),
    ]
    for part, name in parts:
        with pytest.raises(FrozenInstanceError):
            setattr(part, name, 3)
        hash(part)


def test_block_shapes_are_in_the_order_of_a_plain_networks_parameters() -> None:
    architecture = Architecture.of(MLPConfig(widths=(5,), normalization="layer"), DataShape(2, 3))
    assert list(architecture.block_shapes()) == [
        (0, "weight", 5, 2),
        (0, "bias", 5, 1),
        (0, "gain", 5, 1),
        (0, "shift", 5, 1),
        (1, "weight", 3, 5),
        (1, "bias", 3, 1),
    ]
    bare = replace(architecture, bias=False, normalization="none")
    assert list(bare.block_shapes()) == [(0, "weight", 5, 2), (1, "weight", 3, 5)]
    assert Block(0, "weight", 5, 2, 0).row_size == 10
    assert Segment("relu", 0, 2) != Segment("relu", 0, 3)


@pytest.mark.parametrize(
    ("in_widths", "out_widths", "runs"),
    [
        ((3,), (2,), ((1, 3, 2, 0, 0, 0),)),  # one member
        ((3, 3, 4), (2, 2, 2), ((2, 3, 2, 0, 0, 0), (1, 4, 2, 6, 4, 12))),  # a run of two
        ((3, 3), (2, 1), ((1, 3, 2, 0, 0, 0), (1, 3, 1, 3, 2, 6))),  # outputs alone break a run
        ((1, 2, 1), (1, 1, 1), ((1, 1, 1, 0, 0, 0), (1, 2, 1, 1, 1, 1), (1, 1, 1, 3, 2, 3))),  # not sorted
    ],
)
def test_runs_of_a_matmul_layout(
    in_widths: tuple[int, ...], out_widths: tuple[int, ...], runs: tuple[tuple[int, ...], ...]
) -> None:
    layout = MatmulLayout(in_widths, out_widths)
    assert layout.runs == runs
    assert sum(run[0] for run in layout.runs) == layout.n_members
    assert layout.n_in == sum(in_widths)
    assert layout.n_out == sum(out_widths)
    assert layout.n_weights == sum(i * o for i, o in zip(in_widths, out_widths, strict=True))
    assert {layout: 1}[MatmulLayout(in_widths, out_widths)] == 1
