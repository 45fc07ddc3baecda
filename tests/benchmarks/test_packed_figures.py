"""Figures of packed training: peaks, ratios, tables, and the rows on file."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import packed_training
from benchmarks.packed import machine, measure
from benchmarks.packed.cases import CASES, QUICK, TWO_LAYERS, Case
from benchmarks.packed.diagram import diagram
from benchmarks.packed.machine import ProductRates, product_rates
from benchmarks.packed.measure import quantiles
from benchmarks.packed.report import (
    peak_line,
    plot,
    published,
    ragged_share,
    scaling_table,
    short_table,
    table,
)
from benchmarks.publishing import ROOT


def test_the_peak_is_the_highest_of_all_rates() -> None:
    one, other = ProductRates(3e9, 1e9, 2e9), ProductRates(1e9, 5e9, 4e9)
    assert (one.peak, other.peak) == (3e9, 5e9)
    assert one.best(other) == ProductRates(3e9, 5e9, 4e9)
    assert one.gflops() == {"library": 3.0, "own": 1.0, "multiply_adds": 2.0, "peak": 3.0}


@pytest.mark.alone
def test_no_product_is_faster_than_multiply_adds_in_registers() -> None:
    pytest.importorskip("numba")
    found = ProductRates()
    for _ in range(3):  # other tests may run beside this one
        found = found.best(product_rates(1, count=3))
    assert found.multiply_adds > 0.9 * max(found.library, found.own) > 0.0
    assert found.peak == max(found.library, found.own, found.multiply_adds)


def test_multiply_adds_are_executed_and_counted() -> None:
    pytest.importorskip("numba")
    from benchmarks.packed import multiply_adds
    from parallelmlp_search.kernels.numba.vectors import LANES

    assert multiply_adds.register_multiply_adds(7) == 2 * 7 * multiply_adds.CHAINS * LANES
    assert multiply_adds.layer_products(2) == 2 * 2 * 64 * 64 * 128
    (code,) = multiply_adds._registers.inspect_asm().values()
    if "zmm" in code or "ymm" in code:  # one instruction per sum; none was merged or removed
        assert code.count("vfmadd") >= multiply_adds.CHAINS


def test_without_numba_the_library_is_the_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "find_spec", lambda name: None)
    found = product_rates(1, count=1)
    assert found.peak == found.library > 0.0
    assert found.own == found.multiply_adds == 0.0


def test_the_benchmark_starts_without_numba() -> None:
    code = """
import sys
sys.modules["numba"] = sys.modules["llvmlite"] = None
import benchmarks.packed_training
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class _Contender:
    """Contender with given samples, in microseconds."""

    def __init__(self, name: str, *microseconds: float) -> None:
        self.name = name
        self._samples: Iterator[float] = iter(microseconds)

    def sample(self) -> float:
        return 1e-6 * next(self._samples)

    def close(self) -> None:
        assert next(self._samples, None) is None


class _Ours(_Contender):
    megabytes = 5.0


