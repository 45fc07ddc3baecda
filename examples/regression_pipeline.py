"""Use a regressor as the last step of a pipeline, with the logarithm of the target.

Run it from the repository: python examples/regression_pipeline.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.compose import TransformedTargetRegressor
from sklearn.metrics import mean_absolute_error, root_mean_squared_error
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from parallelmlp_search import ParallelMLPRegressor
from parallelmlp_search.data import read_table

DIAMONDS = Path(__file__).parents[1] / "datasets" / "diamonds.csv.gz"


def with_volume(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(volume=frame["x"] * frame["y"] * frame["z"])


def main() -> None:
    table = read_table(DIAMONDS).sample(3000, random_state=0)
    X, y = table.drop(columns="price"), table["price"]
    X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)

    # a custom step; the search encodes the categories inside its folds
    search = ParallelMLPRegressor("small", n_trials=24, max_epochs=27, n_folds=3, random_state=0)
    model = TransformedTargetRegressor(
        make_pipeline(FunctionTransformer(with_volume), search), func=np.log, inverse_func=np.exp
    )
    model.fit(X_train, y_train)

    prices = model.predict(X_test)
    print(f"RMSE {root_mean_squared_error(y_test, prices):.0f} dollars")
    print(f"MAE  {mean_absolute_error(y_test, prices):.0f} dollars")

    # the same search for the 90 % quantile of the price
    high = ParallelMLPRegressor(
        "small", n_trials=24, max_epochs=27, n_folds=3, loss="quantile:0.9", random_state=0
    )
    high.fit(X_train, np.log(y_train))
    share = np.mean(np.log(y_test) <= high.predict(X_test))
    print(f"{share:.0%} of the held-out prices are below their predicted 90 % quantile")


if __name__ == "__main__":
    main()
