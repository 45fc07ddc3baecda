"""``RefinementSampler`` against Optuna's random and TPE samplers: cost of a trial, and best result.

``python -m benchmarks.refinement_sampler`` writes ``benchmarks/results/refinement_sampler.json`` and the
table in ``docs/refinement_sampler.md``. It takes about two minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from benchmarks.publishing import ROOT, describe_machine, fill, marks
from parallelmlp_search.integrations.optuna import PackedObjective, RefinementSampler, optimize

RESULTS = ROOT / "benchmarks" / "results" / "refinement_sampler.json"
DOCS = ROOT / "docs" / "refinement_sampler.md"
MARKS = marks("refinement_sampler")

SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "random": lambda seed: RandomSampler(seed=seed),
    "tpe": lambda seed: TPESampler(seed=seed),
    "refinement": lambda seed: RefinementSampler(seed=seed),
}


def ten_parameters(trial: optuna.Trial) -> float:
    """Cheap objective of eight numbers, an integer and a category."""
    loss = sum((trial.suggest_float(f"x{index}", 0, 1) - 0.5) ** 2 for index in range(8))
    return loss + trial.suggest_int("count", 1, 50) / 50 + trial.suggest_categorical("kind", [0, 1, 2])


def conditional(trial: optuna.Trial) -> float:
    """Conditional objective: layers with a width each, and an optimizer with its own parameter."""
    depth = trial.suggest_int("depth", 1, 3)
    loss = 0.3 * abs(depth - 2)
    for layer in range(depth):
        loss += 0.1 * math.log2(trial.suggest_int(f"width_{layer}", 4, 256, log=True) / 48) ** 2
    loss += (math.log10(trial.suggest_float("learning_rate", 1e-4, 1.0, log=True)) + 2.2) ** 2
    optimizer = trial.suggest_categorical("optimizer", ["sgd", "adam", "lion"])
    if optimizer == "sgd":
        return loss + 0.2 + (trial.suggest_float("momentum", 0, 1) - 0.9) ** 2
    if optimizer == "adam":
        return loss + (trial.suggest_float("beta", 0, 1) - 0.7) ** 2
    return loss + 0.5


def cost(n_before: int, n: int = 100) -> dict[str, Any]:
    """Measure the milliseconds to ask, suggest ten parameters and tell, after ``n_before`` trials."""
    past = optuna.create_study(sampler=RandomSampler(seed=0))
    past.optimize(ten_parameters, n_trials=n_before)
    row: dict[str, Any] = {"trials_before": n_before}
    for name, make in SAMPLERS.items():
        study = optuna.create_study(sampler=make(0))
        study.add_trials(past.get_trials(deepcopy=False))
        study.optimize(ten_parameters, n_trials=1)  # reads all earlier trials, once
        seconds = []
        for _ in range(n if name != "tpe" or n_before < 5000 else 10):
            started = time.perf_counter()
            study.optimize(ten_parameters, n_trials=1)
            seconds.append(time.perf_counter() - started)
        low, middle, high = np.quantile(seconds, [0.1, 0.5, 0.9]) * 1000
        row[name] = {"median_ms": middle, "q10_ms": low, "q90_ms": high}
    return row


def worth(n_trials: int, batch: int, n_seeds: int = 20) -> dict[str, Any]:
    """Find the best loss of the conditional objective, with trials asked in batches; lower is better.

    Parameters
    ----------
    n_trials, batch
        Trials of a study, and trials per batch.
    n_seeds
        Studies of each sampler.

    Returns
    -------
    dict
        Quantiles over the seeds by sampler.
    """
    row: dict[str, Any] = {"trials": n_trials, "batch": batch, "seeds": n_seeds}
    for name, make in SAMPLERS.items():
        best = []
        for seed in range(n_seeds):
            study = optuna.create_study(sampler=make(seed))
            for _ in range(n_trials // batch):
                trials = [study.ask() for _ in range(batch)]
                for trial, loss in [(trial, conditional(trial)) for trial in trials]:
                    study.tell(trial, loss)
            best.append(study.best_value)
        row[name] = dict(zip(("q10", "median", "q90"), np.quantile(best, [0.1, 0.5, 0.9]), strict=True))
    return row


def packed(n_trials: int = 128, n_seeds: int = 5) -> dict[str, Any]:
    """Find the best ROC-AUC of packed trials on credit_g, and measure their seconds."""
    table = pd.read_csv(ROOT / "datasets" / "credit_g.csv.gz")
    objective = PackedObjective(table.drop(columns="class"), table["class"], "default", max_epochs=9)
    row: dict[str, Any] = {"trials": n_trials, "seeds": n_seeds}
    for name, make in SAMPLERS.items():
        best, seconds = [], []
        for seed in range(n_seeds):
            study = optuna.create_study(direction="maximize", sampler=make(seed))
            started = time.perf_counter()
            optimize(study, objective, n_trials=n_trials, batch_size=16, n_jobs=1)
            seconds.append(time.perf_counter() - started)
            best.append(study.best_value)
        row[name] = {"best": sorted(best), "median": float(np.median(best)), "seconds": float(sum(seconds))}
    return row


def table(rows: dict[str, list[dict[str, Any]]]) -> str:
    """Return the figures as a Markdown table."""
    lines = ["| | random | TPE | refinement |", "|---|---|---|---|"]

    def line(title: str, values: list[str]) -> None:
        lines.append(f"| {title} | {' | '.join(values)} |")

    for row in rows["cost"]:
        costs = [f"{row[name]['median_ms']:.2f} ms" for name in SAMPLERS]
        line(f"a trial of ten parameters after {row['trials_before']:,}", costs)
    for row in rows["worth"]:
        way = "one by one" if row["batch"] == 1 else f"in batches of {row['batch']}"
        losses = [f"{row[name]['median']:.3f}" for name in SAMPLERS]
        line(f"best loss of {row['trials']} trials {way}, conditional objective", losses)
    for row in rows["packed"]:
        scores = [f"{row[name]['median']:.4f} ({row[name]['seconds']:.0f} s)" for name in SAMPLERS]
        line(f"best ROC-AUC of {row['trials']} packed trials in batches of 16, credit_g", scores)
    return "\n".join(lines)


def main() -> None:
    """Measure, print, write the figures and update the document."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rows = {
        "cost": [cost(n_before) for n_before in (100, 1000, 10_000)],
        "worth": [worth(100, 1), worth(200, 1), worth(200, 50)],
        "packed": [packed()],
    }
    print(table(rows))
    RESULTS.write_text(json.dumps({"machine": describe_machine(), "rows": rows}, indent=1) + "\n")
    fill(DOCS, MARKS, table(rows))


if __name__ == "__main__":
    main()
