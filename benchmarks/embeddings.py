"""The default search with each embedding of numbers alone, and with all of them to choose from.

``python -m benchmarks.embeddings`` searches sixty trials in one process for each set, seed and choice, judges
on rows that were held back, writes ``benchmarks/results/embeddings.json`` and fills the table in
``docs/quality.md`` in. Fits that the file already holds are not made again; ``--anew`` makes all of them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from typing import Any

import numpy as np

from benchmarks.publishing import ROOT, describe_machine, fill, marks
from benchmarks.quality.errors import error_of
from benchmarks.quality.sets import load, split
from parallelmlp_search import ParallelMLPClassifier
from parallelmlp_search.space import Categorical, SearchSpace
from parallelmlp_search.space.presets import PRESETS

RESULTS = ROOT / "benchmarks" / "results" / "embeddings.json"
DOCUMENT = ROOT / "docs" / "quality.md"

CHOICES = {
    "none": ("none",),
    "piecewise": ("piecewise",),
    "periodic": ("periodic",),
    "all three": ("none", "piecewise", "periodic"),
}
CASES = (("vowel", 0), ("vowel", 1), ("satimage", 0))
"""Sets and the seeds of split and search."""

N_TRIALS = 60
MOST_ROWS = 2000
"""Training rows; more are left out by lot."""


def run(name: str, seed: int, choice: str) -> dict[str, Any]:
    """One search: its error on held-back rows, the seconds of its process, what its ensemble is made of."""
    space = SearchSpace({**PRESETS["default"], "numeric_embedding": Categorical(CHOICES[choice])})
    table = load(name)
    train, test = split(table, seed)
    if len(train) > MOST_ROWS:
        train = np.random.default_rng(seed).permutation(train)[:MOST_ROWS]
    model = ParallelMLPClassifier(search_space=space, n_trials=N_TRIALS, n_jobs=1, random_state=seed)
    started = time.process_time()
    model.fit(table.rows(train), table.target[train])
    seconds = time.process_time() - started
    error = error_of(table.task, table.target[test], model.predict_proba(table.rows(test)))
    members = Counter(config.numeric_embedding for config in model.model_.configs)
    return {
        "set": name, "seed": seed, "choice": choice, "trials": N_TRIALS, "train_rows": len(train),
        "error": error, "seconds": seconds, "members": dict(members), "machine": describe_machine(),
    }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """Errors, the lowest of each set and seed in bold, and CPU seconds."""
    found = {(row["set"], row["seed"], row["choice"]): row for row in rows}
    lines = ["| | " + " | ".join(CHOICES) + " |", "|---" * (1 + len(CHOICES)) + "|"]
    for name, seed in CASES:
        own = [found.get((name, seed, choice)) for choice in CHOICES]
        best = min((row["error"] for row in own if row is not None), default=0.0)
        cells = []
        for row in own:
            if row is None:
                cells.append("-")
                continue
            error = f"{row['error']:.4f}"
            cells.append(f"{f'**{error}**' if row['error'] == best else error} ({row['seconds']:.0f} s)")
        lines.append(f"| {name}, seed {seed} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Make the fits that are missing and publish all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--anew", action="store_true")
    known = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    rows: list[dict[str, Any]] = [] if parser.parse_args().anew else known
    for name, seed in CASES:
        for choice in CHOICES:
            if any((row["set"], row["seed"], row["choice"]) == (name, seed, choice) for row in rows):
                continue
            rows.append(run(name, seed, choice))
            print(f"{name}, seed {seed}, {choice}: {rows[-1]['error']:.4f}", flush=True)
            RESULTS.write_text(json.dumps({"rows": rows}, indent=1) + "\n", encoding="utf-8")
    fill(DOCUMENT, marks("embeddings"), table(rows))


if __name__ == "__main__":
    main()
