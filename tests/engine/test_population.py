"""Populations: states of members, and their way from one population to another."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from parallelmlp_search.engine import (
    BatchStream,
    Evaluation,
    MemberState,
    Population,
    TrainingRows,
    TrainingSettings,
    predict,
    train,
)
from parallelmlp_search.engine.population import FLAT_NAMES
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.packing import DataShape
from parallelmlp_search.packing.pack import extract, read_member
from parallelmlp_search.space import MLPConfig

D, C, N_ROWS = 5, 3, 40
GENERATOR = torch.Generator().manual_seed(0)
INPUTS = torch.randn(N_ROWS, D, dtype=torch.float64, generator=GENERATOR)
TARGET = torch.randint(0, C, (N_ROWS,), generator=GENERATOR)
CONFIGS = [
    MLPConfig(widths=(7, 3), activation="tanh", learning_rate=0.02, seed=0),
    MLPConfig(widths=(7, 3), activation="relu", learning_rate=0.01, dropout=0.3, seed=1),
    MLPConfig(widths=(2, 5), activation="sigmoid", weight_decay=0.1, schedule="cosine", seed=2),
    MLPConfig(widths=(1,), optimizer="sgd", momentum=0.9, learning_rate=0.05, seed=3),
    MLPConfig(widths=(), learning_rate=0.05, schedule="linear", seed=4),
    MLPConfig(widths=(13, 13), residual=True, normalization="layer", clip_norm=0.3, dropout=0.1, seed=5),
    MLPConfig(widths=(6, 4), activation="mish", label_smoothing=0.2, seed=6),
]


def _create(
    configs: Sequence[MLPConfig] = CONFIGS,
    states: Sequence[MemberState | None] | None = None,
    merge: bool = True,
) -> Population:
    return Population.create(configs, DataShape(D, C), states=states, rows=INPUTS, merge=merge)


def _error(outputs: torch.Tensor) -> torch.Tensor:
    return torch.stack([torch.nn.functional.cross_entropy(own.T, TARGET) for own in outputs])


def _train(population: Population, until_epoch: float, *, evaluate: bool = True) -> Population:
    train(
        population,
        TrainingRows(INPUTS, TARGET),
        TrainingSettings(
            stream=BatchStream(N_ROWS, 16, 7),
            loss="cross_entropy",
            until_epoch=until_epoch,
            total_epochs=5,
            evaluation=Evaluation(INPUTS, _error) if evaluate else None,
            evaluate_every=1,
        ),
    )
    return population


def _same(first: MemberState, second: MemberState, *, within: float = 0.0) -> bool:
    numbers = (first.step, first.failed_at, first.best_epoch) == (
        second.step,
        second.failed_at,
        second.best_epoch,
    )
    vectors = all(
        torch.allclose(first.vectors[name], second.vectors[name], rtol=0, atol=within) for name in FLAT_NAMES
    )
    return numbers and vectors and abs(first.best_error - second.best_error) <= within


def test_a_fresh_population() -> None:
    population = _create()
    assert population.n_members == len(CONFIGS)
    assert population.step == 0
    assert set(population.flats) == set(FLAT_NAMES)
    assert population.parameters is population.flats["parameters"]
    for name in FLAT_NAMES[1:]:
        assert not population.flats[name].any()
    state = population.state(3)
    assert (state.best_error, state.best_epoch, state.failed_at) == (float("inf"), 0.0, -1)
    assert set(population.state(3, ["best"]).vectors) == {"best"}


def test_rows_and_members_translate_both_ways() -> None:
    population = _create()
    rows = population.member_rows()
    assert sorted(rows.tolist()) == list(range(len(CONFIGS)))
    assert [population.row_configs()[row] for row in rows] == CONFIGS
    assert population.row_configs() != CONFIGS  # the plan reorders them
    # indexing stacked rows gives member order
    outputs = predict(population, INPUTS)[rows]
    for member in range(len(CONFIGS)):
        network = extract(population.parameters, population.layout, member)
        torch.testing.assert_close(outputs[member], network(INPUTS).T.detach(), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("n_rows", [0, 1, 2, 39])
def test_any_number_of_rows_can_be_predicted(n_rows: int) -> None:
    population = _create()
    outputs = predict(population, INPUTS[:n_rows])
    assert outputs.shape == (len(CONFIGS), C, n_rows)
    torch.testing.assert_close(outputs, predict(population, INPUTS)[:, :, :n_rows], rtol=1e-12, atol=1e-12)


def test_more_rows_than_one_window() -> None:
    population = _create()
    many = INPUTS.repeat(26, 1)[:1025]  # two full windows and one row
    outputs = predict(population, many)
    small = predict(population, INPUTS)
    torch.testing.assert_close(outputs, small.repeat(1, 1, 26)[:, :, :1025], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("merge", [True, False])
def test_a_state_is_sufficient_to_go_on(merge: bool) -> None:
    direct = _train(_create(merge=merge), 4)
    first = _train(_create(merge=merge), 2)
    states = [first.state(member) for member in range(len(CONFIGS))]
    resumed = _train(_create(states=states, merge=merge), 4)
    for member in range(len(CONFIGS)):
        assert _same(resumed.state(member), direct.state(member))  # bit for bit
    # every vector of the state matters
    for name in ("parameters", "first_moment", "second_moment", "average"):
        spoiled = [first.state(member) for member in range(len(CONFIGS))]
        spoiled[0].vectors[name].zero_()
        other = _train(_create(states=spoiled, merge=merge), 4)
        assert not _same(other.state(0), direct.state(0))
        assert _same(other.state(1), direct.state(1))


def test_a_state_survives_a_round_trip() -> None:
    trained = _train(_create(), 2)
    states = [trained.state(member) for member in range(len(CONFIGS))]
    states[3].failed_at = 2
    states[4].best_epoch = 0.5
    back = _create(states=states, merge=False)
    for member, state in enumerate(states):
        assert _same(back.state(member), state)
        assert state.best_epoch == (0.5 if member == 4 else 2.0)
    assert not _same(back.state(3), trained.state(3))


def test_a_state_is_a_copy() -> None:
    population = _create()
    state = population.state(0)
    before = state.vectors["parameters"].clone()
    _train(population, 1)
    assert torch.equal(state.vectors["parameters"], before)
    assert not torch.equal(population.state(0).vectors["parameters"], before)


@pytest.mark.parametrize("kept", [[5, 1], [0, 2, 6], [3], [4, 3, 2, 1]])
def test_survivors_go_on_as_if_trained_alone(kept: list[int]) -> None:
    crowd = _train(_create(), 2)
    configs = [CONFIGS[member] for member in kept]
    compacted = _train(_create(configs, [crowd.state(member) for member in kept]), 4)
    alone = _train(_create(configs), 4)
    for member in range(len(kept)):
        assert _same(compacted.state(member), alone.state(member), within=1e-10)
        assert not _same(compacted.state(member), crowd.state(kept[member]), within=1e-10)


def test_states_may_be_none() -> None:
    fresh = [None] * 2
    population = _create([CONFIGS[0], CONFIGS[1]], fresh)
    assert population.step == 0
    assert torch.equal(
        read_member(population.parameters, population.layout, 1), _create().state(1).vectors["parameters"]
    )


def test_members_must_have_taken_equally_many_steps() -> None:
    trained = _train(_create(), 1)
    with pytest.raises(InvalidParameterError, match=r"equally many steps, but got \[0, 3\]"):
        _create(CONFIGS[:2], [trained.state(0), None])


def test_a_population_needs_a_member() -> None:
    with pytest.raises(InvalidParameterError, match="at least one configuration, but got none"):
        _create([])
