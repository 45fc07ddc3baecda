"""Tune one network in a pipeline like GridSearchCV, with all candidates of a fold trained at once.

Run it from the repository: python examples/search_cv.py
"""

from __future__ import annotations

from pathlib import Path

import optuna
import pandas as pd
from scipy.stats import loguniform
from sklearn.compose import make_column_transformer
from sklearn.feature_selection import SelectKBest
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from parallelmlp_search import PackedSearchCV, SingleMLPClassifier
from parallelmlp_search.data import read_table

CREDIT = Path(__file__).parents[1] / "datasets" / "credit_g.csv.gz"


def with_rate(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(rate=frame["credit_amount"] / frame["duration"])


def main() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    table = read_table(CREDIT)
    X, y = table.drop(columns="class"), table["class"]
    X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0, stratify=y)

    # the search as the last step: 40 candidates on 4 folds, 160 networks
    distributions = {
        "depth": [1, 2],
        "width": [8, 16, 32],
        "learning_rate": loguniform(1e-3, 3e-2),
        "dropout": [0.0, 0.2, 0.4],
        "activation": ["relu", "silu"],
    }
    search = PackedSearchCV(
        None, distributions, n_trials=40, max_epochs=9, cv=4, scoring="roc_auc", random_state=0
    )
    model = make_pipeline(FunctionTransformer(with_rate), search).fit(X_train, y_train)
    print(f"random   ROC-AUC {search.best_score_:.3f} by cross-validation, {search.best_params_}")
    print(f"         ROC-AUC {model.score(X_test, y_test):.3f} on held-out rows")
    results = pd.DataFrame(search.cv_results_).nsmallest(3, "rank_test_score")
    print(
        results[["mean_test_score", "std_test_score", "param_width", "param_dropout"]].to_string(index=False)
    )

    # a pipeline as the estimator: its other steps are fitted inside each fold, once for all candidates
    texts = X.select_dtypes(exclude="number").columns
    encode = make_column_transformer((OneHotEncoder(), texts), remainder=StandardScaler())
    pipeline = Pipeline(
        [
            ("encode", encode),
            ("select", SelectKBest(k=40)),
            ("mlp", SingleMLPClassifier(max_epochs=9, class_weight="balanced")),
        ]
    )
    grid = {"mlp__widths": [(8,), (16,), (16, 16)], "mlp__learning_rate": [0.003, 0.01, 0.03]}
    halving = PackedSearchCV(
        pipeline,
        grid,
        sampler="grid",
        reduction_factor=3,
        scoring=["roc_auc", "balanced_accuracy"],
        refit="roc_auc",
        random_state=0,
    ).fit(X_train, y_train)
    print(f"halving  ROC-AUC {halving.best_score_:.3f}, {halving.best_params_}")
    kept = pd.Series(halving.cv_results_["iter"]).value_counts().tolist()
    print(f"         candidates at 1, 3, 9 epochs: {kept}")

    # a sampler of Optuna, asked for 16 candidates at a time
    asked = PackedSearchCV(
        None,
        "small",
        sampler=optuna.samplers.TPESampler(seed=0),
        n_trials=32,
        max_epochs=6,
        cv=3,
        scoring="roc_auc",
        random_state=0,
    ).fit(X_train, y_train)
    print(f"TPE      ROC-AUC {asked.best_score_:.3f}, best trial {asked.study_.best_trial.number} of 32")


if __name__ == "__main__":
    main()