def test_ratios_and_fractions_of_a_case(monkeypatch: pytest.MonkeyPatch) -> None:
    case = replace(TWO_LAYERS, rows=1000)
    monkeypatch.setattr(measure, "Packed", _Ours)
    monkeypatch.setattr(measure.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(measure, "copy_bandwidth", lambda threads: threads * 1e9)
    peaks = iter([1e11, 2e11, 1.6e11, 2e11, 1e11, 4e11])
    monkeypatch.setattr(measure, "product_rates", lambda threads: ProductRates(1e9, next(peaks), 0.0))
    compared = [
        _Ours("packed_1", 40.0, 50.0, 60.0),
        _Ours("packed_2", 20.0, 20.0, 25.0),
        _Ours("plain_1", 80.0, 80.0, 90.0),
        _Contender("sequential_1", 400.0, 500.0, 500.0),
        _Contender("sequential_2", 390.0, 900.0, 900.0),
        _Contender("m3_1", 300.0, 300.0, 300.0),
        _Contender("parts_1", 100.0, 100.0, 100.0),
        _Contender("vmap_1_32", 90.0, 90.0, 90.0),
        _Contender("vmap_2_256", 60.0, 80.0, 100.0),
    ]
    monkeypatch.setattr(measure, "contenders", lambda *arguments: compared)
    row = measure.measure(case, rounds=3)
    # the better rival by its median, against ours on all cores, round by round
    assert row["ratios"]["sequential"] == pytest.approx(quantiles([400 / 20, 500 / 20, 500 / 25]))
    assert row["ratios"]["vmap"] == pytest.approx(quantiles([60 / 20, 80 / 20, 100 / 25]))
    assert row["ratios"]["m3"]["median"] == pytest.approx(15.0)
    assert row["ratios"]["parts"]["median"] == pytest.approx(5.0)
    assert "jax" not in row["ratios"]
    assert row["ratios"]["workers"]["median"] == pytest.approx(2.4)
    assert row["ratios"]["compiled"]["median"] == pytest.approx(1.6)
    # relative to the highest peak of the run
    flops = case.product_flops(case.configs())
    assert row["product_gflops"]["1"]["peak"] == 160.0
    assert row["gemm_fraction"]["1"]["median"] == pytest.approx(flops / 50e-6 / 1.6e11)
    assert row["gemm_fraction"]["2"]["median"] == pytest.approx(flops / 20e-6 / 4e11)
    kept = case.kept_bytes(case.configs(), row["steps_a_call"])
    assert row["bandwidth_fraction"]["2"] == pytest.approx(kept / 20e-6 / 2e9)
    assert row["streamed_fraction"]["1"] == pytest.approx(case.state_bytes(case.configs()) / 50e-6 / 1e9)
    assert row["epoch_seconds"] == pytest.approx(20e-6 * 256 * 8)


def test_contenders_of_a_case(monkeypatch: pytest.MonkeyPatch) -> None:
    def rival(kind: str) -> Any:
        return lambda case, threads, *more, **options: (kind, threads, *more, *options.values())

    for kind in ("Packed", "OneAtATime", "M3", "Vmap"):
        monkeypatch.setattr(measure, kind, rival(kind))
    monkeypatch.setattr(measure, "make", lambda name, case: (name,))
    monkeypatch.setattr(measure, "find_spec", lambda name: True)
    found: list[Any] = measure.contenders(CASES[0], 2, ("sklearn",), brief=False)
    assert [one for one in found if one[0] == "Packed"] == [
        ("Packed", 1),
        ("Packed", 2),
        ("Packed", 1, False),
    ]
    for kind in ("OneAtATime", "M3", "Vmap"):
        assert {one[1] for one in found if one[0] == kind} == {1, 2}
    assert [one[2:] for one in found if one[0] == "M3"] == [(None,), (1000, "parts")] * 2
    assert found[-1] == ("sklearn",)
    uniform: list[Any] = measure.contenders(TWO_LAYERS, 2, (), brief=True)
    assert {one[2] for one in uniform if one[0] == "Vmap"} == {32, 256}
    assert not [one for one in uniform if one[0] == "M3" or one[-1] is False]


def test_quantiles_interpolate() -> None:
    assert quantiles([3.0, 1.0, 2.0]) == {"median": 2.0, "q10": 1.2, "q90": 2.8}
    assert quantiles([5.0]) == {"median": 5.0, "q10": 5.0, "q90": 5.0}


def _row(name: str, microseconds: float) -> dict[str, Any]:
    figure = {"median": microseconds, "q10": microseconds, "q90": microseconds}
    rates = {"library": 100.0, "own": 180.0, "multiply_adds": 200.0, "peak": 200.0}
    return {
        "case": name,
        "microseconds": {"packed_1": figure, "packed_2": figure},
        "ratios": {
            "sequential": {"median": 150.0, "q10": 140.0, "q90": 160.0},
            "m3": {"median": 12.34, "q10": 11.0, "q90": 13.0},
            "parts": {"median": 6.0, "q10": 5.0, "q90": 7.0},
            "vmap": {"median": 3.0, "q10": 2.0, "q90": 4.0},
        },
        "gemm_fraction": {"1": {"median": 0.5}, "2": {"median": 0.25}},
        "bandwidth_fraction": {"1": 0.125, "2": 0.0625},
        "product_gflops": {"1": rates, "2": {kind: 2.0 * rate for kind, rate in rates.items()}},
        "copy_gigabytes": {"1": 20.0, "2": 30.0},
        "product_flops": 1e6,
        "seconds": 9.0,
    }


def test_the_quick_run_ends_with_one_line_of_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Case] = []

    def measured(case: Case, *, rounds: int, brief: bool) -> dict[str, Any]:
        asked.append(case)
        return _row(case.name, 20.0)

    monkeypatch.setattr(packed_training, "measure", measured)
    packed_training.quick()
    lines = capsys.readouterr().out.splitlines()
    assert json.loads(lines[-1]) == {
        "vs_sequential": 150.0,
        "vs_m3": 12.34,
        "vs_vmap": 3.0,
        "gemm_fraction": 0.5,
    }
    assert [case.name for case in asked] == list(QUICK)
    assert "m3 12.34x (11.00 to 13.00)" in lines[0]
    assert "product peak 50%, 25%; copy bandwidth 12%, 6%" in lines[0]


