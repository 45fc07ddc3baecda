"""Value of each ingredient of a network: one recipe against variants with one change.

``python -m benchmarks.ingredients`` trains four networks of each variant as one population on each of the
twelve bundled tables, twice, on all rows that are not held out, and compares the error of their average with
that of the recipe. There is no search and no early stopping. It writes
``benchmarks/results/ingredients.json`` and the table in ``docs/quality.md``. Results on file are kept;
``--repeat`` runs all of them again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from joblib import Parallel, delayed

from benchmarks.publishing import ROOT, describe_machine, fill, marks
from benchmarks.quality.errors import error_of
from benchmarks.quality.sets import BUNDLED, load, split
from benchmarks.quality.summary import Change, changes_of
from parallelmlp_search.distribute import ShardTask
from parallelmlp_search.distribute.shards import train_shard
from parallelmlp_search.search import Problem, SearchSettings
from parallelmlp_search.search.problem.preparation import Preparation
from parallelmlp_search.space import TUNED_DEFAULTS

RESULTS = ROOT / "benchmarks" / "results" / "ingredients.json"
DOCUMENT = ROOT / "docs" / "quality.md"

SEEDS = (0, 1)
N_NETWORKS = 4
STEPS = 1200
N_SNAPSHOTS = 8
REGRESSION_RATE = 2.5
"""Learning rate of regressions relative to that of classifications; RealMLP uses a factor of five."""

RECIPE = TUNED_DEFAULTS[0].replace(schedule="cosine")
"""First of the configurations that a search starts with, on a plain cosine schedule."""

PLAIN: dict[str, Any] = {
    "parametrization": "standard",
    "initialization": "kaiming_uniform",
    "learning_rate": 0.004,
    "input_scale_rate": 0.0,
}

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "the recipe": {},
    "standard parametrisation": {"parametrization": "standard", "learning_rate": 0.004},
    "initialised without data": {"initialization": "lecun_normal"},
    "no scales of inputs": {"input_scale_rate": 0.0},
    "all three": PLAIN,
    "head starts at zero": {"head_initialization": "zero"},
    "biases at a tenth of the rate": {"bias_rate": 0.1},
    "numbers as they are": {"numeric_embedding": "none"},
    "numbers in pieces": {"numeric_embedding": "piecewise"},
    "frequencies ten times as high": {"frequency_scale": 1.0},
    "embeddings at full rate": {"embedding_rate": 1.0},
    "scores of quantiles": {"numeric_scaling": "quantile"},
    "scores of quantiles, in pieces": {"numeric_scaling": "quantile", "numeric_embedding": "piecewise"},
    "labels smoothed by 0.1": {"label_smoothing": 0.1},
    "constant decay and dropout": {"weight_decay_schedule": "constant", "dropout_schedule": "constant"},
    "no dropout": {"dropout": 0.0},
    "dropout 0.35": {"dropout": 0.35},
    "no decay": {"weight_decay": 0.0},
    "ten times the decay": {"weight_decay": 0.2},
    "a quarter of the rate": {"learning_rate": 0.01},
    "twice the rate": {"learning_rate": 0.08},
    "schedule cosine_log": {"schedule": "cosine_log"},
    "schedule flat_cosine": {"schedule": "flat_cosine"},
    "schedule one_cycle": {"schedule": "one_cycle"},
    "beta2 0.999": {"beta2": 0.999},
    "relu": {"activation": "relu"},
    "selu": {"activation": "selu"},
    "mish": {"activation": "mish"},
    "layer normalisation": {"normalization": "layer"},
    "residual, normalised": {"normalization": "layer", "residual": True, "widths": (128,) * 3},
    "one layer of 96": {"widths": (96,)},
    "three layers of 128": {"widths": (128,) * 3},
    "two layers of 256": {"widths": (256,) * 2},
    "batches of 128": {"batch_size": 128},
    "eight submembers, mini": {"submembers": 8},
    "eight submembers, full": {"submembers": 8, "sharing": "full"},
    "embedded categories": {"category_embedding": "learned"},
}
"""Changes of the recipe by the name of the variant, as on file and in the table."""


def run(name: str, seed: int, variant: str) -> dict[str, Any]:
    """Train one population and score its average on held-out rows, at the end and at the best snapshot.

    Parameters
    ----------
    name
        Table.
    seed
        Seed of the split and of the networks.
    variant
        Key of :data:`VARIANTS`.

    Returns
    -------
    dict
        Row of the results file.
    """
    torch.set_num_threads(1)
    table = load(name)
    train, test = split(table, seed)
    problem = Problem(frame=table.rows(train), target=table.target[train], task=table.task)  # type: ignore[arg-type]
    part = Preparation(problem, SearchSettings(seed=seed, device="cpu"), hold_back=False).screening()
    rows = torch.from_numpy(part.preprocessor.transform(table.rows(test)))
    data = part.data
    recipe = RECIPE.replace(**VARIANTS[variant])
    if table.task == "regression":
        recipe = recipe.replace(learning_rate=REGRESSION_RATE * recipe.learning_rate)
    epochs = STEPS * recipe.batch_size / len(train)
    task = ShardTask(
        key="ingredients",
        trials=tuple(range(N_NETWORKS)),
        configs=tuple(recipe.replace(seed=1000 * seed + number) for number in range(N_NETWORKS)),
        states=(None,) * N_NETWORKS,
        data=replace(data, snapshot_inputs=rows),
        until_epoch=epochs,
        total_epochs=epochs,
        evaluate_every=epochs / N_SNAPSHOTS,
        keep=(),
    )
    started = time.process_time()
    outcome = train_shard(task)
    seconds = time.process_time() - started
    snapshots = [member.snapshots for member in outcome.members if member.snapshots is not None]
    averages = torch.stack([one.predictions for one in snapshots]).double().mean(0).numpy()
    regression = table.task == "regression"
    errors = [
        error_of(table.task, table.target[test], average[0] if regression else average.T)
        for average in averages
    ]
    return {
        "set": name, "seed": seed, "variant": variant, "steps": STEPS, "networks": len(snapshots),
        "error": errors[-1], "best": min(errors), "seconds": seconds, "machine": describe_machine(),
    }  # fmt: skip


def compared(rows: Sequence[Mapping[str, Any]], variant: str, which: str) -> Change | None:
    """Compare the errors of a variant with those of the recipe.

    Parameters
    ----------
    rows
        Rows of the results file.
    variant
        Key of :data:`VARIANTS`.
    which
        ``"error"``, at the end, or ``"best"``, at the best snapshot.

    Returns
    -------
    Change or None
        None if no table has both.
    """
    fits = [
        {"tool": row["variant"], "budget": None, "set": row["set"], "seed": row["seed"], "error": row[which]}
        for row in rows
    ]
    return changes_of(fits, variant, "the recipe")


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the changes of the error as a Markdown table, best first; negative is better."""
    lines = []
    for variant in VARIANTS:
        end, best = compared(rows, variant, "error"), compared(rows, variant, "best")
        if variant == "the recipe" or end is None or best is None:
            continue
        cells = f"{end.mean:+.1%} | {best.mean:+.1%} | {end.n_worse} of {end.n_sets}"
        lines.append((end.mean, f"| {variant} | {cells} | {end.low:+.0%} to {end.high:+.0%} |"))
    head = ["| changed | error at the end | at the best moment | worse on | range |", "|---|---|---|---|---|"]
    return "\n".join(head + [line for _, line in sorted(lines)])


def main() -> None:
    """Run what is missing and publish all rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", action="store_true", help="run again what is on file")
    parser.add_argument("--jobs", type=int, default=2, help="processes of one thread each; default: 2")
    parser.add_argument("--sets", nargs="+", choices=BUNDLED, default=BUNDLED)
    arguments = parser.parse_args()
    known = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    rows: list[dict[str, Any]] = [] if arguments.repeat else known
    present = {(row["set"], row["seed"], row["variant"]) for row in rows}
    for seed in SEEDS:
        for name in arguments.sets:
            missing = [variant for variant in VARIANTS if (name, seed, variant) not in present]
            jobs = (delayed(run)(name, seed, variant) for variant in missing)
            rows += Parallel(n_jobs=arguments.jobs)(jobs)
            if missing:
                print(f"{name}, seed {seed}: {len(missing)} variants", flush=True)
            text = ",\n".join("  " + json.dumps(row) for row in rows)
            RESULTS.write_text(f'{{"rows": [\n{text}\n]}}\n', encoding="utf-8")
    fill(DOCUMENT, marks("ingredients"), table(rows))


if __name__ == "__main__":
    main()
