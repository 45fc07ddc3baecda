"""Cost of the storage of a study: memory, journal or SQLite.

``python -m benchmarks.optuna_storages`` does three things in each storage: it trains 400 random trials of the
default space on spambase with ``optimize``; it asks, reports and tells such trials one value at a time
without training, as Optuna's own loop does; and it copies 1,000 finished trials, at once and with
``study.add_trials``. All storages take turns, several times. It writes
``benchmarks/results/optuna_storages.json`` and the table in ``docs/optuna.md``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState, create_trial

from benchmarks.optuna_bridge import spambase
from benchmarks.publishing import ROOT, describe_machine, fill, marks
from parallelmlp_search.integrations.optuna import (
    PackedObjective,
    RungPruner,
    open_storage,
    optimize,
    suggest,
)
from parallelmlp_search.integrations.optuna.storage.storage_writers import get_writer

RESULTS = ROOT / "benchmarks" / "results" / "optuna_storages.json"
DOCS = ROOT / "docs" / "optuna.md"
MARKS = marks("optuna_storages")

PLACES = {"memory": None, "journal": "journal:{}/study.log", "SQLite": "sqlite:///{}/study.db"}

MAX_EPOCHS = 9


@contextmanager
def new_study(place: str, seed: int) -> Iterator[optuna.Study]:
    """Create a study in a new storage of a kind of :data:`PLACES`."""
    url = PLACES[place]
    with tempfile.TemporaryDirectory() as folder:
        yield optuna.create_study(
            storage=open_storage(url and url.format(folder)),
            direction="maximize",
            sampler=optuna.samplers.RandomSampler(seed=seed),
            pruner=RungPruner(3),
        )


def packed(objective: PackedObjective, place: str, n_trials: int, seed: int) -> float:
    """Return the seconds of ``optimize`` for a new study of ``n_trials``."""
    with new_study(place, seed) as study:
        started = time.perf_counter()
        optimize(study, objective, n_trials=n_trials)
        return time.perf_counter() - started


def value_by_value(objective: PackedObjective, place: str, n_trials: int, seed: int) -> float:
    """Return the milliseconds per trial of the writes of Optuna's own loop; a third advances at each rung."""
    with new_study(place, seed) as study:
        started = time.perf_counter()
        for number in range(n_trials):
            trial = study.ask()
            suggest(trial, "default")
            last = 0 if number % 3 else 1 if number % 9 else 2
            for step in objective.steps[: last + 1]:
                trial.report(number / n_trials, step)
            for name in ("n_parameters", "epochs", "train_seconds", "seed"):
                trial.set_user_attr(name, number)
            if last == len(objective.steps) - 1:
                study.tell(trial, number / n_trials)
            else:
                study.tell(trial, state=TrialState.PRUNED)
        return 1000 * (time.perf_counter() - started) / n_trials


def copied(place: str, n_trials: int, seed: int) -> dict[str, float]:
    """Return the seconds of copying ``n_trials`` finished trials into a new study, by the way of copying."""
    with new_study("memory", seed) as source:
        for _ in range(n_trials):
            suggest(source.ask(), "default")
        trials = [
            create_trial(
                value=0.5,
                params=trial.params,
                distributions=trial.distributions,
                user_attrs={
                    "n_parameters": 1,
                    "epochs": 9,
                    "train_seconds": 0.1,
                    "seed": 0,
                    "origin": "random",
                },
                intermediate_values={0: 0.25, 1: 0.5},
            )
            for trial in source.get_trials(deepcopy=False)
        ]
    seconds = {}
    for name in ("at once", "one by one"):
        with new_study(place, seed) as study:
            started = time.perf_counter()
            if name == "at once":
                get_writer(study._storage).create(study._study_id, trials)
            else:
                study.add_trials(trials)
            seconds[name] = time.perf_counter() - started
            assert len(study.get_trials(deepcopy=False)) == n_trials
    return seconds


def measure(n_packed: int, n_written: int, n_copied: int, repeats: int) -> dict[str, Any]:
    """Measure all storages in turns.

    Parameters
    ----------
    n_packed, n_written, n_copied
        Trials to train, to write without training, and to copy.
    repeats
        Seeds, from 0.

    Returns
    -------
    dict
        Figures of all runs by storage.
    """
    objective = PackedObjective(*spambase(), "default", max_epochs=MAX_EPOCHS)
    for place in PLACES:  # the first run loads libraries and compiles
        packed(objective, place, n_packed // 4, 0)
        copied(place, 2, 0)
    rows: dict[str, list[dict[str, float]]] = {place: [] for place in PLACES}
    for seed in range(repeats):
        for place, runs in rows.items():
            copies = copied(place, n_copied, seed)
            runs.append(
                {
                    "optimize_seconds": packed(objective, place, n_packed, seed),
                    "value_by_value_ms": value_by_value(objective, place, n_written, seed),
                    "at_once_seconds": copies["at once"],
                    "one_by_one_seconds": copies["one by one"],
                }
            )
            print(place, {name: round(value, 2) for name, value in runs[-1].items()}, flush=True)
    return {"trials": n_packed, "max_epochs": MAX_EPOCHS, "copied": n_copied, "runs": rows}


def table(found: dict[str, Any]) -> str:
    """Return the medians as a Markdown table."""

    def middle(place: str, figure: str) -> float:
        return statistics.median(row[figure] for row in found["runs"][place])

    lines = [
        f"| storage of the study | `optimize`, {found['trials']:,} random trials | "
        f"written one value at a time | {found['copied']:,} trials copied, by `add_trials` |",
        "|---|---|---|---|",
    ]
    for place in found["runs"]:
        seconds, each = middle(place, "optimize_seconds"), middle(place, "value_by_value_ms")
        once, singly = middle(place, "at_once_seconds"), middle(place, "one_by_one_seconds")
        copies = f"{once:.2f} s, {singly:.1f} s"
        lines.append(f"| {place} | {seconds:.1f} s | {each:.1f} ms per trial | {copies} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, write the figures and update the document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of everything, one seed; writes nothing"
    )
    quick = parser.parse_args().quick
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    found = {"machine": describe_machine()} | (measure(40, 6, 100, 1) if quick else measure(400, 60, 1000, 3))
    print(table(found))
    if quick:
        return
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    fill(Path(DOCS), MARKS, table(found))


if __name__ == "__main__":
    main()
