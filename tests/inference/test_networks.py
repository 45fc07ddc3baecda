"""Plain layers in NumPy against the plain modules of torch, for every kind of member."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parallelmlp_search.engine.heads import head_predictions
from parallelmlp_search.inference.forward import network_outputs
from parallelmlp_search.inference.networks import (
    PlainNetworks,
    TrainedNetwork,
    member_blocks,
    plain_networks,
)
from parallelmlp_search.inference.outputs import mean_predictions
from parallelmlp_search.packing import Architecture, Head, plan
from parallelmlp_search.packing.pack import build_module, write_member
from parallelmlp_search.space import ACTIVATIONS

N_ROWS = 9
PLAIN = Architecture(n_inputs=7, widths=(6, 5), n_outputs=2)
CATEGORIES = ((3, 10),)


def trained(
    architecture: Architecture, seed: int, places: Any = None
) -> tuple[TrainedNetwork, torch.nn.Module]:
    """A network with random parameters, which is packed beside a wider one, and its plain module."""
    generator = torch.Generator().manual_seed(seed)
    vector = 0.7 * torch.randn(architecture.n_parameters, generator=generator)
    wider = replace(architecture, widths=tuple(width + 3 for width in architecture.widths))
    members = [architecture] if any(architecture.residual) else [wider, architecture]
    layout = plan(members, n_rows=10_000)
    flat = torch.zeros(layout.size)
    write_member(flat, layout, len(members) - 1, vector)
    blocks = member_blocks(flat.numpy(), layout, len(members) - 1)
    n_columns = max(end for _, end in architecture.columns or ((0, architecture.n_inputs),))
    places = np.arange(n_columns) if places is None else places
    return TrainedNetwork(architecture, blocks, places), build_module(architecture, vector).eval()


def outputs_of(module: torch.nn.Module, architecture: Architecture, rows: np.ndarray[Any, Any]) -> Any:
    ranges = architecture.columns or ((0, architecture.n_inputs),)
    seen = np.concatenate([rows[:, first:end] for first, end in ranges], axis=1)
    with torch.inference_mode():
        return module(torch.from_numpy(seen)).numpy()


def joined(outputs: np.ndarray[Any, Any], architecture: Architecture) -> np.ndarray[Any, Any]:
    """Outputs ``(n, C)`` of one fold from those of its submembers ``(1, K, n, C)``."""
    if not architecture.classifies:
        return outputs[0].mean(axis=0)
    logs = np.log(mean_predictions([Head("multiclass", architecture.n_outputs)], outputs))
    return logs


def assert_equal_networks(architecture: Architecture, seed: int = 0) -> None:
    network, module = trained(architecture, seed)
    rows = np.random.default_rng(seed).normal(size=(N_ROWS, len(network.places))).astype(np.float32)
    found = joined(network_outputs(plain_networks([network]), rows[None]), architecture)
    expected = outputs_of(module, architecture, rows)
    if architecture.classifies:
        expected = torch.from_numpy(expected).double().log_softmax(dim=1).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6 * max(1.0, np.abs(expected).max()))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(activation: str) -> None:
    assert_equal_networks(replace(PLAIN, activation=activation, normalization="layer"))
    assert_equal_networks(replace(PLAIN, activation=activation, submembers=3, sharing="full"))


@pytest.mark.parametrize(
    "changes",
    [
        {"widths": ()},
        {"widths": (1,)},
        {"widths": (8,) * 6},
        {"bias": False},
        {"bias": False, "normalization": "layer"},
        {"widths": (7, 7), "residual": (True, True)},
        {"widths": (6, 6), "residual": (False, True), "normalization": "layer"},
        {"scaled": True},
        {"scaled": True, "widths": ()},
        {"n_periodic": 2},
        {"n_periodic": 7, "widths": (28,), "residual": (True,)},
        {"n_periodic": 1, "scaled": True},
        {"n_inputs": 15, "categories": CATEGORIES},
        {"n_inputs": 15, "categories": CATEGORIES, "widths": ()},
        {"n_inputs": 25, "categories": ((2, 9), (13, 12)), "scaled": True, "n_periodic": 2},
        {"submembers": 4},
        {"submembers": 4, "scaled": True, "widths": ()},
        {"submembers": 4, "bias": False, "normalization": "layer"},
        {"submembers": 4, "sharing": "full", "bias": False},
        {"submembers": 4, "widths": (7, 7), "residual": (True, True), "sharing": "full"},
        {"submembers": 2, "n_inputs": 15, "categories": CATEGORIES, "scaled": True},
        {"submembers": 2, "n_inputs": 15, "categories": CATEGORIES, "widths": ()},
        {"submembers": 2, "n_inputs": 15, "categories": CATEGORIES, "n_periodic": 2, "sharing": "full"},
        {"submembers": 3, "classifies": True},
        {"columns": ((2, 9),)},
        {"columns": ((0, 3), (6, 10))},
        {"columns": ((0, 3), (6, 10)), "widths": (7, 7), "residual": (True, True)},
    ],
    ids=str,
)
def test_member_options(changes: dict[str, Any]) -> None:
    assert_equal_networks(replace(PLAIN, activation="silu", **changes))


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    n_categories = draw(st.integers(0, 2))
    n_periodic = draw(st.integers(0, 3))
    categories, first = [], n_periodic + draw(st.integers(0, 2))
    for _ in range(n_categories):
        size = draw(st.integers(9, 12))
        categories.append((first, size))
        first += size + draw(st.integers(0, 1))
    widths = tuple(draw(st.lists(st.integers(1, 9), max_size=3)))
    submembers = draw(st.integers(1, 3))
    return Architecture(
        n_inputs=max(1, first + draw(st.integers(0, 2))),
        widths=widths,
        n_outputs=draw(st.integers(2, 3)),
        activation=draw(st.sampled_from(ACTIVATIONS)),
        bias=draw(st.booleans()),
        normalization=draw(st.sampled_from(["none", "layer"])),
        n_periodic=n_periodic,
        scaled=draw(st.booleans()),
        submembers=submembers,
        sharing=draw(st.sampled_from(["mini", "full"])) if submembers > 1 and widths else "mini",
        categories=tuple(categories),
    )


@settings(max_examples=60)
@given(architectures(), st.integers(0, 99))
def test_any_combination_of_options(architecture: Architecture, seed: int) -> None:
    # hardshrink is discontinuous, and a layer norm of one neuron divides rounding errors by zero
    if architecture.activation == "hardshrink" or 1 in architecture.widths:
        architecture = replace(architecture, activation="silu", normalization="none")
    assert_equal_networks(architecture, seed)


def folds_of_other_columns() -> tuple[PlainNetworks, list[Any]]:
    """Networks of two folds that lack each other's columns, and their plain modules."""
    architecture = replace(PLAIN, n_inputs=5, widths=(5, 4), residual=(True, False), activation="tanh")
    places = [np.array([0, 1, 2, 5, 6]), np.array([0, 1, 3, 4, 6])]
    pairs = [trained(architecture, fold, mine) for fold, mine in enumerate(places)]
    networks = plain_networks([network for network, _ in pairs])
    return networks, [(module, mine) for (_, module), mine in zip(pairs, places, strict=True)]


