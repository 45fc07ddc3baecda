from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console, RenderableType

from parallelmlp_search.report import evaluation_table, leaderboard_table, search_summary, trial_page

RESULT: dict[str, Any] = {
    "metric": "roc_auc",
    "best_trial": 7,
    "n_trials": 1024,
    "max_epochs": 27,
    "n_folds": 5,
    "member_steps": 1_234_567,
    "elapsed_seconds": 58.21,
    "left_out": [],
    "honest": {"score": 0.9138, "standard_error": 0.0021, "low": 0.9096, "high": 0.918, "naive": 0.9152},
}


def record(rank: int | None, trial: int, weight: float = 0.0, **changes: Any) -> dict[str, Any]:
    return {
        "rank": rank,
        "trial": trial,
        "metric": "roc_auc",
        "score": 0.92 - trial / 1000,
        "ensemble_weight": weight,
        "n_parameters": 24_289,
        "epochs": 27.0,
        "state": "complete",
        "failure": None,
        "config_widths": [128, 128],
        "config_activation": "silu",
        "config_learning_rate": 0.004,
        "config_dropout": 0.1,
    } | changes


BOARD = [record(1, 7, 0.25), record(2, 3, 0.75), record(3, 9)]


def printed(renderable: RenderableType, width: int = 100) -> str:
    file = StringIO()
    Console(file=file, width=width).print(renderable)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def test_summary() -> None:
    text = printed(search_summary(RESULT, BOARD, "runs/my run"))
    assert "roc_auc 0.9138 ± 0.0021" in text
    assert "95 % interval 0.9096 to 0.9180, 0.9152 without bias correction" in text
    assert "averaging" not in text
    averaged = RESULT | {"honest": RESULT["honest"] | {"averaging": 0.0012}}
    words = printed(search_summary(averaged, BOARD, "runs/my run"), width=140)
    assert "0.9152 without bias correction, +0.0012 for averaging folds" in words
    assert "trial 7, roc_auc 0.9130, 128-128 silu lr 0.004 drop 0.1" in text
    assert "2 networks" in text
    assert text.index("0.75  trial 3") < text.index("0.25  trial 7")
    assert "trial 9" not in text
    assert "1,024 trials, up to 27 epochs, 5 folds, 1.2M member-steps" in text
    for shares, words in (
        ({"compiled": 1.0}, "1.2M member-steps in compiled loops"),
        (
            {"persistent": 0.983, "graph": 0.0161, "plain": 0.0009},
            "98 % in persistent kernels, 2 % in CUDA graphs",
        ),
        ({"persistent": 0.999, "plain": 0.001}, "under 1 % by tensor operations"),
    ):
        assert words in printed(search_summary(RESULT | {"path_shares": shares}, BOARD, "r"), width=200)
    assert "58.2 s" in text
    assert "pmlp predict 'runs/my run' NEW.csv --output predictions.csv" in text
    assert "left out" not in text


def test_baselines_are_shown_beside_the_result() -> None:
    assert "baselines" not in printed(search_summary(RESULT, BOARD, "r"))  # an older run
    baselines = [
        {"name": "prior", "score": 0.5, "share": 1.0, "left_out": None},
        {"name": "linear", "score": 0.9043, "share": 0.25, "left_out": None},
        {"name": "gradient_boosting", "score": None, "share": 0.0, "left_out": "the time"},
    ]
    values = {"baselines": baselines, "beats_prior": True}
    text = printed(search_summary(RESULT | values, BOARD, "r"), width=120)
    assert "gradient boosting left out (the time), linear 0.9043 (on 25 % of the rows), prior 0.5000" in text
    assert "no better" not in text
    assert "no better than the prior" in printed(
        search_summary(RESULT | values | {"beats_prior": False}, [], "")
    )


def test_postprocessing_is_shown() -> None:
    assert "threshold" not in printed(search_summary(RESULT, BOARD, "r"))
    values = {"temperature": 0.8123, "decision_weights": {"no": 0.5, "yes": 1.5}, "refitted": 2}
    text = printed(search_summary(RESULT | values, BOARD, "r"))
    assert "temperature 0.812" in text
    assert "yes if its probability exceeds 0.25, else no" in text
    assert "on all rows, 2 networks per configuration" in text
    several = {"decision_weights": {"a": 0.5, "b": 1.75, "c": 0.75}, "refitted": 1}
    text = printed(search_summary(RESULT | several, BOARD, "r"))
    assert "largest product of probability and weight: b 1.75, c 0.75, a 0.50" in text
    assert "on all rows, 1 network per configuration" in text
    evaluation = {"n_rows": 10, "scores": {"f1": 0.5}, "metric": "f1", "honest": None} | values
    assert "exceeds 0.25" in printed(evaluation_table(evaluation))


def test_left_out_work_is_shown() -> None:
    left_out = ["Time was short.", "So was memory."]
    text = printed(search_summary(RESULT | {"left_out": left_out}, BOARD, "r"))
    assert "left out" in text
    assert text.index("Time was short.") < text.index("So was memory.")


