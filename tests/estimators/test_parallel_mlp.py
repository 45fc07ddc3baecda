"""ParallelMLPClassifier and ParallelMLPRegressor."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import sparse
from sklearn import config_context
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import RidgeCV
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score, cross_validate, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from parallelmlp_search import MLPConfig, ParallelMLPClassifier, ParallelMLPRegressor, SearchSpace
from parallelmlp_search.data import read_table
from parallelmlp_search.exceptions import (
    DataError,
    DataWarning,
    InvalidParameterError,
    RunDirectoryError,
)
from parallelmlp_search.search import Progress
from parallelmlp_search.space.domains import Categorical

DATASETS = Path(__file__).parents[2] / "datasets"
SMALL: dict[str, Any] = {
    "search_space": "small",
    "n_trials": 4,
    "max_epochs": 9,
    "n_folds": 2,
    "random_state": 0,
}


def classifier(**changes: Any) -> ParallelMLPClassifier:
    return ParallelMLPClassifier(**SMALL | changes)


def regressor(**changes: Any) -> ParallelMLPRegressor:
    return ParallelMLPRegressor(**SMALL | changes)


@pytest.fixture(scope="module")
def numbers() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (120, 4), classes and values that follow from the first two features."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 4))
    values = X[:, 0] + 0.5 * X[:, 1] + 0.1 * rng.normal(size=120)
    return X, (values > 0).astype(int), values


@pytest.fixture(scope="module")
def rare() -> tuple[np.ndarray, np.ndarray]:
    """Features (700, 3) and two classes; one row in seven is rare."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(700, 3))
    return X, np.where(rng.random(700) < 1 / (1 + np.exp(2.4 - 1.5 * X[:, 0])), "rare", "common")


@pytest.fixture(scope="module")
def people() -> tuple[pd.DataFrame, pd.Series]:
    """Table with numbers, categories, booleans, dates and missing values."""
    rng = np.random.default_rng(1)
    n = 160
    city = rng.choice(["Graz", "Linz", "Wien"], size=n)
    age = rng.integers(18, 80, size=n).astype(float)
    frame = pd.DataFrame(
        {
            "age": np.where(rng.random(n) < 0.1, np.nan, age),
            "city": pd.Series(np.where(rng.random(n) < 0.1, None, city), dtype=object),
            "member": rng.random(n) < 0.5,
            "since": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 900, size=n), unit="D"),
        }
    )
    label = pd.Series(np.where((city == "Wien") | (age > 60), "yes", "no"), name="buys")
    return frame, label


class TestQuality:
    def test_classification_reaches_a_known_auc(self) -> None:
        X, y = load_breast_cancer(return_X_y=True, as_frame=True)
        train, test, y_train, y_test = train_test_split(X, y, random_state=0, stratify=y)
        model = ParallelMLPClassifier("small", n_trials=12, max_epochs=60, random_state=0).fit(train, y_train)
        auc = roc_auc_score(y_test, model.predict_proba(test)[:, 1])
        assert auc > 0.985
        assert model.honest_score_ is not None
        assert abs(model.honest_score_ - auc) < 0.03

    def test_regression_beats_a_linear_model(self) -> None:
        table = read_table(DATASETS / "diamonds.csv.gz").sample(1500, random_state=0)
        X, y = table.drop(columns="price"), table["price"]
        train, test, y_train, y_test = train_test_split(X, y, random_state=0)
        encode = make_column_transformer(
            (OneHotEncoder(handle_unknown="ignore"), ["cut", "color", "clarity"]), remainder=StandardScaler()
        )
        linear = make_pipeline(encode, RidgeCV()).fit(train, y_train).score(test, y_test)
        model = ParallelMLPRegressor("small", n_trials=12, max_epochs=27, random_state=0).fit(train, y_train)
        assert model.score(test, y_test) > linear > 0.85


