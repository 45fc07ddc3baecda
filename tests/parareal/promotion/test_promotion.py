"""Promotion of a finished run: networks, scores, ensemble, files."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch

from parallelmlp_search.exceptions import InvalidParameterError, RunDirectoryError, SearchFailedError
from parallelmlp_search.parareal import (
    Link,
    PromotionResult,
    PromotionSettings,
    promote,
)
from parallelmlp_search.parareal.promotion import runner
from parallelmlp_search.parareal.promotion.candidates import (
    Forecast,
    PromotionCandidate,
    forecast,
    select_candidates,
)
from parallelmlp_search.parareal.promotion.model import PromotedModel, load_promoted
from parallelmlp_search.parareal.ranks.jobs import Job
from parallelmlp_search.runs import load_model
from parallelmlp_search.search import Problem, RunDirectory, TrainedModel
from parallelmlp_search.search.problem.preparation import Preparation
from parallelmlp_search.space import MLPConfig


@pytest.fixture(scope="module")
def promoted(
    finished: Path, problem: Problem, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, PromotionResult]:
    folder = Path(shutil.copytree(finished, tmp_path_factory.mktemp("promoted") / "run"))
    outcome, _ = promote(RunDirectory.open(folder), problem, slices=2, depth_factor=4, epochs=12)
    return folder, outcome


def promoted_alone(directory: RunDirectory, number: int) -> PromotedModel:
    """A model with one promoted network."""
    model = load_promoted(directory)
    assert model is not None
    member = replace(model.promoted[number], weight=1.0)
    return replace(model, weights=np.zeros_like(model.weights), promoted=(member,), decision_weights=None)


def test_both_forms_are_compared(promoted: tuple[Path, PromotionResult]) -> None:
    folder, outcome = promoted
    serial, sliced = outcome.contenders
    assert (serial.slices, sliced.slices) == (1, 2)
    assert serial.trial == sliced.trial
    assert sliced.parameters > serial.parameters
    assert all(0 < contender.score < 3 for contender in outcome.contenders)
    assert outcome.metric == "log_loss"
    assert any("serial twin" in sentence for sentence in outcome.remarks)
    assert any("gains no time" in sentence for sentence in outcome.remarks)
    written = json.loads((folder / "promoted" / "promotion.json").read_text())
    assert [row["score"] for row in written["contenders"]] == [serial.score, sliced.score]
    assert not list(folder.rglob("*.pkl"))
    assert {path.suffix for path in (folder / "promoted").iterdir()} == {".json", ".safetensors"}


def test_scores_are_those_of_networks_that_were_trained_on_other_rows(
    promoted: tuple[Path, PromotionResult], problem: Problem
) -> None:
    folder, outcome = promoted
    directory = RunDirectory.open(folder)
    preparation = Preparation(problem, directory.settings())
    for number, contender in enumerate(outcome.contenders):
        model = promoted_alone(directory, number)
        predictions = np.full((6, problem.n_rows), np.nan)
        for fold, part in enumerate(preparation.folds(2)):
            member = model.promoted[0]
            states = (member.states[fold],)
            alone = replace(model, folds=[model.folds[fold]], promoted=(replace(member, states=states),))
            rows = part.predicted_rows
            predictions[:, rows] = alone.predictions(problem.frame.iloc[rows])
        rows = preparation.oof_rows
        picked = torch.from_numpy(predictions[:, rows])[None]
        error = preparation.metric.error(picked, preparation.metric_target(rows), None)
        assert float(error[0]) == pytest.approx(contender.score, rel=1e-4)


def test_the_run_predicts_with_the_selected_ensemble(
    promoted: tuple[Path, PromotionResult], problem: Problem
) -> None:
    folder, outcome = promoted
    directory = RunDirectory.open(folder)
    model, base = load_model(directory), TrainedModel.load(directory.model_folder)
    result = directory.result()
    assert outcome.used, outcome.remarks  # deep networks are better than the small finalists
    assert outcome.score_after < outcome.score_before
    assert result["promotion"]["used"]
    assert result["honest"]["score"] == outcome.honest_after
    assert result["promotion"]["honest_of_search"]["score"] == outcome.honest_before
    rows = problem.frame.head(40)
    parts = [promoted_alone(directory, number).predictions(rows) for number in range(2)]
    shares = [member["weight"] for member in result["promotion"]["members"]]
    packed = model.ensemble.predictions(rows)
    expected = packed + sum(share * part for share, part in zip(shares, parts, strict=True))
    np.testing.assert_allclose(model.predictions(rows), expected, atol=1e-6)
    # the temperature was fitted without promoted networks
    assert base.temperature != 1.0 == model.temperature == result["temperature"]
    assert abs(model.predictions(rows) - base.predictions(rows)).max() > 1e-3
    assert float(model.weights.sum()) + sum(shares) == pytest.approx(1.0)
    assert set(model.predict(rows)) <= set(problem.target)


def test_promoting_again_trains_nothing(
    promoted: tuple[Path, PromotionResult], problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, before = promoted

    def never(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(Job, "run", never)
    after, _ = promote(RunDirectory.open(folder), problem, slices=2, depth_factor=4, epochs=12)
    assert [c.score for c in after.contenders] == [c.score for c in before.contenders]
    assert after.honest_before == before.honest_before
    with pytest.raises(AssertionError, match="trained again"):
        promote(RunDirectory.open(folder), problem, slices=3, depth_factor=4, epochs=12)


def test_networks_whose_training_ended_early_are_named(
    promoted: tuple[Path, PromotionResult], problem: Problem, tmp_path: Path
) -> None:
    """The parareal network of one fold diverged, the serial twin did not."""
    folder, before = promoted
    assert not any("ended early" in sentence for sentence in before.remarks)
    copy = Path(shutil.copytree(folder, tmp_path / "run"))
    (path,) = copy.glob("promotion/*/*-2-slices-fold-1/outcome.json")
    outcome = json.loads(path.read_text())
    path.write_text(json.dumps(outcome | {"failure": "its loss became nan in epoch 3", "waited": 1.5}))
    after, _ = promote(RunDirectory.open(copy), problem, slices=2, depth_factor=4, epochs=12)
    assert "in 2 slices ended early: its loss became nan in epoch 3" in after.remarks[0]
    assert after.contenders[0].failure is None
    assert any("other programs or ranks had the cores for 100 %" in words for words in after.remarks)


def test_an_error_says_that_every_network_diverged(
    run_folder: Path, problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverging(*arguments: Any) -> list[PromotionCandidate]:
        config = MLPConfig(widths=(8, 8, 8), optimizer="sgd", learning_rate=1e30, schedule="constant")
        return [replace(found, config=config) for found in select_candidates(*arguments)]

    monkeypatch.setattr(runner, "select_candidates", diverging)
    with pytest.raises(SearchFailedError, match="every promoted network diverged: lower the learning rate"):
        promote(RunDirectory.open(run_folder), problem, slices=2, epochs=2)
    assert not (run_folder / "promoted").exists()


@pytest.mark.slow
def test_networks_that_do_not_help_are_not_used(run_folder: Path, problem: Problem) -> None:
    directory = RunDirectory.open(run_folder)
    before = directory.result()
    base = TrainedModel.load(directory.model_folder)
    outcome, model = promote(directory, problem, slices=4, depth_factor=400, epochs=1)
    assert not outcome.used
    assert outcome.honest_after == outcome.honest_before == before["honest"]["score"]
    assert "depth does not pay" in outcome.remarks[-1]
    assert directory.result()["honest"] == before["honest"]
    rows = problem.frame.head(20)
    np.testing.assert_array_equal(model.predictions(rows), base.predictions(rows))
    np.testing.assert_array_equal(load_model(directory).predictions(rows), base.predictions(rows))
    assert promoted_alone(directory, 1).predictions(rows).shape == (6, 20)


def test_other_data_and_invalid_values_are_rejected(run_folder: Path, problem: Problem) -> None:
    directory = RunDirectory.open(run_folder)
    other = Problem(problem.frame + 1, problem.target, "multiclass")
    with pytest.raises(RunDirectoryError, match="searched on other data"):
        promote(directory, other, slices=2)
    for values, words in (
        ({"slices": 1}, "slices must be an integer >= 2"),
        ({"epochs": 0}, "epochs must be an integer >= 1"),
        ({"replicas": 2}, "replicas and restarts are for ranks"),
        ({"timeout": 0.0, "slices": 2}, "timeout must be a finite number > 0"),
        ({"top": 0}, "top must be an integer >= 1"),
        ({"depth_factor": 0}, "depth_factor must be"),
        ({"slices": 9, "depth_factor": 2}, "slices must be at most the"),
    ):
        with pytest.raises(InvalidParameterError, match=words):
            promote(directory, problem, **values)  # type: ignore[arg-type]
    assert not (run_folder / "promoted").exists()


def test_class_weights_name_the_same_classes_without_temperature(finished: Path, problem: Problem) -> None:
    base = TrainedModel.load(RunDirectory.open(finished).model_folder)
    base = replace(base, temperature=0.7, decision_weights=(0.4, 0.6, 0.8, 1.0, 1.4, 1.8))
    model = PromotedModel.of(base, base.weights, ())
    assert model.temperature == 1.0
    assert model.decision_weights != base.decision_weights
    rows = problem.frame
    assert np.array_equal(model.predict(rows), base.predict(rows))
    other = replace(base, decision_weights=None)
    assert not np.array_equal(model.predict(rows), other.predict(rows))


def test_a_refitted_run_is_rejected(run_folder: Path, problem: Problem) -> None:
    result = json.loads((run_folder / "result.json").read_text())
    (run_folder / "result.json").write_text(json.dumps(result | {"refitted": 2}))
    with pytest.raises(RunDirectoryError, match="was refitted and holds no networks of folds"):
        promote(RunDirectory.open(run_folder), problem, slices=2)


def test_candidates_are_deepened_to_32_layers(finished: Path) -> None:
    directory = RunDirectory.open(finished)
    chosen = select_candidates(directory, PromotionSettings(top=2))
    assert len(chosen) == 2
    assert all(candidate.config.depth == 32 for candidate in chosen)
    assert all(candidate.config.residual for candidate in chosen)
    best = int(directory.leaderboard().iloc[0]["trial"])
    assert chosen[0].trial == best
    (same,) = select_candidates(directory, PromotionSettings(depth_factor=1))
    assert same.config.depth < 3


def test_forecasts_recommend_at_most_the_number_of_devices(
    finished: Path, problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    near = PromotionSettings(depth_factor=64, link=Link(1e-7, 1e11))
    chosen = select_candidates(RunDirectory.open(finished), near)
    data = Preparation(problem, RunDirectory.open(finished).settings()).screening().data

    def predict(settings: PromotionSettings) -> Forecast:
        (found,) = forecast(chosen, data, settings, device_flops=1e10)
        return found

    monkeypatch.setattr(joblib, "cpu_count", lambda: 2)
    free, two = predict(near), predict(replace(near, launch=True))
    far = predict(replace(near, link=Link(1.0, 1e11)))
    assert free.recommended > 2
    assert two.recommended == 2
    assert far.recommended == 1
    assert [row["slices"] for row in free.to_dict()["predictions"]][-1] == 64
    seven = predict(replace(near, slices=7))
    found = {p.slices: p.step for p in seven.predictions}
    assert {p.slices: p.step for p in free.predictions}.items() < found.items()
    assert found.keys() - {p.slices for p in free.predictions} == {7}
    assert found[8] < found[7] < found[6]
