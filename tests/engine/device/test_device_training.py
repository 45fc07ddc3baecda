"""Captured steps and the persistent kernel against the plain training loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

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
    train,
    trainer,
)
from parallelmlp_search.engine import acceleration as acceleration_module
from parallelmlp_search.engine.acceleration import choose_acceleration
from parallelmlp_search.engine.batches import dropout_fields
from parallelmlp_search.engine.device import step as device_step
from parallelmlp_search.engine.device import training as device_training
from parallelmlp_search.engine.device.cuda_graph import WARM_UP_STEPS, GraphedStep
from parallelmlp_search.engine.device.step import DeviceStep
from parallelmlp_search.engine.device.step_tables import step_tables
from parallelmlp_search.engine.population import FLAT_NAMES
from parallelmlp_search.engine.step_coefficients import StepCoefficients, constant_table, is_averaging
from parallelmlp_search.exceptions import DeviceError, DeviceWarning, InvalidParameterError
from parallelmlp_search.kernels.triton import launch
from parallelmlp_search.kernels.triton.launch import obstacle
from parallelmlp_search.packing import DataShape
from parallelmlp_search.space import ColumnGroups, MLPConfig

Capture = Callable[[Callable[[], None]], Callable[[], None]]

D, C, N_ROWS = 5, 3, 50
DATA = DataShape(D, C, ColumnGroups(n_numbers=2))
GENERATOR = torch.Generator().manual_seed(1)
INPUTS = torch.randn(N_ROWS, D, dtype=torch.float64, generator=GENERATOR)
TARGET = torch.randint(0, C, (N_ROWS,), generator=GENERATOR)
WEIGHT = torch.rand(N_ROWS, dtype=torch.float64, generator=GENERATOR)
CONFIGS = [
    MLPConfig(widths=(8, 4), learning_rate=0.01, schedule="cosine", weight_decay=0.1, seed=0),
    MLPConfig(widths=(7, 4), activation="gelu", learning_rate=0.02, schedule="one_cycle", seed=1),
    MLPConfig(widths=(5, 3), activation="sigmoid", learning_rate=0.02, label_smoothing=0.1, seed=2),
    MLPConfig(widths=(7,), optimizer="sgd", learning_rate=0.05, clip_norm=0.05, seed=3),
    MLPConfig(widths=(6, 6, 6), residual=True, normalization="layer", activation="mish", seed=4),
    MLPConfig(widths=(), learning_rate=0.02, seed=5),
    MLPConfig(widths=(8, 4), numeric_embedding="periodic", weight_decay=0.1, learning_rate=0.02, seed=6),
    MLPConfig(widths=(7,), numeric_embedding="periodic", optimizer="sgd", learning_rate=0.05, seed=7),
    *(
        MLPConfig(
            widths=(8, 5),
            parametrization="neural_tangent",
            optimizer=optimizer,
            learning_rate=0.05,
            weight_decay=0.3,
            weight_decay_schedule="flat_cosine",
            bias_rate=0.1,
            input_scale_rate=0.5,
            numeric_embedding=embedding,
            seed=8,
        )
        for optimizer in ("adamw", "sgd")
        for embedding in ("periodic", "none")
    ),
    MLPConfig(widths=(8, 5), submembers=3, label_smoothing=0.1, learning_rate=0.02, weight_decay=0.1, seed=9),
    MLPConfig(
        widths=(7, 5),
        submembers=2,
        sharing="full",
        optimizer="sgd",
        learning_rate=0.05,
        input_scale_rate=0.5,
        clip_norm=0.5,
        seed=10,
    ),
]


def _train(
    configs: list[MLPConfig], acceleration: str, capture: Capture | None, *, epochs: float = 4, **options: Any
) -> tuple[Population, History]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = options.pop("dtype", torch.float64)
    weight = options.pop("weight", None)
    rows = TrainingRows(
        INPUTS.to(device, dtype), TARGET.to(device), None if weight is None else weight.to(device)
    )
    population = Population.create(configs, DATA, rows=rows.inputs)
    history = train(
        population,
        rows,
        TrainingSettings(
            stream=BatchStream(N_ROWS, 16, 9),
            loss="cross_entropy",
            until_epoch=epochs,
            total_epochs=6,
            acceleration=acceleration,
            capture=capture,
            **{"evaluate_every": 1, **options},
        ),
    )
    return population, history


def _outputs_error(outputs: Tensor) -> Tensor:
    return outputs.square().mean(dim=(1, 2))


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["", "weighted"])
def test_captured_steps_are_the_steps_of_the_plain_loop(weight: Tensor | None, capture: Capture) -> None:
    expected, plain = _train(CONFIGS, "none", None, weight=weight)
    got, history = _train(CONFIGS, "graph", capture, weight=weight)
    assert got.step == expected.step == 13 > WARM_UP_STEPS
    for name in ("parameters", "first_moment", "second_moment", "average"):
        torch.testing.assert_close(got.flats[name], expected.flats[name], rtol=1e-12, atol=1e-13)
    assert history.epochs == plain.epochs == [1, 2, 3, 4]
    assert history.member_steps == plain.member_steps == 13 * len(CONFIGS)
    for one, other in zip(history.train_losses, plain.train_losses, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("fused", [False, True])
def test_the_fused_optimizer_and_separate_operations(fused: bool, capture: Capture) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    expected, _ = _train(CONFIGS, "none", None)
    population = Population.create(CONFIGS, DATA, rows=INPUTS.to(device))
    stream = BatchStream(N_ROWS, 16, 9)
    configs = population.row_configs()
    step = DeviceStep(
        population,
        range(len(population.layout.buckets)),
        (INPUTS.to(device), TARGET.to(device), None),
        stream=stream,
        loss="cross_entropy",
        constants=constant_table(configs, population.parameters),
        max_steps=13,
        total_steps=stream.steps(6),
        fused=fused,
    )
    alive = torch.zeros(len(configs), dtype=torch.bool)
    step.load(
        step_tables(
            StepCoefficients(configs, stream.steps(6), device),
            stream,
            range(13),
            frozen=alive,
            dtype=torch.float64,
        )
    )
    graphed = GraphedStep(step.take, capture if not fused or device == "cuda" else lambda work: work)
    for number in range(13):
        graphed(is_averaging(number))
    for name in ("parameters", "first_moment", "second_moment", "average"):
        torch.testing.assert_close(population.flats[name], expected.flats[name], rtol=1e-12, atol=1e-13)


def test_members_are_evaluated_at_the_same_steps(capture: Capture) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    evaluation = Evaluation(INPUTS.to(device), _outputs_error)
    expected, plain = _train(CONFIGS, "none", None, evaluation=evaluation)
    got, history = _train(CONFIGS, "graph", capture, evaluation=evaluation)
    for one, other in zip(history.errors, plain.errors, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13)
    assert torch.equal(got.best_epoch, expected.best_epoch)
    torch.testing.assert_close(got.flats["best"], expected.flats["best"], rtol=1e-12, atol=1e-13)


def test_the_capture_detects_values_of_the_host(capture: Capture) -> None:
    # a graph repeats the captured operations and not the Python code
    counter, total = [0.0], torch.zeros(1)

    def take(averaging: bool) -> None:
        counter[0] += 1.0
        total.add_(counter[0])

    if torch.cuda.is_available():
        pytest.skip("a real graph cannot hold tensors of the CPU")
    step = GraphedStep(take, capture)
    for _ in range(WARM_UP_STEPS + 3):
        step(False)
    assert total.item() == 1 + 2 + 3 + 4 + 3 * 5
    with pytest.raises(RuntimeError, match="not permitted when stream is capturing"):
        capture(lambda: bool(total > 0) and None)


def test_each_kind_of_step_is_captured_once() -> None:
    taken: list[bool] = []
    captured: list[bool] = []

    def capture(work: Callable[[], None]) -> Callable[[], None]:
        work()
        captured.append(taken.pop())
        return lambda: None

    step = GraphedStep(taken.append, capture)
    for number in range(12):
        step(number % 4 == 3)
    assert taken == [False, False, False, True]
    assert captured == [False, True]


def test_dropout_does_not_depend_on_neighbours(capture: Capture) -> None:
    configs = [
        MLPConfig(widths=(8, 4), dropout=0.3, learning_rate=0.01, seed=1),
        MLPConfig(widths=(20, 9), dropout=0.5, learning_rate=0.01, seed=2),
    ]
    together, _ = _train(configs, "graph", capture)
    alone, _ = _train(configs[:1], "graph", capture)
    one, other = together.state(0), alone.state(0)
    torch.testing.assert_close(one.vectors["parameters"], other.vectors["parameters"], rtol=1e-11, atol=1e-12)
    without, _ = _train([MLPConfig(widths=(8, 4), learning_rate=0.01, seed=1)], "graph", capture)
    assert not torch.allclose(without.state(0).vectors["parameters"], other.vectors["parameters"])


def test_dropout_follows_its_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fields are those of the CPU, so that both ways can be compared."""
    if torch.cuda.is_available():
        pytest.skip("the noise of the CPU is not at hand on a GPU")

    def field(seed: int, step: Tensor, layer: int, width: int, n_rows: int) -> Tensor:
        return dropout_fields(seed, int(step), layer + 1, width, n_rows)[layer]

    monkeypatch.setattr(device_step, "uniform_field", field)
    configs = [
        MLPConfig(widths=(9,), dropout=0.6, dropout_schedule="cosine", learning_rate=0.01, seed=1),
        MLPConfig(widths=(9,), dropout=0.2, learning_rate=0.01, seed=2),
        MLPConfig(widths=(9,), submembers=3, dropout=0.2, dropout_schedule="cosine", seed=3),
    ]
    expected, _ = _train(configs, "none", None)
    got, _ = _train(configs, "graph", lambda work: work)
    torch.testing.assert_close(got.parameters, expected.parameters, rtol=1e-11, atol=1e-12)
    constant = [config.replace(dropout_schedule="constant") for config in configs]
    other, _ = _train(constant, "graph", lambda work: work)
    assert not torch.allclose(other.parameters, expected.parameters)


