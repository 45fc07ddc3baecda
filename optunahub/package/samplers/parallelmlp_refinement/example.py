"""Refinement of a conditional space, with the sampler from this folder.

Run: python example.py
"""

from __future__ import annotations

from pathlib import Path

import optuna
import optunahub

module = optunahub.load_local_module(
    package="samplers/parallelmlp_refinement", registry_root=str(Path(__file__).parents[2])
)


def objective(trial: optuna.Trial) -> float:
    kind = trial.suggest_categorical("kind", ["line", "plane"])
    x = trial.suggest_float("x", -5, 5)
    if kind == "line":
        return x**2 + 1
    y = trial.suggest_float("y", -5, 5)
    return (x - 1) ** 2 + (y + 2) ** 2


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=module.RefinementSampler(seed=0))
    study.optimize(objective, n_trials=150)
    print(f"best value {study.best_value:.3f} with {study.best_params}")
