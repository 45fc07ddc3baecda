"""The trainer: history, best snapshot, deadlines, failures, dropout."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from parallelmlp_search.engine import (
    BatchStream,
    Evaluation,
    History,
    Population,
    TrainingRows,
    TrainingSettings,
    predict,
    train,
)
from parallelmlp_search.engine.population import FLAT_NAMES
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.packing import DataShape
from parallelmlp_search.packing.pack import read_member, write_member
from parallelmlp_search.space import MLPConfig

D, C, N_ROWS = 5, 3, 50
GENERATOR = torch.Generator().manual_seed(1)
INPUTS = torch.randn(N_ROWS, D, dtype=torch.float64, generator=GENERATOR)
TARGET = torch.randint(0, C, (N_ROWS,), generator=GENERATOR)
CONFIGS = [
    MLPConfig(widths=(8, 4), learning_rate=0.01, seed=0),
    MLPConfig(widths=(8, 4), activation="gelu", learning_rate=0.02, seed=1),
    MLPConfig(widths=(5, 3), activation="sigmoid", learning_rate=0.02, weight_decay=0.1, seed=2),
    MLPConfig(widths=(7,), optimizer="sgd", learning_rate=0.05, clip_norm=0.5, seed=3),
    MLPConfig(widths=(7,), optimizer="sgd", learning_rate=0.03, clip_norm=0.5, seed=4),
]


def _create(
    configs: Sequence[MLPConfig] = CONFIGS, dtype: torch.dtype = torch.float64, merge: bool = True
) -> Population:
    return Population.create(configs, DataShape(D, C), rows=INPUTS.to(dtype), merge=merge)


def _train(
    population: Population,
    until_epoch: float = 3,
    *,
    error: Callable[[Tensor], Tensor] | None = None,
    evaluate_every: float | None = 1,
    deadline: float | None = None,
    weight: Tensor | None = None,
) -> History:
    dtype = population.parameters.dtype
    return train(
        population,
        TrainingRows(INPUTS.to(dtype), TARGET, weight),
        TrainingSettings(
            stream=BatchStream(N_ROWS, 16, 9),
            loss="cross_entropy",
            until_epoch=until_epoch,
            total_epochs=6,
            evaluation=None if error is None else Evaluation(INPUTS.to(dtype), error),
            evaluate_every=evaluate_every,
            deadline=deadline,
        ),
    )


def _log_loss(outputs: Tensor) -> Tensor:
    return torch.stack([torch.nn.functional.cross_entropy(own.T, TARGET) for own in outputs])


def _vectors(population: Population, member: int) -> list[Tensor]:
    return [read_member(population.flats[name], population.layout, member) for name in FLAT_NAMES]


def test_history() -> None:
    population = _create()
    history = _train(population, error=_log_loss)
    assert population.step == 10  # ceil(3 * 50 / 16)
    assert history.epochs == [1, 2, 3]
    assert len(history.errors) == len(history.train_losses) == 3
    assert history.member_steps == 10 * len(CONFIGS)
    assert not history.cut
    torch.testing.assert_close(history.errors[-1], _log_loss(predict(population, INPUTS, which="average")))
    # the members learn, and the averaged weights are not the last weights
    assert (history.errors[-1] < history.errors[0]).all()
    assert not torch.allclose(history.errors[-1], _log_loss(predict(population, INPUTS)))


def test_train_losses_are_means_since_the_last_evaluation() -> None:
    # the learning rate is so small that only the last digits of the weights change
    population = _create([config.replace(learning_rate=1e-13) for config in CONFIGS])
    stream = BatchStream(N_ROWS, 16, 9)
    outputs = predict(population, INPUTS)
    by_batch = []
    for step in range(10):
        rows = stream.rows(step)
        losses = [torch.nn.functional.cross_entropy(own[:, rows].T, TARGET[rows]) for own in outputs]
        by_batch.append(torch.stack(losses))
    history = _train(population)
    # evaluations after steps 4, 7 and 10: the batch that completes an epoch reaches into the next
    for mean, (first, last) in zip(history.train_losses, [(0, 4), (4, 7), (7, 10)], strict=True):
        torch.testing.assert_close(mean, torch.stack(by_batch[first:last]).mean(dim=0), rtol=1e-8, atol=1e-8)
    assert history.errors == []


@pytest.mark.parametrize(
    ("until", "every", "expected"),
    [
        (3, None, [3]),
        (3, 1, [1, 2, 3]),
        (3, 2, [2, 3]),
        (3, 5, [3]),
        (1, 0.5, [0.5, 1]),
        (1, 0.3, [0.3, 0.6, 0.9, 1]),
        (1, 0.49, [0.49, 1]),  # 0.98 of an epoch ends with the same step as a whole one
        (0.5, 1, [0.5]),
        (0, 1, []),
    ],
)
def test_steps_of_evaluation(until: float, every: float | None, expected: list[float]) -> None:
    history = _train(_create(CONFIGS[:1]), until, error=_log_loss, evaluate_every=every)
    assert history.epochs == pytest.approx(expected)


def test_training_up_to_the_current_step_does_nothing() -> None:
    population = _create()
    _train(population, 2)
    before = population.parameters.clone()
    history = _train(population, 2, error=_log_loss)
    assert (history.epochs, history.member_steps, history.cut) == ([], 0, False)
    assert torch.equal(population.parameters, before)


def test_the_best_snapshot_is_kept_and_ties_go_to_the_last() -> None:
    # one row per evaluation, one column per member, in stacked-row order
    script = torch.tensor(
        [
            [0.9, 0.1, 0.5, float("nan"), 3.0],
            [0.5, 0.5, 0.5, 0.7, float("nan")],
            [0.7, 0.6, 0.5, 0.8, 2.0],
            [0.6, 0.1, 0.9, float("nan"), 2.5],
        ],
        dtype=torch.float64,
    )
    best_snapshot = [1, 3, 2, 1, 2]
    population = _create()
    averages: list[list[Tensor]] = []

    def error(outputs: Tensor) -> Tensor:
        assert outputs.shape == (len(CONFIGS), C, N_ROWS)
        flat = population.flats["average"]
        averages.append([read_member(flat, population.layout, m) for m in population.layout.members])
        return script[len(averages) - 1]

    # in two calls, since the best snapshot outlives a rung; averaged weights move every fourth of seven steps
    first = _train(population, 4, error=error, evaluate_every=2)
    second = _train(population, 8, error=error, evaluate_every=2)
    assert len(averages) == 4
    torch.testing.assert_close(torch.stack(first.errors + second.errors), script, equal_nan=True)
    for row, member in enumerate(population.layout.members):
        snapshot = best_snapshot[row]
        best = read_member(population.flats["best"], population.layout, member)
        assert torch.equal(best, averages[snapshot][row])
        assert all(not torch.equal(best, averages[m][row]) for m in range(4) if m != snapshot)
        assert float(population.best_error[row]) == float(script[snapshot, row])
        assert float(population.best_epoch[row]) == 2 * (snapshot + 1)


def test_a_deadline_cuts_after_a_step_and_an_evaluation() -> None:
    population = _create()
    history = _train(population, error=_log_loss, deadline=time.monotonic() - 1.0)
    assert history.cut
    assert population.step == 1
    assert history.epochs == [16 / 50]
    assert len(history.errors) == 1
    assert (population.best_error < float("inf")).all()
    # training goes on from there to the same weights
    assert not _train(population, error=_log_loss).cut
    direct = _create()
    assert not _train(direct, error=_log_loss, deadline=time.monotonic() + 3600.0).cut
    assert torch.equal(population.parameters, direct.parameters)


def test_a_deadline_that_passes_with_the_last_step_cuts_nothing() -> None:
    population = _create()
    history = _train(population, 16 / 50, error=_log_loss, deadline=time.monotonic() - 1.0)
    assert population.step == 1
    assert not history.cut


@pytest.mark.parametrize("failing", range(len(CONFIGS)))
def test_a_diverged_member_fails_alone(failing: int) -> None:
    def run(configs: list[MLPConfig]) -> tuple[Population, History]:
        population = _create(configs, torch.float32)
        return population, _train(population, error=_log_loss)

    healthy, calm = run(CONFIGS)
    configs = [c.replace(learning_rate=1e30) if m == failing else c for m, c in enumerate(CONFIGS)]
    population, history = run(configs)
    rows = population.member_rows()
    for member in range(len(CONFIGS)):
        row = rows[member]
        same = all(map(torch.equal, _vectors(population, member), _vectors(healthy, member)))
        if member == failing:
            assert 0 < int(population.failed_at[row]) < 10
            assert bool(history.errors[-1][row].isnan())
            assert not same
            assert all(bool(vector.isfinite().all()) for vector in _vectors(population, member))
        else:
            assert int(population.failed_at[row]) == -1
            assert same  # the same bits
            assert all(torch.equal(a[row], b[row]) for a, b in zip(history.errors, calm.errors, strict=True))
    # a failed member takes no more steps
    dead_at = int(population.failed_at[rows[failing]])
    assert history.member_steps == 10 * (len(CONFIGS) - 1) + dead_at
    assert calm.member_steps == 10 * len(CONFIGS)


@pytest.mark.parametrize("merge", [True, False])
def test_without_the_diverged_member_the_others_end_the_same(merge: bool) -> None:
    # linear, so that weights overflow, for which float64 needs some steps, before a neuron dies
    broken = MLPConfig(widths=(8, 8), activation="identity", optimizer="sgd", learning_rate=1e30, seed=9)
    also = MLPConfig(widths=(6, 2), learning_rate=1e30, activation="elu", residual=True, seed=10)
    population = _create([broken, *CONFIGS, also], merge=merge)
    _train(population, 3)
    assert int(population.failed_at[population.member_rows()[0]]) > 0
    without = _create(CONFIGS, merge=merge)
    _train(without, 3)
    for member in range(len(CONFIGS)):
        for name in FLAT_NAMES:
            got = read_member(population.flats[name], population.layout, member + 1)
            expected = read_member(without.flats[name], without.layout, member)
            torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_a_member_that_fails_late_keeps_its_best_snapshot() -> None:
    population = _create()
    _train(population, 1, error=_log_loss)
    before = population.state(2)
    size = before.vectors["parameters"].numel()
    vector = torch.full((size,), float("nan"), dtype=torch.float64)
    write_member(population.parameters, population.layout, 2, vector)
    _train(population, 2, error=_log_loss)
    after = population.state(2)
    assert after.failed_at == before.step == 4
    assert (after.best_error, after.best_epoch) == (before.best_error, 1.0)
    assert torch.equal(after.vectors["best"], before.vectors["best"])
    # also in a new population
    states = [population.state(member) for member in range(len(CONFIGS))]
    resumed = Population.create(CONFIGS, DataShape(D, C), states=states, rows=INPUTS)
    history = _train(resumed, 3, error=_log_loss)
    assert resumed.state(2).failed_at == 4
    assert float(resumed.state(2).vectors["parameters"].abs().max()) < 1e-20  # it takes no step
    assert torch.equal(resumed.state(2).vectors["best"], before.vectors["best"])
    assert bool(history.errors[-1][resumed.member_rows()[2]].isnan())
    assert history.member_steps == 3 * (len(CONFIGS) - 1)
    assert all(resumed.state(member).failed_at == -1 for member in (0, 1, 3, 4))


def test_all_members_may_fail() -> None:
    population = _create([config.replace(learning_rate=1e30) for config in CONFIGS], torch.float32)
    history = _train(population, error=_log_loss)
    assert (population.failed_at > 0).all()
    assert population.step == 10
    assert history.errors[-1].isnan().all()
    assert (population.best_error == float("inf")).all()


DROPPING = [
    MLPConfig(widths=(8, 4), dropout=0.5, learning_rate=0.01, seed=0),
    MLPConfig(widths=(6, 6), dropout=0.1, activation="sigmoid", residual=True, learning_rate=0.01, seed=1),
    MLPConfig(widths=(3,), dropout=0.3, activation="softplus", normalization="layer", seed=2),
    MLPConfig(widths=(8, 5, 8), dropout=0.2, activation="mish", optimizer="sgd", learning_rate=0.1, seed=3),
    MLPConfig(widths=(2, 8), dropout=0.5, activation="tanh", learning_rate=0.01, seed=4),
]


@pytest.mark.parametrize("merge", [True, False])
def test_dropout_does_not_depend_on_other_members(merge: bool) -> None:
    crowd = [*CONFIGS, *DROPPING, *(c.replace(seed=c.seed + 50, dropout=0.4) for c in DROPPING)]
    packed = _create(crowd, merge=merge)
    _train(packed)
    for number, config in enumerate(DROPPING):
        alone = _create([config], merge=merge)
        _train(alone)
        got = read_member(packed.parameters, packed.layout, len(CONFIGS) + number)
        expected = read_member(alone.parameters, alone.layout, 0)
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
        # there is noise, with the rate of the member
        for rate in (0.0, config.dropout + 0.05):
            other = _create([config.replace(dropout=rate)], merge=merge)
            _train(other)
            assert not torch.allclose(
                read_member(other.parameters, other.layout, 0), expected, rtol=1e-6, atol=1e-6
            )


def test_dropout_of_a_neighbour_changes_no_bit() -> None:
    plain = MLPConfig(widths=(8, 4), learning_rate=0.01, seed=0)
    other = plain.replace(seed=1)
    among = {}
    for rate in (0.0, 0.3):
        population = _create([plain, other.replace(dropout=rate)])
        assert len(population.layout.buckets) == 1
        _train(population)
        among[rate] = [_vectors(population, member) for member in (0, 1)]
    assert all(map(torch.equal, among[0.0][0], among[0.3][0]))
    assert not torch.equal(among[0.0][1][0], among[0.3][1][0])


def test_the_same_call_gives_the_same_bits() -> None:
    first, second = _create([*CONFIGS, *DROPPING]), _create([*CONFIGS, *DROPPING])
    _train(first, error=_log_loss)
    _train(second, error=_log_loss)
    for name in FLAT_NAMES:
        assert torch.equal(first.flats[name], second.flats[name])
    assert torch.equal(first.best_error, second.best_error)


def test_rows_of_weight_zero_do_not_matter() -> None:
    weight = torch.ones(N_ROWS, dtype=torch.float64)
    weight[::3] = 0.0
    first, plain = _create(), _create()
    _train(first, weight=weight)
    _train(plain)
    kept = TARGET.clone()
    try:
        TARGET[::3] = (TARGET[::3] + 1) % C
        second = _create()
        _train(second, weight=weight)
    finally:
        TARGET.copy_(kept)
    assert torch.equal(first.parameters, second.parameters)
    assert not torch.equal(first.parameters, plain.parameters)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (TrainingRows(INPUTS[:, 1:], TARGET), r"inputs must have shape \(n, 5\), but got \(50, 4\)"),
        (TrainingRows(INPUTS[0], TARGET), r"inputs must have shape \(n, 5\), but got \(5,\)"),
        (TrainingRows(INPUTS, TARGET[1:]), r"target must have shape \(50,\), but got \(49,\)"),
        (TrainingRows(INPUTS, TARGET, torch.ones(49)), r"weight must have shape \(50,\), but got \(49,\)"),
        (TrainingRows(INPUTS, TARGET + 1), "target must hold classes from 0 to 2, but got 3"),
        (TrainingRows(INPUTS, TARGET - 1), "target must hold classes from 0 to 2, but got -1"),
    ],
)
def test_rows_that_do_not_fit_are_refused(rows: TrainingRows, words: str, dtype: torch.dtype) -> None:
    # the loops check no bounds
    population = _create(dtype=dtype)
    before = population.parameters.clone()
    settings = TrainingSettings(
        stream=BatchStream(50, 16, 9), loss="cross_entropy", until_epoch=1, total_epochs=1
    )
    with pytest.raises(InvalidParameterError, match=words):
        train(population, replace(rows, inputs=rows.inputs.to(dtype)), settings)
    numbers = TrainingRows(INPUTS.to(dtype), torch.zeros(2, N_ROWS, dtype=dtype))
    with pytest.raises(InvalidParameterError, match=r"target must have shape \(3, 50\), but got \(2, 50\)"):
        train(population, numbers, replace(settings, loss="squared_error"))
    other = torch.float64 if dtype == torch.float32 else torch.float32
    with pytest.raises(InvalidParameterError, match=f"dtype of the population, {dtype}, but got {other}"):
        train(population, TrainingRows(INPUTS.to(other), TARGET), settings)
    assert torch.equal(population.parameters, before)


def test_batches_of_rows() -> None:
    rows = torch.tensor([4, 0, 4])
    inputs, target, weight = TrainingRows(INPUTS, TARGET).batch(rows)
    assert torch.equal(inputs, INPUTS[rows])
    assert torch.equal(target, TARGET[rows])
    assert weight is None
    numbers = torch.randn(2, N_ROWS)
    _, target, weight = TrainingRows(INPUTS, numbers, torch.arange(50.0)).batch(rows)
    assert torch.equal(target, numbers[:, rows])
    assert torch.equal(weight, torch.tensor([4.0, 0.0, 4.0]))
