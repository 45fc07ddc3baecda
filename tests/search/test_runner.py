"""Complete searches: results, files on disk, and reproducibility."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from parallelmlp_search.engine import execution_path
from parallelmlp_search.search import (
    Problem,
    Progress,
    RunDirectory,
    SearchResult,
    SearchSettings,
    TrialState,
    run,
)
from parallelmlp_search.space import Categorical, Int, SearchSpace

Make = Callable[..., Any]
Same = Callable[[pd.DataFrame, pd.DataFrame], None]


# ---------------------------------------------------------------------- results


def test_a_result_is_complete(found: SearchResult, spam: Problem) -> None:
    assert found.n_trials == 20
    assert (found.max_epochs, found.n_folds) == (4, 3)
    assert found.metric == "roc_auc"
    assert found.member_steps > 0
    assert found.left_out == []
    assert found.honest is not None
    assert 0.8 < found.honest.score <= 1
    assert found.honest.low <= found.honest.score <= found.honest.high
    assert len(found.leaderboard) == 20
    assert found.leaderboard[0].trial == found.best_trial
    assert found.leaderboard[0].config == found.best_config
    assert found.model.predictions(spam.frame).shape == (2, 400)
    assert json.loads(json.dumps(found.to_dict()))["n_trials"] == 20


def test_every_trial_has_a_row_for_each_of_its_rungs(found: SearchResult) -> None:
    trials = found.trials
    assert set(trials["trial"]) == set(range(20))
    assert not trials.duplicated(["trial", "rung"]).any()
    assert trials["failure"].isna().all()
    for _, rows in trials.groupby("trial"):
        assert rows["rung"].tolist() == list(range(len(rows)))
        assert rows["epochs"].is_monotonic_increasing
    assert np.allclose(trials["score"], 1 - trials["error"])
    assert set(trials["origin"]) == {"random", "refined"}
    assert set(trials["state"]) == {"pruned", "complete"}
    # one in three trials of all rounds advances
    per_rung = trials.groupby("rung").size()
    assert per_rung[0] == 20
    assert 5 <= per_rung[1] <= 10
    assert per_rung.iloc[-1] == 3  # the finalists, above all rungs


def test_ensemble_members_are_finalists_and_weights_sum_to_one(found: SearchResult) -> None:
    complete = set(found.trials.loc[found.trials["state"] == "complete", "trial"])
    assert set(found.model.trials) <= complete
    assert float(found.model.weights.sum()) == pytest.approx(1)
    board = found.leaderboard.to_frame()
    weighted = board.loc[board["ensemble_weight"] > 0, "trial"]
    assert set(weighted) == set(found.model.trials)
    # finalists rank above trials that were only screened
    assert set(board["trial"][: len(complete)]) == complete


# ---------------------------------------------------------------------- reproducibility


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_the_same_seed_gives_the_same_bits_with_any_number_of_workers(
    n_jobs: int,
    found: SearchResult,
    spam: Problem,
    make_settings: Make,
    assert_same_table: Same,
    tmp_path: Path,
) -> None:
    directory = RunDirectory.create(tmp_path / "run")
    again = run(spam, make_settings(), directory=directory, n_jobs=n_jobs)
    assert_same_table(again.trials, found.trials)
    assert_same_table(again.leaderboard.to_frame(), found.leaderboard.to_frame())
    assert np.array_equal(again.model.predictions(spam.frame), found.model.predictions(spam.frame))
    assert again.honest == found.honest
    # the files hold the returned result
    assert_same_table(directory.trials(), pd.read_parquet(tmp_path / "run" / "trials.parquet"))
    assert_same_table(
        directory.trials().astype(object).where(lambda frame: frame.notna(), None),
        found.trials.astype(object).where(lambda frame: frame.notna(), None),
    )


def test_another_seed_gives_another_search(found: SearchResult, spam: Problem, make_settings: Make) -> None:
    other = run(spam, make_settings(seed=1), n_jobs=1)
    assert other.trials["config_learning_rate"].tolist() != found.trials["config_learning_rate"].tolist()
    assert not np.array_equal(other.model.predictions(spam.frame), found.model.predictions(spam.frame))


@pytest.mark.slow
def test_a_large_search_is_repeatable_with_any_number_of_workers(
    make_problem: Make, assert_same_table: Same
) -> None:
    problem = make_problem("adult", 3000)
    settings = SearchSettings("default", n_trials=60, max_epochs=6)
    one, two = (run(problem, settings, n_jobs=n_jobs) for n_jobs in (1, 2))
    assert_same_table(one.trials, two.trials)
    frame = problem.frame
    assert np.array_equal(one.model.predictions(frame), two.model.predictions(frame))


# ---------------------------------------------------------------------- on disk


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_finished_run_holds_only_safe_formats(
    spam: Problem, make_settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from parallelmlp_search.search.run import journal

    monkeypatch.setattr(journal, "MIN_KEPT_SECONDS", 0.0)
    kinds: set[str] = set()
    checkpoints: set[str] = set()

    def check_files(progress: Progress) -> None:
        for path in _files(tmp_path / "run"):
            kinds.add(path.suffix or path.name)
            if path.parent.name == "checkpoints":
                checkpoints.add(path.name)

    directory = RunDirectory.create(tmp_path / "run")
    result = run(spam, make_settings(), directory=directory, callbacks=[check_files], n_jobs=1)
    assert kinds <= {".json", ".jsonl", ".parquet", ".safetensors", ".lock"}
    assert any(name.startswith("round-") for name in checkpoints)
    assert any(name.startswith("finalists-") for name in checkpoints)
    for path in _files(tmp_path / "run"):
        if path.suffix in (".json", ".jsonl"):
            for line in path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]:
                json.loads(line)
        # neither a pickle nor the zip archive that torch.save writes
        assert not path.read_bytes().startswith((b"\x80", b"PK"))
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert {path.name for path in (tmp_path / "run").iterdir()} >= {
        "run.json",
        "trials.parquet",
        "columns.json",
        "columns.parquet",
        "leaderboard.parquet",
        "oof.safetensors",
        "result.json",
        "model",
        "log.jsonl",
    }
    assert not list((tmp_path / "run").rglob("*.part"))
    info = directory.info()
    assert info["status"] == "finished"
    assert info["task"] == "binary"
    assert info["splits"] == {"rows": 400, "out_of_fold": 320, "validation": 80, "folds": 3}
    assert directory.result() == json.loads(json.dumps(result.to_dict()))
    assert directory.settings().to_dict() == make_settings().to_dict()


def test_out_of_fold_predictions_on_disk_equal_those_of_the_networks(
    spam: Problem, make_settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each stored prediction is from a network of a fold that did not train on the row."""
    from parallelmlp_search.search.problem.preparation import Preparation

    splits: list[tuple[Any, Any]] = []
    part = Preparation._part

    def recording(self: Preparation, train: Any, predict: Any, seed: int, **options: Any) -> Any:
        if predict is not None:
            splits.append((train, np.intersect1d(predict, self.oof_rows)))
        return part(self, train, predict, seed, **options)

    monkeypatch.setattr(Preparation, "_part", recording)
    directory = RunDirectory.create(tmp_path / "run")
    model = run(spam, make_settings(), directory=directory, n_jobs=1).model
    saved = load_file(tmp_path / "run" / "oof.safetensors")
    place = {int(row): index for index, row in enumerate(saved["rows"])}
    assert bool(saved["covered"].all())
    for (train, predict), fold in zip(splits, model.folds, strict=True):
        assert not set(train) & set(predict)
        columns = [place[int(row)] for row in predict]
        for member, trial in enumerate(model.trials):
            alone = replace(model, folds=[fold], weights=np.eye(model.n_members)[member]).ensemble
            kept = saved["predictions"][saved["trials"].tolist().index(trial)][:, columns]
            assert np.allclose(alone.predictions(spam.frame.iloc[predict]), kept, atol=1e-5)
            wrong = alone.predictions(spam.frame.iloc[train[: len(predict)]])
            assert not np.allclose(wrong, kept[:, : wrong.shape[1]], atol=1e-2)


