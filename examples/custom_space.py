"""Define a search space with conditions, save it to a file, and compare it with a preset.

Run it from the repository: python examples/custom_space.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from sklearn.model_selection import GridSearchCV

from parallelmlp_search import ParallelMLPClassifier, SearchSpace
from parallelmlp_search.data import read_table
from parallelmlp_search.space import Categorical, Float, Int, When

CREDIT = Path(__file__).parents[1] / "datasets" / "credit_g.csv.gz"


def main() -> None:
    space = SearchSpace(
        {
            "depth": Int(0, 3),  # 0 is a linear model
            "width_1": Int(8, 96),
            "width_2": Int(8, 48),
            "width_3": Categorical((8, 16, 24)),
            "activation": Categorical(("relu", "silu", "sine")),
            "learning_rate": Float(1e-3, 3e-2, log=True),
            "optimizer": Categorical(("adamw", "sgd")),
            "momentum": Float(0.8, 0.95, when=When("optimizer", equals="sgd")),
            "normalization": Categorical(("none", "layer"), when=When("depth", at_least=2)),
            "schedule": Categorical(("cosine", "one_cycle")),
        }
    )
    for config in space.sample(3, np.random.default_rng(0)):
        print(config.widths, config.activation, config.optimizer, f"{config.learning_rate:.4f}")

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "space.toml"
        space.save(path)  # `pmlp search ... --space space.toml` reads it too
        assert SearchSpace.load(path) == space

    table = read_table(CREDIT)
    X, y = table.drop(columns="class"), table["class"]
    model = ParallelMLPClassifier(n_trials=24, max_epochs=15, n_folds=3, random_state=0)
    comparison = GridSearchCV(model, {"search_space": ["small", space]}, scoring="roc_auc", cv=2)
    comparison.fit(X, y)
    for name, score in zip(("small", "custom"), comparison.cv_results_["mean_test_score"], strict=True):
        print(f"{name:8s} ROC-AUC {score:.3f}")
    best = comparison.best_estimator_
    print("best configuration:", best.best_config_.widths, best.best_config_.activation)


if __name__ == "__main__":
    main()
