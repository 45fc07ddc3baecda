"""Cuts, shapes, bridges and architectures."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from parallelmlp_search.engine.initialization import initial_vector
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.packing import Architecture
from parallelmlp_search.packing.pack import build_module, module_vector
from parallelmlp_search.parareal import (
    automatic_coarse,
    automatic_preprocessor,
    decompose,
    deep_config,
    deep_mlp,
    resnet,
    resnet1001,
    vgg16,
)
from parallelmlp_search.parareal.method.blocks import balanced_cuts, counted_cost, dry_run, measured_cost
from parallelmlp_search.parareal.method.recipe import FlatOptimizer, FlatParameters, Recipe
from parallelmlp_search.space import ColumnGroups, MLPConfig


@pytest.mark.parametrize(
    ("costs", "slices", "extras", "cuts"),
    [
        ([1.0] * 8, 2, {}, (4,)),
        ([1.0] * 8, 8, {}, (1, 2, 3, 4, 5, 6, 7)),  # one block a slice
        ([5.0, 1.0, 1.0, 1.0, 1.0, 1.0], 2, {}, (1,)),  # one block outweighs the others
        ([1.0] * 9, 2, {}, (4,)),  # the second has more time in any case
        ([1.0] * 8, 2, {"extra": 2.0}, (5,)),  # a preprocessor behind the cut
        ([1.0] * 8, 2, {"message": 1.0}, (3,)),  # two messages that the second slice need not wait for
        ([1.0] * 12, 3, {"message": 0.25, "sweep": 1.0}, (3, 7)),  # 3 with 4.5 with 6 to do in the time
        ([1.0] * 9, 3, {"message": 100.0}, (1, 2)),  # one block at least
        ([1.0] * 3, 3, {"extra": 9.0}, (1, 2)),  # dear ones, which cannot be avoided
        ([1.0] * 5, 1, {}, ()),
    ],
)
def test_cuts_balance_the_dearest_slice(
    costs: list[float], slices: int, extras: dict[str, float], cuts: tuple[int, ...]
) -> None:
    assert balanced_cuts(costs, slices, **extras) == cuts


def test_no_cut_is_better_than_the_balanced_one() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        costs = torch.rand(9, generator=generator).tolist()
        (cut,) = balanced_cuts(costs, 2)
        best = min(max(sum(costs[:k]), sum(costs[k:])) for k in range(1, 9))
        assert max(sum(costs[:cut]), sum(costs[cut:])) == pytest.approx(best)


def test_a_deep_mlp_is_the_network_that_a_population_trains() -> None:
    config = MLPConfig(widths=(8, 8, 6), residual=True, normalization="layer", dropout=0.2)
    network = deep_mlp(config, n_inputs=5, n_outputs=2)
    assert len(network) == 4
    plain = build_module(
        Architecture.of(config, n_inputs=5, n_outputs=2), module_vector(network), dropout=0.2
    )
    rows = torch.randn(9, 5)
    assert torch.equal(network.eval()(rows), plain.eval()(rows))


def test_an_embedding_belongs_to_the_first_block() -> None:
    # 11 is what five columns become, of which two are numbers: the first layer is residual
    config = MLPConfig(widths=(11, 8), residual=True, numeric_embedding="periodic", weight_decay=0.5)
    sizes = {"n_inputs": 5, "n_outputs": 2, "n_numbers": 2}
    architecture = Architecture.of(config, n_inputs=5, n_outputs=2, columns=ColumnGroups(n_numbers=2))
    vector = initial_vector(architecture, config.replace(seed=3)).float()
    network = deep_mlp(config, vector=vector, **sizes)
    assert len(network) == 3
    rows = torch.randn(9, 5)
    assert torch.equal(network(rows), build_module(architecture, vector)(rows))
    assert not torch.equal(network(rows), deep_mlp(config, **sizes)(rows))
    assert counted_cost(network[0], rows) > counted_cost(network[0][1], torch.randn(9, 11))


def test_embeddings_learn_slowly_and_phases_do_not_decay() -> None:
    """The first step of Adam has the size of the rate."""
    torch.manual_seed(0)
    config = MLPConfig(widths=(8,), numeric_embedding="periodic")
    network = deep_mlp(config, n_inputs=5, n_outputs=2, n_numbers=2).double()
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    recipe = Recipe(total_steps=5, learning_rate=0.01, weight_decay=2.0, schedule="constant")
    optimizer = FlatOptimizer(FlatParameters([network]), recipe)
    network(torch.randn(9, 5).double()).square().sum().backward()
    steps = {name: -0.01 * p.grad.sign() for name, p in network.named_parameters() if p.grad is not None}
    optimizer.step()
    assert len(steps) == 4 + 4
    for name, after in network.named_parameters():
        kind = name.rpartition(".")[2]
        share = 0.1 if kind in ("frequency", "phase", "mixing", "offset") else 1.0
        keep = 1.0 - share * 0.02 if kind in ("frequency", "mixing", "weight") else 1.0
        expected = before[name] * keep + share * steps[name]
        torch.testing.assert_close(after.detach(), expected, rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("factor", [1, 2, 1000])
def test_depth_is_scaled(factor: int) -> None:
    config = deep_config(MLPConfig(widths=(4,), submembers=3), factor)
    assert config.depth == factor
    assert config.submembers == 1  # what is cut into slices is one network
    assert config.residual is (factor > 1)
    network = deep_mlp(config, n_inputs=3, n_outputs=1)
    assert torch.isfinite(network(torch.randn(4, 3))).all()


@pytest.mark.parametrize("factor", [0, 1001, 2.5, True])
def test_no_such_depth(factor: object) -> None:
    with pytest.raises(InvalidParameterError, match="depth_factor must be"):
        deep_config(MLPConfig(), factor)  # type: ignore[arg-type]


def test_a_linear_model_cannot_be_deepened() -> None:
    with pytest.raises(InvalidParameterError, match="linear model"):
        deep_config(MLPConfig(widths=()), 4)


@pytest.mark.parametrize("slices", [2, 4])
@pytest.mark.parametrize("size", [28, 32])
def test_images_are_cut_by_the_same_function(slices: int, size: int) -> None:
    rows = torch.randn(3, 1, size, size)
    for model in (
        resnet(29, n_classes=5, channels=1, width=4),
        vgg16(n_classes=5, channels=1, size=size, width=8),
    ):
        network = decompose(model, slices, rows)
        before = [buffer.clone() for buffer in model.buffers()]
        outputs = network(rows)
        assert outputs.shape == (3, 5)
        outputs.sum().backward()
        assert all(p.grad is not None for p in network.parameters())
        assert sum(len(part.fine) for part in network.parts) == len(model) - 1
        assert all(torch.equal(a, b) for a, b in zip(before, model.buffers(), strict=True))


def test_the_depths_of_the_papers_networks() -> None:
    with torch.device("meta"):
        deep = resnet1001(n_classes=10)
        wide = vgg16(n_classes=10)
    on_path = [m for m in deep.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    projections = sum(getattr(block, "projection", None) is not None for block in deep)
    assert len(on_path) - projections == 1001
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in wide.modules()) == 16
    assert 10.2e6 < sum(p.numel() for p in deep.parameters()) < 10.4e6  # 10.3 million, as in the paper


@pytest.mark.parametrize("depth", [10, 12, 2])
def test_resnets_come_in_steps_of_nine_layers(depth: int) -> None:
    with pytest.raises(InvalidParameterError, match="9 n"):
        resnet(depth, n_classes=2)


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [((5,), (7,)), ((7,), (7,)), ((3, 8, 8), (6, 4, 4)), ((3, 8, 8), (6, 3, 3)), ((6, 4, 4), (6, 8, 8)),
     ((3, 8, 8), (5,)), ((3, 2, 2), (5,))],
)  # fmt: skip
def test_bridges_match_shapes(inputs: tuple[int, ...], outputs: tuple[int, ...]) -> None:
    rows = torch.randn(4, *inputs)
    for make in (automatic_preprocessor, automatic_coarse):
        assert make(inputs, outputs)(rows).shape == (4, *outputs)


def test_coarse_networks_of_vectors_correct_nothing_where_nothing_is_wrong() -> None:
    coarse = automatic_coarse((6,), (6,))
    assert torch.equal(coarse(torch.zeros(3, 6)), torch.zeros(3, 6))
    assert not torch.equal(coarse(torch.ones(3, 6)), torch.zeros(3, 6))


def test_no_rule_from_a_vector_to_an_image() -> None:
    with pytest.raises(InvalidParameterError, match=r"preprocessor has no rule from rows of shape \(5,\)"):
        automatic_preprocessor((5,), (3, 4, 4))


BLOCKS = [nn.Linear(4, 4) for _ in range(4)]
ROWS = torch.zeros(2, 4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": nn.Linear(4, 4)}, "model must be an nn.Sequential"),
        ({"model": nn.Sequential(nn.Linear(4, 4), nn.Linear(5, 4))}, "block 1 .Linear. refuses"),
        ({"model": nn.Sequential(nn.Flatten(0), nn.Linear(8, 1))}, "every block must map"),
        ({"slices": 0}, "slices must be an integer >= 1"),
        ({"slices": 4}, "slices must be at most 3"),
        ({"slices": True}, "slices must be an integer"),
        ({"head": 4}, "head must be"),
        ({"balance": "measure"}, "did you mean 'measured'"),
        ({"cuts": (1, 2)}, "cuts must be 1 growing"),
        ({"cuts": (3,)}, "cuts must lie between"),
        ({"coarse": [nn.Identity()] * 2}, "coarse must have one module"),
        ({"coarse": [nn.Linear(4, 3)]}, "coarse of slice 2 must give rows"),
        ({"preprocessor": [nn.Linear(3, 4)]}, "preprocessor of slice 2 must take rows"),
    ],
)
def test_mistakes(changes: dict[str, object], words: str) -> None:
    arguments = {"model": nn.Sequential(*BLOCKS), "slices": 2, "example": ROWS} | changes
    with pytest.raises(InvalidParameterError, match=words):
        decompose(**arguments)  # type: ignore[arg-type]


def test_cuts_of_ones_own_and_by_measured_cost() -> None:
    model = nn.Sequential(*BLOCKS)
    assert [len(part.fine) for part in decompose(model, 2, ROWS, cuts=(1,)).parts] == [1, 2]
    assert decompose(model, 2, ROWS, balance="measured").n_slices == 2


def test_copies_by_default_and_shares_on_request() -> None:
    model = nn.Sequential(*BLOCKS)
    ours = set(model.parameters())
    assert not ours & set(decompose(model, 2, ROWS).parameters())
    assert ours <= set(decompose(model, 2, ROWS, share=True).parameters())


def test_costs_grow_with_the_work() -> None:
    rows = torch.randn(64, 32)
    small, large = nn.Linear(32, 32), nn.Linear(32, 512)
    assert counted_cost(large, rows) > 2 * counted_cost(small, rows)
    assert measured_cost(nn.Sequential(*[nn.Linear(32, 32)] * 40), rows) > measured_cost(small, rows)
    (fact,) = dry_run([large], rows)
    assert (fact.inputs, fact.outputs, fact.parameters) == ((32,), (512,), 33 * 512)
