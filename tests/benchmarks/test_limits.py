"""Rule of the time limits, and figures of memory limits."""

from __future__ import annotations

from benchmarks.limits import _memory_figures, is_kept


def test_a_quiet_machine_uses_the_time_and_ends_at_most_a_second_late() -> None:
    assert is_kept(10.0, 10.9)
    assert not is_kept(10.0, 11.1)
    assert is_kept(60.0, 61.1)
    assert not is_kept(60.0, 61.3)
    assert is_kept(30.0, 28.0)
    assert not is_kept(30.0, 27.8)
    assert is_kept(5.0, 3.0)  # at 5 s only lateness counts
    assert not is_kept(5.0, 6.1)


def test_a_busy_machine_ends_at_most_a_tenth_late() -> None:
    assert is_kept(20.0, 22.0, busy=True)
    assert not is_kept(20.0, 22.1, busy=True)


def test_memory_figures_compare_the_measured_peak() -> None:
    memory = {"limit": 1000, "estimate": 990}
    kept = {"kept": True, "estimate_error": 0.1}
    assert _memory_figures({"peak_bytes": 900, "memory": memory}) == kept
    assert _memory_figures({"peak_bytes": 1001, "memory": memory})["kept"] is False
    assert _memory_figures({"peak_bytes": 900}) == {"kept": False}