# ---------------------------------------------------------------------- callbacks


def test_callbacks_see_every_stage_in_order(spam: Problem, make_settings: Make) -> None:
    seen: list[Progress] = []
    run(spam, make_settings(), callbacks=[seen.append], n_jobs=1)
    stages = list(dict.fromkeys(progress.stage for progress in seen))
    assert stages == ["preparing", "screening", "cross-fitting", "selecting", "saving", "finished"]
    ended = [progress for progress in seen if progress.stage == "screening" and progress.rung_completed]
    assert [progress.round for progress in ended] == list(range(len(ended)))
    assert ended[-1].n_trials == 20
    best = [progress.best_score for progress in ended]
    assert all(score is not None and 0 <= score <= 1 for score in best)
    last = seen[-1]
    assert len(last.standings) == 10
    assert last.standings[0].rung == max(standing.rung for standing in last.standings)
    assert all(progress.seconds_left is None for progress in seen)
    assert all(0 <= progress.done <= progress.total for progress in seen)
    assert {progress.path for progress in seen} == {execution_path("cpu").name}


def test_the_phases_add_up_to_the_search(found: SearchResult) -> None:
    names = (
        "reading",
        "preparing",
        "planning",
        "screening",
        "baselines",
        "cross-fitting",
        "selecting",
        "saving",
    )
    assert tuple(found.phases) == names
    assert sum(phase["seconds"] for phase in found.phases.values()) == pytest.approx(
        found.elapsed_seconds, abs=0.05
    )
    assert sum(phase["member_steps"] for phase in found.phases.values()) == found.member_steps
    for name, phase in found.phases.items():
        trains = name in ("screening", "cross-fitting")
        assert (phase["member_steps"] > 0) is (phase["loop_seconds"] > 0) is trains
        # one worker: the loop is a part of the phase
        assert phase["loop_seconds"] < phase["seconds"]


