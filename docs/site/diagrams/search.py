"""Diagrams of a small search on a bundled table: rungs, splits of the rows, and bias correction."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.numpy import load_file

from docs.site.diagrams.svg import Drawing
from parallelmlp_search import ParallelMLPClassifier, Run
from parallelmlp_search.search import Problem, SearchSettings
from parallelmlp_search.search.problem.preparation import Preparation
from parallelmlp_search.selection import bias_corrected_score, get_metric, greedy_ensemble
from parallelmlp_search.selection.bootstrap import Bootstrap, bootstrap_samples, spawn_seeds

ROOT = Path(__file__).parents[3]
N_ROWS, N_TRIALS, MAX_EPOCHS, N_FOLDS, SEED = 400, 72, 9, 4, 0


def search_drawings() -> list[Drawing]:
    """Search a table and return the three diagrams."""
    table = pd.read_csv(ROOT / "datasets" / "credit_g.csv.gz").sample(N_ROWS, random_state=SEED)
    X, y = table.drop(columns="class"), table["class"]
    with tempfile.TemporaryDirectory() as folder:
        model = ParallelMLPClassifier(
            "small", n_trials=N_TRIALS, max_epochs=MAX_EPOCHS, n_folds=N_FOLDS, n_finalists=16,
            baselines=False, random_state=SEED, run_directory=Path(folder) / "run",
        )  # fmt: skip
        model.fit(X, y)
        trials = Run(Path(folder) / "run").trials()
        saved = load_file(Path(folder) / "run" / "oof.safetensors")
    rows = saved["rows"][saved["covered"].astype(bool)]
    target = (y.to_numpy() == model.classes_[1]).astype(np.int64)[rows]
    predictions = torch.from_numpy(saved["predictions"])
    return [rungs(trials), splits(X, y), bias(predictions, torch.from_numpy(target))]


def rungs(trials: pd.DataFrame) -> Drawing:
    """Return the score of each trial on the rungs that it reached."""
    epochs = sorted(trials.loc[trials["rung"] < 3, "epochs"].unique())
    shown = trials[trials["epochs"].isin(epochs) & (trials["rung"] < len(epochs))]
    drawing = Drawing("rungs", "Scores of trials on the rungs of a search; a third advances", 760, 380)
    left, top, width, height = 70.0, 70.0, 630.0, 240.0
    low, high = float(shown["score"].min()), float(shown["score"].max())

    def place(rung: int, score: float) -> tuple[float, float]:
        return left + width * rung / (len(epochs) - 1), top + height * (high - score) / (high - low)

    best = shown.groupby("trial")["rung"].max()
    order = best.sort_values(kind="stable").index
    for trial in order:
        rows = shown[shown["trial"] == trial].sort_values("rung")
        points = [
            place(int(rung), float(score)) for rung, score in zip(rows["rung"], rows["score"], strict=True)
        ]
        css = ("line", "c1", "c0")[int(best[trial])]
        if len(points) > 1:
            drawing.line(points, css, opacity=0.8)
        for x, y in points:
            drawing.add("circle", cx=x, cy=y, r=3.2, css="faint" if css == "line" else css, opacity=0.85)
    for rung, count in enumerate(epochs):
        x = left + width * rung / (len(epochs) - 1)
        n_trials = int((shown["rung"] == rung).sum())
        drawing.line([(x, top - 12), (x, top + height + 12)], "line", stroke_dasharray="2 4")
        words = f"{int(count)} epoch{'s' if count > 1 else ''}"
        drawing.text(x, 24, words, "bold", "middle")
        drawing.text(x, 42, f"{n_trials} trials", "small faint", "middle")
    for score in np.linspace(low, high, 4):
        drawing.text(left - 14, place(0, float(score))[1] + 4, f"{score:.2f}", "small faint", "end")
    drawing.text(left - 14, 359, "ROC-AUC", "small faint", "end")
    legend = (
        ("faint", "stopped after the first rung"),
        ("c1", "after the second"),
        ("c0", "trained to the end"),
    )
    x = left
    for css, words in legend:
        drawing.add("circle", cx=x, cy=355, r=4, css=css)
        drawing.text(x + 10, 359, words, "small")
        x += 40 + 6.2 * len(words)
    return drawing


def splits(X: pd.DataFrame, y: pd.Series) -> Drawing:
    """Return the rows that train, validate and are predicted, in screening and in each fold."""
    n_rows = 100
    few = X.iloc[:n_rows].reset_index(drop=True)
    problem = Problem.from_table(few, y.iloc[:n_rows].reset_index(drop=True))
    preparation = Preparation(problem, SearchSettings(seed=SEED))
    parts = preparation.folds(N_FOLDS, hold_out_validation=False)
    fold_of = np.zeros(n_rows, dtype=int)
    for number, part in enumerate(parts):
        fold_of[part.predicted_rows] = number
    validates = np.zeros(n_rows, dtype=bool)
    validates[preparation.validation_rows] = True
    order = np.lexsort((np.arange(n_rows), validates, fold_of))
    drawing = Drawing(
        "folds", "Rows that train, validate and are predicted in each part of a search", 760, 316
    )
    unit = 5.9
    drawing.text(10, 22, f"{n_rows} rows, sorted by fold", "bold")
    rows = [("screening", None), *((f"fold {number + 1}", number) for number in range(len(parts)))]
    for place, (words, fold) in enumerate(rows):
        y0 = 40 + 40 * place + (14 if fold is not None else 0)
        drawing.text(10, y0 + 18, words, "small")
        for column, row in enumerate(order):
            if validates[row] and fold in (None, fold_of[row]):
                css = "c1"
            else:
                css = "c0" if fold == fold_of[row] else "c5"
            drawing.box(110 + unit * column, y0, unit - 1.2, 26, css, rx=1)
    legend = (
        ("c5", "train"),
        ("c1", "validation rows: rank trials, select snapshots and thresholds"),
        ("c0", "out-of-fold rows: select the ensemble, give its score"),
    )
    for place, (css, words) in enumerate(legend):
        drawing.key(110, 270 + 16 * place, css, words)
    return drawing


def repeated_selections(
    predictions: torch.Tensor, target: torch.Tensor, n_samples: int
) -> list[tuple[float, float]]:
    """Return, for each bootstrap sample, the score of the ensemble on its rows and on the rows outside."""
    metric = get_metric("roc_auc", "binary")
    found = []
    for sample in bootstrap_samples(np.arange(len(target)), spawn_seeds(SEED)[0], n_samples):
        drawn, outside = np.flatnonzero(sample.counts), np.flatnonzero(sample.counts == 0)
        weight = torch.from_numpy(sample.counts[drawn]).double()
        ensemble = greedy_ensemble(predictions[:, :, drawn], target[drawn], metric, weight=weight)
        combined = ensemble.combine(predictions[:, :, outside])[None]
        found.append((ensemble.score, float(metric(combined, target[outside])[0])))
    return found


def bias(predictions: torch.Tensor, target: torch.Tensor) -> Drawing:
    """Return the scores of repeated selections on their rows and outside of them, and the honest score."""
    metric = get_metric("roc_auc", "binary")
    ensemble = greedy_ensemble(predictions, target, metric)
    honest = bias_corrected_score(predictions, target, metric, ensemble, bootstrap=Bootstrap(60, seed=SEED))
    pairs = repeated_selections(predictions, target, 60)
    drawing = Drawing("bias", "Scores of repeated selections, and the corrected score", 760, 300)
    low, high = min(min(pair) for pair in pairs) - 0.005, max(max(pair) for pair in pairs) + 0.005

    def across(score: float) -> float:
        return 250 + 490 * (score - low) / (high - low)

    rows = (("scored on the rows that selected it", 0, "c1"), ("scored on the rows outside", 1, "c0"))
    drawing.text(10, 22, f"{len(pairs)} bootstraps: select the ensemble again", "bold")
    for number, (words, side, css) in enumerate(rows):
        y = 74 + 74 * number
        drawing.text(10, y + 4, words, "small")
        for place, pair in enumerate(pairs):
            drawing.add(
                "circle", cx=across(pair[side]), cy=y + 4.5 * (place % 9 - 4), r=3.2, css=css, opacity=0.6
            )
        mean = float(np.mean([pair[side] for pair in pairs]))
        drawing.line([(across(mean), y - 30), (across(mean), y + 30)], "ink")
        drawing.text(across(mean) + 6, y - 24, f"mean {mean:.3f}", "small bold")
    y = 226
    drawing.text(10, y + 4, "reported", "small bold")
    drawing.line([(across(honest.low), y), (across(honest.high), y)], "c0")
    drawing.add("circle", cx=across(honest.score), cy=y, r=5.5, css="c0")
    drawing.text(across(honest.score), y + 22, f"honest score {honest.score:.3f}", "small bold", "middle")
    drawing.add("circle", cx=across(honest.naive), cy=y - 18, r=5.5, css="c1")
    drawing.text(across(honest.naive) + 10, y - 14, f"naive score {honest.naive:.3f}", "small")
    drawing.line([(250, 262), (740, 262)])
    for score in np.arange(np.ceil(low * 50) / 50, high, 0.02):
        drawing.line([(across(score), 262), (across(score), 267)])
        drawing.text(across(score), 282, f"{score:.2f}", "small faint", "middle")
    drawing.text(10, 282, "ROC-AUC of the ensemble", "small faint")
    return drawing
