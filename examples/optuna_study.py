"""Packed trials in an Optuna study: sampler, pruner, a define-by-run space, and two objectives.

Run it from the repository: python examples/optuna_study.py
"""

from __future__ import annotations

from pathlib import Path

import optuna
import pandas as pd

from parallelmlp_search import MLPConfig
from parallelmlp_search.integrations.optuna import PackedObjective, optimize

DATA = Path(__file__).parents[1] / "datasets" / "credit_g.csv.gz"


def space(trial: optuna.Trial) -> MLPConfig:
    """Return a configuration; deeper networks are narrower, and only they may be residual."""
    depth = trial.suggest_int("depth", 1, 3)
    width = trial.suggest_int("width", 8, 64 // depth, log=True)
    return MLPConfig(
        widths=(width,) * depth,
        activation=trial.suggest_categorical("activation", ["relu", "silu", "mish"]),
        learning_rate=trial.suggest_float("learning_rate", 1e-3, 3e-2, log=True),
        dropout=trial.suggest_float("dropout", 0.0, 0.4, step=0.1),
        residual=depth > 1 and trial.suggest_categorical("residual", [True, False]),
        batch_size=64,
        seed=trial.number,
    )


def main() -> None:
    """Run both studies."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    table = pd.read_csv(DATA)
    X, y = table.drop(columns="class"), table["class"]

    # one objective: 60 trials in batches, pruned at epochs 1 and 3
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=0),
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3),
    )
    optimize(study, X, y, space, n_trials=60, max_epochs=9)
    pruned = sum(trial.state is optuna.trial.TrialState.PRUNED for trial in study.trials)
    print(f"best ROC-AUC {study.best_value:.3f} with {study.best_params}; {pruned} of 60 pruned")

    # two objectives: score and number of parameters
    objective = PackedObjective(X, y, space, max_epochs=3, objectives=("score", "n_parameters"))
    pareto = optuna.create_study(
        directions=["maximize", "minimize"], sampler=optuna.samplers.NSGAIISampler(seed=0)
    )
    optimize(pareto, objective, n_trials=40)
    for trial in sorted(pareto.best_trials, key=lambda trial: trial.values[1])[:5]:
        print(f"ROC-AUC {trial.values[0]:.3f} from {trial.values[1]:,.0f} parameters")


if __name__ == "__main__":
    main()