def test_folds_may_have_other_columns() -> None:
    networks, modules = folds_of_other_columns()
    assert networks.columns == ((0, 7),)
    assert_folds_equal(networks, modules, 8)


@pytest.mark.parametrize("sharing", ["mini", "full"])
@pytest.mark.parametrize("submembers", [1, 3])
def test_folds_may_have_other_categories(submembers: int, sharing: str) -> None:
    """Some folds have a category less, an embedding of another dimension, or too few to embed."""
    places = [np.arange(14), np.delete(np.arange(14), 12), np.delete(np.arange(14), [10, 11, 12])]
    embedded = [((2, 11),), ((2, 10),), ()]
    options = {"submembers": submembers, "sharing": sharing if submembers > 1 else "mini"}
    shape = replace(PLAIN, widths=(11, 4), activation="tanh", scaled=True, **options)  # type: ignore[arg-type]
    pairs = [
        trained(replace(shape, n_inputs=len(mine), categories=categories), fold, mine)
        for fold, (mine, categories) in enumerate(zip(places, embedded, strict=True))
    ]
    networks = plain_networks([network for network, _ in pairs])
    assert len(networks.layers) == (3 if submembers == 1 else 4)
    assert_folds_equal(
        networks, [(module, mine) for (_, module), mine in zip(pairs, places, strict=True)], 14
    )


