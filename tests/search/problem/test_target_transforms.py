"""Target transformations that are tried and prepared."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from parallelmlp_search.data.target_curve import skewness
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.search import Problem, SearchSettings
from parallelmlp_search.search.problem.preparation import Preparation
from parallelmlp_search.search.problem.target_transforms import offered_transforms, transforms_of
from parallelmlp_search.selection import get_metric
from parallelmlp_search.space import Categorical, MLPConfig, SearchSpace

RNG = np.random.default_rng(0)
SKEWED = RNG.lognormal(size=500)
NORMAL = RNG.normal(size=500)
SLIGHT = RNG.gamma(2.0, size=500)


class TestOffers:
    def test_skewed_targets_of_a_regression(self) -> None:
        rmse, mae = (get_metric(name, "regression") for name in ("rmse", "mae"))
        assert offered_transforms(SKEWED, "regression", rmse) == ("none", "log")
        assert offered_transforms(SKEWED - 1.0, "regression", rmse) == ("none", "yeo_johnson")
        assert offered_transforms(-SKEWED, "regression", rmse) == ("none", "yeo_johnson")
        # a metric that asks for medians gains with less skewness
        assert 1.0 < skewness(SLIGHT) < 3.0
        assert offered_transforms(SLIGHT, "regression", mae) == ("none", "log")
        assert offered_transforms(SLIGHT, "regression", rmse) == ()

    def test_other_targets(self) -> None:
        mae = get_metric("mae", "regression")
        for target in (NORMAL, np.ones(500), np.stack([SKEWED, SKEWED], axis=1)):
            assert offered_transforms(target, "regression", mae) == ()
        assert offered_transforms((SKEWED > 5).astype(float), "regression", mae) == ()  # two values
        assert offered_transforms(SKEWED.astype(str), "multiclass", get_metric(None, "multiclass")) == ()

    def test_skewness_is_that_of_scipy_at_any_magnitude(self) -> None:
        from scipy.stats import skew

        for unit in (1e-200, 1.0, 1e200):
            assert skewness(unit * SKEWED) == pytest.approx(skew(SKEWED))
        assert skewness(np.zeros(3)) == 0.0

    def test_only_the_default_space_changes(self) -> None:
        suited = SearchSettings().suited_to(SKEWED, "regression")
        assert transforms_of(suited.space) == ("log",)
        assert suited.suited_to(SKEWED, "regression") is suited
        again = SearchSettings.from_dict(suited.to_dict())
        assert again.space.to_dict() == suited.space.to_dict()
        chosen = {**SearchSpace.preset("default").domains, "target_transform": Categorical(("none",))}
        for settings in (SearchSettings("small"), SearchSettings(SearchSpace(chosen))):
            assert settings.suited_to(SKEWED, "regression") is settings
        plain = SearchSettings()
        assert plain.suited_to(NORMAL, "regression") is plain


def prepared(target: np.ndarray = SKEWED, **values: object) -> Preparation:
    space = SearchSpace({"width": Categorical((4, 8)), "target_transform": Categorical(("none", "log"))})
    problem = Problem(pd.DataFrame({"x": np.log(SKEWED)}), target, "regression")
    return Preparation(problem, SearchSettings(**{"search_space": space} | values))  # type: ignore[arg-type]


class TestPreparation:
    def test_curves_are_fitted_on_the_training_rows(self) -> None:
        parts = prepared().folds(3)
        values = [part.data.curves["log"].values[0] for part in parts]
        assert not np.array_equal(values[0], values[1])
        for part in parts:
            seen = part.data.seen_by(MLPConfig(target_transform="log"))
            assert seen.rows.target.mean() == pytest.approx(0.0, abs=0.2)
            assert seen.seen_by(MLPConfig(target_transform="log")).rows.target is seen.rows.target
            assert part.data.seen_by(MLPConfig()).rows.target is part.data.rows.target

    def test_the_metric_decides_on_means(self) -> None:
        cases = {"rmse": True, "r2": True, "neg_mean_squared_error": True, "mae": False}
        for metric, expected in cases.items():
            assert prepared(metric=metric).screening().data.smears is expected
        assert not prepared(loss="quantile:0.9").screening().data.smears
        assert prepared(loss="huber").screening().data.smears

    def test_transformations_outside_of_the_space(self) -> None:
        data = prepared().screening().data
        with pytest.raises(InvalidParameterError, match=r"'quantile' is not among .* none, log"):
            data.seen_by(MLPConfig(target_transform="quantile"))

    def test_classes_are_not_transformed(self) -> None:
        problem = Problem(pd.DataFrame({"x": NORMAL}), (NORMAL > 0).astype(int), "binary")
        space = SearchSpace({"width": Categorical((4,)), "target_transform": Categorical(("none", "log"))})
        data = Preparation(problem, SearchSettings(space)).screening().data
        assert data.curves == {}
        assert data.seen_by(MLPConfig(target_transform="log")) is data
