"""A search keeps its time limit and records the work that it leaves out."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import log_loss

from benchmarks.limits import is_kept
from parallelmlp_search.distribute import ShardTask
from parallelmlp_search.exceptions import BudgetWarning
from parallelmlp_search.search import (
    Problem,
    Progress,
    RunDirectory,
    SearchResult,
    SearchSettings,
    planning,
    run,
)
from parallelmlp_search.search.screening import screening

pytestmark = pytest.mark.alone

Make = Callable[..., Any]
ROOT = Path(__file__).parents[2]


def _timed(
    problem: Problem, settings: SearchSettings, **values: Any
) -> tuple[SearchResult, float, list[str]]:
    """Result, wall-clock seconds, and messages of the budget warnings."""
    started = time.monotonic()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", BudgetWarning)
        result = run(problem, settings, **values)
    sentences = [str(warning.message) for warning in caught if warning.category is BudgetWarning]
    return result, time.monotonic() - started, sentences


def _assert_kept(limit: float, seconds: float) -> None:
    assert seconds <= 1.1 * limit + 1
    assert seconds > 0.8 * limit


@pytest.mark.parametrize(
    ("name", "n_rows", "limit"),
    [
        ("spambase", 4601, 5),
        pytest.param("adult", 48_842, 12, marks=pytest.mark.slow),
        pytest.param("letter", 20_000, 12, marks=pytest.mark.slow),
        pytest.param("diamonds", 53_940, 30, marks=pytest.mark.slow),
    ],
)
def test_a_time_limit_is_kept(
    name: str, n_rows: int, limit: float, make_problem: Make, tmp_path: Path
) -> None:
    problem = make_problem(name, n_rows)
    directory = RunDirectory.create(tmp_path / "run")
    result, seconds, sentences = _timed(problem, SearchSettings(time_limit=limit), directory=directory)
    _assert_kept(limit, seconds)
    assert result.elapsed_seconds <= seconds
    assert result.n_trials >= 2
    assert result.honest is not None
    assert sentences == result.left_out == directory.result()["left_out"]


def test_time_before_the_search_counts(spam: Problem) -> None:
    """The time limit includes reading the table."""
    result, seconds, _ = _timed(
        spam, SearchSettings("small", time_limit=6), started=time.monotonic() - 4, n_jobs=1
    )
    assert seconds <= 2 + 1.6
    assert result.elapsed_seconds >= 4


def test_a_limit_below_the_minimum_takes_the_minimum_and_names_it(spam: Problem) -> None:
    result, seconds, sentences = _timed(
        spam, SearchSettings("small", time_limit=1), started=time.monotonic() - 4, n_jobs=1
    )
    (sentence,) = [one for one in sentences if "below the minimum" in one]
    assert sentence.startswith("the time limit of 1 s is below the minimum of ")
    named = float(sentence.split("minimum of ")[1].split(" s ")[0])
    assert named == pytest.approx(4 + seconds, rel=0.2)
    assert 4 < result.elapsed_seconds <= 4 + seconds
    assert result.n_trials >= 1


@pytest.mark.skipif(sys.platform != "linux", reason="the start of the process is read from Linux")
def test_a_process_ends_at_its_limit_and_uses_it(tmp_path: Path) -> None:
    """A whole process, from its start to its end."""
    command = [sys.executable, "-m", "parallelmlp_search", "search", str(ROOT / "datasets/spambase.csv.gz")]
    command += ["--target", "type", "--time-limit", "10", "--jobs", "1", "--output", str(tmp_path / "run")]
    started = time.monotonic()
    done = subprocess.run([*command, "--quiet"], capture_output=True, text=True, check=True, cwd=ROOT)
    seconds = time.monotonic() - started
    if "below the minimum" in done.stderr:
        pytest.skip("other programs keep this machine too busy to start a search in 10 s")
    assert is_kept(10.0, seconds, busy=os.getloadavg()[0] > 0.9 * (os.cpu_count() or 1))


def test_a_search_without_time_is_better_than_guessing(make_problem: Make) -> None:
    """Reading the table has exceeded the limit; a few networks are trained nevertheless."""
    problem, test = make_problem("satimage", 600), make_problem("satimage", 600, seed=1)
    settings = SearchSettings(time_limit=6, metric="log_loss")
    result, seconds, _ = _timed(problem, settings, started=time.monotonic() - 8, n_jobs=1)
    assert seconds < 6
    classes, target = np.unique(test.target, return_inverse=True)
    likely = result.model.predictions(test.frame).T
    guessing = log_loss(target, np.tile(np.bincount(target) / len(target), (len(target), 1)))
    assert log_loss(target, likely, labels=range(len(classes))) < 0.6 * guessing


def test_work_beyond_the_time_limit_is_stopped_and_recorded(make_problem: Make) -> None:
    """With too many epochs the search ends in time, has a model, and reports the work left out."""
    problem = make_problem("adult", 20_000)
    settings = SearchSettings(
        "default", time_limit=4, max_epochs=600, n_finalists=12, n_folds=5, n_trials=100
    )
    result, seconds, sentences = _timed(problem, settings, n_jobs=2)
    assert seconds <= 1.1 * 4 + 1
    assert result.left_out
    assert sentences == result.left_out
    assert any("of 100 trials were begun in the time for screening" in sentence for sentence in sentences)
    assert any("finalists" in sentence for sentence in sentences)
    assert np.isfinite(result.model.predictions(problem.frame.iloc[:50])).all()
    final = result.trials[result.trials["state"] == "complete"]
    assert final["epochs"].max() < 600


def test_screening_ends_without_improvement(spam: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    """The finalists get the rest of its time."""
    monkeypatch.setattr(planning, "MAX_TRIALS", 30)  # the rest are extensions
    settings = SearchSettings("small", time_limit=4, max_epochs=2)
    extended, _, _ = _timed(spam, settings, n_jobs=1)
    monkeypatch.setattr(screening, "PATIENCE", 0)  # screening is never extended
    fixed, _, _ = _timed(spam, settings, n_jobs=1)
    assert fixed.n_trials == 30 < extended.n_trials


def test_work_within_the_time_limit_is_complete(spam: Problem, make_settings: Make) -> None:
    result, seconds, sentences = _timed(spam, make_settings(time_limit=60.0), n_jobs=1)
    assert seconds < 30
    assert result.left_out == sentences == []
    assert result.n_trials == 20


def test_remaining_seconds_decrease(spam: Problem) -> None:
    seen: list[Progress] = []
    _timed(spam, SearchSettings("small", time_limit=3), callbacks=[seen.append], n_jobs=1)
    left = [progress.seconds_left for progress in seen]
    assert all(seconds is not None and 0 <= seconds <= 3 for seconds in left)
    assert left == sorted(left, reverse=True)  # type: ignore[type-var]
    elapsed = [progress.elapsed_seconds for progress in seen]
    assert elapsed == sorted(elapsed)


@pytest.mark.parametrize("stage", ["screening", "cross-fitting"])
def test_a_resumed_search_ends_within_the_remaining_time(
    stage: str, make_problem: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from parallelmlp_search.search.run import journal

    monkeypatch.setattr(journal, "MIN_KEPT_SECONDS", 0.0)
    problem = make_problem("adult", 6000)
    settings = SearchSettings("default", time_limit=5)
    directory = RunDirectory.create(tmp_path / "run")
    trials: list[int] = []

    def interrupt(progress: Progress) -> None:
        trials.append(progress.n_trials)
        if progress.stage == stage and progress.done >= 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(problem, settings, directory=directory, callbacks=[interrupt])
    spent = directory.info()["spent_seconds"]
    assert 0 < spent < 6
    result, seconds, _ = _timed(problem, settings, directory=directory)
    assert spent + seconds <= 1.1 * 5 + 1.5
    assert directory.info()["status"] == "finished"
    assert result.n_trials >= trials[-1]
    if stage == "cross-fitting":
        # screening had ended: its result is read, not extended
        assert result.n_trials == trials[-1]


def test_a_round_stopped_by_the_deadline_ends_screening(
    spam: Problem, make_settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Members of a stopped round are at different steps, so a resumed search does not continue them."""
    from parallelmlp_search.search.run import journal

    train = journal.run_shards

    def with_late_shards(tasks: Iterable[ShardTask], **values: Any) -> Any:
        """Train every second shard of the first round with a deadline in the past."""

        def with_deadlines() -> Iterator[ShardTask]:
            for place, task in enumerate(tasks):
                late = task.key.startswith("round-000") and place % 2 == 1
                yield replace(task, deadline=time.monotonic() - 1) if late else task

        return train(with_deadlines(), **values)

    def interrupt(progress: Progress) -> None:
        if progress.stage == "cross-fitting":
            raise KeyboardInterrupt

    settings = make_settings(time_limit=60.0, n_trials=30)
    directory = RunDirectory.create(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(journal, "run_shards", with_late_shards)
        with pytest.raises(KeyboardInterrupt):
            run(spam, settings, directory=directory, callbacks=[interrupt], n_jobs=1)
    result, _, sentences = _timed(spam, settings, directory=directory, n_jobs=1)
    screened = result.trials[result.trials["round"] == 0]
    first = screened[screened["rung"] == 0]
    assert first["epochs"].nunique() >= 2
    assert set(result.trials["round"]) == {0}
    assert any("trials were begun in the time for screening" in sentence for sentence in sentences)
    assert directory.info()["status"] == "finished"


def test_screening_continues_while_there_is_time(spam: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan that predicts thirty times the real cost still uses the whole time limit."""
    from parallelmlp_search.search import planning
    from parallelmlp_search.search.run.budget import SearchPlan

    measured = planning._time_machine

    def overestimate(data: Any, sample: Any, throughput: Any) -> None:
        measured(data, sample, throughput)
        throughput._measured *= 30.0

    monkeypatch.setattr(planning, "_time_machine", overestimate)
    plans: list[SearchPlan] = []
    make = planning.make_plan
    monkeypatch.setattr(
        "parallelmlp_search.search.runner.make_plan", lambda *args: plans.append(make(*args)) or plans[0]
    )
    result, seconds, _ = _timed(spam, SearchSettings("small", time_limit=5), n_jobs=1)
    _assert_kept(5, seconds)
    planned = plans[0].n_fresh + plans[0].n_refined
    assert result.n_trials > planned
    assert set(result.trials["origin"]) == {"random", "refined"}


def test_the_start_of_workers_does_not_count_as_training_time(
    spam: Problem, make_settings: Make, make_context: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from parallelmlp_search.search import planning

    rounds: list[int] = []
    real = planning.run_shards

    def slow_start(tasks: list[ShardTask], *, n_workers: int) -> Iterator[Any]:
        rounds.append(len(tasks))
        for outcome in real(tasks, n_workers=n_workers):
            outcome.seconds += 60.0 if len(rounds) == 1 else 0.0
            yield outcome

    monkeypatch.setattr(planning, "run_shards", slow_start)
    context = make_context(spam, make_settings(time_limit=60.0))
    planning.make_plan(context)
    assert len(rounds) == 2
    assert context.throughput._measured < 60.0