@pytest.mark.parametrize("residual_fold", [0, 1])
def test_a_first_layer_may_be_residual_in_one_fold_alone(residual_fold: int) -> None:
    """It is residual where the fold has as many inputs as the layer has neurons."""
    places = [np.arange(7), np.delete(np.arange(7), 3)]
    pairs = []
    for fold, mine in enumerate(places):
        residual = (fold == residual_fold, False)
        width = len(places[residual_fold])
        shape = replace(PLAIN, n_inputs=len(mine), widths=(width, 4), residual=residual)
        pairs.append(trained(shape, fold, mine))
    networks = plain_networks([network for network, _ in pairs])
    assert networks.layers[0].residual
    assert_folds_equal(networks, [(module, mine) for (_, module), mine in zip(pairs, places, strict=True)], 7)


def assert_folds_equal(networks: PlainNetworks, modules: list[Any], n_columns: int) -> None:
    rows = np.random.default_rng(0).normal(size=(len(modules), N_ROWS, n_columns)).astype(np.float32)
    outputs = network_outputs(networks, rows).mean(axis=1)
    for fold, (module, places) in enumerate(modules):
        with torch.inference_mode():
            expected = module(torch.from_numpy(rows[fold][:, places])).numpy()
        np.testing.assert_allclose(outputs[fold], expected, rtol=1e-5, atol=2e-6)


def test_folds_may_share_their_rows() -> None:
    pairs = [trained(replace(PLAIN, n_periodic=2, submembers=2), fold) for fold in range(3)]
    networks = plain_networks([network for network, _ in pairs])
    rows = np.random.default_rng(0).normal(size=(1, N_ROWS, 7)).astype(np.float32)
    outputs = network_outputs(networks, rows)
    assert outputs.shape == (3, 2, N_ROWS, 2)
    np.testing.assert_allclose(outputs, network_outputs(networks, rows.repeat(3, 0)), rtol=1e-5, atol=1e-6)
    for fold, (_, module) in enumerate(pairs):
        with torch.inference_mode():
            expected = module(torch.from_numpy(rows[0])).numpy()
        np.testing.assert_allclose(outputs[fold].mean(axis=0), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("task", "n_predictions"), [("binary", 2), ("multiclass", 4), ("regression", 3)])
def test_predictions_equal_those_of_tensors(task: Any, n_predictions: int) -> None:
    heads = [Head(task, n_predictions)] * 2
    if task == "regression":
        ranges = {"location": (1.0, 2.0, 3.0), "scale": (2.0, 0.5, 1.0), "lower": (-1.0, 1.5, -9.0)}
        heads = [Head(task, 3, **ranges, upper=(2.0, 2.5, top)) for top in (3.5, 9.0)]
    n_outputs = heads[0].n_outputs
    outputs = np.random.default_rng(0).normal(scale=4.0, size=(2, 1, 50, n_outputs)).astype(np.float32)
    outputs[0, 0, :2] = [[-800.0], [800.0]]
    tensors = torch.from_numpy(outputs[:, 0]).double().transpose(1, 2)
    each = [head_predictions(head, rows[None])[0] for head, rows in zip(heads, tensors, strict=True)]
    expected = torch.stack(each).mean(0).T.numpy()
    np.testing.assert_allclose(mean_predictions(heads, outputs), expected, rtol=1e-12, atol=1e-300)


def test_the_range_of_a_regression_limits_the_mean_of_submembers() -> None:
    head = Head("regression", 1, location=(0.0,), scale=(1.0,), lower=(-1.0,), upper=(1.0,))
    outputs = np.array([-3.0, 5.0], dtype=np.float32).reshape(1, 2, 1, 1)
    assert mean_predictions([head], outputs).item() == 1.0  # the mean of the limited outputs would be 0
