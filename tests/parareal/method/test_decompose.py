"""Decomposition: shapes, preprocessors and coarse networks, mistakes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.parareal import (
    automatic_coarse,
    automatic_preprocessor,
    decompose,
    resnet,
    vgg16,
)


@pytest.mark.parametrize("slices", [2, 4])
@pytest.mark.parametrize("size", [28, 32])
def test_image_networks_are_decomposed(slices: int, size: int) -> None:
    rows = torch.randn(3, 1, size, size)
    for model in (
        resnet(29, n_classes=5, channels=1, width=4),
        vgg16(n_classes=5, channels=1, size=size, width=8),
    ):
        before = [buffer.clone() for buffer in model.buffers()]
        network = decompose(model, slices, rows)
        assert all(torch.equal(a, b) for a, b in zip(before, model.buffers(), strict=True))
        fine = [buffer for part in network.parts for buffer in part.fine.buffers()]
        assert all(torch.equal(a, b) for a, b in zip(fine, before, strict=False))
        outputs = network(rows)
        assert outputs.shape == (3, 5)
        outputs.sum().backward()
        assert all(p.grad is not None for p in network.parameters())
        assert sum(len(part.fine) for part in network.parts) == len(model) - 1


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [((5,), (7,)), ((7,), (7,)), ((3, 8, 8), (6, 4, 4)), ((3, 8, 8), (6, 3, 3)), ((6, 4, 4), (6, 8, 8)),
     ((3, 8, 8), (5,)), ((3, 2, 2), (5,))],
)  # fmt: skip
def test_automatic_modules_match_shapes(inputs: tuple[int, ...], outputs: tuple[int, ...]) -> None:
    rows = torch.randn(4, *inputs)
    for make in (automatic_preprocessor, automatic_coarse):
        assert make(inputs, outputs)(rows).shape == (4, *outputs)


def test_coarse_networks_of_vectors_do_not_correct_a_correct_guess() -> None:
    coarse = automatic_coarse((6,), (6,))
    assert torch.equal(coarse(torch.zeros(3, 6)), torch.zeros(3, 6))
    assert not torch.equal(coarse(torch.ones(3, 6)), torch.zeros(3, 6))


def test_there_is_no_rule_from_a_vector_to_an_image() -> None:
    with pytest.raises(InvalidParameterError, match=r"no automatic module from rows of shape \(5,\)"):
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
        ({"cuts": "measure"}, "did you mean 'measured'"),
        ({"cuts": (1, 2)}, "cuts must be 1 growing"),
        ({"cuts": (3,)}, "cuts must lie between"),
        ({"coarse": [nn.Identity()] * 2}, "coarse must have one module"),
        ({"coarse": [nn.Linear(4, 3)]}, "coarse of slice 2 must give rows"),
        ({"preprocessor": [nn.Linear(3, 4)]}, "preprocessor of slice 2 must take rows"),
    ],
)
def test_mistakes_are_named(changes: dict[str, object], words: str) -> None:
    arguments = {"model": nn.Sequential(*BLOCKS), "slices": 2, "example": ROWS} | changes
    with pytest.raises(InvalidParameterError, match=words):
        decompose(**arguments)  # type: ignore[arg-type]


def test_cuts_are_given_or_measured() -> None:
    model = nn.Sequential(*BLOCKS)
    assert [len(part.fine) for part in decompose(model, 2, ROWS, cuts=(1,)).parts] == [1, 2]
    assert decompose(model, 2, ROWS, cuts="measured").n_slices == 2


def test_blocks_are_copied() -> None:
    model = nn.Sequential(*BLOCKS)
    network = decompose(model, 2, ROWS)
    assert not {*model.parameters()} & {*network.parameters()}
    assert torch.equal(network.parts[0].fine[0].weight, model[0].weight)
