"""Limits of the latency: proposals, ensembles and reports."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.inference.latency import (
    EncodingSeconds,
    encoding_seconds,
    network_seconds,
    seconds_of,
    used_sections,
)
from parallelmlp_search.search import Problem, RunDirectory, SearchResult, SearchSettings, run
from parallelmlp_search.search.finalists.latency import Latency, missed_limit
from parallelmlp_search.search.problem.latency import LatencyMeter
from parallelmlp_search.space import Categorical, Float, MLPConfig, SearchSpace

SPACE = SearchSpace(
    {
        "width": Categorical((8, 512)),
        "depth": Categorical((1, 3)),
        "learning_rate": Float(1e-3, 1e-2, log=True),
    }
)


def meter_of(
    context: Any, limit: float, costs: Callable[[MLPConfig], float], encoding: float
) -> LatencyMeter:
    """Meter with given costs instead of measured ones."""
    part = context.preparation.screening()
    meter = LatencyMeter(context.preparation.problem, part.preprocessor.encoder_, part.head, limit, 100)
    meter.network = meter.predicted = costs  # type: ignore[method-assign]
    meter.calibrate = lambda configs: None  # type: ignore[method-assign]
    meter.encoding = lambda n_folds: EncodingSeconds(encoding * n_folds, (0.0,))  # type: ignore[method-assign]
    meter.sections = lambda config: (True,)  # type: ignore[method-assign]
    return meter


@pytest.fixture
def limited(make_settings: Callable[..., SearchSettings]) -> SearchSettings:
    return make_settings(infer_limit="1ms", infer_batch_size=200)


def test_only_fast_configurations_are_proposed(spam: Problem, make_context: Any, make_settings: Any) -> None:
    context = make_context(spam, make_settings(search_space=SPACE))
    meter = meter_of(context, 1.0, lambda config: 0.4 if max(config.widths) < 100 else 2.0, 0.2)
    rng = np.random.default_rng(0)
    drawn = meter.fitting(lambda count: SPACE.sample(count, rng))(20)
    assert len(drawn) == 20
    assert {max(config.widths) for config in drawn} == {8}


def test_a_limit_that_no_network_keeps_is_refused_with_the_least(
    spam: Problem, make_context: Any, make_settings: Any
) -> None:
    meter = meter_of(make_context(spam, make_settings(search_space=SPACE)), 1e-6, lambda _: 3e-6, 2e-6)
    rng = np.random.default_rng(0)
    with pytest.raises(
        InvalidParameterError, match=r"at least about 5\.5us .* takes 5us .* a row 2us of them, but got 1us"
    ):
        meter.sample(lambda count: SPACE.sample(count, rng), 5)
    # a search that has begun goes on without further proposals
    assert meter.fitting(lambda count: SPACE.sample(count, rng))(5) == []


def test_a_search_within_a_limit_reports_its_latency(
    spam: Problem, limited: SearchSettings, tmp_path: Path
) -> None:
    directory = RunDirectory.create(tmp_path / "run")
    result = run(spam, limited, directory=directory, n_jobs=1)
    assert result.latency is not None
    assert 0.0 < result.latency.seconds_per_row <= 1e-3
    assert result.latency.n_folds == len(result.model.folds)
    stored = json.loads((tmp_path / "run" / "result.json").read_text())["latency"]
    assert stored["limit"] == 1e-3
    assert stored["batch"] == 200
    board = result.leaderboard.to_frame()
    finalists = board[board["latency"].notna()]
    assert len(finalists) == 3
    assert finalists["pareto"].any()
    assert not board.loc[board["latency"].isna(), "pareto"].any()


def test_a_resumed_search_recalls_what_was_measured(
    spam: Problem, limited: SearchSettings, tmp_path: Path
) -> None:
    directory = RunDirectory.create(tmp_path / "run")
    first = run(spam, limited, directory=directory, n_jobs=1)
    entries = directory.entries()
    assert {"latency", "took-0", "drawn-0"} <= set(entries)
    directory.update(status="running")
    second = run(spam, limited, directory=directory, n_jobs=1)
    assert second.latency == first.latency
    assert second.model.trials == first.model.trials


def test_a_tight_limit_leaves_out_folds_and_networks(
    spam: Problem, make_settings: Any, monkeypatch: Any
) -> None:
    # the model of all folds takes three times as long as that of one
    monkeypatch.setattr(LatencyMeter, "network", lambda self, config: 1.0)
    monkeypatch.setattr(
        LatencyMeter, "encoding", lambda self, n_folds: EncodingSeconds(0.1 * n_folds, (0.0,))
    )
    monkeypatch.setattr(LatencyMeter, "sections", lambda self, config: (True,))
    measured: list[int] = []

    def took(function: Callable[[], Any]) -> float:
        model = function.__closure__[0].cell_contents  # type: ignore[index]
        measured.append(len(model.folds))
        return 1.1 * len(model.folds) * len(model.trials) * 100

    monkeypatch.setattr("parallelmlp_search.search.finalists.latency.seconds_of", took)
    result = run(spam, make_settings(infer_limit=2.5, infer_batch_size=100), n_jobs=1)
    assert result.latency is not None
    assert len(result.model.folds) * len(result.model.trials) <= 2
    assert result.latency.seconds_per_row <= 2.5
    assert result.left_out == []
    assert result.honest is not None
    assert np.isfinite(result.honest.score)


def test_the_measured_model_decides_and_a_missed_limit_is_said(
    spam: Problem, make_settings: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr("parallelmlp_search.search.finalists.latency.seconds_of", lambda function: 500.0)
    with pytest.warns(UserWarning, match="no finalist is faster"):
        result = run(spam, make_settings(infer_limit="2ms", infer_batch_size=100), n_jobs=1)
    assert result.latency is not None
    assert missed_limit(result.latency) == result.left_out
    assert missed_limit(replace(result.latency, seconds_per_row=1e-3)) == []
    assert missed_limit(None) == []


def test_a_limit_keeps_the_scores_of_trials(
    spam: Problem, found: SearchResult, limited: SearchSettings
) -> None:
    """With a generous limit all configurations fit, so the search is the same."""
    generous = replace(limited, infer_limit=10.0)
    result = run(spam, generous, n_jobs=1)
    pd.testing.assert_series_equal(
        result.leaderboard.to_frame()["score"], found.leaderboard.to_frame()["score"]
    )


@pytest.mark.parametrize("limit", ["0us", -1, "fast", True, float("nan")])
def test_limits_are_checked(limit: Any) -> None:
    with pytest.raises(InvalidParameterError, match="infer_limit must be > 0 seconds"):
        SearchSettings(infer_limit=limit)


def test_wide_networks_are_slower(spam: Problem, make_context: Any, make_settings: Any) -> None:
    context = make_context(spam, make_settings())
    part = context.preparation.screening()
    encoder, head = part.preprocessor.encoder_, part.head
    shapes = [context.data.architecture(MLPConfig(widths=(width, width))) for width in (4, 1024)]
    narrow, wide = (network_seconds(shape, encoder, head, 512) for shape in shapes)
    assert 0.0 < narrow < wide
    assert seconds_of(lambda: torch.zeros(1)) < 1.0
    assert Latency(1.0, 2.0, 10, 3, (1.0,)).to_dict() == {
        "seconds_per_row": 1.0, "limit": 2.0, "batch": 10, "n_folds": 3
    }  # fmt: skip


def test_times_of_a_few_networks_predict_the_others(
    spam: Problem, make_context: Any, make_settings: Any
) -> None:
    """Only the order of size is tested, since other programs can run beside the test."""
    context = make_context(spam, make_settings(search_space="default", infer_limit=1.0))
    part = context.preparation.screening()
    meter = LatencyMeter(context.preparation.problem, part.preprocessor.encoder_, part.head, 1.0, 500)
    configs = SearchSpace.preset("default").sample(60, np.random.default_rng(0))
    meter.calibrate(configs[:40])
    ratios = [meter.predicted(config) / meter.network(config) for config in configs[40:]]
    assert 0.4 < np.median(ratios) < 2.5
    assert np.quantile(np.abs(np.log(ratios)), 0.8) < np.log(4.0)


def test_only_the_inputs_that_a_network_uses_count(
    spam: Problem, make_context: Any, make_settings: Any
) -> None:
    context = make_context(spam, make_settings(numeric_bins=8))
    encoder = context.preparation.screening().preprocessor.encoder_
    seconds = encoding_seconds(encoder, spam.frame.iloc[:200], 2)
    assert len(seconds.sections) > 1
    assert min(seconds.reading, *seconds.sections) > 0
    plain, binned = (
        used_sections(context.data.architecture(MLPConfig(widths=(4,), numeric_embedding=name)), encoder)
        for name in ("none", "piecewise")
    )
    assert sum(plain) < sum(binned)
