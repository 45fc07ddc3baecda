"""Baselines on the folds of a search: scores, effort, thresholds, and models no better than the prior."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import f1_score, log_loss, mean_absolute_error, r2_score, roc_auc_score

from parallelmlp_search.search import Problem, RunDirectory, SearchSettings, memory_planning, run
from parallelmlp_search.search.finalists import baselines
from parallelmlp_search.search.finalists.baseline_memory import (
    IMPORT_BYTES,
    baseline_bytes,
    predicted_bytes,
    table_sizes,
)
from parallelmlp_search.search.finalists.baseline_models import (
    MODELS,
    Effort,
    category_mask,
    efforts,
    model_inputs,
)
from parallelmlp_search.search.finalists.baselines import Baseline, beats_prior, compare_baselines
from parallelmlp_search.search.finalists.cross_fitting import CrossFit
from parallelmlp_search.search.finalists.sizes import snapshots_fit
from parallelmlp_search.search.memory_planning import estimated_peak
from parallelmlp_search.search.planning import make_plan
from parallelmlp_search.search.problem.preparation import Preparation
from parallelmlp_search.search.run.memory import MemoryPlan
from parallelmlp_search.selection import HonestScore

Make = Callable[..., Any]
LONG = 1e6


def cross_fit(problem: Problem, settings: SearchSettings, *, hold_out: bool | None = None) -> CrossFit:
    """Folds of a search, without finalists."""
    preparation = Preparation(problem, settings)
    if hold_out is None:
        hold_out = not snapshots_fit(preparation)
    parts = preparation.folds(3, hold_out_validation=hold_out)
    covered = torch.ones(preparation.n_oof, dtype=torch.bool)
    return CrossFit(preparation, parts, [], [], torch.empty(0), covered)


def scores(context: Any, fit: CrossFit, seconds: float = LONG) -> dict[str, Baseline]:
    return {one.name: one for one in compare_baselines(context, fit.parts, seconds)}


def inputs_of(fit: CrossFit, fold: int, *, codes: bool) -> tuple[Any, Any, Any]:
    """Training inputs, training target and predicted inputs of a fold."""
    data = fit.parts[fold].data
    assert data.prediction_inputs is not None
    train = model_inputs(data.rows.inputs, np.arange(len(data.rows.inputs)), data.columns, codes=codes)
    numbers = np.arange(len(data.prediction_inputs))
    return (
        train,
        data.rows.target.numpy(),
        model_inputs(data.prediction_inputs, numbers, data.columns, codes=codes),
    )


def test_classifiers_score_as_those_of_scikit_learn_on_the_same_folds(
    make_problem: Make, make_settings: Make, make_context: Make
) -> None:
    problem = make_problem("credit_g", 600)
    settings = make_settings()
    fit = cross_fit(problem, settings)
    found = scores(make_context(problem, settings), fit)
    assert list(found) == ["prior", "linear", "gradient_boosting"]
    assert found["prior"].score == 0.5
    places = {row: place for place, row in enumerate(fit.preparation.oof_rows)}
    for name, codes in (("linear", False), ("gradient_boosting", True)):
        expected = np.full(fit.preparation.n_oof, np.nan)
        for fold, part in enumerate(fit.parts):
            train, target, predicted = inputs_of(fit, fold, codes=codes)
            mask = category_mask(part.data.columns, part.data.rows.inputs.shape[1], codes=codes)
            assert mask.sum() == (len(part.data.columns.categories) if codes else 0)
            model = LogisticRegression(max_iter=100)
            if codes:
                model = HistGradientBoostingClassifier(
                    categorical_features=mask, early_stopping=False, random_state=0
                )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                likely = model.fit(train, target).predict_proba(predicted)[:, 1]
            for row, one in zip(part.predicted_rows, likely, strict=True):
                if row in places:
                    expected[places[row]] = one
        target = fit.preparation.target[fit.preparation.oof_rows]
        assert found[name].score == pytest.approx(roc_auc_score(target, expected), abs=1e-6)
        assert found[name].share == 1.0
        assert found[name].left_out is None


def test_codes_stand_for_the_indicators(make_problem: Make, make_settings: Make) -> None:
    """Equal codes have equal indicators, and a row without an indicator has no code."""
    fit = cross_fit(make_problem("adult", 500), make_settings())
    data = fit.parts[0].data
    first, count = data.columns.categories[0]
    plain = data.rows.inputs[:][:, first : first + count].numpy()
    train, _, _ = inputs_of(fit, 0, codes=True)
    column = train[:, train.shape[1] - len(data.columns.categories)]
    for row, code in zip(plain, column, strict=True):
        assert (row.max() == 0) if math.isnan(code) else (row.argmax() == code and row.max() == 1)


@pytest.mark.parametrize("metric", ["r2", "mae", "pinball:0.9"])
def test_regressions_predict_what_the_metric_asks_for(
    metric: str, make_problem: Make, make_settings: Make, make_context: Make
) -> None:
    problem = make_problem("diamonds", 700)
    settings = make_settings(metric=metric)
    fit = cross_fit(problem, settings)
    found = scores(make_context(problem, settings), fit)
    rows = fit.preparation.oof_rows
    truth = problem.target[rows]
    if metric == "r2":
        assert found["prior"].score == pytest.approx(0.0, abs=1e-9)
        assert 0.8 < found["linear"].score < 1  # type: ignore[operator]
        assert 0.8 < found["gradient_boosting"].score < 1  # type: ignore[operator]
        return
    level = 0.5 if metric == "mae" else 0.9
    constant = np.full(len(truth), np.quantile(truth, level))
    error = mean_absolute_error(truth, constant)
    if metric != "mae":
        residual = truth - constant
        error = np.maximum(level * residual, (level - 1) * residual).mean()
    assert found["prior"].score == pytest.approx(error, rel=1e-3)  # scikit-learn's quantile is a value
    assert found["linear"].score < 0.5 * error  # type: ignore[operator]
    assert found["gradient_boosting"].score < 0.4 * error  # type: ignore[operator]


def test_a_regression_is_in_the_units_of_its_target(
    make_problem: Make, make_settings: Make, make_context: Make
) -> None:
    problem = make_problem("wine_quality", 500)
    two = replace(problem, target=np.stack([problem.target, 1e30 * problem.target], axis=1))
    for one, metric in ((problem, "r2"), (two, "r2")):
        settings = make_settings(metric=metric)
        fit = cross_fit(one, settings)
        found = scores(make_context(one, settings), fit)
        if one is problem:
            single = found
            rows = fit.preparation.oof_rows
            places = np.searchsorted(rows, np.concatenate([p.predicted_rows for p in fit.parts]))
            values = []
            for fold in range(3):
                train, target, predicted = inputs_of(fit, fold, codes=False)
                head = fit.parts[fold].head
                value = Ridge().fit(train, target[0]).predict(predicted) * head.scale[0] + head.location[0]
                values.append(np.clip(value, head.lower[0], head.upper[0]))
            kept = np.isin(np.concatenate([p.predicted_rows for p in fit.parts]), rows)
            order = places[kept]
            assert found["linear"].score == pytest.approx(
                r2_score(one.target[rows][order], np.concatenate(values)[kept]), abs=1e-5
            )
    assert found["linear"].score == pytest.approx(single["linear"].score, abs=1e-6)
    assert found["gradient_boosting"].score == pytest.approx(single["gradient_boosting"].score, abs=1e-3)


def test_classes_that_a_fold_lacks_have_probability_zero(
    make_problem: Make, make_settings: Make, make_context: Make
) -> None:
    problem = make_problem("letter", 300)
    settings = make_settings(metric="log_loss")
    fit = cross_fit(problem, settings)
    found = scores(make_context(problem, settings), fit)
    target = fit.preparation.target[fit.preparation.oof_rows]
    prior = np.bincount(target, minlength=26) / len(target)
    assert found["prior"].score == pytest.approx(
        log_loss(target, np.tile(prior, (len(target), 1)), labels=range(26)), rel=1e-6
    )
    assert found["linear"].score < found["prior"].score  # type: ignore[operator]


@pytest.mark.parametrize("hold_out", [False, True], ids=["validation rows train", "held out"])
def test_thresholds_are_tuned_as_for_the_model(
    hold_out: bool, make_settings: Make, make_context: Make
) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(1500, 4)), columns=list("abcd"))
    odds = 1.2 * frame["a"] + frame["b"] - 2.5
    target = np.where(rng.random(1500) < 1 / (1 + np.exp(-odds)), "yes", "no").astype(object)
    problem = Problem(frame, target, "binary")
    tuned, plain = (make_settings(metric="f1", tune_thresholds=tune) for tune in (True, False))
    better = scores(make_context(problem, tuned), cross_fit(problem, tuned, hold_out=hold_out))
    worse = scores(make_context(problem, plain), cross_fit(problem, plain, hold_out=hold_out))
    assert better["linear"].score > worse["linear"].score + 0.05  # type: ignore[operator]
    assert worse["prior"].score == 0.0
    rows = Preparation(problem, tuned).oof_rows
    positive = target[rows] == "yes"
    assert better["prior"].score == pytest.approx(f1_score(positive, np.ones(len(rows))))


def test_the_effort_follows_from_the_time(
    make_problem: Make, make_settings: Make, make_context: Make
) -> None:
    problem = make_problem("adult", 6000)
    settings = make_settings()
    fit = cross_fit(problem, settings)
    context = make_context(problem, settings)
    nothing = scores(context, fit, 5.0)
    assert nothing["prior"].score == 0.5
    for name in ("linear", "gradient_boosting"):
        assert nothing[name].score is None
        assert nothing[name].left_out == "the search is too short for it"
    some = scores(make_context(problem, settings), fit, 25.0)
    assert some["gradient_boosting"].score > 0.85  # type: ignore[operator]
    assert {name: one.score for name, one in some.items()} == {
        name: one.score for name, one in scores(make_context(problem, settings), fit, 25.0).items()
    }


def test_efforts_lose_iterations_before_rows() -> None:
    assert list(efforts(MODELS[1], 5000, 1000)) == [
        Effort(5000, 100), Effort(5000, 50), Effort(5000, 30), Effort(2500, 30), Effort(1250, 30)
    ]  # fmt: skip
    assert list(efforts(MODELS[0], 300, 1000)) == [Effort(300, 100)]


def test_predicted_seconds_grow_with_the_effort() -> None:
    for model in MODELS:
        once = model.seconds(Effort(2000, 30), 10, 1)
        assert model.seconds(Effort(4000, 30), 10, 1) > once
        assert model.seconds(Effort(2000, 60), 10, 1) > once
        assert model.seconds(Effort(2000, 30), 10, 3) > once


def test_large_tables_are_fitted_to_a_part_of_the_rows(
    make_problem: Make, make_settings: Make, make_context: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem, settings = make_problem("adult", 6000), make_settings()
    monkeypatch.setattr(baselines, "MAX_CELLS", 50_000)
    found = scores(make_context(problem, settings), cross_fit(problem, settings))
    assert 0 < found["gradient_boosting"].share < 1


def test_a_memory_limit_leaves_rows_or_a_baseline_out(
    make_problem: Make, make_settings: Make, make_context: Make
) -> None:
    problem, settings = make_problem("adult", 6000), make_settings()
    context, fit = make_context(problem, settings), cross_fit(problem, settings)

    def within(room: int) -> dict[str, Baseline]:
        plan = MemoryPlan(2 * room, room, room, room)
        return scores(make_context(problem, settings).within(plan), fit)

    sizes = table_sizes(context.preparation, context.data, MODELS[1])
    whole, few = (IMPORT_BYTES + predicted_bytes(MODELS[1], n_rows, sizes) for n_rows in (4000, 1500))
    assert within(2 * whole)["gradient_boosting"].share == 1.0
    assert 0.2 < within(few)["gradient_boosting"].share < 0.5
    found = within(IMPORT_BYTES)["gradient_boosting"]
    assert (found.score, found.left_out) == (None, "the memory limit is too low for it")


def test_the_predicted_peak_includes_the_baselines(
    spam: Problem, make_settings: Make, make_context: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings()
    context = make_context(spam, settings).within(MemoryPlan(4 * 10**9, 10**9, 2 * 10**9, 10**9))
    plan = make_plan(make_context(spam, settings))
    configs = settings.space.sample(8, np.random.default_rng(0))
    before = estimated_peak(context, plan, configs)
    needed = baseline_bytes(context, plan.n_folds)
    assert 10**7 < needed < 10**8
    assert baseline_bytes(make_context(spam, settings), plan.n_folds) == 0
    assert (
        baseline_bytes(replace(context, preparation=Preparation(spam, replace(settings, baselines=False))), 3)
        == 0
    )
    monkeypatch.setattr(memory_planning, "baseline_bytes", lambda *_: 10**9)
    assert estimated_peak(context, plan, configs) == 2 * 10**9 > before


def test_a_baseline_that_fails_has_a_reason(
    spam: Problem, make_settings: Make, make_context: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise ValueError("no\nsolution")

    monkeypatch.setattr(baselines, "MODELS", (replace(MODELS[0], fit=fail), MODELS[1]))
    settings = make_settings()
    found = scores(make_context(spam, settings), cross_fit(spam, settings))
    assert (found["linear"].score, found["linear"].left_out) == (None, "no solution")
    assert found["gradient_boosting"].score > 0.8  # type: ignore[operator]


def test_the_time_limit_ends_a_baseline(
    spam: Problem, make_settings: Make, make_context: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings(time_limit=100.0)
    context = make_context(spam, settings)
    real = baselines.time.monotonic
    spent = [0.0]

    def slow(*arguments: Any) -> Any:
        spent[0] += 3.0
        return MODELS[0].fit(*arguments)

    monkeypatch.setattr(baselines.time, "monotonic", lambda: real() + spent[0])
    monkeypatch.setattr(baselines, "MODELS", (replace(MODELS[0], fit=slow), MODELS[1]))
    found = scores(context, cross_fit(spam, settings))
    assert (found["linear"].score, found["linear"].left_out) == (None, "the time limit")


def test_a_model_no_better_than_the_prior_is_reported(tmp_path: Path, make_settings: Make) -> None:
    rng = np.random.default_rng(3)
    frame = pd.DataFrame(rng.normal(size=(400, 3)), columns=list("abc"))
    problem = Problem(frame, rng.permutation(np.repeat(["a", "b"], 200)).astype(object), "binary")
    directory = RunDirectory.create(tmp_path / "run")
    result = run(problem, make_settings(n_trials=4, max_epochs=2), directory=directory, n_jobs=1)
    assert result.beats_prior is False
    stored = json.loads((directory.path / "result.json").read_text())
    assert stored["beats_prior"] is False
    assert stored["baselines"][0] == {"name": "prior", "score": 0.5, "share": 1.0, "left_out": None}
    assert directory.entries()["baselines"] == stored["baselines"]  # a resumed search reads them


def test_the_interval_decides_who_beats_the_prior() -> None:
    prior = [Baseline("prior", 0.5, 1.0)]
    score = HonestScore(0.6, 0.02, 0.56, 0.64, 0.6, 0.0)
    assert beats_prior(score, prior, greater_is_better=True) is True
    assert beats_prior(score, prior, greater_is_better=False) is False
    assert beats_prior(replace(score, low=0.49), prior, greater_is_better=True) is False
    assert beats_prior(replace(score, high=0.44), prior, greater_is_better=False) is True
    assert beats_prior(None, prior, greater_is_better=True) is None
    assert beats_prior(score, [], greater_is_better=True) is None


def test_no_baselines_without_held_out_rows_or_by_request(
    spam: Problem, make_settings: Make, make_context: Make
) -> None:
    settings = make_settings(baselines=False)
    assert scores(make_context(spam, settings), cross_fit(spam, settings)) == {}
    tiny = Problem(spam.frame.iloc[:12], spam.target[:12], "binary")
    settings = make_settings()
    assert scores(make_context(tiny, settings), cross_fit(tiny, settings)) == {}
