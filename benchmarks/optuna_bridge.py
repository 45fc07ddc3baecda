"""Optuna with packed trials: overhead over our own search, and gain over one network at a time.

``python -m benchmarks.optuna_bridge`` searches spambase for 1,000 trials through ``optimize``, with Optuna's
random sampler and its default one. Each time our own search trains the same trials, because their cost
depends on their configurations. Then ``study.optimize`` trains scikit-learn's ``MLPClassifier`` on the same
tensors, over the same space, with the same rungs, sampler and pruner, for a comparison of trials per minute.
All sides take turns, several times. It writes ``benchmarks/results/optuna_bridge.json`` and the table in
``docs/optuna.md``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optuna
import pandas as pd
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import roc_auc_score
from sklearn.neural_network import MLPClassifier

from benchmarks.publishing import ROOT, describe_machine, fill, marks
from parallelmlp_search import SearchSpace
from parallelmlp_search.integrations.optuna import PackedObjective, RungPruner, optimize
from parallelmlp_search.integrations.optuna.study.run_study import config_of_trial
from parallelmlp_search.search import Problem, Progress, SearchSettings, run
from parallelmlp_search.space import Categorical, Float, Int, MLPConfig

RESULTS = ROOT / "benchmarks" / "results" / "optuna_bridge.json"
DOCS = ROOT / "docs" / "optuna.md"
MARKS = marks("optuna_bridge")

PLAIN = SearchSpace(
    {
        "depth": Int(1, 2),
        "width": Int(4, 64, log=True),
        "activation": Categorical(("relu", "tanh")),
        "learning_rate": Float(1e-3, 3e-2, log=True),
        "batch_size": Categorical((32,)),
    }
)
"""Space that scikit-learn's networks and ours have in common."""


def spambase() -> tuple[pd.DataFrame, np.ndarray[Any, Any]]:
    """Return features and target of spambase."""
    frame = pd.read_csv(ROOT / "datasets" / "spambase.csv.gz")
    return frame, frame.pop("type").to_numpy()


def own_search(configs: Sequence[MLPConfig], max_epochs: int, seed: int) -> float:
    """Return the seconds that our own search takes to prepare and to screen given trials.

    Parameters
    ----------
    configs
        Configurations of the trials.
    max_epochs
        Epochs of full training.
    seed
        Seed of the search.

    Returns
    -------
    float
        Seconds until the last report of the screening.
    """
    X, y = spambase()
    seconds = [0.0]

    def watch(progress: Progress) -> None:
        if progress.stage == "screening":
            seconds[0] = progress.elapsed_seconds

    settings = SearchSettings(
        "default",
        len(configs),
        max_epochs=max_epochs,
        refinement=0.0,
        n_finalists=1,
        n_folds=2,
        initial=tuple(configs),
        seed=seed,
    )
    run(Problem(X, y, "binary"), settings, callbacks=[watch])
    return seconds[0]


def through_optuna(
    n_trials: int, max_epochs: int, seed: int, sampler: optuna.samplers.BaseSampler
) -> tuple[float, list[MLPConfig]]:
    """Run a study with ``optimize``.

    Parameters
    ----------
    n_trials, max_epochs, seed
        As of ``optimize``.
    sampler
        Sampler of the study.

    Returns
    -------
    tuple
        Seconds, and the configurations in the order of asking.
    """
    X, y = spambase()
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=RungPruner(3))
    started = time.perf_counter()
    optimize(study, X, y, "default", n_trials=n_trials, max_epochs=max_epochs, seed=seed)
    seconds = time.perf_counter() - started
    # in the order of asking: with the best trials first, later ones would not advance and cost less
    space = SearchSpace.preset("default")
    configs = [config_of_trial(trial, space) for trial in study.get_trials(deepcopy=False)]
    return seconds, [config for config in configs if config is not None]


def packed_rate(n_trials: int, max_epochs: int, seed: int) -> dict[str, float]:
    """Return trials per minute of ``optimize`` over :data:`PLAIN`; parameters are those of ``optimize``."""
    X, y = spambase()
    objective = PackedObjective(X, y, PLAIN, max_epochs=max_epochs, numeric_bins=0, seed=seed)
    study = _random_study(seed)
    started = time.perf_counter()
    optimize(study, objective, n_trials=n_trials)
    return _rate(study, time.perf_counter() - started)


