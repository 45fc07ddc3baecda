"""Content of figures: their numbers are those of the run."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import confusion_matrix, roc_auc_score

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.report.plots import evaluation, explanation, hyperparameters, search
from parallelmlp_search.report.plots.theme import caption_of, label, robust_range, ticks, unique_labels
from parallelmlp_search.report.results.hyperparameters import HyperparameterImportance
from tests.report.conftest import HOSTILE, SmallRun, many_trials

Runs = Callable[[str], SmallRun]


def values(figure: Any, name: str, axis: str) -> list[float]:
    """Values of the trace of a name, without the breaks between lines."""
    (trace,) = [trace for trace in figure.data if trace.name == name]
    return [value for value in trace[axis] if value is not None]


def test_baselines_show_the_honest_score_and_the_stored_baselines(small_run: Runs) -> None:
    result = small_run("binary").content.search.result
    figure = search.baselines(small_run("binary").content.search)
    shown = {trace.y[0]: trace.x[0] for trace in figure.data}
    assert shown["this model"] == result["honest"]["score"]
    stored = {one["name"]: one["score"] for one in result["baselines"] if one["score"] is not None}
    assert shown["no columns (prior)"] == stored["prior"]
    assert len(shown) == 1 + len(stored)
    bar = figure.data[0].error_x
    assert shown["this model"] + bar.array[0] == pytest.approx(result["honest"]["high"])
    assert shown["this model"] - bar.arrayminus[0] == pytest.approx(result["honest"]["low"])
    for one in result["baselines"]:
        if one["left_out"]:
            assert one["left_out"] in caption_of(figure)


def test_weights_are_those_of_the_ensemble(small_run: Runs) -> None:
    done = small_run("binary").content.search
    figure = search.ensemble_weights(done)
    stored = {f"trial {one['trial']}": one["weight"] for one in done.result["ensemble"] if one["weight"] > 0}
    assert dict(zip(figure.data[0].y, figure.data[0].x, strict=True)) == pytest.approx(stored)
    assert list(figure.data[0].x) == sorted(figure.data[0].x, reverse=True)


def test_phases_are_those_of_the_result(small_run: Runs) -> None:
    done = small_run("binary").content.search
    figure = search.phases(done)
    assert list(figure.data[0].x) == [phase["seconds"] for phase in done.result["phases"].values()]


def test_learning_curves_hold_every_record_of_screening(small_run: Runs) -> None:
    done = small_run("binary").content.search
    figure = search.learning_curves(done)
    finalists = done.leaderboard[done.leaderboard["state"] == "complete"]
    drawn = sorted(score for trace in figure.data for score in trace.y if score is not None)
    records = done.trials
    last = records.groupby("trial")["rung"].transform("max")
    crossed = records["trial"].isin(finalists["trial"]) & (records["rung"] == last)
    assert crossed.sum() == len(finalists) > 0
    assert drawn == sorted(records.loc[~crossed, "score"].tolist())
    members = done.leaderboard.loc[done.leaderboard["ensemble_weight"] > 0, "trial"]
    expected = records.loc[~crossed & records["trial"].isin(members), "score"]
    assert sorted(values(figure, "in the ensemble", "y")) == sorted(expected.tolist())


def test_many_learning_curves_become_a_band_of_their_quantiles(small_run: Runs) -> None:
    done = many_trials(small_run("binary").content.search, 2000)
    figure = search.learning_curves(done)
    stopped = done.trials[done.trials["state"] == "pruned"]
    expected = stopped.groupby("rung")["score"].median()
    assert values(figure, "stopped (median)", "y") == pytest.approx(expected.tolist())
    assert len(figure.to_json()) < 40_000


@pytest.mark.parametrize("kind", ["size", "latency"])
def test_costs_and_scores_are_those_of_the_leaderboard(small_run: Runs, kind: str) -> None:
    content = small_run("binary").content
    done = content.search
    latencies = done.latencies(content.model)
    if kind == "size":
        figure, cost = search.score_by_size(done), done.ranked["n_parameters"].to_numpy()
    else:
        figure, cost = search.score_by_latency(done, content.model), latencies
    drawn = {
        (float(x), float(y))
        for trace in figure.data
        if trace.mode == "markers"
        for x, y in zip(trace.x, trace.y, strict=True)
    }
    assert drawn == {(float(x), float(y)) for x, y in zip(cost, done.ranked["score"], strict=True)}
    # more parameters take longer
    assert np.corrcoef(np.log(latencies), np.log(done.ranked["n_parameters"].astype(float)))[0, 1] > 0.5


def test_of_many_trials_the_best_and_a_sample_are_drawn(small_run: Runs) -> None:
    done = many_trials(small_run("binary").content.search, 5000)
    figure = search.score_by_size(done)
    markers = [trace for trace in figure.data if trace.mode == "markers"]
    assert sum(len(trace.x) for trace in markers) == search.MAX_SCATTERED
    best = set(done.ranked["score"].head(search.MAX_SCATTERED // 2))
    assert best <= {score for trace in markers for score in trace.y}
    assert "1,500 of 5,000 trials" in caption_of(figure)


def test_bars_of_hyperparameters_are_the_given_importance(small_run: Runs) -> None:
    found = HyperparameterImportance(("learning_rate", "width"), (0.5, 0.1), 0.6, 100)
    figure = hyperparameters.importance_of_hyperparameters(small_run("binary").content.search, found)
    assert list(figure.data[0].x) == [0.5, 0.1]
    assert list(figure.data[0].y) == ["learning rate", "width"]
    assert "60 %" in caption_of(figure)
    few = hyperparameters.importance_of_hyperparameters(small_run("binary").content.search)
    assert len(few.data) == 0
    assert "at least 30" in caption_of(few)


def test_parallel_coordinates_place_every_value(small_run: Runs) -> None:
    done = small_run("binary").content.search
    figure = hyperparameters.parallel_coordinates(done)
    names = [name.replace("_", " ") for name in done.hyperparameters]
    assert list(figure.layout.yaxis.ticktext) == names
    points = {
        (text, y): x
        for trace in figure.data
        for text, x, y in zip(trace.text, trace.x, trace.y, strict=True)
        if y is not None
    }
    level = len(names) - 1 - names.index("learning rate")
    rates = np.log(done.hyperparameters["learning_rate"].to_numpy(float))
    low, high = rates.min(), rates.max()
    if not hyperparameters.is_logarithmic(done.hyperparameters["learning_rate"]):
        rates = np.exp(rates)
        low, high = rates.min(), rates.max()
    for row, rate in zip(done.ranked.to_dict("records"), rates, strict=True):
        place = points[f"rank {row['rank']}, trial {row['trial']}", level]
        assert place == pytest.approx((rate - low) / (high - low), abs=1e-4)


def test_unused_values_leave_a_break_in_a_line() -> None:
    values, room = hyperparameters._positions(pd.Series(["a", None, "b"]))
    assert np.isnan(values[1])
    assert values[[0, 2]].tolist() == [0.0, 1.0]
    assert room > 0


def test_figures_of_classes_show_the_rows(small_run: Runs) -> None:
    rows = small_run("binary").content.rows
    assert rows is not None
    assert rows.origin == "out-of-fold"
    area = roc_auc_score(rows.target, rows.predictions[1])
    (name,) = [trace.name for trace in evaluation.roc(rows).data if "area" in (trace.name or "")]
    assert name.endswith(f"{area:.4f}")
    counts = confusion_matrix(rows.target, rows.predicted)
    right, wrong = evaluation.confusion_matrix(rows).data
    np.testing.assert_allclose(right.customdata, counts)
    shares = np.where(np.isnan(right.z), wrong.z, right.z)
    np.testing.assert_allclose(shares, counts / counts.sum(axis=1, keepdims=True))
    assert np.isnan(wrong.z).tolist() == [[True, False], [False, True]]
    (point,) = [trace for trace in evaluation.roc(rows).data if trace.name == "predicted class"]
    rates = counts / counts.sum(axis=1, keepdims=True)
    assert (point.x[0], point.y[0]) == pytest.approx((rates[0, 1], rates[1, 1]))
    with pytest.raises(InvalidParameterError, match="residuals needs a regression"):
        evaluation.residuals(rows)


def test_the_score_of_the_rows_is_that_of_the_run(small_run: Runs) -> None:
    run = small_run("binary")
    assert run.content.rows is not None
    score = roc_auc_score(run.content.rows.target, run.content.rows.predictions[1])
    assert score == pytest.approx(run.content.search.result["honest"]["naive"], abs=0.01)


def test_figures_of_a_regression_show_the_rows(small_run: Runs) -> None:
    rows = small_run("regression").content.rows
    assert rows is not None
    cloud = evaluation.predicted_and_actual(rows).data[0]
    np.testing.assert_allclose(cloud.x, rows.predictions[0])
    np.testing.assert_allclose(cloud.y, rows.target[0])
    cloud = evaluation.residuals(rows).data[0]
    np.testing.assert_allclose(cloud.y, rows.target[0] - rows.predictions[0])
    for draw in (evaluation.calibration, evaluation.roc, evaluation.confusion_matrix):
        with pytest.raises(InvalidParameterError, match="needs classes"):
            draw(rows)


def test_many_rows_of_a_regression_are_counted(monkeypatch: pytest.MonkeyPatch, small_run: Runs) -> None:
    rows = small_run("regression").content.rows
    assert rows is not None
    monkeypatch.setattr(evaluation, "MAX_POINTS", 10)
    cloud = evaluation.predicted_and_actual(rows).data[0]
    assert np.nansum(cloud.customdata) >= 0.98 * len(rows)


def test_importance_and_dependence_are_those_of_the_explanation(small_run: Runs) -> None:
    found = small_run("multiclass").content.explanation
    assert found is not None
    figure = explanation.importance(found)
    single = found.importance[found.importance["group"].isna()]
    assert list(figure.data[0].x) == single["importance"].tolist()
    assert list(figure.data[0].error_x.array) == single["standard_error"].tolist()
    for column in explanation.dependence_columns(found):
        figure = explanation.dependence(found, column)
        expected = found.dependence[found.dependence["column"] == column]
        for output, curve in expected.groupby("output"):
            axis = "x" if column == HOSTILE else "y"
            drawn = values(figure, label(output), axis)
            assert drawn == curve.loc[curve["position"].notna() | (column == HOSTILE), "prediction"].tolist()
    with pytest.raises(InvalidParameterError, match="column must be one whose dependence was computed"):
        explanation.dependence(found, "colour")


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_names_from_data_are_escaped_in_figures(small_run: Runs, task: str) -> None:
    content = small_run(task).content
    rows, found = content.rows, content.explanation
    assert rows is not None
    assert found is not None
    figures = [explanation.importance(found)]
    figures += [explanation.dependence(found, name) for name in explanation.dependence_columns(found)]
    if rows.classifies:
        drawn = (
            evaluation.calibration,
            evaluation.roc,
            evaluation.precision_recall,
            evaluation.confusion_matrix,
        )
    else:
        drawn = (evaluation.predicted_and_actual, evaluation.residuals)
    figures += [draw(rows) for draw in drawn]
    for figure in figures:
        shown = figure.to_dict()
        shown["layout"].pop("meta")  # a page prints captions as texts
        texts = json.dumps(shown, default=str)
        for tag in ("<script", "<img", "<b>", "<i>", "<u>"):
            assert tag not in texts, figure.layout.title.text


def test_labels_are_literal_short_and_different() -> None:
    assert label("<b>a</b>\nb") == "&lt;b&gt;a&lt;/b&gt; b"
    assert label("x" * 50, 10) == "x" * 9 + "…"
    found = unique_labels(["x" * 50, "x" * 51, "y"], 10)
    assert len(set(found)) == 3
    assert found[2] == "y"


def test_the_range_of_scores_leaves_out_few_bad_ones() -> None:
    scores = np.array([0.9, 0.91, 0.92, 0.89, 0.9, 0.91, 0.92, 0.88, 0.9, 0.91, 0.9, 0.2])
    found = robust_range(scores, 0.92, share=0.1)
    assert found is not None
    assert 0.8 < found[0] < 0.88
    assert found[1] > 0.92
    assert robust_range(scores[:-1], 0.92) is None
    low, high = robust_range(-scores, -0.92, share=0.1) or (0, 0)
    assert (low, high) == pytest.approx((-found[1], -found[0]))


def test_logarithmic_axes_have_at_least_three_ticks() -> None:
    for low, high in ((100.0, 250.0), (3.0, 1e6), (0.2, 0.9)):
        found = ticks(low, high)
        assert len(found["tickvals"]) >= 3
        assert all(low <= value <= high for value in found["tickvals"])
