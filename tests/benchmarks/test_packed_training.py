"""The benchmark's rivals do what they are held against us for, and its figures are read as written."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from benchmarks.packed.cases import CASES, HEADLINE, PAPER_ACTIVATIONS, QUICK, find, like_ragged, ragged
from benchmarks.packed.diagram import diagram
from benchmarks.packed.inside import inside
from benchmarks.packed.measure import quantiles
from benchmarks.packed.ours import cut
from benchmarks.packed.report import fill, plot, ragged_share, scaling_table, table
from benchmarks.packed.rivals import M3, Vmap, spread
from parallelmlp_search.packing.pack import build_module
from parallelmlp_search.space import MLPConfig

SMALL = replace(
    HEADLINE,
    name="small",
    build=lambda: [
        MLPConfig(widths=(1 + seed % 4,), activation=PAPER_ACTIVATIONS[seed % 10], seed=seed)
        for seed in range(20)
    ],
    inputs=3,
    batch=8,
    rows=40,
    optimizer="sgd",
)


def test_the_paper_and_its_labels() -> None:
    configs = HEADLINE.configs()
    assert len(configs) == 10_000
    assert {config.widths[0] for config in configs} == set(range(1, 101))
    assert {config.activation for config in configs} == set(PAPER_ACTIVATIONS)
    for name in QUICK:
        classes = find(name).data()[1].bincount()
        assert len(classes) == max(2, find(name).outputs)
        assert classes.max() < 0.9 * classes.sum()
    assert len({case.name for case in CASES}) == len(CASES)


def test_work_is_counted_as_written() -> None:
    case = replace(HEADLINE, inputs=5, outputs=3, batch=7)
    # forward and gradients of the weights of both layers, gradient of the hidden layer's output
    by_hand = 2 * 7 * (2 * 5 * 4 + 2 * 4 * 3 + 4 * 3)
    assert case.product_flops([MLPConfig(widths=(4,))]) == by_hand
    rates = [find("ragged").product_flops(population) for population in (ragged(), like_ragged())]
    assert rates[1] == pytest.approx(rates[0], rel=0.03)


def test_shards_hold_every_member_once() -> None:
    members = [member for shard in cut(SMALL, SMALL.configs()) for member in shard]
    assert sorted(members) == list(range(20))
    chosen = spread(SMALL, SMALL.configs(), 5)
    assert len(chosen) == 5
    assert len({config.widths for config in chosen}) >= 3


@pytest.mark.parametrize("outputs", [1, 3])
def test_m3_takes_the_steps_of_separate_networks(outputs: int) -> None:
    case = replace(SMALL, outputs=outputs)
    rival = M3.__new__(M3)
    rival.seconds = 0.0
    torch.manual_seed(0)
    M3.__init__(rival, case, torch.get_num_threads())
    before = [parameter.detach().clone() for parameter in rival._parameters]
    momentum = [rival._optimizer.state[p]["momentum_buffer"].clone() for p in rival._parameters]
    rows, target = next(rival._batches)
    rival._batches._batches = iter([(rows, target)])
    rival._round()
    gradients = [
        (rival._optimizer.state[p]["momentum_buffer"] - 0.9 * old)
        for p, old in zip(rival._parameters, momentum, strict=True)
    ]
    configs = sorted(case.configs(), key=lambda config: (config.activation, config.widths))
    start = 0
    for member, config in enumerate(configs):
        part = slice(start, start + config.widths[0])
        start = part.stop
        network = build_module(case.architecture(config))
        first, last = network[0], network[2]
        with torch.no_grad():
            first.weight.copy_(before[0][part])
            first.bias.copy_(before[1][part, 0])
            last.weight.copy_(before[2][part].T)
            last.bias.copy_(before[3][member, :, 0])
        out = network(rows)
        if outputs == 1:
            F.binary_cross_entropy_with_logits(out[:, 0], target).backward()
        else:
            F.cross_entropy(out, target).backward()
        for got, expected in (
            (gradients[0][part], first.weight.grad),
            (gradients[1][part, 0], first.bias.grad),
            (gradients[2][part], last.weight.grad.T),
            (gradients[3][member, :, 0], last.bias.grad),
        ):
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)
        assert first.weight.grad.any() or config.activation == "hardshrink"


def test_vmap_learns() -> None:
    case = replace(SMALL, build=lambda: [MLPConfig(widths=(4,), seed=s) for s in range(3)], optimizer="adamw")
    rival = Vmap.__new__(Vmap)
    rival.seconds = 0.0
    Vmap.__init__(rival, case, torch.get_num_threads(), chunk=2)
    before = [{k: w.clone() for k, w in stack._weights.items()} for stack in rival._stacks]
    assert rival._round() == 3
    for stack, old in zip(rival._stacks, before, strict=True):
        assert all(not torch.equal(stack._weights[name], old[name]) for name in old)


def test_quantiles_interpolate() -> None:
    assert quantiles([3.0, 1.0, 2.0]) == {"median": 2.0, "q10": 1.2, "q90": 2.8}
    assert quantiles([5.0]) == {"median": 5.0, "q10": 5.0, "q90": 5.0}


def _row(name: str, microseconds: float) -> dict[str, object]:
    figure = {"median": microseconds, "q10": microseconds, "q90": microseconds}
    return {
        "case": name,
        "microseconds": {"packed_1": figure, "packed_2": figure},
        "ratios": {"m3": {"median": 12.34, "q10": 11.0, "q90": 13.0}},
        "gemm_fraction": {"1": {"median": 0.5}, "2": {"median": 0.25}},
        "product_flops": 1e6,
    }


def test_the_table_and_its_place(tmp_path: Path) -> None:
    rows = [_row("ragged", 20.0), _row("uniform, FLOP of ragged", 10.0)]
    text = table(rows)
    assert "| ragged | 20.00 | 20.00 |" in text
    assert "12.3 (11.0 to 13.0)" in text
    assert "50% and 25%" in text
    assert "50.0 GFLOP/s" in ragged_share(rows)
    assert ragged_share(rows).endswith("50%.")
    document = tmp_path / "speed.md"
    document.write_text("a\n<!-- x -->\nold\n<!-- /x -->\nb\n")
    fill(document, "x", "new")
    assert document.read_text() == "a\n<!-- x -->\nnew\n<!-- /x -->\nb\n"
    fill(document, "y", "newer")
    assert "newer" not in document.read_text()


def _sizes() -> list[dict[str, float]]:
    keys = ("members", "training_seconds", "microseconds_a_member_step", "creating_seconds")
    return [dict.fromkeys((*keys, "peak_megabytes", "weights_megabytes"), 10.0**k) for k in (2, 5)]


def test_the_table_of_sizes() -> None:
    assert "| 100,000.0 | 100000.00 |" in scaling_table(_sizes())


def test_the_plot_needs_plotly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "plotly", None)
    with pytest.raises(SystemExit, match=r"pip install .*\[plots\]"):
        plot([_row("ragged", 20.0)], _sizes(), tmp_path / "plot.html")


def test_the_plot_shows_rivals_and_sizes(tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    plot([_row("ragged", 20.0)], _sizes(), tmp_path / "plot.html")
    page = (tmp_path / "plot.html").read_text()
    assert "ragged" in page
    assert "peak megabytes" in page


def test_the_diagram_has_a_bar_for_each_rival() -> None:
    rows = [_row("ragged", 20.0), _row("64-64", 20.0)]
    text = diagram(rows)
    kinds = sum(len(set(row["ratios"]) & {"sequential", "m3", "vmap"}) for row in rows)
    legend = len({kind for row in rows for kind in row["ratios"]} & {"sequential", "m3", "vmap"})
    assert kinds > 0
    assert text.count("<rect") == 1 + kinds + legend
    assert text.count(">64-64<") == 1


@pytest.mark.slow  # the compiler takes ten seconds
def test_the_inside_of_the_call() -> None:
    pytest.importorskip("numba")
    one, classes = inside((3, 17, 1), 16, "tanh"), inside((3, 17, 18, 17), 16, "gelu")
    assert set(one) == set(classes)
    assert all(value > 0.0 for value in (*one.values(), *classes.values()))
    wide = inside((64, 64, 1), 64, "tanh")
    name = "product: first layer forward"
    assert wide[name] > 3.0 * one[name]  # 60 times the work
