"""`MLPConfig`: rules of the fields, round trips and numbers of parameters."""

from __future__ import annotations

import json
import pickle
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.space.config import (
    ACTIVATIONS,
    FIELD_NAMES,
    INITIALIZATIONS,
    MAX_EMBEDDED,
    NORMALIZATIONS,
    OPTIMIZERS,
    SCHEDULES,
    SHARINGS,
    MLPConfig,
)

SHARES = st.floats(0.0, 1.0, exclude_max=True)
CONFIGS = st.builds(
    MLPConfig,
    widths=st.lists(st.integers(1, 300), max_size=5).map(tuple),
    activation=st.sampled_from(ACTIVATIONS),
    learning_rate=st.floats(1e-12, 1e30),
    weight_decay=st.floats(0.0, 1e3),
    dropout=SHARES,
    label_smoothing=SHARES,
    optimizer=st.sampled_from(OPTIMIZERS),
    beta1=SHARES,
    beta2=SHARES,
    momentum=SHARES,
    schedule=st.sampled_from(SCHEDULES),
    batch_size=st.integers(1, 10_000),
    initialization=st.sampled_from(INITIALIZATIONS),
    bias=st.booleans(),
    residual=st.booleans(),
    normalization=st.sampled_from(NORMALIZATIONS),
    clip_norm=st.none() | st.floats(1e-6, 1e6),
    submembers=st.integers(1, 99),
    sharing=st.sampled_from(SHARINGS),
    seed=st.integers(0, 2**63),
)


@given(CONFIGS)
def test_round_trips(config: MLPConfig) -> None:
    assert MLPConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert pickle.loads(pickle.dumps(config)) == config
    assert config.replace() == config


@given(CONFIGS, st.integers(0, 2**31))
def test_identity_ignores_only_the_seed(config: MLPConfig, seed: int) -> None:
    assert hash(config.replace(seed=seed).identity()) == hash(config.identity())
    assert config.replace(seed=seed).identity() == config.identity()
    assert config.replace(batch_size=config.batch_size + 1).identity() != config.identity()
    assert config.replace(bias=not config.bias).identity() != config.identity()


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("widths", (8, 0), "widths must be an integer >= 1, but got 0"),
        ("widths", 64, "widths must be a sequence"),
        ("widths", "64", "widths must be a sequence"),
        ("widths", (8.5,), r"but got 8\.5"),
        ("activation", "rellu", "did you mean 'relu'"),
        ("activation", 3, "activation must be one of"),
        ("learning_rate", -3, "learning_rate must be a finite number > 0, but got -3"),
        ("learning_rate", float("nan"), "learning_rate must be a finite number > 0, but got nan"),
        ("learning_rate", float("inf"), "but got inf"),
        ("learning_rate", "0.1", "but got '0.1'"),
        ("weight_decay", -1e-9, "weight_decay must be a finite number >= 0"),
        ("dropout", 1.0, r"dropout must be a number in \[0, 1\), but got 1\.0"),
        ("dropout", True, "but got True"),
        ("label_smoothing", -0.1, r"label_smoothing must be a number in \[0, 1\)"),
        ("optimizer", "adam", "did you mean 'adamw'"),
        ("beta1", 1, "beta1 must be a number in"),
        ("beta2", 1.5, "beta2 must be a number in"),
        ("momentum", -1, "momentum must be a number in"),
        ("schedule", "cosinus", "did you mean 'cosine'"),
        ("batch_size", 0, "batch_size must be an integer >= 1, but got 0"),
        ("batch_size", True, "batch_size must be an integer"),
        ("initialization", "kaiming", "initialization must be one of"),
        ("bias", 1, "bias must be True or False, but got 1"),
        ("residual", "yes", "residual must be True or False"),
        ("normalization", "batch", "normalization must be one of none, layer"),
        ("clip_norm", 0.0, r"clip_norm must be a finite number > 0, but got 0\.0"),
        ("submembers", 0, "submembers must be an integer >= 1, but got 0"),
        ("submembers", 1.5, "submembers must be an integer"),
        ("sharing", "ful", "did you mean 'full'"),
        ("seed", -1, "seed must be an integer >= 0, but got -1"),
        ("seed", None, "seed must be an integer"),
    ],
)
def test_each_rule_names_field_and_value(field: str, value: Any, words: str) -> None:
    with pytest.raises(InvalidParameterError, match=words):
        MLPConfig(**{field: value})


def test_unknown_fields_are_refused_with_a_hint() -> None:
    with pytest.raises(InvalidParameterError, match="no field 'learning_rat'; did you mean 'learning_rate'"):
        MLPConfig.from_dict({"learning_rat": 0.1})
    with pytest.raises(InvalidParameterError, match="no field 'wdths'"):
        MLPConfig().replace(wdths=(3,))