def test_the_tables() -> None:
    rows = [_row("ragged", 20.0), _row("uniform, FLOP of ragged", 10.0)]
    text = table(rows)
    assert "| ragged | 20.00 | 20.00 |" in text
    assert "12.3 (11.0 to 13.0)" in text
    assert "50% and 25%" in text
    assert "12% and 6%" in text
    assert "50.0 GFLOP/s" in ragged_share(rows)
    assert ragged_share(rows).endswith("50%.")
    assert "on 1 core: 200 GFLOP/s at best, 100 in the library's products" in peak_line(rows)
    assert "on 2 cores: 400 GFLOP/s at best" in peak_line(rows)
    assert "| ragged | 20.00 | 150 (140 to 160) | 12.3 (11.0 to 13.0) | 6.0 (5.0 to 7.0) |" in (
        short_table(rows)
    )
    assert published(rows).count("\n\n") == 2


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
    assert text.count("<rect") == 1 + 2 * 4 + 4
    assert text.count(">64-64<") == 1


@pytest.mark.slow  # compilation takes up to 40 s
def test_parts_of_the_member_loop() -> None:
    pytest.importorskip("numba")
    from benchmarks.packed.inside import inside
    from parallelmlp_search.space import MLPConfig

    one, classes = inside((3, 17, 1), 16, "tanh"), inside((3, 17, 18, 17), 16, "gelu")
    assert set(one) == set(classes)
    assert all(part.microseconds > 0.0 for part in (*one.values(), *classes.values()))
    case = replace(TWO_LAYERS, inputs=3, outputs=17, batch=16)
    counted = case.product_flops([MLPConfig(widths=(17, 18))])
    assert sum(part.flop for part in classes.values()) == counted
    wide = inside((64, 64, 1), 64, "tanh")
    name = "product: first layer forward"
    assert wide[name].microseconds > 3.0 * one[name].microseconds  # 60 times the work


ON_FILE = json.loads(packed_training.RESULTS.read_text(encoding="utf-8"))["rows"]


def test_all_cases_are_on_file_and_in_the_diagram() -> None:
    assert [row["case"] for row in ON_FILE] == [case.name for case in CASES]
    assert packed_training.DIAGRAM.read_text(encoding="utf-8") == diagram(ON_FILE)


def test_the_gain_of_numba_in_the_documents_equals_the_file() -> None:
    gains = [row["ratios"]["compiled"]["median"] for row in ON_FILE]
    words = f"training on a CPU is about {min(gains):.0f} to {max(gains):.0f} times as fast"
    assert words in " ".join((ROOT / "CHANGELOG.md").read_text(encoding="utf-8").split())


def test_no_rate_on_file_exceeds_the_peak() -> None:
    for row in ON_FILE:
        for cores, part in row["gemm_fraction"].items():
            assert 0.0 < part["q90"] <= 1.0, row["case"]
            assert 0.0 < row["bandwidth_fraction"][cores] <= 1.0, row["case"]
            rates = row["product_gflops"][cores]
            assert rates["peak"] == max(rates.values()) > 0.0
        for name in ("processor", "cores", "torch"):
            assert row["machine"][name] == ON_FILE[0]["machine"][name]
        assert "dirty" not in row["machine"]["commit"]


def test_the_figures_on_file_reach_their_targets() -> None:
    rows = {row["case"]: row for row in ON_FILE}
    paper, classes = rows["paper, D=10 N=32 C=1"], rows["paper, D=10 N=128 C=10"]
    assert paper["ratios"]["sequential"]["median"] >= 150.0
    assert paper["ratios"]["m3"]["median"] >= 12.0
    assert classes["ratios"]["m3"]["median"] >= 30.0
    layers = rows["64-64, D=50 N=128 C=10"]
    assert layers["ratios"]["vmap"]["median"] >= 2.3
    assert layers["ratios"]["workers"]["median"] >= 1.8
    assert min(part["median"] for part in layers["gemm_fraction"].values()) >= 0.5
    assert float(ragged_share(ON_FILE).split()[-1].rstrip("%.")) >= 60.0
    sizes = json.loads(packed_training.SCALING.read_text(encoding="utf-8"))["rows"]
    small, large = sizes[-2:]
    assert large["members"] == 10 * small["members"] == 100_000
    assert large["training_seconds"] <= 11.0 * small["training_seconds"]
    assert large["peak_megabytes"] - large["weights_megabytes"] <= 200.0
