"""Value of calibration and tuned decision thresholds on held-out rows.

``python -m benchmarks.postprocessing`` searches a few tables and scores the held-out quarter: by log-loss
the same networks with and without their temperature, and by a metric of labels two searches, with and
without tuned thresholds. Each row is written to ``benchmarks/results/decisions.json`` when it is measured.
``--sets``, ``--seeds`` and ``--kinds`` select rows to measure again. All rows on file go into
``docs/quality.md``.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np
import torch

from benchmarks.publishing import ROOT, describe_machine, fill, marks
from benchmarks.quality.sets import load, split
from parallelmlp_search.search import Problem, SearchResult, SearchSettings, run
from parallelmlp_search.selection import apply_temperature, get_metric, weight_classes

RESULTS = ROOT / "benchmarks" / "results" / "decisions.json"
DOCS = ROOT / "docs" / "quality.md"

EPOCHS = {"vowel": 60, "credit_g": 60, "telco_churn": 15, "satimage": 15}
"""Epochs of full training for each table, some hundreds of steps."""

LABELS = {"credit_g": "balanced_accuracy", "telco_churn": "f1"}
"""Metric of labels for each table whose thresholds are tuned."""

N_TRIALS = 60


def search(name: str, seed: int, metric: str, *, tune: bool) -> tuple[SearchResult, torch.Tensor, Any]:
    """Search a table and predict its held-out rows.

    Parameters
    ----------
    name
        Table, a key of :data:`EPOCHS`.
    seed
        Seed of the split and of the search.
    metric
        Metric of the search.
    tune
        Tune decision thresholds.

    Returns
    -------
    tuple
        Result of the search, probabilities ``(C, n)`` of the held-out rows, and their classes ``(n,)``.
    """
    table = load(name)
    train, test = split(table, seed)
    problem = Problem(frame=table.rows(train), target=table.target[train], task=table.task)  # type: ignore[arg-type]
    settings = SearchSettings(
        n_trials=N_TRIALS, max_epochs=EPOCHS[name], metric=metric, tune_thresholds=tune, seed=seed
    )
    found = run(problem, settings, n_jobs=1)
    probabilities = np.ascontiguousarray(found.model.predictions(table.rows(test)))
    return found, torch.from_numpy(probabilities), table.target[test]


def calibration(name: str, seed: int) -> dict[str, Any]:
    """Measure log-loss on held-out rows with and without the temperature, and the honest score."""
    found, calibrated, truth = search(name, seed, "log_loss", tune=True)
    temperature = found.model.temperature
    metric = get_metric("log_loss", found.model.task)
    uncalibrated = apply_temperature(calibrated, 1.0 / temperature)
    before, after = metric(torch.stack([uncalibrated, calibrated]), truth).tolist()
    honest = None if found.honest is None else found.honest.score
    return {"temperature": temperature, "plain": before, "tempered": after, "honest": honest}


def thresholds(name: str, seed: int) -> dict[str, Any]:
    """Measure the score of most probable classes and of tuned thresholds, each with its own search."""
    metric_name = LABELS[name]
    row: dict[str, Any] = {"metric": metric_name}
    for side, tune in (("plain", False), ("tuned", True)):
        found, probabilities, truth = search(name, seed, metric_name, tune=tune)
        metric = get_metric(metric_name, found.model.task)
        row[side] = float(metric(weight_classes(probabilities, found.model.decision_weights)[None], truth)[0])
        row[f"{side}_honest"] = None if found.honest is None else found.honest.score
        row[f"{side}_error"] = None if found.honest is None else found.honest.standard_error
    return row


def tables(rows: dict[str, dict[str, Any]]) -> str:
    """Return all rows as two Markdown tables."""
    lines = [
        "| set, seed | temperature | log-loss without | with | change | reported |",
        "|---|---|---|---|---|---|",
    ]
    for row in (rows[key] for key in sorted(rows) if key.startswith("calibration")):
        change = row["tempered"] / row["plain"] - 1
        lines.append(
            f"| {row['set']}, {row['seed']} | {row['temperature']:.3f} | {row['plain']:.4f} "
            f"| {row['tempered']:.4f} | {change:+.1%} | {row['honest']:.4f} |"
        )
    lines += ["", "| set, seed, metric | most probable class | reported | tuned thresholds | reported |"]
    lines.append("|---|---|---|---|---|")
    for row in (rows[key] for key in sorted(rows) if key.startswith("decision")):
        sides = [
            f"{row[side]:.3f} | {row[f'{side}_honest']:.3f} ± {row[f'{side}_error']:.3f}"
            for side in ("plain", "tuned")
        ]
        lines.append(f"| {row['set']}, {row['seed']}, {row['metric']} | {' | '.join(sides)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure the selected rows, print all rows, and update the document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", choices=EPOCHS, default=list(EPOCHS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument(
        "--kinds", nargs="+", choices=("calibration", "decision"), default=["calibration", "decision"]
    )
    chosen = parser.parse_args()
    kept = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {"rows": {}}
    for seed in chosen.seeds:
        for name in chosen.sets:
            for kind, measure in (("calibration", calibration), ("decision", thresholds)):
                if kind not in chosen.kinds or (kind == "decision" and name not in LABELS):
                    continue
                started = time.process_time()
                row = {"set": name, "seed": seed} | measure(name, seed)
                kept["rows"][f"{kind} {name} {seed}"] = row | {"seconds": time.process_time() - started}
                kept["machine"] = describe_machine()
                RESULTS.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    print(tables(kept["rows"]))
    fill(DOCS, marks("postprocessing"), tables(kept["rows"]))


if __name__ == "__main__":
    main()