class TestFitted:
    def test_attributes_of_a_frame(self, people: tuple[pd.DataFrame, pd.Series]) -> None:
        X, y = people
        model = classifier().fit(X, y)
        assert model.classes_.tolist() == ["no", "yes"]
        assert model.n_features_in_ == 4
        assert model.feature_names_in_.tolist() == list(X.columns)
        assert isinstance(model.best_config_, MLPConfig)
        assert isinstance(model.honest_score_, float)
        assert model.n_trials_ == 4
        assert model.result_ is not None
        assert model.result_.metric == "roc_auc"
        assert len(model.leaderboard_) == 4
        assert model.leaderboard_["rank"].iloc[0] == 1
        assert set(model.predict(X)) <= {"no", "yes"}

    def test_arrays_have_no_feature_names(self, numbers: tuple[np.ndarray, ...]) -> None:
        X, y, _ = numbers
        model = classifier().fit(pd.DataFrame(X, columns=list("abcd")), y)
        assert hasattr(model, "feature_names_in_")
        assert not hasattr(model.fit(X, y), "feature_names_in_")
        assert not hasattr(classifier().fit(pd.DataFrame(X), y), "feature_names_in_")

    def test_probabilities_sum_to_one_and_agree_with_the_labels(
        self, numbers: tuple[np.ndarray, ...]
    ) -> None:
        X, _, values = numbers
        y = np.digitize(values, [-0.5, 0.5])
        model = classifier().fit(X, y)
        probability = model.predict_proba(X)
        assert probability.shape == (120, 3)
        assert probability.sum(axis=1) == pytest.approx(1.0)
        np.testing.assert_array_equal(model.classes_[probability.argmax(axis=1)], model.predict(X))
        np.testing.assert_allclose(np.exp(model.predict_log_proba(X)), probability)

    @pytest.mark.parametrize("store", ["pickle", "joblib", "joblib memory map"])
    def test_predictions_after_reloading_are_identical(
        self, store: str, people: tuple[pd.DataFrame, pd.Series], tmp_path: Path
    ) -> None:
        X, y = people
        model = classifier().fit(X, y)
        if store == "pickle":
            again = pickle.loads(pickle.dumps(model))
        else:
            joblib.dump(model, tmp_path / "model.joblib")
            again = joblib.load(tmp_path / "model.joblib", mmap_mode="r" if "map" in store else None)
        np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
        assert again.leaderboard_.equals(model.leaderboard_)

    def test_clone_keeps_parameters_only(self, numbers: tuple[np.ndarray, ...]) -> None:
        X, y, _ = numbers
        model = classifier(class_weight="balanced", memory_limit="64GB").fit(X, y)
        copy = clone(model)
        assert copy.get_params() == model.get_params()
        assert not hasattr(copy, "model_")

    def test_the_name_of_a_class_in_older_pickles_is_found(self) -> None:
        older = b"cparallelmlp_search.estimators\nParallelMLPClassifier\n."
        assert pickle.loads(older) is ParallelMLPClassifier

    def test_a_regressor_is_documented_like_a_classifier(self) -> None:
        names = set(classifier().get_params()) & set(regressor().get_params())
        assert {"search_space", "time_limit", "random_state"} < names
        assert ParallelMLPRegressor.__doc__ is not None
        assert all(f"\n{name} : " in ParallelMLPRegressor.__doc__ for name in names)
        assert "ROC-AUC" not in ParallelMLPRegressor.__doc__


