"""A table of money, percentages and decimal commas against its version with numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import r2_score

from parallelmlp_search import ParallelMLPRegressor

N = 700


@pytest.mark.filterwarnings("ignore:column .* was categorical")
def test_a_sales_table_scores_as_its_version_with_numbers() -> None:
    rng = np.random.default_rng(0)
    plain = pd.DataFrame(
        {
            "price": np.round(rng.gamma(2.0, 600.0, N), 2),
            "discount": rng.integers(0, 60, N) / 100,
            "weight": np.round(rng.uniform(0.1, 30.0, N), 1),
            "shop": rng.choice(["north", "south", "east"], N),
        }
    )
    paid = plain["price"] * (1 - plain["discount"]) + 12 * plain["weight"] + 80 * (plain["shop"] == "east")
    plain["paid"] = np.round(paid + rng.normal(0, 20, N), 2)
    texts = plain.assign(
        price=[f"${value:,.2f}" for value in plain["price"]],
        discount=[f"{value:.0%}" for value in plain["discount"]],
        weight=[f"{value:.1f}".replace(".", ",") for value in plain["weight"]],
    )
    held = np.arange(N) >= 500

    def score(frame: pd.DataFrame, **options: object) -> float:
        model = ParallelMLPRegressor(
            "small", n_trials=8, max_epochs=20, n_folds=3, baselines=False, random_state=0, **options
        )
        features = frame.drop(columns="paid")
        model.fit(features[~held], plain["paid"][~held])
        return float(r2_score(plain["paid"][held], model.predict(features[held])))

    by_hand, as_written = score(plain), score(texts)
    assert by_hand > 0.8
    assert as_written == pytest.approx(by_hand, rel=0.01)
    # the comparison can fail: categories of distinct texts say nothing
    kinds = dict.fromkeys(("price", "discount", "weight"), "categorical")
    assert score(texts, column_types=kinds) < 0.5
