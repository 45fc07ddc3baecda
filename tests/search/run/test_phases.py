"""Phases of a search: their seconds add up, and training belongs to the phase that trained."""

from __future__ import annotations

import pytest

from parallelmlp_search.distribute import ShardOutcome
from parallelmlp_search.search.run.budget import Throughput
from parallelmlp_search.search.run.phases import PHASES, PhaseClock


def outcome(steps: int, loop: float) -> ShardOutcome:
    return ShardOutcome("x", member_steps=steps, seconds=2.0, predicted_seconds=1.0, loop_seconds=loop)


def test_phases_divide_time_and_training() -> None:
    now = iter([10.0, 13.0, 20.0, 21.0])
    throughput = Throughput(2)
    phases = PhaseClock(throughput, started=7.0, now=lambda: next(now))
    phases.begin("screening")  # at 10: reading took three seconds
    throughput.add(outcome(30, 1.5))
    phases.begin("cross-fitting")  # at 13
    throughput.add(outcome(50, 4.0))
    throughput.add(outcome(70, 9.0), recalled=True)  # trained before an interruption
    phases.begin("saving")  # at 20
    found = phases.to_dict()  # at 21
    assert found == {
        "reading": {"seconds": 3.0, "loop_seconds": 0.0, "member_steps": 0},
        "screening": {"seconds": 3.0, "loop_seconds": 1.5, "member_steps": 30},
        "cross-fitting": {"seconds": 7.0, "loop_seconds": 4.0, "member_steps": 50},
        "saving": {"seconds": 1.0, "loop_seconds": 0.0, "member_steps": 0},
    }
    assert list(found) == [name for name in PHASES if name in found]


def test_a_phase_can_begin_again() -> None:
    now = iter([1.0, 3.0, 6.0, 10.0])
    phases = PhaseClock(Throughput(1), started=0.0, now=lambda: next(now))
    for name in ("screening", "planning", "screening"):
        phases.begin(name)
    found = phases.to_dict()
    assert {name: phase["seconds"] for name, phase in found.items()} == {
        "reading": 1.0,
        "planning": 3.0,
        "screening": pytest.approx(2.0 + 4.0),
    }