class TestDecisionThresholds:
    def test_thresholds_follow_the_metric(self, rare: tuple[np.ndarray, np.ndarray]) -> None:
        X, y = rare
        tuned = classifier(metric="f1").fit(X, y)
        weights = tuned.model_.decision_weights
        assert weights is not None
        proba = tuned.predict_proba(X)
        assert np.array_equal(tuned.predict(X), tuned.classes_[(proba * weights).argmax(axis=1)])
        assert (tuned.predict(X) == "rare").sum() > (proba[:, 1] > 0.5).sum()
        assert np.array_equal(pickle.loads(pickle.dumps(tuned)).predict(X), tuned.predict(X))
        plain = classifier(metric="f1", tune_thresholds=False).fit(X, y)
        assert np.array_equal(plain.predict(X), plain.classes_[plain.predict_proba(X).argmax(axis=1)])

    def test_other_metrics_predict_the_most_probable_class(self, rare: tuple[np.ndarray, np.ndarray]) -> None:
        X, y = rare
        model = classifier(refit=True, calibration="none").fit(X, y)
        assert model.model_.decision_weights is None
        assert model.model_.temperature == 1.0
        assert model.model_.refitted
        assert np.array_equal(model.predict(X), model.classes_[model.predict_proba(X).argmax(axis=1)])

    def test_a_regressor_refits(self, numbers: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
        X, _, y = numbers
        model = regressor(refit=True).fit(X, y)
        assert model.model_.refitted
        assert model.predict(X).shape == (len(X),)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"calibration": "platt"}, "calibration must be one of auto, temperature, none, but got 'platt'"),
            ({"tune_thresholds": 0.3}, "tune_thresholds must be True or False, but got 0.3"),
            ({"refit": "yes"}, "refit must be True or False, but got 'yes'"),
        ],
    )
    def test_invalid_parameters(
        self, changes: dict[str, Any], message: str, rare: tuple[np.ndarray, np.ndarray]
    ) -> None:
        with pytest.raises(InvalidParameterError, match=message):
            classifier(**changes).fit(*rare)


