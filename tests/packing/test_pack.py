"""Conversion of plain networks into packed tensors and back, bit for bit."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from parallelmlp_search.engine.network import PackedNetwork
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.packing import Architecture, plan
from parallelmlp_search.packing.modules import Residual, Sine
from parallelmlp_search.packing.pack import (
    block_rows,
    build_module,
    extract,
    module_architecture,
    module_vector,
    pack,
    read_member,
    write_member,
)
from parallelmlp_search.packing.submembers import AdaptedLinear, SubmemberHeads, SubmemberMean, Submembers
from parallelmlp_search.space.config import ACTIVATIONS, NORMALIZATIONS, SHARINGS

D, C = 5, 3


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    widths = tuple(draw(st.lists(st.sampled_from([1, 2, 3, 5, 7, 16]), max_size=4)))
    n_periodic = draw(st.sampled_from([0, 0, 2, D]))
    fan_ins = (D + 3 * n_periodic, *widths)
    scaled = draw(st.booleans())
    submembers = draw(st.sampled_from([1, 1, 2, 5]))
    return Architecture(
        n_inputs=D,
        widths=widths,
        n_outputs=C,
        # without a hidden layer the activation cannot be read back
        activation=draw(st.sampled_from(ACTIVATIONS)) if widths else "identity",
        bias=draw(st.booleans()),
        normalization=draw(st.sampled_from(NORMALIZATIONS)) if widths else "none",
        residual=tuple(
            width == fan_in and not (scaled and layer == 0) and draw(st.booleans())
            for layer, (width, fan_in) in enumerate(zip(widths, fan_ins, strict=False))
        ),
        dropout=bool(widths) and draw(st.booleans()),
        n_periodic=n_periodic,
        scaled=scaled,
        submembers=submembers,
        sharing=draw(st.sampled_from(SHARINGS)) if widths and submembers > 1 else "mini",
        classifies=submembers > 1 and draw(st.booleans()),
    )


POPULATIONS = st.lists(architectures(), min_size=1, max_size=8)


def _network(architecture: Architecture) -> nn.Sequential:
    return build_module(architecture, dropout=0.5 if architecture.dropout else 0.0).double().eval()


@given(POPULATIONS, st.booleans(), st.integers(0, 1000))
def test_a_packed_network_comes_back_bit_for_bit(shapes: list[Architecture], merge: bool, seed: int) -> None:
    torch.manual_seed(seed)
    networks = [_network(shape) for shape in shapes]
    layout, flat = pack(networks, merge=merge)
    rows = torch.randn(4, D, dtype=torch.float64)
    for member, (shape, network) in enumerate(zip(shapes, networks, strict=True)):
        assert layout.architecture(member) == shape
        copy = extract(flat, layout, member)
        assert torch.equal(copy(rows), network(rows))
        assert torch.equal(module_vector(copy), module_vector(network))
        assert torch.equal(read_member(flat, layout, member), module_vector(network))
    # a copy has its own weights
    before = flat.clone()
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter.add_(1.0)
    assert torch.equal(flat, before)
    assert not torch.equal(copy(rows), network(rows))


@given(POPULATIONS, st.booleans(), st.integers(0, 1000))
def test_the_packed_network_computes_what_the_plain_ones_do(
    shapes: list[Architecture], merge: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    networks = [_network(shape) for shape in shapes]
    layout, flat = pack(networks, merge=merge)
    rows = torch.randn(11, D, dtype=torch.float64)
    # seven rows at a time: the second window overlaps the first
    outputs = PackedNetwork(layout, 7, dtype=torch.float64).predict(flat, rows)
    for row, member in enumerate(layout.members):
        with torch.no_grad():
            expected = networks[member](rows).T
        torch.testing.assert_close(outputs[row], expected, rtol=1e-10, atol=1e-10)


@given(POPULATIONS)
def test_writing_one_member_leaves_all_others_and_the_padding(shapes: list[Architecture]) -> None:
    layout = plan(shapes)
    flat = torch.full((layout.size,), -1.0)
    vectors = [torch.arange(shape.n_parameters, dtype=torch.float32) for shape in shapes]
    for member, vector in enumerate(vectors):
        write_member(flat, layout, member, vector)
    for member, vector in enumerate(vectors):
        assert torch.equal(read_member(flat, layout, member), vector)
    assert int((flat == -1.0).sum()) == layout.size - sum(shape.n_parameters for shape in shapes)


@pytest.mark.parametrize("n_elements", [0, 22, 24, 1000])
def test_a_vector_of_another_size_is_refused_before_anything_is_written(n_elements: int) -> None:
    layout = plan([Architecture(2, (4,), 2, bias=False, activation="relu"), Architecture(2, (3,), 3)])
    assert layout.architecture(1).n_parameters == 21
    flat = torch.zeros(layout.size)
    with pytest.raises(
        InvalidParameterError, match=rf"shape \(21,\) for member 1, but got \({n_elements},\)"
    ):
        write_member(flat, layout, 1, torch.ones(n_elements))
    assert not flat.any()


def test_blocks_are_views() -> None:
    layout, flat = pack([_network(Architecture(D, (4,), C)), _network(Architecture(D, (4,), C, bias=False))])
    biased = layout.buckets[layout.positions[0][0]]
    block = biased.block(0, "bias")
    assert block is not None
    view = block_rows(flat, biased, block)
    assert view.shape == (1, 4)
    view.fill_(7.0)
    assert (dict(extract(flat, layout, 0).named_parameters())["0.bias"] == 7.0).all()
    assert layout.buckets[layout.positions[1][0]].block(0, "bias") is None
    assert biased.block(0, "gain") is None


@pytest.mark.parametrize(
    ("widths", "residual", "normalization", "dropout", "expected"),
    [
        ((), (), "none", 0.0, ["Linear"]),
        ((4,), (False,), "none", 0.0, ["Linear", "Tanh", "Linear"]),
        ((4,), (), "none", 0.0, ["Linear", "Tanh", "Linear"]),  # residual left at its default
        ((4,), (False,), "layer", 0.1, ["Linear", "LayerNorm", "Tanh", "Dropout", "Linear"]),
        ((D,), (True,), "none", 0.0, ["Residual", "Linear"]),
    ],
)
def test_plain_networks_have_ordinary_modules(
    widths: tuple[int, ...],
    residual: tuple[bool, ...],
    normalization: str,
    dropout: float,
    expected: list[str],
) -> None:
    architecture = Architecture(
        D, widths, C, activation="tanh", residual=residual, normalization=normalization
    )
    network = build_module(architecture, dropout=dropout)
    assert [type(part).__name__ for part in network] == expected
    assert sum(parameter.numel() for parameter in network.parameters()) == architecture.n_parameters


def test_sine_and_residual() -> None:
    x = torch.linspace(-3, 3, 12).view(4, 3)
    assert torch.equal(Sine()(x), torch.sin(x))
    block = Residual(nn.Linear(3, 3), Sine())
    assert torch.equal(block(x), x + torch.sin(block[0](x)))
    assert not torch.equal(block(x), torch.sin(block[0](x)))


def test_dropout_modules_are_packed_and_left_out_unless_asked_for() -> None:
    network = nn.Sequential(nn.Linear(D, 4), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4, C)).eval()
    layout, flat = pack([network])
    assert layout.architecture(0).dropout
    rows = torch.randn(3, D)
    assert torch.equal(extract(flat, layout, 0)(rows), network(rows))
    assert [type(part) for part in extract(flat, layout, 0)] == [nn.Linear, nn.ReLU, nn.Linear]
    (dropout,) = [part for part in extract(flat, layout, 0, dropout=0.25) if isinstance(part, nn.Dropout)]
    assert dropout.p == 0.25


def test_modules_without_effect_are_accepted() -> None:
    spelled_out = nn.Sequential(nn.Linear(D, 4), nn.ReLU(inplace=True), nn.Linear(4, C))
    assert module_architecture(spelled_out).activation == "relu"
    # two linear maps in a row are a network whose activation is the identity
    assert module_architecture(nn.Sequential(nn.Linear(D, 4), nn.Linear(4, C))) == Architecture(
        D, (4,), C, activation="identity", residual=(False,)
    )
    assert module_architecture(nn.Sequential(nn.Linear(D, 4), nn.Identity(), nn.Linear(4, C))).widths == (4,)


def test_submembers_survive_a_round_trip() -> None:
    shared = nn.Sequential(
        Submembers(3), AdaptedLinear(3, D, 4), nn.ReLU(), L(4, 4), nn.ReLU(), SubmemberHeads(3, 4, C),
        SubmemberMean(classifies=True),
    )  # fmt: skip
    layout, flat = pack([shared])
    assert layout.architecture(0) == Architecture(
        D, (4, 4), C, residual=(False, False), submembers=3, classifies=True
    )
    rows = torch.randn(6, D)
    assert torch.equal(extract(flat, layout, 0)(rows), shared(rows))
    assert shared(rows).shape == (6, C)
    assert shared[:-1](rows).shape == (6, 3, C)
    assert "submembers=3, in_features=5, out_features=4, bias=True, full=False" in repr(shared)
    # each submember has its own signs and its own head
    assert set(shared[1].input_adapter.unique().tolist()) <= {-1.0, 1.0}
    alone = shared[:-1](rows)
    with torch.no_grad():
        shared[5].weight[:C] += 1.0
    changed = shared[:-1](rows)
    assert not torch.equal(changed[:, 0], alone[:, 0])
    assert torch.equal(changed[:, 1:], alone[:, 1:])


L = nn.Linear


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (nn.Sequential(L(D, 4), nn.PReLU(), L(4, C)), "known activations, but got PReLU"),
        (nn.Sequential(L(D, 4), nn.BatchNorm1d(4), nn.ReLU(), L(4, C)), "but got BatchNorm1d"),
        (nn.Sequential(nn.Sequential(L(D, 4), nn.ReLU()), L(4, C)), "but got Sequential"),  # nested
        (nn.Sequential(L(D, 4), nn.ReLU(), L(4, 4), nn.Tanh(), L(4, C)), r"activations \['relu', 'tanh'\]"),
        (nn.Sequential(nn.ReLU()), "but got 0 Linear"),
        (nn.Sequential(), "but got 0 Linear"),
        # the right modules in another order or with other settings
        (nn.Sequential(nn.ReLU(), L(D, 4), L(4, C)), "expected Linear.* next, but got ReLU"),
        (nn.Sequential(L(D, 4), nn.ReLU(), L(4, C), nn.ReLU()), "expected nothing more next, but got ReLU"),
        (nn.Sequential(L(D, 4), nn.ReLU(), L(4, 4), L(4, C)), "expected ReLU.* next, but got Linear"),
        (nn.Sequential(L(D, 4), nn.ReLU(), nn.LayerNorm(4), L(4, C)), "expected LayerNorm.* but got ReLU"),
        (nn.Sequential(L(D, 4), nn.GELU(approximate="tanh"), L(4, C)), "got GELU.approximate='tanh'"),
        (nn.Sequential(L(D, 4), nn.LeakyReLU(0.2), L(4, C)), "got LeakyReLU.negative_slope=0.2"),
        (nn.Sequential(L(D, 4), nn.ELU(alpha=2.0), L(4, C)), "got ELU.alpha=2.0"),
        (nn.Sequential(L(D, 4), nn.LayerNorm(4, eps=1e-3), nn.ReLU(), L(4, C)), "eps=0.001"),
        (
            nn.Sequential(L(D, 4, bias=False), nn.ReLU(), L(4, C)),
            "bias=False.* next, but got Linear.*bias=True",
        ),
        (nn.Sequential(Submembers(2), L(D, 4), nn.ReLU(), L(4, C)), "expected AdaptedLinear.*got Linear"),
        (
            nn.Sequential(Submembers(2), AdaptedLinear(2, D, 4), nn.ReLU(), SubmemberHeads(2, 4, C)),
            "expected SubmemberMean.* next, but got nothing more",
        ),
        (
            nn.Sequential(
                Submembers(2), AdaptedLinear(3, D, 4), nn.ReLU(), SubmemberHeads(2, 4, C), SubmemberMean()
            ),
            "got AdaptedLinear.submembers=3",
        ),
        (
            nn.Sequential(
                Submembers(2),
                AdaptedLinear(2, D, 4, full=True),
                nn.ReLU(),
                AdaptedLinear(2, 4, 4),
                nn.ReLU(),
                SubmemberHeads(2, 4, C),
                SubmemberMean(),
            ),
            "got AdaptedLinear.*full=False",
        ),
        (
            nn.Sequential(Residual(L(D, 4), nn.ReLU(), L(4, D), nn.ReLU()), L(D, C)),
            "expected the end of Residual",
        ),
    ],
)
def test_networks_that_cannot_be_packed_are_refused(network: nn.Sequential, words: str) -> None:
    with pytest.raises(InvalidParameterError, match=words):
        pack([network])


def test_nothing_to_pack() -> None:
    with pytest.raises(InvalidParameterError, match="at least one network, but got none"):
        pack([])


def test_packing_does_not_use_the_random_state() -> None:
    network = _network(Architecture(D, (4,), C))
    state = torch.get_rng_state()
    pack([network])
    assert torch.equal(torch.get_rng_state(), state)


def test_extracting_keeps_the_precision() -> None:
    for dtype in (torch.float32, torch.float64):
        layout, flat = pack([_network(replace(Architecture(D, (4,), C), residual=(False,))).to(dtype)])
        assert flat.dtype == dtype
        assert {parameter.dtype for parameter in extract(flat, layout, 0).parameters()} == {dtype}


def test_building_a_network_imports_no_compiler_and_draws_no_number() -> None:
    program = """
import sys, torch
from parallelmlp_search.packing import Architecture, DataShape
from parallelmlp_search.packing.pack import build_module
from parallelmlp_search.space import ColumnGroups, MLPConfig
config = MLPConfig(widths=(4,), numeric_embedding="periodic", input_scale_rate=2.0)
shape = Architecture.of(config, DataShape(5, 2, ColumnGroups(n_numbers=3), classifies=True))
state = torch.get_rng_state()
build_module(shape, torch.zeros(shape.n_parameters, dtype=torch.float64))
assert torch.equal(state, torch.get_rng_state())
print(sorted({"sympy", "torch._dynamo", "triton"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]"]
