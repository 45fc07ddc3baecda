"""Decision thresholds and temperatures of a search: fitted on validation rows, stored and scored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import f1_score, roc_auc_score

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.search import Problem, RunDirectory, SearchResult, TrainedModel, run
from parallelmlp_search.search.finalists import postprocessing
from parallelmlp_search.search.problem.preparation import Preparation
from parallelmlp_search.selection import METRICS, apply_temperature, weight_classes

Make = Callable[..., Any]


F1 = {"metric": "f1", "n_trials": 8, "calibration": "none", "refinement": 0.4}


def rare(n_rows: int, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Table with a positive class of about one row in eight."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.normal(size=(n_rows, 4)), columns=list("abcd"))
    odds = 1.1 * frame["a"] + 0.8 * frame["b"] - 2.5
    target = np.where(rng.random(n_rows) < 1 / (1 + np.exp(-odds)), "yes", "no")
    return frame, target.astype(object)


@pytest.fixture(scope="module")
def imbalanced() -> Problem:
    frame, target = rare(900)
    return Problem(frame, target, "binary")


@pytest.fixture(scope="module")
def plain(imbalanced: Problem, make_settings: Make) -> SearchResult:
    return run(imbalanced, make_settings(**F1, tune_thresholds=False), n_jobs=1)


@pytest.fixture(scope="module")
def tuned(imbalanced: Problem, make_settings: Make) -> SearchResult:
    return run(imbalanced, make_settings(**F1), n_jobs=1)


def test_thresholds_improve_f1_on_held_out_rows(plain: SearchResult, tuned: SearchResult) -> None:
    frame, target = rare(6000, seed=1)
    before, after = (f1_score(target == "yes", m.model.predict(frame) == "yes") for m in (plain, tuned))
    assert after > before + 0.1
    assert tuned.model.decision_weights is not None
    assert tuned.model.decision_weights[1] > 1 > tuned.model.decision_weights[0]
    positive = tuned.model.predictions(frame)[1] > tuned.model.decision_weights[0] / 2
    assert np.array_equal(tuned.model.predict(frame) == "yes", positive)


def test_trials_that_never_predict_the_rare_class_have_different_scores(
    plain: SearchResult, tuned: SearchResult
) -> None:
    first = [found.trials.groupby("trial").head(1)["score"] for found in (plain, tuned)]
    assert first[1].nunique() > first[0].nunique()
    assert first[1].median() > 0.1  # scores are those at the best thresholds
    frame, target = rare(6000, seed=1)
    odds = [roc_auc_score(target == "yes", m.model.predictions(frame)[1]) for m in (plain, tuned)]
    assert odds[1] > odds[0]


def test_the_honest_score_uses_the_thresholds(tuned: SearchResult) -> None:
    frame, target = rare(20_000, seed=2)
    truth = f1_score(target == "yes", tuned.model.predict(frame) == "yes")
    assert tuned.honest is not None
    assert abs(tuned.honest.score - truth) < 2.5 * tuned.honest.standard_error
    assert 0.01 < tuned.honest.standard_error < 0.1


def test_a_loaded_model_predicts_the_same(tuned: SearchResult, tmp_path: Path) -> None:
    frame, _ = rare(500, seed=3)
    tuned.model.save(tmp_path)
    loaded = TrainedModel.load(tmp_path)
    assert loaded.decision_weights == tuned.model.decision_weights
    assert np.array_equal(loaded.predict(frame), tuned.model.predict(frame))
    assert not np.array_equal(replace(loaded, decision_weights=None).predict(frame), loaded.predict(frame))


class Recorder:
    """Recorder of the rows that thresholds are tuned on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[torch.Tensor, torch.Tensor]] = []
        tune = postprocessing.tune_thresholds

        def recording(predictions: torch.Tensor, target: torch.Tensor, *rest: Any, **values: Any) -> Any:
            self.calls.append((predictions, target))
            return tune(predictions, target, *rest, **values)

        monkeypatch.setattr(postprocessing, "tune_thresholds", recording)