class TestTables:
    def test_polars_equals_pandas(self, people: tuple[pd.DataFrame, pd.Series]) -> None:
        X, y = people
        expected = classifier().fit(X, y)
        table = pl.DataFrame({name: X[name].to_list() for name in X}).with_columns(
            pl.col("age").fill_nan(None)
        )
        model = classifier().fit(table, pl.Series(y.to_list()))
        assert model.feature_names_in_.tolist() == list(X.columns)
        np.testing.assert_allclose(model.predict_proba(table), expected.predict_proba(X), atol=1e-6)

    @pytest.mark.parametrize("form", ["csr_array", "csc_matrix", "coo_array", "dok_array"])
    def test_sparse_equals_dense(self, form: str, numbers: tuple[np.ndarray, ...]) -> None:
        X, y, _ = numbers
        X = np.where(np.abs(X) < 0.7, 0.0, X)
        packed = getattr(sparse, form)(X)
        expected = classifier().fit(X, y)
        np.testing.assert_array_equal(
            classifier().fit(packed, y).predict_proba(packed), expected.predict_proba(X)
        )

    def test_lists_of_texts_and_numbers(self) -> None:
        rows = [["red", 1.0], ["blue", 2.0], [None, 3.0]] * 20
        y = [0, 1, 1] * 20
        model = classifier(max_epochs=60).fit(rows, y)
        assert model.predict(rows[:3]).tolist() == [0, 1, 1]

    def test_missing_and_infinite_values_in_arrays(self, numbers: tuple[np.ndarray, ...]) -> None:
        X, y, _ = numbers
        X = X.copy()
        X[::7, 0], X[::11, 1], X[::13, 2] = np.nan, np.inf, -np.inf
        assert np.isfinite(classifier().fit(X, y).predict_proba(X)).all()

    def test_integers_of_an_array_are_not_identifiers(self) -> None:
        X = np.arange(200)[:, None]
        assert regressor(max_epochs=60).fit(X, X[:, 0]).score(X, X[:, 0]) > 0.9

    def test_column_names_are_checked(self, people: tuple[pd.DataFrame, pd.Series]) -> None:
        X, y = people
        model = classifier().fit(X, y)
        with pytest.raises(ValueError, match="same order as they were in fit"):
            model.predict(X[X.columns[::-1]])
        with pytest.raises(ValueError, match="now missing:\n- age"):
            model.predict(X.rename(columns={"age": "years"}))
        with pytest.raises(ValueError, match="now missing:\n- city"):
            model.predict(pl.DataFrame({"age": [3.0]}))

    def test_arrays_are_matched_by_position(self, numbers: tuple[np.ndarray, ...]) -> None:
        X, y, _ = numbers
        model = classifier().fit(pd.DataFrame(X, columns=list("abcd")), y)
        with pytest.warns(UserWarning, match="does not have valid feature names"):
            by_position = model.predict_proba(X)
        np.testing.assert_array_equal(by_position, model.predict_proba(pd.DataFrame(X, columns=list("abcd"))))
        assert not np.array_equal(
            by_position, model.predict_proba(pd.DataFrame(X[:, ::-1], columns=list("abcd")))
        )

    def test_unseen_categories_and_changed_dtypes(self, people: tuple[pd.DataFrame, pd.Series]) -> None:
        X, y = people
        model = classifier().fit(X, y)
        new = X.assign(city="Bregenz", age=X["age"].astype(str))
        with pytest.warns(DataWarning, match=r"'city'.* 100 % of its cells"):
            assert np.isfinite(model.predict_proba(new)).all()

    @pytest.mark.parametrize("X", [np.ones((40, 2)), pd.DataFrame({"a": ["x"] * 40, "b": [np.nan] * 40})])
    def test_no_informative_column_gives_a_constant(self, X: Any) -> None:
        y = np.array([0, 1, 1, 1] * 10)
        with pytest.warns(DataWarning, match="no informative column"):
            model = classifier().fit(X, y)
        np.testing.assert_allclose(model.predict_proba(X), [[0.25, 0.75]] * 40)
        assert model.leaderboard_.empty
        with pytest.warns(DataWarning, match="no informative column"):
            values = regressor().fit(X, y, sample_weight=np.where(y == 1, 1, 3)).predict(X)
        np.testing.assert_allclose(values, 0.5)
        with pytest.warns(DataWarning, match="no informative column"):
            assert set(regressor(loss="quantile:0.9").fit(X, np.arange(40)).predict(X)) == {35.0}

    @pytest.mark.parametrize(
        ("X", "y", "message"),
        [
            (np.ones((1, 3)), [1], "1 sample"),
            (pd.DataFrame({"a": [1.0]}), [1], "1 sample"),
            (pd.DataFrame(index=range(5)), [1] * 5, r"0 feature\(s\)"),
            (np.eye(4), [1, 1, 1, 1], "at least two values or classes, but every row has 1"),
            (np.eye(4), ["a", None, "b", "a"], "Input y contains NaN: 1 of its 4 rows"),
            (np.eye(4), [0, 1, 0], "inconsistent numbers of samples"),
            (np.eye(4), None, "requires y to be passed"),
            ([[1, 2], [3]], [0, 1], "rows of one length"),
            (np.eye(4), sparse.csr_array(np.eye(4)), "y must be dense"),
        ],
    )
    def test_invalid_data(self, X: Any, y: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            classifier().fit(X, y)

    @pytest.mark.parametrize("n_rows", [2, 3, 5, 9])
    def test_tiny_tables(self, n_rows: int) -> None:
        X = np.random.default_rng(n_rows).normal(size=(n_rows, 2))
        model = classifier().fit(X, np.arange(n_rows) % 2)
        assert model.predict_proba(X).shape == (n_rows, 2)
        assert model.honest_score_ is None
        assert np.isfinite(regressor().fit(X, X[:, 0]).predict(X)).all()


class TestTargets:
    def test_several_outputs(self, numbers: tuple[np.ndarray, ...]) -> None:
        X, _, values = numbers
        Y = np.stack([values, 100.0 - 10.0 * values, X[:, 2]], axis=1)
        model = regressor(max_epochs=60).fit(X, Y)
        assert model.predict(X).shape == (120, 3)
        for output in range(3):
            assert np.corrcoef(model.predict(X)[:, output], Y[:, output])[0, 1] > 0.8

    def test_a_single_column_keeps_its_shape(self, numbers: tuple[np.ndarray, ...]) -> None:
        X, _, values = numbers
        flat = regressor().fit(X, values).predict(X)
        column = regressor().fit(X, values[:, None]).predict(X)
        assert column.shape == (120, 1)
        np.testing.assert_array_equal(column[:, 0], flat)

    @pytest.mark.parametrize(
        "convert",
        [
            lambda y: pd.Series(y, dtype="Int64"),
            lambda y: pd.Series(np.where(y == 1, "yes", "no")).astype("category"),
            lambda y: pl.Series(np.where(y == 1, "yes", "no").tolist()),
            lambda y: (y == 1).tolist(),
        ],
        ids=["nullable", "category", "polars", "booleans"],
    )
    def test_label_types(self, convert: Any, numbers: tuple[np.ndarray, ...]) -> None:
        X, y, _ = numbers
        model = classifier().fit(X, convert(y))
        assert model.classes_.tolist() in ([0, 1], ["no", "yes"], [False, True])
        np.testing.assert_array_equal(model.predict_proba(X), classifier().fit(X, y).predict_proba(X))

    def test_quantile_loss(self, numbers: tuple[np.ndarray, ...]) -> None:
        X, _, _ = numbers
        y = np.random.default_rng(3).normal(size=120)
        high = regressor(loss="quantile:0.9", max_epochs=60).fit(X, y)
        low = regressor(loss="quantile:0.1", max_epochs=60).fit(X, y)
        assert high.result_ is not None
        assert high.result_.metric == "pinball:0.9"
        assert np.mean(y <= high.predict(X)) > 0.75
        assert np.mean(y <= low.predict(X)) < 0.25

    def test_huber_loss_is_robust_to_outliers(self, numbers: tuple[np.ndarray, ...]) -> None:
        X, _, values = numbers
        y = values.copy()
        y[:6] += 60.0
        clean = slice(6, None)
        errors = {
            loss: np.abs(regressor(loss=loss, metric="mae", max_epochs=60).fit(X, y).predict(X) - y)[
                clean
            ].mean()
            for loss in ("squared_error", "huber:0.01")
        }
        assert errors["huber:0.01"] < 0.5 * errors["squared_error"]


class TestWeightsGroupsTime:
    def test_weights_select_between_contradicting_rows(self, numbers: tuple[np.ndarray, ...]) -> None:
        X, y, _ = numbers
        both, labels = np.vstack([X, X]), np.concatenate([y, 1 - y])
        first = np.repeat([1.0, 0.01], 120)
        model = classifier(max_epochs=60).fit(both, labels, sample_weight=first)
        opposite = classifier(max_epochs=60).fit(both, labels, sample_weight=first[::-1])
        assert model.score(X, y) > 0.8
        assert opposite.score(X, y) < 0.2

    def test_rows_of_weight_zero_are_ignored(self, numbers: tuple[np.ndarray, ...]) -> None:
        X, y, values = numbers
        weight = (np.arange(120) % 3 > 0).astype(float)
        kept = weight > 0
        for model, target in ((classifier(), y), (regressor(), values)):
            expected = clone(model).fit(X[kept], target[kept])
            weighted = clone(model).fit(X, target, sample_weight=weight)
            method = "predict_proba" if target is y else "predict"
            np.testing.assert_array_equal(getattr(weighted, method)(X), getattr(expected, method)(X))
            assert not np.array_equal(getattr(model.fit(X, target), method)(X), getattr(weighted, method)(X))

    def test_equal_weights_have_no_effect(self, numbers: tuple[np.ndarray, ...]) -> None:
        X, y, _ = numbers
        weighted = classifier().fit(X, y, sample_weight=np.full(120, 7))
        np.testing.assert_array_equal(weighted.predict_proba(X), classifier().fit(X, y).predict_proba(X))

    def test_balanced_class_weights_raise_recall(self) -> None:
        rng = np.random.default_rng(5)
        y = (rng.random(400) < 0.1).astype(int)
        X = rng.normal(size=(400, 2)) + 1.2 * y[:, None]
        plain = classifier(max_epochs=60).fit(X, y)
        balanced = classifier(max_epochs=60, class_weight="balanced").fit(X, y)
        rare = y == 1
        assert balanced.predict(X)[rare].mean() > plain.predict(X)[rare].mean() + 0.2

    def test_groups_are_not_split(self) -> None:
        rng = np.random.default_rng(6)
        group = np.repeat(np.arange(24), 10)
        X = rng.normal(size=(24, 6))[group] + 0.05 * rng.normal(size=(240, 6))
        y = rng.integers(0, 2, size=24)[group]
        # the class follows from the group, but the class of a new group is unknown
        split = classifier(max_epochs=60).fit(X, y)
        kept = classifier(max_epochs=60).fit(X, y, groups=group)
        assert split.honest_score_ is not None
        assert kept.honest_score_ is not None
        assert split.honest_score_ > 0.95
        assert kept.honest_score_ < 0.8

    def test_time_validates_on_later_rows(self) -> None:
        rng = np.random.default_rng(7)
        position = np.arange(300)
        X = rng.normal(size=(300, 2))
        slope = np.where(position < 150, 1.0, -1.0)  # the relation changes over time
        y = slope * X[:, 0]
        dates = pd.Series(pd.Timestamp("2024-01-01") + pd.to_timedelta(position, unit="D"))
        shuffled = regressor(max_epochs=60, metric="r2").fit(X, y)
        ordered = regressor(max_epochs=60, metric="r2").fit(X, y, time=dates)
        assert shuffled.honest_score_ is not None
        assert ordered.honest_score_ is not None
        assert ordered.honest_score_ < shuffled.honest_score_

    def test_few_times_give_few_folds(self, numbers: tuple[np.ndarray, ...]) -> None:
        X, y, _ = numbers
        model = classifier(n_folds=None).fit(X, y, time=np.arange(120) % 5)
        assert model.result_ is not None
        assert model.result_.n_folds == 3

    @pytest.mark.parametrize(
        ("extra", "message"),
        [
            ({"sample_weight": np.zeros(4)}, "all weights are zero"),
            ({"sample_weight": [1, 1, -1, 1]}, "row 2 has -1"),
            ({"sample_weight": [1, 1, np.nan, 1]}, "sample_weight must have a value in every row, but row 2"),
            ({"sample_weight": [1, 1]}, r"must have the shape \(4,\)"),
            ({"sample_weight": [0, 0, 0, 1]}, "at least 2 rows"),
            ({"sample_weight": [1, 0, 1, 0]}, "classes in rows of weight > 0, but all 2 of them have 0"),
            ({"groups": ["a", "b"]}, r"groups must have the shape \(4,\), but has \(2,\)"),
            ({"groups": [1, 1, 2, 2], "time": [1, 2, 3, 4]}, "only one of groups and time"),
            ({"groups": ["a", None, "b", "c"]}, "groups must have a value in every row, but row 1"),
        ],
    )
    def test_invalid_weights_groups_and_times(self, extra: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            classifier().fit(np.eye(4), [0, 1, 0, 1], **extra)


class TestInScikitLearn:
    def test_grid_search_over_the_space_inside_a_pipeline(self, numbers: tuple[np.ndarray, ...]) -> None:
        X, y, _ = numbers
        linear = SearchSpace({"depth": Categorical((0,)), "learning_rate": Categorical((0.003, 0.01, 0.03))})
        pipeline = make_pipeline(StandardScaler(), classifier(n_trials=3))
        search = GridSearchCV(pipeline, {"parallelmlpclassifier__search_space": ["small", linear]}, cv=2)
        search.fit(X, y)
        assert search.cv_results_["mean_test_score"].shape == (2,)
        assert cross_val_score(search.best_estimator_, X, y, cv=2).mean() > 0.7

    def test_feature_names_of_a_transformer(self, people: tuple[pd.DataFrame, pd.Series]) -> None:
        X, y = people
        numeric = X[["age", "member"]].astype(float)
        pipeline = make_pipeline(StandardScaler().set_output(transform="pandas"), classifier()).fit(
            numeric, y
        )
        assert pipeline[-1].feature_names_in_.tolist() == ["age", "member"]
        assert pipeline.predict(numeric).shape == (160,)

    def test_metadata_routing(self, numbers: tuple[np.ndarray, ...]) -> None:
        X, y, _ = numbers
        both, labels = np.vstack([X, X]), np.concatenate([y, 1 - y])
        weight, group = np.repeat([1.0, 0.0], 120), np.tile(np.arange(120), 2)
        halves = KFold(2, shuffle=True, random_state=0)
        with config_context(enable_metadata_routing=True):
            model = (
                classifier(max_epochs=60)
                .set_fit_request(sample_weight=True, groups=True)
                .set_score_request(sample_weight=True)
            )
            routed = cross_validate(
                model,
                both,
                labels,
                params={"sample_weight": weight, "groups": group},
                cv=halves,
            )
            plain = cross_validate(classifier(max_epochs=60), both, labels, cv=halves)
        # without weights, each row is contradicted by its copy
        assert routed["test_score"].mean() > 0.8
        assert plain["test_score"].mean() < 0.7

    def test_transformed_target(self, numbers: tuple[np.ndarray, ...]) -> None:
        X, _, values = numbers
        model = TransformedTargetRegressor(regressor(max_epochs=60), func=np.log, inverse_func=np.exp)
        assert model.fit(X, np.exp(values)).score(X, np.exp(values)) > 0.5


class TestSeed:
    def test_integer_seeds(self, numbers: tuple[np.ndarray, ...]) -> None:
        X, y, _ = numbers
        first = classifier().fit(X, y).predict_proba(X)
        np.testing.assert_array_equal(first, classifier().fit(X, y).predict_proba(X))
        assert not np.array_equal(first, classifier(random_state=1).fit(X, y).predict_proba(X))

    def test_results_do_not_depend_on_n_jobs(self, numbers: tuple[np.ndarray, ...]) -> None:
        X, y, _ = numbers
        alone = classifier(n_jobs=1, n_trials=12).fit(X, y)
        together = classifier(n_jobs=2, n_trials=12).fit(X, y)
        np.testing.assert_array_equal(alone.predict_proba(X), together.predict_proba(X))
        timed = [name for name in alone.leaderboard_ if name.endswith("_seconds")]
        pd.testing.assert_frame_equal(
            alone.leaderboard(details=True).drop(columns=timed),
            together.leaderboard(details=True).drop(columns=timed),
        )

    def test_a_generator_advances(self, numbers: tuple[np.ndarray, ...]) -> None:
        X, y, _ = numbers
        model = classifier(random_state=np.random.RandomState(0))
        assert not np.array_equal(model.fit(X, y).predict_proba(X), model.fit(X, y).predict_proba(X))


class TestProgress:
    def test_callbacks_receive_every_stage(self, numbers: tuple[np.ndarray, ...]) -> None:
        X, y, _ = numbers
        seen: list[Progress] = []
        classifier(callbacks=[seen.append]).fit(X, y)
        assert [seen[0].stage, seen[-1].stage] == ["preparing", "finished"]
        assert any(progress.rung_completed for progress in seen)
        assert seen[-1].n_trials == 4

    def test_a_callback_can_end_screening(self, numbers: tuple[np.ndarray, ...]) -> None:
        X, y, _ = numbers
        patient = classifier(n_trials=60).fit(X, y)
        hasty = classifier(n_trials=60, callbacks=[lambda progress: progress.stage == "screening"]).fit(X, y)
        assert hasty.result_ is not None
        assert patient.result_ is not None
        assert len(hasty.result_.trials) < len(patient.result_.trials)
        assert hasty.predict(X).shape == (120,)

    def test_verbose_writes_to_standard_error(
        self, numbers: tuple[np.ndarray, ...], capsys: pytest.CaptureFixture[str]
    ) -> None:
        X, y, _ = numbers
        classifier().fit(X, y)
        assert capsys.readouterr().err == ""
        classifier(verbose=1).fit(X, y)
        shown = capsys.readouterr()
        assert "screening" in shown.err
        assert shown.out == ""


class TestRunDirectory:
    def test_a_resumed_run_has_the_same_result(self, numbers: tuple[np.ndarray, ...], tmp_path: Path) -> None:
        X, y, _ = numbers
        reports: Iterator[int] = iter(range(10**6))

        def interrupt(progress: Progress) -> None:
            if progress.stage == "screening" and next(reports) == 2:
                raise KeyboardInterrupt

        folder = tmp_path / "run"
        with pytest.raises(KeyboardInterrupt):
            classifier(run_directory=folder, n_trials=12, callbacks=[interrupt]).fit(X, y)
        with pytest.raises(RunDirectoryError, match="other data"):
            classifier(run_directory=folder, n_trials=12).fit(X[:100], y[:100])
        with pytest.raises(RunDirectoryError, match="n_trials=12"):
            classifier(run_directory=folder, n_trials=13).fit(X, y)
        resumed = classifier(run_directory=folder, n_trials=12).fit(X, y)
        straight = classifier(n_trials=12).fit(X, y)
        np.testing.assert_array_equal(resumed.predict_proba(X), straight.predict_proba(X))
        with pytest.raises(RunDirectoryError, match="holds a finished one"):
            classifier(run_directory=folder, n_trials=12).fit(X, y)

    def test_a_resumed_run_keeps_its_seed(self, numbers: tuple[np.ndarray, ...], tmp_path: Path) -> None:
        X, y, _ = numbers

        def interrupt(progress: Progress) -> None:
            if progress.stage == "screening":
                raise KeyboardInterrupt

        model = classifier(run_directory=tmp_path / "run", random_state=None)
        with pytest.raises(KeyboardInterrupt):
            clone(model).set_params(callbacks=[interrupt]).fit(X, y)
        assert model.fit(X, y).n_trials_ == 4


class TestParameters:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"n_trials": 0}, "n_trials must be an integer >= 1, but got 0"),
            ({"time_limit": -3}, "time_limit must be > 0"),
            ({"search_space": "smal"}, "did you mean 'small'"),
            ({"metric": "acuracy"}, "did you mean 'accuracy'"),
            ({"loss": "hubr"}, "did you mean 'huber'"),
            ({"loss": "cross_entropy"}, "loss must be one of squared_error, huber, quantile"),
            ({"loss": "quantile:1.5"}, "loss"),
            ({"loss": "quantile:x"}, "loss"),
            ({"class_weight": "balance"}, "did you mean 'balanced'"),
            ({"callbacks": [3]}, "callbacks must be a list of callables"),
            ({"random_state": -1}, "random_state must be in"),
            ({"memory_limit": "2 apples"}, "memory_limit must be bytes > 0 or a size"),
            ({"n_jobs": 0}, "n_jobs must not be 0"),
        ],
    )
    def test_invalid_parameters(
        self, changes: dict[str, Any], message: str, numbers: tuple[np.ndarray, ...]
    ) -> None:
        X, y, values = numbers
        if "loss" in changes:
            with pytest.raises(InvalidParameterError, match=message):
                regressor(**changes).fit(X, values)
        else:
            with pytest.raises(InvalidParameterError, match=message):
                classifier(**changes).fit(X, y)

    def test_a_space_can_be_a_mapping(self, numbers: tuple[np.ndarray, ...]) -> None:
        X, y, _ = numbers
        space = SearchSpace.preset("small")
        expected = classifier(search_space=space).fit(X, y).predict_proba(X)
        np.testing.assert_array_equal(
            classifier(search_space=space.to_dict()).fit(X, y).predict_proba(X), expected
        )

    def test_targets_must_fit_the_task(self, numbers: tuple[np.ndarray, ...]) -> None:
        X, _, values = numbers
        with pytest.raises(ValueError, match="continuous"):
            classifier().fit(X, values)
        with pytest.raises(DataError, match=r"rows, outputs"):
            regressor().fit(X, np.zeros((120, 2, 2)))
