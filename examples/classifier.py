"""Classify a table with numbers, categories and missing values, read from a file.

Run it from the repository: python examples/classifier.py
"""

from __future__ import annotations

from pathlib import Path

from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

from parallelmlp_search import ParallelMLPClassifier
from parallelmlp_search.data import read_table
from parallelmlp_search.search import Progress

ADULT = Path(__file__).parents[1] / "datasets" / "adult.csv.gz"


def print_rung(progress: Progress) -> None:
    """Print the best score at the end of each rung; a callback that returns True ends the screening."""
    if progress.stage == "screening" and progress.rung_completed:
        print(f"{progress.n_trials:4d} trials, best {progress.metric} so far {progress.best_score:.4f}")


def main() -> None:
    table = read_table(ADULT).sample(4000, random_state=0)
    X, y = table.drop(columns="income"), table["income"]
    X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0, stratify=y)
    print(f"{len(X_train)} rows, {int(X_train.isna().sum().sum())} missing values")

    model = ParallelMLPClassifier(
        "small", n_trials=40, max_epochs=15, n_folds=3, random_state=0, callbacks=[print_rung]
    )
    model.fit(X_train, y_train)

    columns = ["rank", "score", "standard_error", "ensemble_weight", "n_parameters", "widths", "activation"]
    print(model.leaderboard_[columns].head(5).to_string(index=False))
    auc = roc_auc_score(y_test, model.predict_proba(X_test)[:, 1])
    print(f"honest score {model.honest_score_:.4f}, on held-out rows {auc:.4f}")
    print("first predictions:", ", ".join(model.predict(X_test)[:5]))


if __name__ == "__main__":
    main()
