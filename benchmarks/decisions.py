"""What a temperature and tuned decisions are worth on rows that were held back.

``python -m benchmarks.decisions`` searches a few tables and scores the held-back quarter with and without
what was fitted on the choosing rows: the same networks with and without their temperature by log-loss, and
two searches, one that tunes the decision and one that does not, by a metric of labels. Rows are kept in
``benchmarks/results/decisions.json``, each as soon as it is measured; ``--sets``, ``--seeds`` and ``--kinds``
measure some of them (anew), and the tables of ``docs/quality.md`` are filled in from all that are there.
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
"""Tables and epochs of full training, some hundreds of steps."""

LABELS = {"credit_g": "balanced_accuracy", "telco_churn": "f1"}
"""Tables and metrics for which decisions are tuned."""

N_TRIALS = 60


def search(name: str, seed: int, metric: str, *, tune: bool) -> tuple[SearchResult, torch.Tensor, Any]:
    """Outcome, probabilities (C, n) of the held-back rows, and their classes."""
    table = load(name)
    train, test = split(table, seed)
    problem = Problem(frame=table.rows(train), target=table.target[train], task=table.task)  # type: ignore[arg-type]
    settings = SearchSettings(
        n_trials=N_TRIALS, max_epochs=EPOCHS[name], metric=metric, tune_decision=tune, seed=seed
    )
    found = run(problem, settings, n_jobs=1)
    probabilities = np.ascontiguousarray(found.model.predictions(table.rows(test)))
    return found, torch.from_numpy(probabilities), table.target[test]


def calibration(name: str, seed: int) -> dict[str, Any]:
    """Log-loss with and without the temperature, and reported."""
    found, warm, truth = search(name, seed, "log_loss", tune=True)
    temperature = found.model.temperature
    metric = get_metric("log_loss", found.model.task)
    before, after = metric(torch.stack([apply_temperature(warm, 1.0 / temperature), warm]), truth).tolist()
    honest = None if found.honest is None else found.honest.score
    return {"temperature": temperature, "plain": before, "tempered": after, "honest": honest}


def decisions(name: str, seed: int) -> dict[str, Any]:
    """Score of the most probable class and of tuned decisions, each by a search of its own."""
    metric_name = LABELS[name]
    row: dict[str, Any] = {"metric": metric_name}
    for side, tune in (("plain", False), ("tuned", True)):
        found, probabilities, truth = search(name, seed, metric_name, tune=tune)
        metric = get_metric(metric_name, found.model.task)
        row[side] = float(metric(weight_classes(probabilities, found.model.decision)[None], truth)[0])
        row[f"{side}_honest"] = None if found.honest is None else found.honest.score
        row[f"{side}_error"] = None if found.honest is None else found.honest.standard_error
    return row


def tables(rows: dict[str, dict[str, Any]]) -> str:
    """The figures as Markdown."""
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
    lines += ["", "| set, seed, metric | most probable class | reported | tuned decision | reported |"]
    lines.append("|---|---|---|---|---|")
    for row in (rows[key] for key in sorted(rows) if key.startswith("decision")):
        sides = [
            f"{row[side]:.3f} | {row[f'{side}_honest']:.3f} ± {row[f'{side}_error']:.3f}"
            for side in ("plain", "tuned")
        ]
        lines.append(f"| {row['set']}, {row['seed']}, {row['metric']} | {' | '.join(sides)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, write."""
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
            for kind, measure in (("calibration", calibration), ("decision", decisions)):
                if kind not in chosen.kinds or (kind == "decision" and name not in LABELS):
                    continue
                started = time.process_time()
                row = {"set": name, "seed": seed} | measure(name, seed)
                kept["rows"][f"{kind} {name} {seed}"] = row | {"seconds": time.process_time() - started}
                kept["machine"] = describe_machine()
                RESULTS.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    print(tables(kept["rows"]))
    fill(DOCS, marks("decisions"), tables(kept["rows"]))


if __name__ == "__main__":
    main()
