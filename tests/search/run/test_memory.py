"""Plan of the memory: parts, minimum, finalists that fit."""

from __future__ import annotations

from typing import Any

import pytest

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.search.problem import memory_room
from parallelmlp_search.search.problem.memory_room import MIN_ROOM, check_room, size_text
from parallelmlp_search.search.run.memory import PLANNED_SHARE, STEP_BYTES, FinalistSizes, MemoryPlan

MB = 10**6
SIZES = FinalistSizes(n_folds=5, n_snapshots=10, n_values=20_000, n_selecting=4000)


def _plan(limit: int, base: int = 600 * MB, **values: Any) -> MemoryPlan:
    given = {"largest_shard": 60 * MB, "states": 10 * MB, "sizes": SIZES, "largest": 50_000} | values
    return MemoryPlan.make(limit, base, **given)


def test_the_parts_fill_what_is_left() -> None:
    plan = _plan(2000 * MB)
    left = PLANNED_SHARE * 2000 * MB - 600 * MB
    assert left - STEP_BYTES < plan.room <= left
    assert plan.shard + plan.rest == plan.room
    assert plan.training.process <= PLANNED_SHARE * plan.limit
    # a shard of one large member gets what it needs, whatever is left for others
    assert _plan(775 * MB).shard == 60 * MB


def test_small_differences_of_the_memory_in_use_do_not_change_the_plan() -> None:
    first, second = (_plan(2000 * MB, base) for base in (600 * MB, 603 * MB))
    assert (first.room, first.shard) == (second.room, second.shard)
    assert _plan(2000 * MB, 700 * MB).room < first.room


def test_a_limit_below_the_minimum_names_a_limit_that_suffices() -> None:
    with pytest.raises(
        InvalidParameterError, match=r"memory_limit must be at least (\d+)M, but got 620M"
    ) as error:
        _plan(620 * MB)
    least = int(str(error.value).split("at least ")[1].split("M")[0])
    assert _plan(least * MB).room > 0
    with pytest.raises(InvalidParameterError):
        _plan((least - 40) * MB)


def test_finalists_fit_into_the_rest() -> None:
    plan = _plan(1000 * MB)
    few, many = [10_000_000] * 32, [1000] * 32
    assert plan.fitting(many, SIZES, 8) == (32, 8)
    count, group = plan.fitting(few, SIZES, 8)
    assert (count, group) == (1, 1)
    count, group = plan.fitting([300_000] * 32, SIZES, 8)
    assert 1 < count < 32
    assert count * SIZES.kept(300_000) + group * SIZES.waiting(300_000) <= plan.rest
    # one large finalist at the end of the list does not remove the others
    assert plan.fitting([1000] * 5 + [10_000_000], SIZES, 8)[0] == 5


@pytest.mark.parametrize(("used", "fits"), [(400 * MB, True), (990 * MB, False)])
def test_room_is_checked_before_memory_is_used(
    used: int, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_room, "resident_bytes", lambda: used)
    check_room(None)
    if fits:
        check_room(1000 * MB)
    with pytest.raises(InvalidParameterError, match="program and table use"):
        check_room(1000 * MB, 0 if not fits else 600 * MB)
    assert MIN_ROOM < 600 * MB


@pytest.mark.parametrize(
    ("n_bytes", "text"), [(1, "1M"), (749_000_001, "750M"), (999_999_999, "1000M"), (2_250_000_000, "2.3G")]
)
def test_sizes_are_rounded_up(n_bytes: int, text: str) -> None:
    assert size_text(n_bytes) == text