@pytest.mark.parametrize(
    "honest",
    [None, dict.fromkeys(("score", "standard_error", "low", "high")) | {"naive": 0.93}],
    ids=["no held-out rows", "no bootstrap scored"],
)
def test_without_an_honest_score_none_is_shown(honest: dict[str, Any] | None) -> None:
    text = printed(search_summary(RESULT | {"honest": honest}, BOARD, "r"))
    assert "honest" not in text
    assert "interval" not in text
    assert ("0.9300 without bias correction" in text) == (honest is not None)


def test_a_large_ensemble_is_shortened() -> None:
    board = [record(i + 1, i, 0.1) for i in range(10)]
    text = printed(search_summary(RESULT, board, "r"))
    assert "10 networks" in text
    assert "0.20  2 more" in text
    assert "1 network\n" in printed(search_summary(RESULT, [record(1, 7, 1.0)], "r")) + "\n"


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    file = StringIO()
    console = Console(file=file, width=width)
    long = [record(1, 7, 1.0, config_widths=[256] * 12), record(None, 8, state="failed", failure="x" * 90)]
    console.print(search_summary(RESULT, long, "r"), leaderboard_table(long, width=width))
    assert max(len(line) for line in file.getvalue().splitlines()) <= width


def test_leaderboard() -> None:
    board = [*BOARD, record(None, 11, score=None, state="failed", failure="its loss was not finite")]
    lines = printed(leaderboard_table(board, width=120), 120).splitlines()
    assert " ".join(lines[0].split()) == "# trial roc_auc weight epochs parameters state configuration"
    assert lines[1].split()[:6] == ["1", "7", "0.9130", "0.25", "27", "24,289"]
    assert lines[4].split(maxsplit=6) == [
        "-", "11", "-", "27", "24,289", "failed", "its loss was not finite",
    ]  # fmt: skip
    narrow = printed(leaderboard_table(board, width=60), 60).splitlines()
    assert narrow[1].split()[:5] == ["1", "7", "0.9130", "0.25", "complete"]
    assert narrow[1].endswith("…")
    assert "no trial" in printed(leaderboard_table([], width=80))


def test_trial() -> None:
    trial = {
        "trial": 3,
        "state": "failed",
        "failure": "its loss was not finite",
        "metric": "rmse",
        "rank": None,
        "score": None,
        "ensemble_weight": 0.0,
        "origin": "random",
        "n_parameters": 120,
        "configuration": {"widths": [], "bias": True, "clip_norm": None, "learning_rate": 0.001},
        "rungs": [
            {"round": 0, "rung": 0, "epochs": 1.0, "score": 3.5, "train_loss": 0.2, "train_seconds": 0.0123}
        ],
    }
    lines = printed(trial_page(trial)).splitlines()
    text = "\n".join(lines)
    assert "3, failed: its loss was not finite" in text
    assert "rank" not in text
    assert ["widths", "none", "(linear", "model)"] in [line.split() for line in lines]
    assert ["bias", "yes"] in [line.split() for line in lines]
    assert ["clip", "norm", "none"] in [line.split() for line in lines]
    assert ["1", "1", "1", "3.5000", "0.2000", "0.012"] in [line.split() for line in lines]
    ranked = printed(trial_page(trial | {"rank": 1, "score": 2.0, "ensemble_weight": 0.3}))
    assert "1, rmse 2.0000" in ranked
    assert ["ensemble", "weight", "0.30"] in [line.split() for line in ranked.splitlines()]
    assert "cross-fitting" not in ranked
    assert "cross-fitting       1" in printed(trial_page(trial | {"state": "complete"}))


def test_evaluation() -> None:
    evaluation = {
        "n_rows": 1200,
        "metric": "roc_auc",
        "scores": {"roc_auc": 0.91, "accuracy": 0.85, "mcc": None},
        "honest": RESULT["honest"],
    }
    lines = [line.split() for line in printed(evaluation_table(evaluation)).splitlines()]
    assert lines[0][:3] == ["metric", "1,200", "rows"]
    assert lines[1] == ["roc_auc", "0.9100", "0.9138", "±", "0.0021"]
    assert lines[2] == ["accuracy", "0.8500"]
    assert lines[3] == ["mcc", "-"]
    assert "honest" not in printed(evaluation_table(evaluation | {"honest": None}))


def test_columns_that_differ_from_training_follow_the_scores() -> None:
    evaluation = {"n_rows": 900, "metric": "rmse", "scores": {"rmse": 0.5}, "honest": None}
    moved = {"name": "age", "distance": 0.7, "unseen": 0.0, "missing": 0.06, "missing_before": 0.06}
    shown = [moved, moved | {"name": "town", "unseen": 0.27, "missing": 0.31, "missing_before": 0.0}]
    lines = [line.split() for line in printed(evaluation_table(evaluation | {"drift": shown})).splitlines()]
    assert lines[-3][:4] == ["differs", "from", "training", "distance"]
    assert lines[-2] == ["age", "0.70"]
    assert lines[-1] == ["town", "0.70", "27", "%", "0", "%", "31", "%"]
    assert "4 more: --json" in printed(evaluation_table(evaluation | {"drift": [moved] * 14}))
    for drift in ([], None):
        assert "training" not in printed(evaluation_table(evaluation | {"drift": drift}))