def one_by_one_rate(
    n_trials: int, max_epochs: int, seed: int, n_jobs: int, *, prunes: bool
) -> dict[str, float]:
    """Return trials per minute of scikit-learn's networks in Optuna's own loop, on the same tensors.

    Parameters
    ----------
    n_trials, max_epochs, seed
        As of :func:`packed_rate`.
    n_jobs
        Trials at once.
    prunes
        Use ``partial_fit`` and prune at the rungs; otherwise each network trains to its end.

    Returns
    -------
    dict
        Trials per minute and other figures of the study.
    """
    X, y = spambase()
    objective = PackedObjective(X, y, PLAIN, max_epochs=max_epochs, numeric_bins=0, seed=seed)
    data = objective.data
    train, target = data.rows.inputs.numpy(), data.rows.target.numpy().ravel()
    validation, truth = data.validation_inputs.numpy(), data.validation_target.numpy()

    def alone(trial: optuna.Trial) -> float:
        config = objective.configure(trial)
        network = MLPClassifier(
            config.widths,
            activation=config.activation,
            batch_size=config.batch_size,
            learning_rate_init=config.learning_rate,
            alpha=0.0,
            random_state=trial.number,
        )
        done, score = 0, 0.0
        for epochs in objective.rungs if prunes else objective.rungs[-1:]:
            for _ in range(int(epochs) - done):
                network.partial_fit(train, target, classes=[0.0, 1.0])
            done = int(epochs)
            score = float(roc_auc_score(truth, network.predict_proba(validation)[:, 1]))
            trial.report(score, done)
            if prunes and done < objective.rungs[-1] and trial.should_prune():
                raise optuna.TrialPruned
        return score

    study = _random_study(seed)
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        study.optimize(alone, n_trials=n_trials, n_jobs=n_jobs)
    return _rate(study, time.perf_counter() - started)


def _random_study(seed: int) -> optuna.Study:
    return optuna.create_study(
        direction="maximize", sampler=optuna.samplers.RandomSampler(seed=seed), pruner=RungPruner(3)
    )


def _rate(study: optuna.Study, seconds: float) -> dict[str, float]:
    epochs = [trial.last_step or 0 for trial in study.trials]
    return {
        "trials_per_minute": 60 * len(epochs) / seconds,
        "epochs_per_second": sum(epochs) / seconds,
        "epochs_per_trial": sum(epochs) / len(epochs),
        "seconds": seconds,
        "best": study.best_value,
    }


def bridge(n_trials: int, max_epochs: int, repeats: int) -> dict[str, Any]:
    """Time ``optimize`` and our own search of the same trials in turns.

    Parameters
    ----------
    n_trials, max_epochs
        As of ``optimize``.
    repeats
        Seeds, from 0.

    Returns
    -------
    dict
        Seconds of both sides and their ratios.
    """
    samplers: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
        "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
        "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed),
    }
    seconds: dict[str, list[float]] = {name: [] for kind in samplers for name in (kind, f"own_{kind}")}
    for seed in range(repeats):
        for name, sampler in samplers.items():
            took, configs = through_optuna(n_trials, max_epochs, seed, sampler(seed))
            seconds[name].append(took)
            seconds[f"own_{name}"].append(own_search(configs, max_epochs, seed))
            own = seconds[f"own_{name}"][-1]
            print(f"{n_trials:,} trials, seed {seed}, {name}: {took:.1f} s, own {own:.1f} s", flush=True)
    ratios = {
        f"{name}_over_own": [
            theirs / own for theirs, own in zip(seconds[name], seconds[f"own_{name}"], strict=True)
        ]
        for name in samplers
    }
    return {"trials": n_trials, "max_epochs": max_epochs, "seconds": seconds} | ratios