def test_numpy_values_become_plain_python() -> None:
    config = MLPConfig(
        widths=np.array([3, 4]),  # type: ignore[arg-type]
        learning_rate=np.float64(0.5),
        batch_size=64.0,  # type: ignore[arg-type]
        bias=np.bool_(False),  # type: ignore[arg-type]
        seed=np.int32(7),  # type: ignore[arg-type]
        clip_norm=2,
    )
    assert config == MLPConfig(
        widths=(3, 4), learning_rate=0.5, batch_size=64, bias=False, seed=7, clip_norm=2.0
    )
    kinds = {name: type(value) for name, value in config.to_dict().items()}
    assert kinds["learning_rate"] is float
    assert kinds["batch_size"] is kinds["seed"] is int
    assert kinds["bias"] is bool
    assert {type(width) for width in config.widths} == {int}


def test_it_is_frozen_and_keyword_only() -> None:
    with pytest.raises(FrozenInstanceError):
        MLPConfig().seed = 3  # type: ignore[misc]
    with pytest.raises(TypeError):
        MLPConfig((3,))  # type: ignore[misc]
    assert FIELD_NAMES[0] == "widths"
    assert FIELD_NAMES[-1] == "seed"


def test_the_ten_activations_of_the_paper_come_first() -> None:
    assert ACTIVATIONS[:10] == (
        "identity", "sigmoid", "tanh", "relu", "leaky_relu", "elu", "gelu", "selu", "hardshrink", "mish",
    )  # fmt: skip
    assert set(ACTIVATIONS[10:]) == {"silu", "softplus", "sine"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"widths": ()}, 5 * 2 + 2),  # a linear model is its head
        ({"widths": (), "bias": False}, 5 * 2),
        ({"widths": (1,)}, 5 + 1 + 2 + 2),
        ({"widths": (3, 7)}, 5 * 3 + 3 + 3 * 7 + 7 + 7 * 2 + 2),
        ({"widths": (3, 7), "bias": False}, 5 * 3 + 3 * 7 + 7 * 2),
        ({"widths": (3, 7), "normalization": "layer"}, 5 * 3 + 3 + 3 * 7 + 7 + 7 * 2 + 2 + 2 * (3 + 7)),
        ({"widths": (3, 7), "bias": False, "normalization": "layer"}, 5 * 3 + 3 * 7 + 7 * 2 + 2 * (3 + 7)),
        # four heads, and four factors of each input
        ({"widths": (3, 7), "submembers": 4}, 4 * 5 + 5 * 3 + 3 + 3 * 7 + 7 + 4 * (7 * 2 + 2)),
        # factors on all sides of both hidden layers, and four times their biases
        (
            {"widths": (3, 7), "submembers": 4, "sharing": "full"},
            4 * (5 + 3 + 3 + 7) + 5 * 3 + 3 * 7 + 4 * (3 + 7) + 4 * (7 * 2 + 2),
        ),
        (
            {"widths": (3,), "submembers": 4, "sharing": "full", "bias": False},
            4 * (5 + 3) + 5 * 3 + 4 * 3 * 2,
        ),
        ({"widths": (), "submembers": 4, "sharing": "full"}, 4 * (5 * 2 + 2)),  # four linear models
        ({"widths": (3,), "sharing": "full"}, 5 * 3 + 3 + 3 * 2 + 2),  # a single submember has no adapters
    ],
)
def test_parameters_counted_by_hand(changes: dict[str, Any], expected: int) -> None:
    config = MLPConfig(**changes)
    assert config.n_parameters(5, 2) == expected
    assert config.depth == len(config.widths)


def test_parameters_of_an_embedding_counted_by_hand() -> None:
    config = MLPConfig(widths=(3,), numeric_embedding="periodic")
    # two numbers: frequencies and phases, mixtures and their offsets; six more inputs
    embedding = 2 * (16 + 16 + 3 * 16 + 3)
    assert config.n_parameters(5, 2, n_numbers=2) == embedding + (5 + 6) * 3 + 3 + 3 * 2 + 2
    assert config.n_parameters(5, 2) == config.replace(numeric_embedding="none").n_parameters(5, 2)
    # tables with more numbers get no embedding
    assert config.n_embedded(MAX_EMBEDDED) == MAX_EMBEDDED
    assert config.n_embedded(MAX_EMBEDDED + 1) == 0
    assert config.n_parameters(99, 2, n_numbers=MAX_EMBEDDED + 1) == config.n_parameters(99, 2)


def test_the_number_of_parameters_needs_valid_sizes() -> None:
    with pytest.raises(InvalidParameterError, match="n_inputs must be an integer >= 1, but got 0"):
        MLPConfig().n_parameters(0, 1)


def test_removed_fields_are_read_where_they_change_nothing() -> None:
    values = MLPConfig(widths=(4,)).to_dict()
    assert MLPConfig.from_dict({**values, "parametric_rate": 0.0, "feature_share": 1.0}) == MLPConfig(
        widths=(4,)
    )


@pytest.mark.parametrize(("name", "value"), [("parametric_rate", 0.1), ("feature_share", 0.5)])
def test_removed_fields_that_change_the_network_are_refused(name: str, value: float) -> None:
    with pytest.raises(InvalidParameterError, match=rf"{name} must be .* but got {value}: use .* 0\.1\.0"):
        MLPConfig.from_dict({name: value})
    assert not hasattr(MLPConfig(), name)