def test_a_callback_that_returns_true_ends_screening_early(
    spam: Problem, make_settings: Make, found: SearchResult
) -> None:
    def enough(progress: Progress) -> bool:
        return progress.stage == "screening" and progress.rung_completed

    result = run(spam, make_settings(), callbacks=[enough], n_jobs=1)
    assert 0 < result.n_trials < found.n_trials
    assert set(result.trials["round"]) == {0}
    assert result.honest is not None
    assert len(result.model.trials) >= 1
    assert not (result.trials["state"] == str(TrialState.WAITING)).any()
    # only True ends the screening
    complete = run(spam, make_settings(), callbacks=[lambda progress: 1], n_jobs=1)
    assert complete.n_trials == found.n_trials


# ---------------------------------------------------------------------- small spaces, samplers, devices


@pytest.mark.parametrize("sampler", ["grid", "qmc", "random"])
def test_a_finite_space_is_tried_in_full(sampler: str, spam: Problem, make_settings: Make) -> None:
    space = SearchSpace({"width": Int(2, 6), "activation": Categorical(("relu",))})
    result = run(spam, make_settings(search_space=space, sampler=sampler, n_trials=50), n_jobs=1)
    assert result.n_trials == 5
    assert sorted(set(result.trials["config_widths"])) == ["2", "3", "4", "5", "6"]


def test_a_search_may_have_one_configuration(spam: Problem, make_settings: Make) -> None:
    space = SearchSpace({"width": Categorical((6,))})
    result = run(spam, make_settings(search_space=space, n_trials=10), n_jobs=1)
    assert result.n_trials == 1
    assert result.model.n_members == 1
    assert result.honest is not None


def test_a_linear_model_and_a_single_epoch(spam: Problem, make_settings: Make) -> None:
    space = SearchSpace({"widths": Categorical(((), (3,)))})
    result = run(spam, make_settings(search_space=space, max_epochs=1, n_trials=2), n_jobs=1)
    assert set(result.trials["config_widths"]) == {"", "3"}


def test_a_smaller_capacity_gives_more_rounds(
    spam: Problem, make_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parallelmlp_search.search.planning.STATE_BYTES", 1000)
    result = run(spam, make_settings(), n_jobs=1)
    assert result.n_trials == 20
    assert result.trials["round"].nunique() > 5
    first = result.trials[result.trials["rung"] == 0].groupby("round").size()
    assert first.max() <= 4


def test_an_unavailable_device_is_an_error(spam: Problem, make_settings: Make) -> None:
    from parallelmlp_search.exceptions import InvalidParameterError

    with pytest.raises(
        InvalidParameterError, match="device must be auto, cpu, cuda or cuda:N, but got 'tpu'"
    ):
        run(spam, make_settings(device="tpu"))
    if not torch.cuda.is_available():
        with pytest.raises(InvalidParameterError, match="no CUDA device"):
            run(spam, make_settings(device="cuda:0"))


# ---------------------------------------------------------------------- honest score


def test_the_honest_score_of_noise_is_that_of_guessing(make_settings: Make) -> None:
    """Overfitted networks have the score of random guesses on rows that they did not train on."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(400, 30)), columns=[f"x{n}" for n in range(30)])
    target = rng.integers(0, 2, 400)
    space = SearchSpace({"width": Categorical((64,)), "learning_rate": Categorical((0.01, 0.02, 0.03))})
    problem = Problem(frame, target, "binary")
    # with so many epochs, even the first snapshot is overfitted
    result = run(problem, make_settings(search_space=space, max_epochs=200, n_trials=3), n_jobs=1)
    assert result.honest is not None
    assert 0.4 < result.honest.score < 0.6
    # most networks of the ensemble trained on each row and are overfitted to it
    accuracy = float((result.model.predict(frame) == target).mean())
    assert accuracy > result.honest.score + 0.08
    assert accuracy > 0.6
    assert not math.isnan(result.honest.standard_error)
