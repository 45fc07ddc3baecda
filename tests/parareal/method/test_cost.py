"""The cost model: simulated steps by hand, and consistency of predictions."""

from __future__ import annotations

import itertools
import os
import statistics
import threading
import time
from pathlib import Path

import pytest
import torch

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.parareal import (
    Communicator,
    DeviceSpeed,
    DistributedParareal,
    Link,
    Recipe,
    StepPrediction,
    decompose,
    deep_mlp,
    measure_device_speed,
    output_gradient,
    predict_steps,
    recommended_slices,
)
from parallelmlp_search.parareal.method.cost import simulate_step
from parallelmlp_search.parareal.method.profiling import SliceTimes, cpu_wait_seconds
from parallelmlp_search.space import MLPConfig

CONFIG = MLPConfig(widths=(64,) * 64, residual=True, normalization="layer")


def test_a_step_by_hand() -> None:
    times = [
        SliceTimes(forward=4.0, backward=8.0, update=0.5),
        SliceTimes(forward=3.0, backward=6.0, sweep=1.0, sweep_back=2.0, head=0.25, update=0.5),
    ]
    # forward 4, message 1, sweep 1, head 0.25, sweep back 2, message 1, backward 8, update 0.5
    assert simulate_step(times, [1.0]) == pytest.approx(4 + 1 + 1 + 0.25 + 2 + 1 + 8 + 0.5)
    assert simulate_step(times[:1], []) == pytest.approx(12.5)
    # messages arrive before the slow last slice is ready
    slow = [times[0], SliceTimes(forward=9.0, backward=20.0, sweep=1.0, sweep_back=2.0)]
    assert simulate_step(slow, [1.0]) == pytest.approx(9 + 1 + 2 + 20)


def test_a_step_with_clipping_by_hand() -> None:
    times = [
        SliceTimes(forward=1.0, backward=2.0, update=0.5),
        SliceTimes(forward=1.0, backward=4.0, sweep=1.0, sweep_back=2.0, update=1.0),
        SliceTimes(forward=1.0, backward=2.0, sweep=1.0, sweep_back=2.0, head=0.5, update=0.25),
    ]
    # forward 1, sweeps 1 and 1, head 0.5, sweeps back 2 and 2; backward passes end at 9.5, 11.5 and 7.5
    assert simulate_step(times, [0.0, 0.0]) == pytest.approx(12.5)
    # the norm is complete when the second slice has ended, and on its way back for one message more
    assert simulate_step(times, [0.0, 0.0], 0.25) == pytest.approx(11.5 + 0.25 + 0.25 + 1.0)


def test_clipping_adds_messages() -> None:
    plain, clipped = (predicted(clipped=clipped, link=Link(1.0, 1e15)) for clipped in (False, True))
    assert [p.communication for p in plain] == pytest.approx([2.0 * (p.slices - 1) for p in plain])
    assert [p.communication for p in clipped] == pytest.approx([4.0 * (p.slices - 1) for p in plain])
    assert all(a.step < b.step for a, b in zip(plain, clipped, strict=True))


def predicted(**changes: object) -> list[StepPrediction]:
    model = deep_mlp(CONFIG, n_inputs=16, n_outputs=4)
    values = {
        "speed": DeviceSpeed.of_device(4e10),
        "link": Link(1e-6, 1e10),
        "slices": (2, 4, 8, 16, 64, 128),
    } | changes
    slices = values.pop("slices")
    return predict_steps(model, torch.randn(128, 16), slices, **values)  # type: ignore[arg-type]


def test_predictions_follow_the_formula() -> None:
    found = predicted()
    assert [p.slices for p in found] == [2, 4, 8, 16, 64]  # the network has no 128 blocks
    assert all(1.0 < p.speedup < p.slices for p in found)
    assert all(a.efficiency > b.efficiency for a, b in itertools.pairwise(found))
    assert all(p.serial == found[0].serial for p in found)


def test_slow_links_lower_the_recommendation() -> None:
    fast, slow = predicted(), predicted(link=Link(1e-3, 1e8))
    assert all(a.step < b.step for a, b in zip(fast, slow, strict=True))
    assert recommended_slices(fast) >= 4
    assert recommended_slices(slow) < recommended_slices(fast)
    assert recommended_slices(predicted(link=Link(1.0, 1e8))) == 1
    assert recommended_slices([]) == 1


@pytest.mark.alone
def test_measured_speed_predicts_the_step_of_the_measured_network() -> None:
    model = deep_mlp(CONFIG, n_inputs=16, n_outputs=4)
    rows = torch.randn(64, 16)
    speed = measure_device_speed(model, rows, repeats=3)
    assert 0.05 < speed.forward_share < 0.8
    (one,) = predict_steps(model, rows, [1], speed=speed, link=Link(0.0, 1e12))
    function = output_gradient("cross_entropy", torch.randint(0, 4, (64,)))
    recipe = Recipe(total_steps=100)
    engine = DistributedParareal(decompose(model, 1, rows), Communicator(), recipe, rows)
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        engine.step(rows, function)
        seconds.append(time.perf_counter() - started)
    assert one.serial == pytest.approx(one.step)
    # a wide interval: other programs may run; the benchmark reports the difference
    assert 0.2 < statistics.median(seconds) / one.step < 5.0


@pytest.mark.alone
@pytest.mark.skipif(not Path("/proc/thread-self/schedstat").is_file(), reason="needs schedstat")
def test_waiting_for_a_core_is_counted() -> None:
    """Threads that share one core."""
    core = {min(os.sched_getaffinity(0))}

    def spin(waited: list[float]) -> None:
        os.sched_setaffinity(0, core)  # of this thread
        before, until = cpu_wait_seconds(), time.monotonic() + 0.5
        while time.monotonic() < until:
            torch.randn(300, 300).sum()  # without the global interpreter lock
        waited.append(cpu_wait_seconds() - before)

    def waits(n_threads: int) -> float:
        waited: list[float] = []
        threads = [threading.Thread(target=spin, args=(waited,)) for _ in range(n_threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(waited)

    assert waits(4) > 0.5 > cpu_wait_seconds() - cpu_wait_seconds()


@pytest.mark.parametrize(("latency", "bandwidth"), [(-1.0, 1.0), (0.0, 0.0)])
def test_links_are_validated(latency: float, bandwidth: float) -> None:
    with pytest.raises(InvalidParameterError, match="must be a finite number"):
        Link(latency, bandwidth)
    with pytest.raises(InvalidParameterError, match="flops"):
        DeviceSpeed.of_device(0.0)