def rates(n_packed: int, n_alone: int, max_epochs: int, repeats: int) -> dict[str, Any]:
    """Measure trials per minute of packed training and of Optuna's own loop over scikit-learn in turns.

    The loop gets the better of two ways to use the cores: one trial at a time on all cores, or two at a time.

    Parameters
    ----------
    n_packed, n_alone
        Trials of packed training and of the loop.
    max_epochs
        Epochs of full training.
    repeats
        Seeds, from 0.

    Returns
    -------
    dict
        Figures of all runs and ratios of both sides.
    """
    found: dict[str, list[dict[str, float]]] = {"packed": [], "pruned": [], "whole": []}
    for seed in range(repeats):
        found["packed"].append(packed_rate(n_packed, max_epochs, seed))
        for name, prunes, count in (("pruned", True, n_alone), ("whole", False, max(4, n_alone // 4))):
            ways = [one_by_one_rate(count, max_epochs, seed, n_jobs, prunes=prunes) for n_jobs in (1, 2)]
            found[name].append(max(ways, key=lambda way: way["trials_per_minute"]))
        print({name: round(rows[-1]["trials_per_minute"]) for name, rows in found.items()}, flush=True)

    def ratio(name: str, figure: str) -> list[float]:
        return [
            ours[figure] / theirs[figure] for ours, theirs in zip(found["packed"], found[name], strict=True)
        ]

    return {
        "max_epochs": max_epochs,
        "runs": found,
        "trials_over_pruned": ratio("pruned", "trials_per_minute"),
        "trials_over_whole": ratio("whole", "trials_per_minute"),
        "epochs_over_pruned": ratio("pruned", "epochs_per_second"),
    }


def table(found: dict[str, Any]) -> str:
    """Return the figures as Markdown tables: medians, and ranges if there were several runs."""

    def shown(values: list[float], form: str) -> str:
        middle = format(statistics.median(values), form)
        if len(values) == 1:
            return middle
        return f"{middle} ({format(min(values), form)} to {format(max(values), form)})"

    bridge_, rate = found["bridge"], found["rates"]

    def minute(name: str) -> str:
        return shown([row["trials_per_minute"] for row in rate["runs"][name]], ",.0f")

    seconds = bridge_["seconds"]
    return "\n".join(
        [
            f"| {bridge_['trials']:,} trials of the default space, up to {bridge_['max_epochs']} epochs "
            "| seconds | our own search of the same trials | ratio |",
            "|---|---|---|---|",
            f"| `optimize`, random sampler | {shown(seconds['random'], '.0f')} "
            f"| {shown(seconds['own_random'], '.0f')} | {shown(bridge_['random_over_own'], '.2f')} |",
            f"| `optimize`, default sampler (TPE) | {shown(seconds['tpe'], '.0f')} "
            f"| {shown(seconds['own_tpe'], '.0f')} | {shown(bridge_['tpe_over_own'], '.2f')} |",
            "",
            f"| 1 or 2 layers of 4 to 64, up to {rate['max_epochs']} epochs "
            "| trials per minute | ratio of ours |",
            "|---|---|---|",
            f"| `optimize` | {minute('packed')} | 1 |",
            f"| `study.optimize` over `MLPClassifier`, trained whole | {minute('whole')} "
            f"| {shown(rate['trials_over_whole'], '.0f')} |",
            f"| the same with `partial_fit` and the same pruner | {minute('pruned')} "
            f"| {shown(rate['trials_over_pruned'], '.1f')} |",
        ]
    )


def main() -> None:
    """Measure, write the figures and update the document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the trials, one seed; writes nothing"
    )
    parser.add_argument(
        "--only", choices=("bridge", "rates"), help="measure one part and keep the figures of the other"
    )
    parser.add_argument("--repeats", type=int, default=3, help="seeds; default: 3")
    arguments = parser.parse_args()
    quick, repeats = arguments.quick, 1 if arguments.quick else arguments.repeats
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    found = json.loads(RESULTS.read_text()) if arguments.only else {}
    found["machine"] = describe_machine()
    if arguments.only != "rates":
        found["bridge"] = bridge(100 if quick else 1000, 9, repeats)
    if arguments.only != "bridge":
        found["rates"] = rates(100 if quick else 1000, 12 if quick else 40, 27, repeats)
    print(table(found))
    if quick:
        return
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    fill(DOCS, MARKS, table(found))


if __name__ == "__main__":
    main()