def test_the_end_of_a_window_does_not_matter(capture: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    configs = [*CONFIGS, MLPConfig(widths=(8,), dropout=0.3, seed=6)]
    whole, _ = _train(configs, "graph", capture, evaluate_every=None)
    monkeypatch.setattr(device_training, "MAX_STEPS", 3)
    cut, history = _train(configs, "graph", capture, evaluate_every=None)
    assert history.member_steps == 13 * len(configs)
    for name in FLAT_NAMES:
        assert torch.equal(whole.flats[name], cut.flats[name])


@pytest.mark.parametrize("acceleration", ["graph", "persistent"])
@pytest.mark.filterwarnings(
    "ignore:overflow:RuntimeWarning", "ignore:invalid value:RuntimeWarning"
)  # NumPy's
def test_a_diverged_member_is_frozen_and_counted(acceleration: str, capture: Capture) -> None:
    wild = MLPConfig(widths=(7,), optimizer="sgd", learning_rate=1e30, seed=3)
    configs = [CONFIGS[3], wild]
    expected, plain = _train(configs, "none", None, dtype=torch.float32)
    got, history = _train(configs, acceleration, capture, dtype=torch.float32)
    assert got.failed_at.tolist() == expected.failed_at.tolist()
    assert history.member_steps == plain.member_steps
    rows = got.member_rows()
    assert int(got.failed_at[rows[0]]) == -1
    one, other = got.state(0), expected.state(0)
    for name in ("parameters", "first_moment", "average"):
        torch.testing.assert_close(one.vectors[name], other.vectors[name], rtol=1e-4, atol=1e-5)
    assert not bool(got.state(1).vectors["parameters"].any())
    assert history.train_losses[-1].isfinite().tolist() == plain.train_losses[-1].isfinite().tolist()


def test_the_kernel_and_the_graph_share_a_population(capture: Capture) -> None:
    # SGD, since Adam amplifies the rounding errors of float32
    configs = [
        MLPConfig(widths=widths, optimizer="sgd", learning_rate=0.05, normalization=normalization, seed=seed)
        for seed, (widths, normalization) in enumerate([((8,), "none"), ((6, 4), "none"), ((8,), "layer")])
    ]
    expected, plain = _train(configs, "none", None, dtype=torch.float32)
    got, history = _train(configs, "persistent", capture, dtype=torch.float32)
    plan = choose_acceleration(
        got.layout,
        got.row_configs(),
        loss="cross_entropy",
        dtype=torch.float32,
        device=got.parameters.device,
        acceleration="persistent",
    )
    assert len(plan.persistent) == 2
    assert len(plan.graph) == 1
    assert history.path_steps == {"persistent": 2 * 13, "graph": 13}
    assert list(plain.path_steps.values()) == [3 * 13]
    assert set(plain.path_steps) <= {"compiled", "plain"}
    torch.testing.assert_close(got.parameters, expected.parameters, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got.flats["average"], expected.flats["average"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(history.train_losses[-1], plain.train_losses[-1], rtol=1e-4, atol=1e-5)


class OutOfResources(Exception):
    __module__ = "triton.runtime.errors"


class Refusing:
    """Kernel that cannot be launched."""

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def refuse(*arguments: Any, **options: Any) -> None:
            raise OutOfResources("shared memory")

        return refuse


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every persistent kernel fail, as if for the first time in this process."""
    module = SimpleNamespace(train_members=Refusing())
    monkeypatch.setattr(launch, "kernel_module", lambda *arguments, **options: module)
    monkeypatch.setattr(device_training, "FAILED_KERNELS", {})


@pytest.mark.usefixtures("refusing")
def test_a_failing_kernel_is_an_error_where_it_is_asked_for(capture: Capture) -> None:
    words = "kernel for up to 16x16 neurons, 5 inputs and 3 outputs .* failed .OutOfResources: shared memory"
    with pytest.raises(DeviceError, match=words):
        _train(CONFIGS[:1], "persistent", capture, dtype=torch.float32)


@pytest.mark.usefixtures("refusing")
def test_auto_warns_once_of_a_failing_kernel_and_uses_the_graph(
    capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, _ = _train(CONFIGS[:1], "none", None, dtype=torch.float32)

    def choose(*arguments: Any, **options: Any) -> Any:
        return choose_acceleration(*arguments, **(options | {"acceleration": "persistent"}))

    monkeypatch.setattr(trainer, "choose_acceleration", choose)
    with pytest.warns(DeviceWarning, match="OutOfResources: shared memory.*CUDA graphs are used instead"):
        got, history = _train(CONFIGS[:1], "auto", capture, dtype=torch.float32)
    assert history.path_steps == {"graph": 13}
    torch.testing.assert_close(got.parameters, expected.parameters, rtol=1e-4, atol=1e-5)
    # warnings are errors in the tests
    again, _ = _train(CONFIGS[:1], "auto", capture, dtype=torch.float32)
    assert torch.equal(again.parameters, got.parameters)


def test_out_of_memory_is_raised(capture: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(device_training.PersistentTraining, "run", refuse)
    with pytest.raises(torch.OutOfMemoryError):
        _train(CONFIGS[:1], "persistent", capture, dtype=torch.float32)


def test_a_deadline_cuts_between_windows(capture: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_training, "FIRST_WINDOW", 3)
    population, history = _train(
        CONFIGS, "graph", capture, deadline=time.monotonic() - 1.0, evaluate_every=None
    )
    assert history.cut
    assert population.step == 3
    assert history.epochs == [population.step * 16 / N_ROWS]
    # with enough time nothing is cut
    population, history = _train(CONFIGS, "graph", capture, deadline=time.monotonic() + 100.0)
    assert population.step == 13
    assert not history.cut


def test_training_stops_between_windows(capture: Capture) -> None:
    asked: list[bool] = []

    def stopped() -> bool:
        asked.append(True)
        return len(asked) > 2

    population, _ = _train(CONFIGS, "graph", capture, stopped=stopped)
    assert population.step == 7  # two epochs


_POPULATION = Population.create(CONFIGS, DATA)
LAYOUT, ROW_CONFIGS = _POPULATION.layout, _POPULATION.row_configs()


@pytest.mark.parametrize(
    ("device", "acceleration", "installed", "kernel", "graph"),
    [
        ("cpu", "auto", True, False, False),
        ("cpu", "none", True, False, False),
        ("cpu", "graph", True, False, True),
        ("cuda", "none", True, False, False),
        ("cuda", "auto", True, True, True),
        ("cuda", "auto", False, False, True),
        ("cuda", "graph", True, False, True),
        ("cuda", "persistent", True, True, True),
    ],
)
def test_the_choice(
    device: str,
    acceleration: str,
    installed: bool,
    kernel: bool,
    graph: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(acceleration_module, "runs_on", lambda device: installed)
    plan = choose_acceleration(
        LAYOUT,
        ROW_CONFIGS,
        loss="cross_entropy",
        dtype=torch.float32,
        device=device,
        acceleration=acceleration,
    )
    assert (bool(plan.persistent), bool(plan.graph)) == (kernel, graph)
    assert plan.is_plain == (not kernel and not graph)
    if not plan.is_plain:
        assert sorted((*plan.persistent, *plan.graph)) == list(range(len(LAYOUT.buckets)))
    for number in plan.persistent:
        assert obstacle(LAYOUT.buckets[number], loss="cross_entropy", dtype=torch.float32) is None
    if kernel:
        assert set(plan.obstacles) == set(plan.graph)
        moved = plan.without_persistent("too large")
        assert moved.graph == tuple(range(len(LAYOUT.buckets)))
        assert set(moved.obstacles) == set(moved.graph)


def test_with_little_time_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceleration_module, "runs_on", lambda device: True)
    options: dict[str, Any] = {"loss": "cross_entropy", "dtype": torch.float32, "device": "cuda"}
    assert not choose_acceleration(LAYOUT, ROW_CONFIGS, seconds_left=10.0, **options).persistent
    assert choose_acceleration(LAYOUT, ROW_CONFIGS, seconds_left=1000.0, **options).persistent
    # an explicit choice is respected
    assert choose_acceleration(
        LAYOUT, ROW_CONFIGS, seconds_left=10.0, acceleration="persistent", **options
    ).persistent


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"loss": "cross_entropy", "dtype": torch.float32, "device": "cpu"}
    with pytest.raises(InvalidParameterError, match="but got 'grapf'; did you mean 'graph'"):
        choose_acceleration(LAYOUT, ROW_CONFIGS, acceleration="grapf", **options)
    monkeypatch.setattr(acceleration_module, "runs_on", lambda device: False)
    with pytest.raises(InvalidParameterError, match="must not be 'persistent' on cpu without Triton"):
        choose_acceleration(LAYOUT, ROW_CONFIGS, acceleration="persistent", **options)