def test_out_of_fold_predictions_tune_thresholds_if_validation_rows_train(
    imbalanced: Problem, make_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(monkeypatch)
    settings = make_settings(**F1 | {"n_trials": 4})
    found = run(imbalanced, settings, n_jobs=1)
    preparation = Preparation(imbalanced, settings)
    (_, (predictions, target)) = recorder.calls  # the first call is for the average of all finalists
    rows = preparation.validation_rows
    assert torch.equal(target, preparation.metric_target(rows))
    # each row is predicted by the fold that did not train on it
    expected = np.full((2, len(rows)), np.nan)
    parts = preparation.folds(3, hold_out_validation=False)
    for fold, part in zip(found.model.folds, parts, strict=True):
        predicted = np.isin(rows, part.predicted_rows)
        alone = replace(found.model, folds=[fold])
        expected[:, predicted] = alone.ensemble.predictions(imbalanced.frame.iloc[rows[predicted]])
    assert np.allclose(predictions.numpy(), expected, atol=1e-5)
    averages = found.model.predictions(imbalanced.frame.iloc[rows])
    assert not np.allclose(predictions.numpy(), averages, atol=1e-3)


def test_thresholds_of_rows_in_time_are_tuned_on_the_last_ones(
    imbalanced: Problem, make_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(monkeypatch)
    ordered = replace(imbalanced, time=np.arange(imbalanced.n_rows))
    settings = make_settings(**F1 | {"n_trials": 4})
    found = run(ordered, settings, n_jobs=1)
    (_, (predictions, target)) = recorder.calls  # the first call is for the average of all finalists
    rows = Preparation(ordered, settings).validation_rows
    assert rows.min() > 0.75 * ordered.n_rows  # no fold trains on these rows
    assert np.array_equal(target.numpy(), (ordered.target[rows] == "yes").astype(int))
    assert np.allclose(predictions.numpy(), found.model.predictions(ordered.frame.iloc[rows]))


@pytest.mark.parametrize(
    ("n_rows", "metric", "tune"), [(19, "f1", True), (120, "roc_auc", True), (120, "f1", False)]
)
def test_thresholds_are_tuned_only_if_requested_for_a_metric_of_labels_with_enough_rows(
    n_rows: int, metric: str, tune: bool, make_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(monkeypatch)
    frame, _ = rare(n_rows)
    target = np.where(frame["a"] > 0, "yes", "no").astype(object)
    found = run(
        Problem(frame, target, "binary"),
        make_settings(metric=metric, n_trials=2, n_finalists=1, tune_thresholds=tune, calibration="none"),
        n_jobs=1,
    )
    assert recorder.calls == []
    assert found.model.decision_weights is None
    assert np.array_equal(
        found.model.predict(frame), np.array(["no", "yes"])[found.model.predictions(frame).argmax(0)]
    )


def test_a_temperature_changes_probabilities_but_no_class(
    make_problem: Make, make_settings: Make, tmp_path: Path
) -> None:
    letters = make_problem("letter", 900)
    cold = run(letters, make_settings(n_trials=6, calibration="none"), n_jobs=1)
    directory = RunDirectory.create(tmp_path / "run")
    warm = run(letters, make_settings(n_trials=6), directory=directory, n_jobs=1)
    temperature = warm.model.temperature
    assert cold.model.temperature == 1.0
    assert temperature < 0.98  # after few epochs the networks are underconfident
    before, after = (torch.from_numpy(m.model.predictions(letters.frame)) for m in (cold, warm))
    assert torch.allclose(apply_temperature(before, temperature), after)
    assert np.array_equal(cold.model.predict(letters.frame), warm.model.predict(letters.frame))
    assert np.array_equal(TrainedModel.load(directory.model_folder).predictions(letters.frame), after.numpy())
    assert directory.result()["temperature"] == temperature
    assert warm.honest is not None
    assert cold.honest is not None
    kept = load_file(directory.path / "oof.safetensors")
    plain = mixed(warm, kept)
    truth = Preparation(letters, make_settings()).metric_target(kept["rows"].numpy())
    losses = METRICS["log_loss"](torch.stack([plain, apply_temperature(plain, temperature)]), truth)
    # the difference on out-of-fold rows, which did not fit the temperature, as a step towards the bound 0
    before, after = (found.honest.score - found.honest.averaging for found in (cold, warm))
    step = float(losses[0] - losses[1])
    assert after == pytest.approx(before - before * np.tanh(step / before), abs=1e-9)
    assert warm.honest.score < cold.honest.score


def mixed(found: SearchResult, kept: dict[str, torch.Tensor]) -> torch.Tensor:
    """Out-of-fold predictions (C, n) of the ensemble."""
    finalists = kept["trials"].tolist()
    members = [finalists.index(trial) for trial in found.model.trials]
    return torch.einsum(
        "p,pcn->cn", torch.from_numpy(found.model.weights), kept["predictions"][members].double()
    )


def test_finalists_are_scored_with_their_thresholds(
    imbalanced: Problem, make_settings: Make, tmp_path: Path
) -> None:
    directory = RunDirectory.create(tmp_path / "run")
    found = run(imbalanced, make_settings(**F1 | {"n_finalists": 1}), directory=directory, n_jobs=1)
    kept = load_file(directory.path / "oof.safetensors")
    plain = kept["predictions"][0].double()
    truth = Preparation(imbalanced, make_settings()).metric_target(kept["rows"].numpy())
    scores = METRICS["f1"](
        torch.stack([plain, weight_classes(plain, found.model.decision_weights)]), truth
    ).tolist()
    # with one finalist, the average of all finalists and the ensemble have the same thresholds
    assert found.leaderboard[0].score == pytest.approx(scores[1], abs=1e-9)
    assert found.honest is not None
    assert found.honest.naive == pytest.approx(scores[1], abs=1e-9)
    assert scores[1] > scores[0]


def test_calibration_of_a_regression_is_an_error(make_problem: Make, make_settings: Make) -> None:
    with pytest.raises(InvalidParameterError, match="calibration needs classes, but got 'temperature'"):
        run(make_problem("diamonds", 60), make_settings(calibration="temperature"), n_jobs=1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"calibration": "temprature"}, "calibration must be one of auto, temperature, none.*did you mean"),
        ({"tune_thresholds": "yes"}, "tune_thresholds must be True or False, but got 'yes'"),
        ({"refit": 1}, "refit must be True or False, but got 1"),
    ],
)
def test_settings_are_checked(values: dict[str, Any], message: str, make_settings: Make) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        make_settings(**values)
