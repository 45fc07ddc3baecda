"""Tune networks on the output of preprocessing steps, and use the best one as the last step.

Run it from the repository: python examples/optuna_pipeline.py
"""

from __future__ import annotations

from pathlib import Path

import optuna
import pandas as pd
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, QuantileTransformer

from parallelmlp_search import ParallelMLPClassifier, SearchSpace
from parallelmlp_search.integrations.optuna import PackedObjective, RefinementSampler, optimize
from parallelmlp_search.space import Categorical, MLPConfig
from parallelmlp_search.space.config import FIELD_NAMES

DATA = Path(__file__).parents[1] / "datasets" / "credit_g.csv.gz"


def single_config_space(config: MLPConfig) -> SearchSpace:
    """Return the space that holds only this configuration."""
    return SearchSpace({name: Categorical((getattr(config, name),)) for name in FIELD_NAMES})


def main() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    table = pd.read_csv(DATA)
    X, y = table.drop(columns="class"), table["class"]
    X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0, stratify=y)

    numbers = make_pipeline(
        QuantileTransformer(n_quantiles=50, output_distribution="normal"), PCA(whiten=True)
    )
    categories = OneHotEncoder(min_frequency=10, handle_unknown="infrequent_if_exist", sparse_output=False)
    steps = make_column_transformer(
        (numbers, make_column_selector(dtype_include="number")),
        (categories, make_column_selector(dtype_exclude="number")),
    )
    pipeline = Pipeline([("prepare", steps), ("network", ParallelMLPClassifier(n_trials=1, random_state=0))])

    # The steps are fitted once on all training rows, validation rows included. This is valid only if they do
    # not use the target; otherwise, scores of trials are too high.
    prepared = pipeline["prepare"].fit_transform(X_train)
    objective = PackedObjective(prepared, y_train, "small", max_epochs=9)
    study = optuna.create_study(direction="maximize", sampler=RefinementSampler(seed=0))
    optimize(study, objective, n_trials=96)
    config = objective.configure(optuna.trial.FixedTrial(study.best_params, study.best_trial.number))
    print(f"best of {len(study.trials)} trials: ROC-AUC {study.best_value:.3f}, selected from all trials")

    # the same pipeline with the best configuration; it fits the steps and trains the network again
    pipeline.set_params(network__search_space=single_config_space(config), network__max_epochs=9)
    pipeline.fit(X_train, y_train)
    assert pipeline["network"].best_config_ == config
    held_back = roc_auc_score(y_test == pipeline.classes_[1], pipeline.predict_proba(X_test)[:, 1])
    print(f"pipeline on held-out rows: ROC-AUC {held_back:.3f}")


if __name__ == "__main__":
    main()
