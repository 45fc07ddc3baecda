"""Forecast of the duration of a search without a time limit."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from parallelmlp_search.search import Problem, Progress, RunDirectory, SearchSettings, runner

Make = Callable[..., Any]


def reports(spam: Problem, settings: SearchSettings, **options: Any) -> list[Progress]:
    found: list[Progress] = []
    runner.run(spam, settings, callbacks=[found.append], n_jobs=1, **options)
    return found


def test_a_search_without_a_limit_has_a_forecast(spam: Problem, make_settings: Make) -> None:
    found = reports(spam, make_settings())
    assert found[0].forecast_seconds is None
    rungs = [one for one in found if one.stage == "screening" and one.rung_completed]
    assert all(one.n_planned == 20 for one in rungs)
    left = [one.forecast_seconds for one in rungs]
    assert all(seconds is not None and 0 < seconds < math.inf for seconds in left)
    # what is left of screening shrinks with every rung, in work if not in seconds
    last = [one for one in found if one.stage == "cross-fitting"][-1]
    assert last.forecast_seconds is not None
    assert last.forecast_seconds < 60


def test_a_time_limit_is_no_forecast(spam: Problem, make_settings: Make) -> None:
    found = reports(spam, make_settings(time_limit=3))
    assert all(one.forecast_seconds is None and one.n_planned == 0 for one in found)
    assert found[-1].seconds_left is not None


def test_work_that_is_left_shrinks_with_every_rung(
    spam: Problem, make_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a clock of one second per unit of work, forecasts of the whole stay together."""
    work: list[tuple[float, float]] = []
    whole = runner.Forecast._screening

    def watched(forecast: Any, trials: Any) -> tuple[float, float]:
        work.append(whole(forecast, trials))
        return work[-1]

    monkeypatch.setattr(runner.Forecast, "_screening", watched)
    reports(spam, make_settings())
    done, total = zip(*work, strict=True)
    assert list(done) == sorted(done)
    assert done[-1] == pytest.approx(total[-1], rel=0.25)
    assert total[len(total) // 3] == pytest.approx(total[-1], rel=0.5)


def test_a_resumed_search_has_a_forecast(spam: Problem, make_settings: Make, tmp_path: Path) -> None:
    def stop(progress: Progress) -> None:
        if progress.rung_completed and progress.round == 2:
            raise KeyboardInterrupt

    directory = RunDirectory.create(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        runner.run(spam, make_settings(), directory=directory, callbacks=[stop], n_jobs=1)
    found = reports(spam, make_settings(), directory=RunDirectory.open(tmp_path / "run"))
    left = [one.forecast_seconds for one in found if one.forecast_seconds is not None]
    # the recalled rounds took no time now; without that of the first process nothing would seem left
    assert left[0] > 0.1 * left[-1]
